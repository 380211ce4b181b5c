"""Modbus TCP frames are complete and valid, or an error; a reply matches its request or is dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import FrameError
from collectors.protocols import modbus
from collectors.protocols.modbus import Frame

READ_AIN0 = bytes.fromhex("00 01 00 00 00 06 01 03 00 00 00 02")
FIVE_VOLTS = bytes.fromhex("00 01 00 00 00 07 01 03 04 40 A0 00 00")
WRITE_RANGE = bytes.fromhex("00 09 00 00 00 0B 01 10 AB 7C 00 02 04 41 20 00 00")
WRITTEN = bytes.fromhex("00 09 00 00 00 06 01 10 AB 7C 00 02")
ILLEGAL_ADDRESS = bytes.fromhex("00 0D 00 00 00 03 01 90 02")


def test_requests_are_encoded_as_documented() -> None:
    assert modbus.read_request(1, 0, 2) == READ_AIN0
    assert modbus.write_request(9, 43900, bytes.fromhex("41 20 00 00")) == WRITE_RANGE


def test_an_answer_to_a_read_is_its_registers_bytes() -> None:
    cut = modbus.read_cutter(1, 2)(FIVE_VOLTS + b"more")
    assert cut == (Frame(1, 3, bytes.fromhex("40 A0 00 00")), len(FIVE_VOLTS))


def test_an_answer_to_a_write_repeats_address_and_count() -> None:
    assert modbus.write_cutter(9, 43900, 2)(WRITTEN) is not None
    with pytest.raises(FrameError, match="answer to a write"):
        modbus.write_cutter(9, 43900, 3)(WRITTEN)


def test_an_exception_is_an_answer_with_its_code() -> None:
    cut = modbus.write_cutter(13, 40000, 2)(ILLEGAL_ADDRESS)
    assert cut is not None
    assert cut.payload.exception == 2


@pytest.mark.parametrize("frame", [FIVE_VOLTS, WRITTEN, ILLEGAL_ADDRESS])
def test_a_frame_cut_short_is_not_whole_yet(frame: bytes) -> None:
    assert all(modbus.take(frame[:length]) is None for length in range(len(frame)))


@pytest.mark.parametrize(
    ("buffer", "problem", "drop"),
    [
        ("00 02 00 00 00 07 01 03 04 40 A0 00 00", "transaction: expected 1, got 2", 13),
        ("00 01 00 00 00 05 01 03 02 40 A0", "2 registers: expected 4 bytes", 11),
        ("00 01 00 00 00 07 01 03 05 40 A0 00 00", "expected 4 bytes of data", 13),
        ("00 01 00 00 00 06 01 10 AB 7C 00 02", "function: expected 3, got 16", 12),
        ("00 01 00 07 00 07 01 03 04 40 A0 00 00", "protocol: expected 00 00, got 00 07", 1),
        ("00 01 00 00 00 02 01 03", "length: expected 3 to 254, got 2", 1),
        ("00 01 00 00 01 00 01 03", "length: expected 3 to 254, got 256", 1),
        ("00 01 00 00 00 07 09 03 04 40 A0 00 00", "unit: expected 1, got 9", 1),
    ],
)
def test_a_frame_that_does_not_answer_the_request_is_an_error_and_dropped(buffer: str, problem: str, drop: int) -> None:
    with pytest.raises(FrameError, match=problem) as caught:
        modbus.read_cutter(1, 2)(bytes.fromhex(buffer))
    assert caught.value.drop == drop


@pytest.mark.parametrize("count", [0, 126])
def test_more_registers_than_fit_are_refused_before_sending(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 125"):
        modbus.read_request(1, 0, count)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(248)])
def test_a_write_takes_whole_registers_that_fit(data: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 123"):
        modbus.write_request(1, 0, data)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.binary(min_size=1, max_size=252), st.binary(max_size=8))
def test_an_encoded_frame_is_decoded_whatever_follows(
    transaction: int, function: int, body: bytes, rest: bytes
) -> None:
    frame = modbus.encode(transaction, function, body)
    assert modbus.take(frame + rest) == (Frame(transaction, function, body), len(frame))
