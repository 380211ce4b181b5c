"""Checksums, each tested with a published value."""

from __future__ import annotations


def sum16(data: bytes) -> int:
    """Return the sum of all bytes modulo 65536 (EA object telegrams; interface-card manual 2007)."""
    return sum(data) & 0xFFFF
