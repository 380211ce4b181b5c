"""EA EL 3000 A: telegrams, errors, output of `decode`, and the fake. Cases of polling: tests/frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.devices._ea.load import LoadOptions
from collectors.devices._ea.telegram import QUERY, Telegram, answer, answer_to, query, take
from collectors.devices.ea_el3000a import DEVICE, El3000ADriver
from collectors.errors import BadChecksum, FrameError, NoReply, WrongDevice
from collectors.fakes.ea_el3000a import FAKE, FakeEl3000AOptions
from collectors.protocols.dialogue import Cut, Cutter
from collectors.reading import Event, Reading
from tests.testing.conformance import Bench, Exchange, Hand

ACTUAL = bytes.fromhex("85 01 47 08 40 0A 00 13 CD 01 FF")
ASK_ACTUAL = bytes.fromhex("75 00 47 00 BC")


def cut_all(cutter: Cutter, data: bytes) -> tuple[list[Telegram], list[str]]:
    """Return the telegrams in the data and the names of the errors between them."""
    found, errors = [], []
    while data:
        try:
            cut = cutter(data)
        except FrameError as error:
            errors.append(type(error).__name__)
            data = data[error.drop :]
            continue
        if cut is None:
            break
        found.append(cut.payload)
        data = data[cut.used :]
    return found, errors


# telegrams (docs/protocols/ea_el3000a.md, section 2)


@pytest.mark.parametrize(
    ("frame", "obj", "length"),
    [("70 00 00 00 70", 0, 1), ("73 00 02 00 75", 2, 4), ("75 00 47 00 BC", 71, 6), ("73 00 45 00 B8", 69, 4)],
)
def test_queries_are_encoded_as_documented(frame: str, obj: int, length: int) -> None:
    assert query(obj, length) == bytes.fromhex(frame)
    assert take(bytes.fromhex(frame)) == Cut(Telegram(QUERY, True, 0, obj, length, b""), 5)


def test_the_manuals_query_without_cast_bit_is_a_query_too() -> None:
    cut = take(bytes.fromhex("55 01 47 00 9D"))
    assert cut and cut.payload == Telegram(QUERY, True, 1, 71, 6, b"")


@pytest.mark.parametrize("frame", ["F1 05 36 10 00 01 37", "55 01 45 00 9D"])
def test_a_misprinted_sum_is_named(frame: str) -> None:
    with pytest.raises(BadChecksum, match="add up to"):
        take(bytes.fromhex(frame))


def test_a_start_byte_of_no_kind_is_an_error() -> None:
    with pytest.raises(FrameError, match="30 cannot start a telegram"):
        take(b"\x30\x00\x47")


@given(noise=st.binary(max_size=40), tail=st.binary(max_size=10))
def test_the_reply_is_found_after_noise_that_holds_no_reply(noise: bytes, tail: bytes) -> None:
    """Unless the noise itself begins a reply about object 71, which must then fail its sum or stay unfinished."""
    found, _ = cut_all(answer_to(71, 6), noise + ACTUAL + tail)
    if b"\x47" not in noise and b"\xff" not in noise:
        assert found[0].data == ACTUAL[3:9]


@pytest.mark.parametrize(
    "stale",
    [
        ASK_ACTUAL,  # the request, echoed
        bytes.fromhex("83 01 45 41 48 00 00 01 52"),  # a late reply about another object
        bytes.fromhex("83 01 47 00 00 00 00 00 CB"),  # of another length
        bytes.fromhex("C5 01 47 08 40 0A 00 13 CD 02 3F"),  # an event, not a reply
    ],
)
def test_telegrams_that_do_not_answer_the_request_are_skipped(stale: bytes) -> None:
    found, errors = cut_all(answer_to(71, 6), stale + ACTUAL)
    assert [telegram.data for telegram in found] == [ACTUAL[3:9]]
    assert set(errors) == {"FrameError"}


@pytest.mark.parametrize("frame", ["80 00 FF 0F 01 8E", "C0 01 FF 07 01 C7"])
def test_errors_come_with_either_start_byte(frame: str) -> None:
    cut = answer_to(71, 6)(bytes.fromhex(frame))
    assert cut and cut.payload.obj == 0xFF


def test_a_request_that_arrived_garbled_is_sent_again() -> None:
    hand = Hand(
        [
            Exchange(ASK_ACTUAL, (bytes.fromhex("C0 01 FF 03 01 C3"),)),
            Exchange(ASK_ACTUAL, (ACTUAL,)),
        ]
    )
    driver = El3000ADriver(LoadOptions())
    assert hand.carry(driver._object(71)).payload.data == ACTUAL[3:9]


# opening


def test_no_reply_names_line_settings_and_the_other_generation() -> None:
    with pytest.raises(NoReply, match=r"57600 baud, 8 data bits, odd parity, 1 stop bit.*ea_el3000b"):
        Hand([]).carry(El3000ADriver(LoadOptions()).open())


def test_a_power_supply_is_named() -> None:
    bench = bench_of(FakeEl3000AOptions(model="PS 2042-06B"))
    with pytest.raises(WrongDevice, match="PS 2042-06B"):
        bench.carry(El3000ADriver(LoadOptions()).open())


@pytest.mark.parametrize(
    ("options", "key"),
    [({"pause_s": -1.0}, "pause_s"), ({"retries": 11}, "retries"), ({"timeout_s": 0.0}, "timeout_s")],
)
def test_options_out_of_limits_are_named(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: expected"):
        DEVICE.options(**options)


# decode


def decode(*frames: str) -> list[Mapping[str, Any]]:
    return list(DEVICE.decode([bytes.fromhex(frame) for frame in frames]))


def test_decode_scales_after_the_nominal_values_were_seen() -> None:
    nominals = ("83 01 02 43 20 00 00 00 E9", "83 01 03 42 70 00 00 01 39", "83 01 04 43 C8 00 00 01 93")
    before, *_, after = decode(ACTUAL.hex(), *nominals, ACTUAL.hex())
    assert before["raw"] == after["raw"] == [2112, 2560, 5069]
    assert "not scaled" in before["note"]
    assert after["values"] == {"voltage_v": 13.2, "current_a": 6.0, "power_w": 79.203125}


def test_decode_does_not_take_a_power_supplys_values_for_a_loads() -> None:
    *_, actual = decode(
        answer(0, b"PS 2042-06B\0", node=0).hex(),
        *("83 00 02 42 28 00 00 00 EF", "83 00 03 40 C0 00 00 01 86", "83 00 04 42 C8 00 00 01 91"),
        "85 00 47 01 01 64 00 1E 00 01 50",
    )
    assert actual["data"] == "01 01 64 00 1e 00"
    assert "measurement" not in actual


def test_decode_names_errors_and_random_bytes_and_continues() -> None:
    records = decode("00 01", "80 00 FF 0F 01 8E", "55 01 45 00 9D", "80 00 FF 00 01 7F", "85 01")
    assert [record.get("error") for record in records] == ["FrameError", "Refused", "BadChecksum", None, "FrameError"]
    assert records[0]["hex"] == "00 01"
    assert records[2]["hex"] == "55 01 45 00 9d"
    assert "ends within a telegram" in records[4]["message"]


def test_decode_distinguishes_queries_and_sends() -> None:
    asked, sent = decode("70 00 00 00 70", "F1 00 36 10 10 01 47")
    assert (asked["type"], asked["name"]) == ("query", "device type")
    assert (sent["type"], sent["object"], sent["data"]) == ("send", 54, "10 10")


# the fake


def bench_of(options: FakeEl3000AOptions, world: Mapping[str, float | None] | None = None) -> Bench:
    true = world or {"load.voltage_v": 12.8, "load.current_a": 3.0}
    return Bench(FAKE.make(lambda _: true, options), [""])


@given(voltage_v=st.floats(0.0, 160.0), current_a=st.floats(0.0, 2.5))
def test_values_of_the_fake_are_read_to_half_a_step(voltage_v: float, current_a: float) -> None:
    bench = bench_of(FakeEl3000AOptions(), {"load.voltage_v": voltage_v, "load.current_a": current_a})
    driver = El3000ADriver(LoadOptions())
    bench.carry(driver.open())
    (reading,) = bench.carry(driver.poll())
    assert isinstance(reading, Reading)
    assert reading.values["voltage_v"] == pytest.approx(voltage_v, abs=160 / 25600 / 2 + 1e-9)
    assert reading.values["current_a"] == pytest.approx(current_a, abs=60 / 25600 / 2 + 1e-9)
    assert reading.values["power_w"] == pytest.approx(voltage_v * current_a, abs=400 / 25600 / 2 + 1e-9)


def test_the_fake_counts_ampere_hours_over_its_own_time() -> None:
    bench = bench_of(FakeEl3000AOptions(), {"load.voltage_v": 12.8, "load.current_a": 36.0})
    driver = El3000ADriver(LoadOptions())
    bench.carry(driver.open())
    steps = []
    for _ in range(4):
        (reading,) = bench.carry(driver.poll())
        assert isinstance(reading, Reading)
        steps.append(reading.values.get("charge_step_ah"))
        bench.now_s += 100.0 - bench.now_s % 100.0
    assert steps[0] is None
    assert steps[2:] == pytest.approx([1.0, 1.0], rel=0.01)


def test_without_a_value_the_fake_sends_no_reply_but_still_its_identity() -> None:
    bench = bench_of(FakeEl3000AOptions(), {"load.voltage_v": None, "load.current_a": 1.0})
    driver = El3000ADriver(LoadOptions())
    assert bench.carry(driver.open()).model == "EL 3160-60A"
    with pytest.raises(NoReply):
        bench.carry(driver.poll())


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ("70 00 45 00 B5", 0x08),  # a number requested with the wrong length
        ("70 00 63 00 D3", 0x07),  # an unknown object
        ("75 00 47 00 BD", 0x03),  # a wrong sum
        ("05 00", 0x04),  # no start byte
        ("F1 00 36 10 10 01 47", 0x0F),  # not writable
    ],
)
def test_the_fake_rejects_requests_as_the_load_does(question: str, code: int) -> None:
    fake = FAKE.make(lambda _: {"load.voltage_v": 1.0, "load.current_a": 1.0}, FakeEl3000AOptions())
    (out,) = fake.receive(bytes.fromhex(question), 0.0)
    cut = take(out.data)
    assert cut and (cut.payload.obj, cut.payload.data) == (0xFF, bytes([code]))
    assert out.data[0] == 0xC0


def test_a_request_within_the_pause_is_lost() -> None:
    fake = FAKE.make(lambda _: {"load.voltage_v": 1.0, "load.current_a": 1.0}, FakeEl3000AOptions(min_pause_s=0.05))
    assert fake.receive(ASK_ACTUAL, 1.0)
    assert not fake.receive(ASK_ACTUAL, 1.049)
    assert fake.receive(ASK_ACTUAL, 1.051)


def test_a_request_in_pieces_gets_a_reply_unless_it_stalls() -> None:
    fake = FAKE.make(lambda _: {"load.voltage_v": 1.0, "load.current_a": 1.0}, FakeEl3000AOptions())
    assert not fake.receive(ASK_ACTUAL[:3], 0.0)
    assert fake.receive(ASK_ACTUAL[3:], 0.1)
    assert not fake.receive(ASK_ACTUAL[:3], 1.0)
    assert fake.receive(ASK_ACTUAL, 2.0)


def test_the_driver_never_sends_anything_but_queries() -> None:
    sent: list[bytes] = []

    class Listening:
        def __init__(self) -> None:
            self._fake = FAKE.make(lambda _: {"load.voltage_v": 1.0, "load.current_a": 1.0}, FakeEl3000AOptions())

        def __getattr__(self, name: str) -> Any:
            return getattr(self._fake, name)

        def receive(self, data: bytes, now_s: float, channel: str = "") -> Any:
            sent.append(data)
            return self._fake.receive(data, now_s, channel)

    bench = Bench(Listening(), [""])
    driver = El3000ADriver(LoadOptions(battery=True))
    bench.carry(driver.open())
    outputs = bench.carry(driver.poll())
    bench.carry(driver.close())
    assert not any(isinstance(output, Event) for output in outputs)
    kinds = {cut.payload.kind for data in sent if (cut := take(data))}
    assert kinds == {QUERY}


def test_the_values_of_the_fake_end_at_the_range_of_its_words() -> None:
    load = FAKE.make(lambda _: {"load.voltage_v": 1e6, "load.current_a": 1e6}, FakeEl3000AOptions())
    bench, driver = Bench(load, [""]), DEVICE.driver(DEVICE.options())
    bench.carry(driver.open())
    reading = bench.carry(driver.poll())[0]
    assert isinstance(reading, Reading)
    assert reading.values["voltage_v"] == pytest.approx(160.0 * 0xFFFF / 25600)
