"""Checksums, with published values."""

from __future__ import annotations

import pytest

from collectors.protocols.checksums import crc16_modbus, sum16


def test_the_sum_of_a_published_telegram() -> None:
    assert sum16(bytes.fromhex("85 01 47 64 00 1E 00 50 00")) == 0x019F


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"123456789", 0x4B37), (bytes.fromhex("01 03 01 FB 00 03"), 0xC675), (bytes.fromhex("01 85 17 02 9E"), 0)],
)
def test_the_crc_of_published_bytes(data: bytes, crc: int) -> None:
    assert crc16_modbus(data) == crc
