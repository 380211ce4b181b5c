"""The service as a process against a real InfluxDB: it resumes, catches up, waits, and ends at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soc import simulate
from soc.cell import toml_file
from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters
from soc.errors import BeliefError
from soc.estimation import service
from soc.estimation.cleaning import Pack
from soc.estimation.session import Setup, Stream
from soc.models.state import StateEstimate
from soc.stores import Recording, Results
from tests.testing.influx import Influx, running

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def cell() -> CellParameters:
    curve = Ocv.of_points([0, 0.1, 0.5, 0.9, 1], [3.0, 3.4, 3.7, 4.05, 4.2])
    return CellParameters.plain("toy", 3.0, curve, 0.02, [(0.015, 20.0)])


@pytest.fixture(scope="module")
def samples(cell: CellParameters) -> dict[str, Any]:
    """Ten minutes of samples that ended a minute ago, and the true state of charge."""
    time_s = np.arange(600.0) + np.floor(time.time()) - 660.0
    current_a = np.where(np.arange(600) % 60 < 30, -3.0, 1.0)
    series, soc = simulate(cell, time_s, current_a, 25.0, 0.8)
    return {name: getattr(series, name) for name in ("time_s", "current_a", "voltage_v", "temperature_degc")} | {
        "soc": soc
    }


def lines(samples: dict[str, Any], rows: slice) -> list[str]:
    names = ("current_a", "voltage_v", "temperature_degc")
    columns = [samples["time_s"][rows], *(samples[name][rows] for name in names)]
    return [
        f"battery,battery=lfp-1,device=t7 current_a={i!r},voltage_v={v!r},temperature_degc={t!r} {round(s) * 10**9}"
        for s, i, v, t in zip(*(c.tolist() for c in columns), strict=True)
    ]


class Service:
    """`soc estimate --follow` under a stand-in of the service manager."""

    def __init__(self, folder: Path, influx: Influx, database: str, cell: CellParameters) -> None:
        self.folder, self.state = folder, folder / "belief.json"
        (folder / "password").write_text(influx.password)
        toml_file.save(cell, folder / "toy.toml")
        self.place = f"influx:{influx.url}/{database}?device=t7&battery=lfp-1&user={influx.admin}"
        self.place += f"&password_file={folder}/password"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.settimeout(PATIENCE_S)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        command = [
            sys.executable,
            "-m",
            "soc",
            "estimate",
            "--follow",
            self.place,
            "--cell",
            str(self.folder / "toy.toml"),
        ]
        command += [
            "--state",
            str(self.state),
            "--soc0",
            "0.5",
            "--soc0-sd",
            "0.3",
            "--every",
            "0.2",
            "--settle",
            "1",
            *more,
        ]
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)

    def hear(self, word: str) -> str:
        """The first message with this word. The socket's own time-out ends the test."""
        while True:
            message = self.socket.recv(4096).decode()
            if word in message:
                return message

    def stop(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Stop the service; return the time in s until it ended."""
        assert self.process is not None and self.process.stderr is not None
        begun = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)
        self.process.stderr.close()
        return time.monotonic() - begun

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGKILL)
        self.socket.close()


Make = Callable[[Influx, str], Service]


@pytest.fixture
def make(tmp_path: Path, cell: CellParameters) -> Iterator[Make]:
    made: list[Service] = []

    def service(influx: Influx, database: str) -> Service:
        made.append(Service(tmp_path, influx, database, cell))
        return made[-1]

    yield service
    for one in made:
        one.close()


def put(influx: Influx, database: str, what: list[str]) -> None:
    from soc.stores._influx_http import InfluxConnection
    from soc.stores._influx_place import parse

    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"pw-{os.getpid()}"
    path.write_text(influx.password)
    server = InfluxConnection(parse(f"influx:{influx.url}/{database}?user={influx.admin}&password_file={path}"))
    path.unlink()
    server.write(what)
    server.close()


def stored(influx: Influx, database: str) -> dict[int, float]:
    """Time in s → estimate of all results in the database."""
    found = influx.query("SELECT soc FROM soc", database)
    return {row[0] // 10**9: row[1] for series in found for row in series["values"]}


def await_rows(influx: Influx, database: str, count: int) -> dict[int, float]:
    end = time.monotonic() + PATIENCE_S
    while len(found := stored(influx, database)) < count and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_it_catches_up_resumes_and_ends_at_once(
    influx: Influx, make: Make, samples: dict[str, Any], cell: CellParameters
) -> None:
    database = influx.create_database()
    service = make(influx, database)
    put(influx, database, lines(samples, slice(0, 300)))
    service.start()
    service.hear("READY=1")
    assert len(await_rows(influx, database, 300)) == 300
    assert "soc 0." in service.hear("STATUS=soc")
    assert service.stop() < 2.0
    assert service.process is not None and service.process.returncode == 0
    service.hear("STOPPING=1")
    put(influx, database, lines(samples, slice(300, 600)))
    service.start()
    found = await_rows(influx, database, 600)
    service.stop(signal.SIGKILL)
    whole = Stream(Setup(cell, soc0=0.5, soc0_sd=0.3)).feed({k: v for k, v in samples.items() if k != "soc"})
    assert whole is not None
    assert list(found) == [round(t) for t in samples["time_s"]]
    np.testing.assert_allclose(list(found.values()), whole.signals["soc"], rtol=0, atol=1e-12)


def test_a_kill_between_storing_and_saving_costs_nothing(influx: Influx, make: Make, samples: dict[str, Any]) -> None:
    database = influx.create_database()
    service = make(influx, database)
    put(influx, database, lines(samples, slice(0, 300)))
    service.start()
    await_rows(influx, database, 300)
    service.stop(signal.SIGKILL)
    before = stored(influx, database)
    service.state.unlink(missing_ok=True)  # as if the state estimate had not been saved yet
    service.start()
    end = time.monotonic() + PATIENCE_S
    while not service.state.exists() and time.monotonic() < end:
        time.sleep(0.05)
    service.stop()
    assert service.state.exists() and stored(influx, database) == before


def test_it_waits_while_the_store_is_away(tmp_path: Path, make: Make, samples: dict[str, Any]) -> None:
    from tests.testing.influx import INFLUXD, MISSING

    if INFLUXD is None:
        pytest.skip(MISSING)
    with running(tmp_path / "influxdb") as own:
        database = own.create_database()
        put(own, database, lines(samples, slice(0, 300)))
        service = make(own, database)
        own.stop()
        service.start()
        service.hear("READY=1")
        assert "no answer" in service.hear("STATUS=waiting")
        own.start()
        assert len(await_rows(own, database, 300)) == 300
        own.freeze()
        assert service.stop() < 2.0  # in the middle of a request without response, or between two


def test_a_permanent_error_ends_the_service_with_a_message(influx: Influx, make: Make) -> None:
    service = make(influx, "nowhere")
    service.start()
    assert service.process is not None and service.process.stderr is not None
    assert service.process.wait(PATIENCE_S) == 65
    assert b"database not found: nowhere" in service.process.stderr.read()
    service.process.stderr.close()


# ---- in this process ------------------------------------------------------------------------------------------------


ODD = {"time_s": 0.0, "current_a": 0.0, "voltage_v": 2.8, "temperature_degc": 25.0}


def fed(setup: Setup, samples: dict[str, Any], rows: slice) -> Stream:
    stream = Stream(setup)
    stream.feed({name: values[rows] for name, values in samples.items() if name != "soc"})
    return stream


def test_a_saved_state_estimate_is_read_back_bit_for_bit(
    cell: CellParameters, samples: dict[str, Any], tmp_path: Path
) -> None:
    stream = fed(Setup(cell, full=True), samples, slice(0, 100))
    service.save(stream.beliefs, tmp_path / "b.json")
    found = service.load(tmp_path / "b.json")
    assert set(found) == {"spkf", "coulomb"}
    for name, belief in stream.beliefs.items():
        assert isinstance(found[name], StateEstimate)
        for part in ("mean", "cov", "memory"):
            np.testing.assert_array_equal(getattr(found[name], part), getattr(belief, part))
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', json.dumps({"format": 1, "beliefs": {"spkf": {}}})])
def test_a_damaged_state_estimate_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(BeliefError):
        service.load(tmp_path / "b.json")


def test_another_cell_file_keeps_the_state_of_charge(
    cell: CellParameters, samples: dict[str, Any], tmp_path: Path
) -> None:
    stream = fed(Setup(cell, soc0=0.8), samples, slice(0, 300))
    service.save(stream.beliefs, tmp_path / "b.json")
    better = CellParameters.plain("better", 3.0, cell.ocv, 0.021, [(0.015, 20.0), (0.01, 200.0)])
    on = service.resumed(Setup(better), tmp_path / "b.json")
    results = on.feed({name: values for name, values in samples.items() if name != "soc"})
    assert results is not None
    assert results.time_s[0] == samples["time_s"][300]  # not again the samples that were estimated before
    assert results.signals["soc"][0] == pytest.approx(stream.beliefs["spkf"]["z"], abs=0.01)


def test_an_implausible_value_does_not_end_a_service(cell: CellParameters, samples: dict[str, Any]) -> None:
    columns = {name: values.copy() for name, values in samples.items() if name != "soc"}
    columns["voltage_v"][50] = 4000.0
    columns["temperature_degc"][60:] = -300.0
    stream = Stream(Setup(cell, pack=Pack()), strict=False)
    results = stream.feed(columns)
    assert results is not None and len(results.time_s) == 599
    assert stream.intake.missing == 1 and stream.beliefs["spkf"].counters["held_temperature"] == 540


def test_a_pause_is_no_error_for_a_service(cell: CellParameters) -> None:
    stream = Stream(Setup(cell), strict=False)
    times = np.array([0.0, 1.0, 43200.0, 43201.0])
    columns = {"time_s": times, "current_a": np.array([0.0, 0.0, -3.0, -3.0])}
    columns |= {"voltage_v": np.full(4, 3.8), "temperature_degc": np.full(4, 25.0)}
    results = stream.feed(columns)
    assert results is not None and len(results.time_s) == 4


def test_a_resumed_service_does_not_end_for_its_first_implausible_piece(cell: CellParameters, tmp_path: Path) -> None:
    """A disconnected battery shows 0 V; the units were right when the service began."""
    first = fed(Setup(cell), {name: np.array([0.0, 1.0]) + at for name, at in ODD.items()}, slice(0, 2))
    service.save(first.beliefs, tmp_path / "b.json")
    on = service.resumed(Setup(cell), tmp_path / "b.json")
    warm = {"temperature_degc": np.full(2, 25.0), "current_a": np.zeros(2)}
    assert on.feed({"time_s": np.array([2.0, 3.0]), "voltage_v": np.full(2, 0.01), **warm}) is None
    assert on.feed({"time_s": np.array([4.0, 5.0]), "voltage_v": np.full(2, 0.8), **warm}) is not None


def test_results_wait_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from soc.stores import StoreDown

    naps: list[float] = []
    monkeypatch.setattr(service, "_wait", naps.append)

    class Down:
        taken = 0

        def write(self, results: Results) -> None:
            if len(naps) < 8:
                raise StoreDown("away")
            self.taken += 1

    writer = Down()
    service._store(Results(np.zeros(1), {}, "m", "v"), writer)  # type: ignore[arg-type]
    assert writer.taken == 1 and naps == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_read_only_store_needs_another_for_results(cell: CellParameters, tmp_path: Path) -> None:
    from soc.stores import Rules, StoreError

    with pytest.raises(StoreError, match="say with --to"):
        service.run(
            "journal:/var/x", Rules(), lambda _: Setup(cell), sink=None, state=tmp_path / "b", every_s=1, settle_s=1
        )
    assert Recording("x", iter(())).header == {}
