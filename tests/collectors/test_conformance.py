"""Every instrument keeps the same guarantees, checked on its recorded and constructed exchanges.

A frame is complete and (where it carries a checksum) valid, or it is an error. Readings do not depend on how the bytes
were split in transit. Names, units and signs are those of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors import devices, fakes, signals
from collectors.devices import KINDS
from collectors.reading import Event, Reading
from tests.testing.conformance import (
    Bench,
    Case,
    Outcome,
    all_cases,
    answered,
    changed,
    damaged,
    is_close,
    is_part,
    options_of,
    play,
    round_trips,
)

CASES = list(all_cases())
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_kind = pytest.mark.parametrize("kind", KINDS)
on_serial = pytest.mark.parametrize(
    "case", [case for case in CASES if "serial" in devices.load(case.kind).links], ids=str
)
with_checks = pytest.mark.parametrize("case", [case for case in CASES if devices.load(case.kind).checked], ids=str)

modest = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_never_wrong(outcome: Outcome, truth: Outcome) -> None:
    """Every reading is one that the undamaged exchanges give at that position, or a part of it."""
    assert len(outcome.readings) <= len(truth.readings)
    for reading, true in zip(outcome.readings, truth.readings, strict=False):
        assert reading.measurement == true.measurement
        assert is_part(reading.values, true.values), f"{reading.values} is not in {true.values}"
    assert outcome.identity in (None, truth.identity)


# what exists


@every_kind
def test_every_kind_has_cases_of_polling_and_a_fake(kind: str) -> None:
    dialogues = {case.dialogue for case in CASES if case.kind == kind}
    assert {"open", "poll"} <= dialogues, f"tests/frames/{kind} needs cases of open and poll, has {dialogues}"
    assert devices.load(kind).kind == kind
    assert fakes.load(kind).kind == kind
    fakes.load(kind).options()


def test_every_folder_of_frames_is_of_a_kind_and_names_its_source() -> None:
    assert {case.kind for case in CASES} <= set(KINDS)
    assert all(len(case.origin) > 20 for case in CASES)


def test_names_of_cases_are_unique() -> None:
    names = [str(case) for case in CASES]
    assert sorted(names) == sorted(set(names))


# the case as it is


@every_case
def test_the_case_gives_exactly_its_listed_result(case: Case) -> None:
    outcome = play(case)
    assert outcome.error == (case.error or "")
    assert outcome.unused == 0, "exchanges were not asked for"
    if case.identity is not None:
        assert outcome.identity is not None
        told = {**outcome.identity.detail, "model": outcome.identity.model}
        told |= {"serial": outcome.identity.serial, "firmware": outcome.identity.firmware}
        assert {key: told.get(key) for key in case.identity} == case.identity
    if case.dialogue == "poll" and not case.error:
        last = outcome.polls[-1]
        readings = [output for output in last if isinstance(output, Reading)]
        assert [told_of(reading) for reading in readings] == [expected_of(expect) for expect in case.expect]
        if case.events is not None:
            assert [output.kind for output in last if isinstance(output, Event)] == case.events


def told_of(reading: Reading) -> tuple[str, Any, Mapping[str, str]]:
    present = {name: value for name, value in reading.values.items() if value is not None}
    return reading.measurement, pytest.approx(present, rel=1e-9, abs=1e-12), dict(reading.tags)


def expected_of(expect: Mapping[str, Any]) -> tuple[str, Mapping[str, float], Mapping[str, str]]:
    return expect["measurement"], expect["values"], expect.get("tags", {})


@every_case
def test_names_are_the_vocabularys_and_announced_by_the_device(case: Case) -> None:
    announced = devices.load(case.kind).signals
    outcome = play(case)
    for reading in outcome.readings:
        for name, value in reading.values.items():
            assert signals.find(reading.measurement, name), f"{reading.measurement}.{name} is not in the vocabulary"
            assert name in announced.get(reading.measurement, ()), f"{reading.measurement}.{name} is not announced"
            assert value is None or (isinstance(value, float) and value == value)
    for output in (output for poll in outcome.polls for output in poll):
        assert isinstance(output, Reading) or (output.kind.isidentifier() and "\n" not in output.detail)


# how the bytes arrive


@every_case
def test_a_reply_cut_short_is_never_a_wrong_reading(case: Case) -> None:
    truth = play(case)
    for index in answered(case):
        reply = case.exchanges[index].reply
        for length in range(len(reply)):
            outcome = play(case, damaged(case, index, reply[:length]))
            assert_never_wrong(outcome, truth)


@every_case
def test_the_rest_arriving_later_completes_it(case: Case) -> None:
    truth = play(case)
    for index in answered(case):
        reply = case.exchanges[index].reply
        for length in range(1, len(reply)):
            assert play(case, changed(case, index, reply[:length], reply[length:])) == truth


@every_case
def test_byte_by_byte_gives_the_same(case: Case) -> None:
    truth = play(case)
    for index in answered(case):
        assert play(case, changed(case, index, *each_byte(case.exchanges[index].reply))) == truth


def each_byte(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


@on_serial
def test_two_frames_in_one_read_give_the_first_and_keep_or_drop_the_other(case: Case) -> None:
    truth = play(case)
    for index in answered(case):
        reply = case.exchanges[index].reply
        if case.exchanges[index].ask:
            assert play(case, changed(case, index, reply + reply)) == truth


@every_case
def test_messages_that_arrive_together_are_all_read(case: Case) -> None:
    """For a device that publishes by itself: all messages arrive in one read and are taken poll by poll."""
    talk = [exchange.reply for exchange in case.exchanges if not exchange.ask and exchange.reply]
    if len(talk) < 2 or len(talk) < len(case.exchanges):
        return
    outcome = play(case, damaged(case, 0, b"".join(talk)))
    assert outcome == play(case)


# noise and flipped bits


@on_serial
def test_noise_that_can_be_no_frame_is_skipped(case: Case) -> None:
    noise = b"\x01\xff\x00\n" if devices.load(case.kind).text else b"\x00\x1b\x00"
    truth = play(case)
    for index in answered(case):
        assert play(case, changed(case, index, noise + case.exchanges[index].reply)) == truth
        assert play(case, changed(case, index, noise, case.exchanges[index].reply)) == truth


@on_serial
@modest
@given(data=st.data())
def test_noise_is_never_a_reading(case: Case, data: st.DataObject) -> None:
    """Any bytes where frames are checked; where they are not, bytes that no text has."""
    indices = answered(case)
    if not indices:
        return
    bytes_ = (
        st.integers(0, 255) if devices.load(case.kind).checked else st.sampled_from([*range(1, 9), *range(128, 256)])
    )
    noise = bytes(data.draw(st.lists(bytes_, min_size=1, max_size=30)))
    index = data.draw(st.sampled_from(indices))
    assert_never_wrong(play(case, damaged(case, index, noise + case.exchanges[index].reply)), play(case))


@with_checks
def test_one_wrong_bit_is_never_a_reading(case: Case) -> None:
    truth = play(case)
    for index in answered(case):
        reply = case.exchanges[index].reply
        for bit in range(8 * len(reply)):
            outcome = play(case, damaged(case, index, flipped(reply, bit)))
            assert_never_wrong(outcome, truth)
            assert outcome.error, f"bit {bit} of {reply.hex(' ')} was not noticed"


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


# the fake


TRUE = {"voltage_v": 13.2, "current_a": 5.0, "power_w": 66.0, "temperature_degc": 25.0}
"""What is true on the constant bench, under every measurement; a battery is discharged."""


def world(time_s: float) -> Mapping[str, float | None]:
    true = {f"{measurement}.{name}": value for measurement in signals.VOCABULARY for name, value in TRUE.items()}
    return true | {"battery.current_a": -5.0, "battery.power_w": -66.0}


@pytest.mark.parametrize(("kind", "options", "fake_options"), list(round_trips()))
def test_the_driver_reads_the_true_values_from_the_fake(
    kind: str, options: Mapping[str, Any], fake_options: Mapping[str, Any]
) -> None:
    device, fake_kind = devices.load(kind), fakes.load(kind)
    driver = device.driver(options_of(device, options))
    bench = Bench(fake_kind.make(world, options_of(fake_kind, fake_options)), fake_kind.channels or [""])
    assert bench.carry(driver.open()).model
    outputs = [output for _ in range(4) for output in bench.carry(driver.poll())]
    bench.carry(driver.close())
    compared = 0
    for reading in (output for output in outputs if isinstance(output, Reading)):
        for name, value in reading.values.items():
            true = world(0.0).get(f"{reading.measurement}.{name}")
            if true is not None and value is not None:
                assert value == pytest.approx(true, rel=1e-3, abs=0.01), f"{reading.measurement}.{name}"
                compared += 1
    assert compared >= 4


# decode


@every_case
def test_decode_reads_the_same_from_the_replies(case: Case) -> None:
    exchanges = [*case.opening, *case.exchanges]
    found = list(devices.load(case.kind).decode([exchange.reply for exchange in exchanges if exchange.reply]))
    json.dumps(found, allow_nan=False)
    if case.repeat > 1 or not case.expect:
        return
    told = [(record["measurement"], record["values"]) for record in found if "measurement" in record]
    shared = 0
    for expect in case.expect:
        for name, value in expect["values"].items():
            same = [values[name] for about, values in told if about == expect["measurement"] and name in values]
            assert not same or any(is_close(value, other) for other in same), f"{name}: {value} is not among {same}"
            shared += bool(same)
    assert shared or is_meaning_configured(case.kind), f"nothing that the driver reads is told by decode: {found}"


def is_meaning_configured(kind: str) -> bool:
    """Return whether only the configuration says what the device's numbers mean: it has no default options."""
    return any(f.default is MISSING and f.default_factory is MISSING for f in fields(devices.load(kind).options))


@every_kind
@modest
@given(chunks=st.lists(st.binary(max_size=60), max_size=6))
def test_decode_takes_any_bytes(kind: str, chunks: list[bytes]) -> None:
    for record in devices.load(kind).decode(chunks):
        json.dumps(record, allow_nan=False)


@every_kind
@modest
@given(data=st.data())
def test_decode_takes_garbled_replies(kind: str, data: st.DataObject) -> None:
    replies = [exchange.reply for case in CASES if case.kind == kind for exchange in case.exchanges if exchange.reply]
    reply = bytearray(data.draw(st.sampled_from(replies)))
    for at in data.draw(st.lists(st.integers(0, len(reply) - 1), min_size=1, max_size=3)):
        reply[at] = data.draw(st.integers(0, 255))
    for record in devices.load(kind).decode([bytes(reply)]):
        json.dumps(record, allow_nan=False)
