"""The configurations that the bench writes are read by collectors and shipper."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import config, devices
from collectors.bench.bench import Settings, check_faults
from collectors.bench.influx import Influx
from collectors.bench.replay import Recording
from collectors.bench.setup import PLACES, Recorded, Simulated, Source, collector_toml, place_of, ship_toml, toml
from collectors.device import Device
from collectors.errors import ConfigError
from collectors.fakes.faults import Fault
from collectors.shipper import config as ship_config

RECORDING = Recording(0, [{name: dict.fromkeys(place.counted, 1.0) for name, place in PLACES.items()}])
SOURCES: list[Source] = [Simulated(), Simulated(speed=60.0), Recorded(RECORDING, 60.0), Recorded(RECORDING, 300.0)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", PLACES)
def test_collectors_read_the_configurations_of_the_bench(tmp_path: Path, source: Source, name: str) -> None:
    link = "tcp:127.0.0.1:1502?stream=1702" if name == "t7" else f"serial:{tmp_path}/tty-{name}"
    path = tmp_path / f"{name}.toml"
    path.write_text(collector_toml(PLACES[name], source, link, tmp_path / "state", ["influx"]))
    loaded = config.load(path)
    assert loaded.collector.name == name
    assert loaded.collector.period_s == source.period_s(PLACES[name])
    assert loaded.journal.sinks == ("influx",)


def test_the_shipper_reads_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "ship.toml"
    path.write_text(ship_toml(tmp_path, Influx("http://127.0.0.1:8086").sink("bat", tmp_path)))
    loaded = ship_config.load(path)
    assert [sink.url for sink in loaded.sinks] == ["http://127.0.0.1:8086"]


@given(
    st.dictionaries(
        st.sampled_from(["a", "b"]),
        st.dictionaries(
            st.sampled_from(["x", "y"]),
            st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.text("aZ\"\\ é'#\n", max_size=9),
        ),
    )
)
def test_tables_come_back_from_toml(tables: dict[str, dict[str, object]]) -> None:
    assert tomllib.loads(toml(tables)) == tables


def test_every_instrument_measures_its_own_part_of_the_simulation() -> None:
    source = Simulated()
    seen = {name: set(source.world(place)(10.0)) for name, place in PLACES.items()}
    assert seen["t7"] == {"battery.voltage_v", "battery.current_a"}
    assert {key.partition(".")[0] for key in seen["load"]} == {"load"}
    assert "solar.power_w" in seen["mppt"]
    for name, place in PLACES.items():
        assert place.counted <= seen[name]


@pytest.mark.parametrize("kind", devices.KINDS)
def test_every_kind_has_a_position(kind: str) -> None:
    loaded: Device = devices.load(kind)
    assert Simulated().world(place_of(loaded.kind))(1.0)["load.voltage_v" if "ea_" in kind else "battery.voltage_v"]


@pytest.mark.parametrize(
    ("target", "kind", "says"),
    [("motor", "unplug", "no target"), ("t7", "reset", "has no"), ("clock", "garble", "has no"), ("t7", "hold", "TCP")],
)
def test_a_fault_that_its_target_does_not_have_is_named(tmp_path: Path, target: str, kind: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_faults(Settings(tmp_path, Simulated(), faults=[(target, Fault(kind, 0, 1, 0))]))
