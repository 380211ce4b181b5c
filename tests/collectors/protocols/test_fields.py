"""A field table decodes what it encodes, exactly."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.protocols.checksums import sum16
from collectors.protocols.fields import Field, decode, encode

FIELDS = (
    Field("pack_voltage_v", at=0, kind=">H", scale=0.01),
    Field("current_a", at=2, kind=">h", scale=-0.01),
    Field("temperature_degc", at=4, kind=">B", offset=-40.0, absent=0xFF),
    Field("voltage_v", at=5, kind="<H", scale=160.0, full=25600),
    Field("input_on", at=7, kind=">B", mask=0b1),
    Field("mode", at=7, kind=">B", shift=1, mask=0b11),
    Field("rest", at=7, kind=">B", shift=3, mask=0b11111),
)


@given(payload=st.binary(min_size=8, max_size=8))
def test_any_payload_decoded_and_encoded_again_is_itself(payload: bytes) -> None:
    assert encode(FIELDS, decode(FIELDS, payload), 8) == payload


def test_scale_offset_sign_and_bits() -> None:
    payload = bytes.fromhex("05 23 FF 38 41 08 40 05")
    assert decode(FIELDS, payload) == pytest.approx(
        {
            "pack_voltage_v": 13.15,
            "current_a": 2.0,
            "temperature_degc": 25.0,
            "voltage_v": 102.45,
            "input_on": 1.0,
            "mode": 2.0,
            "rest": 0.0,
        }
    )


def test_a_part_of_the_nominal_value_is_rounded_once() -> None:
    """EA's own example: 25.5 V of 42 V nominal is 0x3CB7, rounded to nearest; 160 V x 2112 / 25600 is 13.2 exactly."""
    assert encode([Field("v", 0, ">H", scale=42.0, full=25600)], {"v": 25.5}, 2) == b"\x3c\xb7"
    assert decode([Field("v", 0, ">H", scale=160.0, full=25600)], b"\x08\x40") == {"v": 13.2}


def test_the_absent_count_is_no_value() -> None:
    assert decode(FIELDS, bytes([0, 0, 0, 0, 0xFF, 0, 0, 0]))["temperature_degc"] is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_float_that_is_no_number_is_no_value(number: float) -> None:
    assert decode([Field("charge_ah", 0, ">f")], struct.pack(">f", number)) == {"charge_ah": None}


@pytest.mark.parametrize("values", [{"pack_voltage_v": 655.36}, {"current_a": -400.0}, {"mode": 4.0}])
def test_a_value_out_of_range_is_an_error_and_not_clipped(values: dict[str, float]) -> None:
    with pytest.raises(struct.error):
        encode(FIELDS, values, 8)


@pytest.mark.parametrize(
    ("frame", "check"),
    [("55 01 47", 0x009D), ("75 00 47", 0x00BC), ("85 01 47 64 00 1E 00 50 00", 0x019F), ("FF " * 300, 0x2AD4)],
)
def test_the_16_bit_sum_has_the_manuals_values(frame: str, check: int) -> None:
    """The first three from the EA interface-card manual 2007; the last shows the wrap: 300 x 255 - 65536."""
    assert sum16(bytes.fromhex(frame)) == check
