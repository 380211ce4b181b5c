"""EA EL 3000 B: SCPI replies with units, output of `decode`, and the fake. Cases of polling: tests/frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner

from collectors.cli import cli
from collectors.devices.ea_el3000b import ACTUAL, DEVICE, LINE_BYTES, TEST_COUNTERS, El3000BDriver, El3000BOptions
from collectors.errors import FrameError, NoReply, WrongDevice
from collectors.fakes import ea_el3000b as fake
from collectors.reading import Reading
from tests.testing.conformance import Bench, Hand

IDENTITY = "EA Elektro-Automatik GmbH&Co.KG, EL 9080-340, 1240210002, V2.14 14.05.2018 V2.24 04.06.2018 V1.6.5"


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("12.5V, 33.3A, 420W", (12.5, 33.3, 420.0)),
        ("12.5 V,33.3 A,420 W", (12.5, 33.3, 420.0)),
        ("0.500kV, 33mA, .4kW", (500.0, 0.033, 400.0)),
        ("-0.01V, +0.0A, 0W", (-0.01, 0.0, 0.0)),
    ],
)
def test_values_carry_their_unit(line: str, values: tuple[float, ...]) -> None:
    cut = ACTUAL.cut(line.encode() + b"\r\n")
    assert cut and tuple(cut.payload.values()) == values


@pytest.mark.parametrize(
    "line", ["12.5V, 33.3A", "12.5, 33.3, 420", "12.5V, 33.3A, 420WW", "12.5V, 1e3A, 4W", "", "-V, A, W"]
)
def test_a_malformed_reply_is_named_with_its_request(line: str) -> None:
    with pytest.raises(FrameError, match=r"MEAS:ARR\? was answered") as caught:
        ACTUAL.cut(line.encode() + b"\nrest")
    assert caught.value.drop == len(line) + 1


@pytest.mark.parametrize(
    "line",
    ["12.34Ah, 160.2Wh, 01:02:03", "12.34;160.2;01:02:03", "12340mAh 0.1602kWh 01:02:03.0", "12.34,160.2,1:02:03"],
)
def test_counters_are_read_with_any_separator(line: str) -> None:
    cut = TEST_COUNTERS.cut(line.encode() + b"\n")
    assert cut and cut.payload == pytest.approx({"charge_ah": 12.34, "energy_wh": 160.2, "test_time_s": 3723.0})


def test_a_line_that_never_ends_is_dropped() -> None:
    assert ACTUAL.cut(b"1" * LINE_BYTES) is None
    with pytest.raises(FrameError, match="without an end of line"):
        ACTUAL.cut(b"1" * (LINE_BYTES + 1))


def test_no_reply_names_the_other_generation() -> None:
    with pytest.raises(NoReply, match="kind ea_el3000a"):
        Hand([]).carry(El3000BDriver(El3000BOptions()).open())


def bench_of(**options: Any) -> Bench:
    def world(_: float) -> Mapping[str, float | None]:
        return {"load.voltage_v": 12.8, "load.current_a": 3.0, "load.mode": 2.0, "load.control": 1.0}

    return Bench(fake.FAKE.make(world, fake.FakeEl3000BOptions(**options)), [""])


@pytest.mark.parametrize("unit", [{"maker": "ITECH Ltd."}, {"model": "PSI 9080-60 T"}])
def test_another_unit_is_named(unit: dict[str, str]) -> None:
    with pytest.raises(WrongDevice, match=next(iter(unit.values()))):
        bench_of(**unit).carry(El3000BDriver(El3000BOptions()).open())


def test_the_fake_is_read_with_its_status_and_test() -> None:
    bench, driver = bench_of(), El3000BDriver(El3000BOptions())
    assert bench.carry(driver.open()).detail["nominal"] == "80 V, 60 A, 1200 W"
    bench.carry(driver.poll())  # the fake's status is that of its last read of the simulated values
    (reading,) = bench.carry(driver.poll())
    assert isinstance(reading, Reading)
    assert reading.values == {
        "voltage_v": 12.8,
        "current_a": 3.0,
        "power_w": 38.0,
        "control": 1.0,
        "input_on": 1.0,
        "status": 3072.0,
        "mode": 2.0,
        "test_state": 0.0,
        "charge_ah": 0.0,
        "charge_step_ah": 0.0,
        "energy_wh": 0.0,
        "test_time_s": 0.0,
    }


def test_an_unsupported_query_is_reported_once() -> None:
    bench, driver = bench_of(has_battery_test=False), El3000BDriver(El3000BOptions())
    bench.carry(driver.open())
    first, *news = bench.carry(driver.poll())
    assert [event.detail.split(" ")[0] for event in news if not isinstance(event, Reading)] == [
        "BATT:COND?",
        "BATT:TEST?",
    ]
    assert len(bench.carry(driver.poll())) == 1
    assert isinstance(first, Reading) and "charge_ah" not in first.values


def test_the_driver_only_queries_and_never_reads_the_error_queue() -> None:
    driver = El3000BDriver(El3000BOptions())
    asked = [question.text for question in driver._questions]
    assert asked == ["STAT:QUES?", "MEAS:ARR?", "STAT:OPER?", "BATT:COND?", "BATT:TEST?"]


# decode


def decode(text: str) -> list[Mapping[str, Any]]:
    return list(DEVICE.decode(line.encode() for line in text.splitlines(keepends=True)))


def test_decode_reads_requests_with_replies_and_replies_alone() -> None:
    pair, follows, alone = decode("MEAS:VOLT? -> 43.50V\n\nSTAT:QUES?\n3072\n12.5V, 33.3A, 420W")
    assert pair["values"] == {"voltage_v": 43.5}
    assert follows["values"] == {"control": 1.0, "input_on": 1.0, "status": 3072.0}
    assert alone["values"] == {"voltage_v": 12.5, "current_a": 33.3, "power_w": 420.0}


def test_decode_reads_the_identity() -> None:
    (record,) = decode(f"*IDN? → {IDENTITY}\n")
    assert (record["model"], record["serial"]) == ("EL 9080-340", "1240210002")


def test_decode_names_what_does_not_fit_without_interpretation() -> None:
    bare, unknown, wrong = decode('3072\nSYST:ERR? -> 0,"No error"\nMEAS:POW? -> 12V\n')
    assert bare == {"answer": "3072"}
    assert unknown == {"query": "SYST:ERR?", "answer": '0,"No error"'}
    assert wrong["error"] == "FrameError"


@pytest.mark.parametrize(
    "frame",
    [
        "01 03 01 FB 00 03 75 C6",
        "01 03 06 26 20 0C 9B 09 1B 93 50",
        "01 03 04 42 A0 00 00 EE 69",
        "01 06 01 F5 66 66 33 8E",
        "01 05 01 92 FF 00 2C 2B",
        "01 85 17 02 9E",
    ],
)
def test_decode_takes_no_frame_of_modbus_for_an_answer(frame: str) -> None:
    (as_hex,) = decode(f"{frame}\n")
    assert as_hex["error"] == "FrameError"
    assert "ModBus RTU" in as_hex["message"]
    records = list(DEVICE.decode([bytes.fromhex(frame)]))
    assert records and all(record["error"] == "FrameError" for record in records)
    for text, raw in ((f"{frame}\n".encode(), []), (bytes.fromhex(frame), ["--raw"])):
        assert CliRunner().invoke(cli, ["decode", "ea_el3000b", *raw], input=text).exit_code == 76


@pytest.mark.parametrize(
    "line", ["hello", "voltage?\nmaybe, 3", "-> 43.50V", "43.50", "{}", "12 34 56", "MEAS:VOLT?43V"]
)
def test_decode_takes_no_other_text_for_an_answer(line: str) -> None:
    records = decode(line)
    assert all("values" not in record for record in records)
    assert "error" in records[0] or records[0].keys() == {"query", "answer"}, records


def test_decode_keeps_queries_without_an_answer() -> None:
    assert decode("MEAS:ARR?\n*IDN?\n") == [{"query": "MEAS:ARR?"}, {"query": "*IDN?"}]


def test_decode_reads_nominal_values() -> None:
    (record,) = decode("SYST:NOM:VOLT? -> 80V\n")
    assert record["values"] == {"voltage_v": 80.0}


@pytest.mark.parametrize(
    "line",
    [
        f"1Ah, 1Wh, {'9' * 400}:00:00",
        f"1Ah, 1Wh, 00:00:00.{'9' * 400}",
        f"{'9' * 400}V, 1A, 1W",
        f"0.{'9' * 400}V, 1A, 1W",
        "1V" + " " * 5000 + "x",
        "1" * 5000,
        "?" * 5000,
        "a?" * 5000,
        "MEAS:VOLT? " + "->" * 3000,
        '"' * 5000,
        "," * 5000,
    ],
    ids=range(11),
)
def test_hostile_lines_are_errors(line: str) -> None:
    for query in ("", "BATT:TEST?\n", "MEAS:ARR? -> "):
        *_, last = decode(f"{query}{line}\n")
        assert last["error"] == "FrameError"
        assert len(str(last)) < 4 * LINE_BYTES
    with pytest.raises(FrameError):
        ACTUAL.cut(line.encode() + b"\n")
    with pytest.raises(FrameError):
        TEST_COUNTERS.cut(line.encode() + b"\n")


@pytest.mark.parametrize("form", [question.form for question in (ACTUAL, TEST_COUNTERS)])
@pytest.mark.parametrize("filler", [" ", "1", ",", ";", "1 ", "1,", ".1"])
def test_a_line_longer_than_any_answer_is_never_matched(form: Any, filler: str) -> None:
    line = filler * LINE_BYTES
    with pytest.raises(FrameError, match="without an end of line"):
        ACTUAL.cut(line.encode() + b"x\n")
    assert form.fullmatch(line[:LINE_BYTES]) is None


def test_the_fake_replies_to_queries_of_other_programs() -> None:
    def world(_: float) -> Mapping[str, float | None]:
        return {"load.voltage_v": 12.8, "load.current_a": 3.0, "load.control": 1.0}

    load = fake.FAKE.make(world, fake.FakeEl3000BOptions())

    def ask(question: str) -> str:
        return b"".join(out.data for out in load.receive(f"{question}\n".encode(), 0.0)).decode().strip()

    assert ask("MEAS:VOLT?") == "12.80V"
    assert ask("meas:curr?") == "3.00A"
    assert ask("MEAS:POW?") == "38W"
    assert ask("INP?") == "ON"
    assert ask("SYST:LOCK:OWN?") == "REMOTE"
    assert ask("SYST:ERR?") == '0,"No error"'
    assert ask("MEAS:OHM?") == ""
    assert ask("SYST:ERR?") == '-100,"Command error"'
    assert ask("SYST:ERR?") == '0,"No error"'
