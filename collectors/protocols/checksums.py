"""Checksums, each tested with a published value."""

from __future__ import annotations


def sum16(data: bytes) -> int:
    """Return the sum of all bytes modulo 65536 (EA object telegrams; interface-card manual 2007)."""
    return sum(data) & 0xFFFF


def crc16_modbus(data: bytes) -> int:
    """Return the CRC-16 of Modbus RTU (reflected 0x8005, start 0xFFFF); 0 over a complete frame with its checksum."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
