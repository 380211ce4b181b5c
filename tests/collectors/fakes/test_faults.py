"""Faults change messages as described, combine, and repeat with the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import ConfigError
from collectors.fakes.faults import AMOUNTS, BYTES, DEBUG_TEXT, Fault, FaultInjector, parse_fault

MESSAGE = b'# {"Uptime_s":86423,"Bat_V":13.32,"Bat_A":4.17}\n'


def mischief(*faults: Fault, seed: int = 1) -> FaultInjector:
    made = FaultInjector(seed)
    for fault in faults:
        made.add(fault)
    return made


def spoilt(made: FaultInjector, data: bytes = MESSAGE, now_s: float = 1.0) -> bytes:
    return b"".join(piece.data for piece in made.spoil(data, now_s))


@given(st.binary(min_size=1, max_size=50), st.floats(0, 100))
def test_without_a_fault_a_message_goes_out_whole_and_at_once(data: bytes, now_s: float) -> None:
    [piece] = mischief(Fault("garble", 200, 1, 1.0)).spoil(data, now_s)
    assert piece == (data, 0.0)


@pytest.mark.parametrize("kind", [kind for kind in BYTES if kind not in ("silence", "debug", "noise")])
def test_amount_is_a_probability(kind: str) -> None:
    assert spoilt(mischief(Fault(kind, 0, 10, 0.0))) == MESSAGE
    assert spoilt(mischief(Fault(kind, 0, 10, 1.0))) != MESSAGE


def test_a_flip_changes_one_bit_of_a_byte() -> None:
    changed = spoilt(mischief(Fault("garble", 0, 10, 1.0)))
    assert [(a ^ b).bit_count() for a, b in zip(changed, MESSAGE, strict=True)] == [1] * len(MESSAGE)


def test_noise_and_debug_text_leave_the_message_unchanged() -> None:
    noisy = spoilt(mischief(Fault("noise", 0, 10, 1.0)))
    assert noisy.endswith(MESSAGE)
    assert 1 <= len(noisy) - len(MESSAGE) <= 16
    assert spoilt(mischief(Fault("debug", 0, 10, 1.0))) == DEBUG_TEXT + MESSAGE


def test_dropped_bytes_leave_the_others_in_order() -> None:
    rest = iter(MESSAGE)
    left = spoilt(mischief(Fault("drop", 0, 10, 0.5)))
    assert 0 < len(left) < len(MESSAGE)
    assert all(byte in rest for byte in left)


def test_silence_sends_nothing() -> None:
    assert mischief(Fault("silence", 0, 10, 1.0)).spoil(MESSAGE, 1.0) == []


def test_split_gives_single_bytes_one_after_the_other() -> None:
    pieces = mischief(Fault("split", 0, 10, 0.5)).spoil(b"abc", 1.0)
    assert pieces == [(b"a", 0.0), (b"b", 0.5), (b"c", 1.0)]


def test_delay_and_split_add_up() -> None:
    pieces = mischief(Fault("split", 0, 10, 0.5), Fault("delay", 0, 10, 2.0)).spoil(b"ab", 1.0)
    assert pieces == [(b"a", 2.0), (b"b", 2.5)]


def test_the_same_seed_gives_the_same_faults() -> None:
    assert spoilt(mischief(Fault("garble", 0, 10, 0.1), seed=7)) == spoilt(
        mischief(Fault("garble", 0, 10, 0.1), seed=7)
    )


def test_a_fault_acts_from_its_start_to_its_end() -> None:
    made = mischief(Fault("silence", 1.0, 2.0, 1.0))
    assert [bool(made.spoil(b"x", t)) for t in (0.9, 1.0, 2.9, 3.0)] == [True, False, False, True]
    assert [made.next_change_s(t) for t in (0.0, 1.0, 3.0)] == [1.0, 3.0, None]


def test_a_fault_is_read_from_one_word() -> None:
    assert parse_fault("mppt:unplug@10+2.5") == ("mppt", Fault("unplug", 10.0, 2.5, AMOUNTS["unplug"]))
    assert parse_fault("t7:garble@0=0.5") == ("t7", Fault("garble", 0.0, 1.0, 0.5))


@pytest.mark.parametrize(
    ("text", "names"), [("mppt", "TARGET:KIND@START"), ("mppt:melt@1", "melt"), ("mppt:garble@x", "expected")]
)
def test_an_invalid_fault_is_named(text: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        parse_fault(text)


@pytest.mark.parametrize(
    "text", [f"mppt:unplug@{'9' * 400}", f"mppt:unplug@1+{'9' * 5000}", f"mppt:delay@1={'9' * 400}"]
)
def test_a_time_out_of_range_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        parse_fault(text)
