"""Options are checked against the device's limits; sampling never reports a value that is not a measurement."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest

from collectors import config
from collectors.cli.devices import markdown
from collectors.config import load_dataclass
from collectors.device import Output
from collectors.devices.labjack_t7 import DEVICE
from collectors.devices.labjack_t7.options import T7Options
from collectors.devices.labjack_t7.registers import REGISTERS, at, register, walk
from collectors.devices.labjack_t7.scaling import Divider, Hall, Scaling
from collectors.errors import ConfigError, LinkBusy, NoReply, Refused
from collectors.fakes.labjack_t7 import T7Wire
from collectors.reading import Event
from tests.testing.conformance import options_of
from tests.testing.t7 import CURRENT, STREAM, VOLTAGE, Setup, events, readings


def problems(**table: Any) -> list[str]:
    return load_dataclass(T7Options, table, "x")[1]


# registers


def test_every_register_is_found_by_its_name_and_by_its_address() -> None:
    for row in REGISTERS:
        for member in {0, row.members - 1}:
            name = row.name.replace("#", str(member))
            assert at(register(name).address) == register(name)


def test_registers_do_not_overlap() -> None:
    taken = [
        a
        for row in REGISTERS
        for member in range(row.members)
        for a in range(row.address + member * row.step, row.address + member * row.step + row.size)
    ]
    assert len(taken) == len(set(taken))


@pytest.mark.parametrize("name", ["AIN250", "AIN", "AIN0_SPAN", "STREAM_SCANLIST_ADDRESS128"])
def test_an_unknown_register_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        register(name)


def test_decoding_a_register_block_ends_at_the_first_unknown_register() -> None:
    assert [row.name for row in walk(60000, 6)] == ["PRODUCT_ID", "HARDWARE_VERSION", "FIRMWARE_VERSION"]
    assert [row.name for row in walk(43902, 4)] == [
        "AIN_ALL_NEGATIVE_CH",
        "AIN_ALL_RESOLUTION_INDEX",
        "AIN_ALL_SETTLING_US",
    ]
    assert walk(1, 2) == []
    assert walk(60000, 1) == []


# options


def channel(**changes: Any) -> list[dict[str, Any]]:
    return [{**VOLTAGE, **changes}]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"channels": []}, "channels: expected at least one"),
        ({"channels": channel(input="AIN14")}, "input: expected AIN0 to AIN13"),
        ({"channels": channel(signal="battery.volts")}, "'battery.volts' is not in the vocabulary"),
        ({"channels": channel(range_v=5.0)}, "range_v: expected 10, 1, 0.1 or 0.01"),
        ({"channels": channel(negative="AIN2")}, "negative: expected GND or AIN1 for AIN0, got 'AIN2'"),
        ({"channels": channel(input="AIN1", negative="AIN2")}, "only even inputs can be differential"),
        ({"channels": channel(resolution_index=13)}, "resolution_index: expected 0 to 8 (T7-Pro: 12)"),
        ({"channels": channel(settling_us=50_001)}, "settling_us: expected 0 to 50000"),
        ({"channels": [VOLTAGE, {**CURRENT, "input": "AIN0"}]}, "AIN0 is used twice"),
        ({"channels": [VOLTAGE, {**VOLTAGE, "input": "AIN2"}]}, "battery.voltage_v is measured twice"),
        ({"channels": [VOLTAGE], "serial_number": "T7-1"}, "serial_number: expected digits"),
        ({"channels": channel(resolution_index=9), **STREAM}, "resolution_index: expected 0 to 8 in a stream"),
        (
            {"channels": channel(settling_us=4401), **STREAM, "scan_rate_hz": 100},
            "settling_us: expected 0 to 4400 in a stream",
        ),
        ({"channels": [VOLTAGE, {**CURRENT, "settling_us": 9}], **STREAM}, "they differ"),
        ({"channels": channel(signal="cell.voltage_v"), **STREAM}, "the vocabulary has no cell.samples"),
        ({"channels": [VOLTAGE], **STREAM, "bin_s": 2.0}, "bin_s: expected 0.01 to 1"),
        ({"channels": [VOLTAGE], **STREAM, "scan_rate_hz": 5.0}, "at least one scan per bin"),
        ({"channels": [VOLTAGE], **STREAM, "device_temperature": True}, "device_temperature: only in mode"),
        ({"channels": [VOLTAGE], **STREAM, "scan_rate_hz": 100_001}, "at most 100000 at resolution_index 1"),
        ({"channels": [VOLTAGE, CURRENT], **STREAM, "scan_rate_hz": 50_001}, "at most 100000 at resolution_index 1"),
        ({"channels": channel(resolution_index=8), **STREAM, "scan_rate_hz": 601}, "at most 600 at resolution_index 8"),
        (
            {"channels": [VOLTAGE, {**CURRENT, "range_v": 1.0}], **STREAM, "scan_rate_hz": 4101},
            "are 8202 samples/s; expected at most 8200",
        ),
        ({"channels": channel(settling_us=2000), **STREAM}, "2000 leaves no time at 1000 samples/s"),
    ],
)
def test_what_the_device_cannot_do_is_refused_before_it_is_opened(table: dict[str, Any], expected: str) -> None:
    found = problems(**table)
    assert len(found) == 1
    assert expected in found[0]


def test_several_mistakes_are_reported_at_once_each_with_its_key() -> None:
    found = problems(channels=[{**VOLTAGE, "range_v": 2.0}, {**CURRENT, "input": "AIN99"}], mode="stream", bin_s=9.0)
    assert ["channels[0] range_v" in found[0], "channels[1] input" in found[1], "bin_s" in found[2]] == [True] * 3
    assert len(found) == 3


def test_the_fastest_stream_of_two_channels_is_allowed() -> None:
    assert problems(channels=[VOLTAGE, CURRENT], mode="stream", scan_rate_hz=50_000) == []


def test_doubtful_wiring_is_an_event_once() -> None:
    setup = Setup({"channels": [{**CURRENT, "scaling": {"hall": {"burden_ohm": 5}}}]}).open()
    assert events(setup.poll()) == ["config_warning"]
    assert events(setup.poll()) == []


# sampling


def test_a_poll_returns_the_true_values_in_the_units_of_their_names() -> None:
    setup = Setup({"channels": [CURRENT, VOLTAGE], "device_temperature": True}).open()
    battery, converter = readings(setup.poll())
    assert battery.values == pytest.approx({"voltage_v": 13.2, "current_a": -4.5}, abs=1e-5)
    assert converter.measurement == "analog"
    assert converter.values == pytest.approx({"temperature_degc": 30.0}, abs=1e-4)


def test_cells_are_told_apart_by_their_tag() -> None:
    wires = tuple(T7Wire(f"AIN{n}", f"cell{n}") for n in (0, 2))
    table = [
        {"input": f"AIN{n}", "signal": "cell.voltage_v", "cell": str(n), "negative": f"AIN{n + 1}"} for n in (0, 2)
    ]
    setup = Setup({"channels": table}, wires=wires)
    setup.world |= {"cell0": 3.3, "cell2": 3.4}
    assert [(r.tags, round(r.values["voltage_v"] or 0, 3)) for r in readings(setup.open().poll())] == [
        ({"cell": "0"}, 3.3),
        ({"cell": "2"}, 3.4),
    ]


def test_the_end_of_the_range_is_no_value_and_one_event_each_way() -> None:
    setup = Setup({"channels": [VOLTAGE, CURRENT]}).open()
    assert events(setup.poll()) == []
    setup.world["battery.current_a"] = 150.0
    for expected in (["input_overrange"], []):
        outputs = setup.poll()
        assert events(outputs) == expected
        assert readings(outputs)[0].values["current_a"] is None
        assert readings(outputs)[0].values["voltage_v"] == pytest.approx(13.2, abs=1e-5)
    setup.world["battery.current_a"] = 1.0
    assert events(setup.poll()) == ["input_back"]


def test_a_smaller_range_is_set_and_acts() -> None:
    setup = Setup({"channels": [{**CURRENT, "range_v": 0.1}]}).open()
    assert events(setup.poll()) == ["input_overrange"]  # 0.45 V
    setup.world["battery.current_a"] = 0.9
    assert readings(setup.poll())[0].values["current_a"] == pytest.approx(0.9, abs=1e-5)


def test_a_device_without_reply_is_no_reply_and_the_next_poll_succeeds() -> None:
    setup = Setup({"channels": [VOLTAGE]}).open()
    setup.world["battery.voltage_v"] = None
    with pytest.raises(NoReply):
        setup.poll()
    setup.world["battery.voltage_v"] = 12.0
    assert readings(setup.poll())[0].values["voltage_v"] == pytest.approx(12.0, abs=1e-5)


@pytest.mark.parametrize("outage_s", [2.0, 100.0])
@pytest.mark.parametrize("uptime_s", [1.0, 50.0, 500.0])
def test_after_a_power_cycle_no_value_passes_before_the_settings_are_back(uptime_s: float, outage_s: float) -> None:
    setup = Setup({"channels": [{**CURRENT, "range_v": 1.0}]}).open()
    assert readings(setup.poll(uptime_s))
    setup.bench.now_s += outage_s
    setup.fake.power_cycle(setup.bench.now_s)
    setup.world["battery.current_a"] = 20.0  # 2 V: within the default range, outside the configured one
    assert (readings(outputs := setup.poll(0.5)), events(outputs)) == ([], ["settings_lost"])
    assert events(setup.poll()) == ["input_overrange"]


def test_settings_that_could_not_be_written_again_are_written_before_the_next_value() -> None:
    setup = Setup({"channels": [{**CURRENT, "range_v": 1.0}]}).open()
    setup.poll(50.0)
    setup.fake.power_cycle(setup.bench.now_s)
    setup.world["battery.current_a"] = 20.0
    answer = setup.fake.receive
    setup.fake.receive = lambda data, *rest: [] if data[7] == 16 else answer(data, *rest)  # type: ignore[method-assign]
    with pytest.raises(NoReply):
        setup.poll()
    setup.fake.receive = answer  # type: ignore[method-assign]
    assert events(setup.poll()) == ["settings_lost", "input_overrange"]


def test_a_power_cycle_between_open_and_the_first_poll_is_noticed() -> None:
    setup = Setup({"channels": [VOLTAGE]})
    setup.bench.now_s = 60.0
    setup.open()
    setup.fake.power_cycle(setup.bench.now_s)
    assert events(setup.poll()) == ["settings_lost"]


def test_a_slow_poll_is_not_taken_for_a_power_cycle() -> None:
    setup = Setup({"channels": [VOLTAGE]}).open()
    for after_s in (0.01, 3600.0, 0.01, 1.0):
        assert events(setup.poll(after_s)) == []


def test_a_resolution_that_only_the_pro_has_needs_a_pro() -> None:
    table = {"channels": [{**VOLTAGE, "resolution_index": 12}]}
    with pytest.raises(ConfigError, match="AIN0 resolution_index: 12 needs a T7-Pro"):
        Setup(table).open()
    assert Setup(table, pro=True).open().identity.model == "LabJack T7-Pro"


def test_a_stream_left_behind_is_stopped_before_sampling() -> None:
    setup = Setup({"channels": [VOLTAGE, CURRENT], **STREAM}).open()
    assert setup.fake.stream.is_on
    setup.driver = DEVICE.driver(options_of(DEVICE, {"channels": [VOLTAGE]}))
    outputs = setup.open().poll()
    assert readings(outputs)
    assert events(outputs) == ["stream_taken_over"]
    assert "2 channels at 1000 scans/s" in next(o.detail for o in outputs if isinstance(o, Event))
    assert not setup.fake.stream.is_on


def test_a_stream_that_is_started_again_is_left_to_its_program_for_an_hour() -> None:
    setup = Setup({"channels": [VOLTAGE, CURRENT], **STREAM}).open()
    sampler = {"channels": [VOLTAGE]}

    def reopen() -> list[Output]:
        setup.driver = DEVICE.driver(options_of(DEVICE, sampler))
        return setup.open().poll()

    def stream_of_another() -> None:
        setup.fake.stream.stop()
        setup.bench.carry(DEVICE.driver(options_of(DEVICE, {"channels": [CURRENT], **STREAM})).open())

    assert events(reopen()) == ["stream_taken_over"]
    for _ in range(3):
        stream_of_another()
        with pytest.raises(LinkBusy, match=r"another program keeps starting a stream .*1 channel at 1000 scans/s"):
            reopen()
        assert setup.fake.stream.is_on, "the two do not fight"
    setup.fake.stream.stop()
    assert events(reopen()) == []
    stream_of_another()
    setup.bench.now_s += 3700.0
    assert events(reopen()) == ["stream_taken_over"]


def test_inputs_cannot_be_sampled_while_someone_else_streams() -> None:
    setup = Setup({"channels": [VOLTAGE]}).open()
    other = DEVICE.driver(options_of(DEVICE, {"channels": [CURRENT], **STREAM}))
    setup.bench.carry(other.open())
    with pytest.raises(Refused, match=r"reading AIN0 .*exception 4, device failure; device error 2605") as caught:
        setup.poll()
    assert caught.value.code == 1204


# the fake's own noise


@pytest.mark.parametrize(("index", "rms_uv"), [(1, 316.0), (8, 36.8)])
def test_the_fake_is_as_noisy_as_its_resolution(index: int, rms_uv: float) -> None:
    setup = Setup(
        {"channels": [{"input": "AIN5", "signal": "battery.voltage_v", "resolution_index": index}]}, noise=True
    )
    setup.open()
    values = [readings(setup.poll())[0].values["voltage_v"] or 0.0 for _ in range(400)]
    rms = (sum(v * v for v in values) / len(values)) ** 0.5
    assert rms * 1e6 == pytest.approx(rms_uv, rel=0.15)


# decoding of a capture


def decode(*frames: str) -> list[Any]:
    return list(DEVICE.decode([bytes.fromhex(frame) for frame in frames]))


def test_a_reply_without_its_request_is_not_interpreted() -> None:
    (found,) = decode("00 04 00 00 00 07 01 03 04 1C 03 D1 B9")
    assert found["data"] == "1c 03 d1 b9"
    assert "question" in found["note"]
    assert not {"values", "types"} & found.keys()
    _, found = decode("00 04 00 00 00 06 01 03 EA 7C 00 02", "00 04 00 00 00 07 01 03 04 1C 03 D1 B9")
    assert found["values"] == [470012345]


def test_a_reply_of_another_length_than_requested_is_not_interpreted() -> None:
    _, found = decode("00 04 00 00 00 06 01 03 EA 7C 00 02", "00 04 00 00 00 0B 01 03 08 1C 03 D1 B9 00 00 00 00")
    assert "length" in found["note"]
    assert "values" not in found


def test_placeholders_for_missing_values_are_marked_and_no_values() -> None:
    question = "00 02 00 00 00 06 01 03 00 00 00 06"
    dummy, nan, good = (struct.pack(">f", v).hex(" ") for v in (-9999.0, math.nan, 3.25))
    _, found = decode(question, f"00 02 00 00 00 0F 01 03 0C {dummy} {nan} {good}")
    assert found["values"] == [None, None, 3.25]
    assert found["marks"] == ["-9999 stands for no value", "not a number", None]


def test_the_default_of_the_test_register_is_a_value() -> None:
    _, found = decode(
        "00 02 00 00 00 06 01 03 D7 54 00 02", f"00 02 00 00 00 07 01 03 04 {struct.pack('>f', -9999.0).hex(' ')}"
    )
    assert found["values"] == [-9999.0]
    assert "marks" not in found


@pytest.mark.parametrize(
    ("frame", "marks"),
    [
        (
            "00 01 00 00 00 12 01 4C 10 00 00 00 00 00 00 00 FF FF C0 CB 00 00 FF FE",
            ["overrange", None, "overrange", "overrange"],
        ),
        ("00 02 00 00 00 12 01 4C 10 00 00 00 0B 7D 00 89 FF FF FF FF 82 F0 C0 BC", ["gap", "gap", None, None]),
        ("00 00 00 00 00 12 01 4C 10 00 00 00 00 00 00 00 82 F3 C0 CB 82 F4 C0 D0", None),
    ],
)
def test_codes_that_are_no_voltage_are_explained(frame: str, marks: list[str | None] | None) -> None:
    (found,) = decode(frame)
    assert found.get("marks") == marks
    assert [value is None for value in found["volts_nominal_10V"]] == [bool(mark) for mark in marks or [None] * 4]


# limits of sensors

LEM: dict[str, Any] = {
    "input": "AIN1",
    "signal": "battery.current_a",
    "scaling": {"hall": {"burden_ohm": 100, "range_a": 70.0}},
    "keep_raw": True,
}
LJTICK: dict[str, Any] = {
    "input": "AIN0",
    "signal": "battery.voltage_v",
    "scaling": {"divider": {"r1_ohm": 3.0, "r2_ohm": 1.0, "limit_v": 3.5}},
}
LIMITED_WIRES = (
    T7Wire("AIN0", "battery.voltage_v", Scaling(divider=Divider(3.0, 1.0, limit_v=3.5))),
    T7Wire("AIN1", "battery.current_a", Scaling(hall=Hall(burden_ohm=100, range_a=70.0))),
)


def test_beyond_its_sensor_a_value_is_missing_not_clipped_and_an_event_says_so() -> None:
    setup = Setup({"channels": [LJTICK, LEM]}, wires=LIMITED_WIRES).open()
    setup.world |= {"battery.current_a": 69.0, "battery.voltage_v": 13.2}
    outputs = setup.poll()
    assert events(outputs) == []
    assert readings(outputs)[-1].values == pytest.approx({"voltage_v": 13.2, "current_a": 69.0}, abs=1e-3)
    setup.world |= {"battery.current_a": -90.0, "battery.voltage_v": 14.6}
    outputs = setup.poll()
    assert events(outputs) == ["input_overrange", "input_overrange"]
    details = [output.detail for output in outputs if isinstance(output, Event)]
    assert "AIN0 (battery.voltage_v)" in details[0]
    assert "ends at 3.5 V" in details[0]
    assert "up to ±70 A" in details[1]
    raw, battery = readings(outputs)
    assert battery.values == {"voltage_v": None, "current_a": None}
    assert raw.values["raw_v"] == pytest.approx(-7.14, abs=1e-3), "what stands at the input was measured"
    assert events(setup.poll()) == []
    setup.world |= {"battery.current_a": 10.0, "battery.voltage_v": 13.2}
    outputs = setup.poll()
    assert events(outputs) == ["input_back", "input_back"]
    assert readings(outputs)[-1].values == pytest.approx({"voltage_v": 13.2, "current_a": 10.0}, abs=1e-3)


@pytest.mark.parametrize(("title", "toml"), DEVICE.examples)
def test_every_example_of_the_documentation_is_a_configuration(title: str, toml: str, tmp_path: Path) -> None:
    path = tmp_path / "t7.toml"
    head = '[collector]\nname = "t7"\nbench = "b"\nkind = "labjack_t7"\nlink = "tcp:192.0.2.7"\n'
    path.write_text(head + toml)
    options = config.load(path).options
    assert options.warnings() == [], title
    assert f"```toml\n{toml.strip()}\n```" in markdown()
