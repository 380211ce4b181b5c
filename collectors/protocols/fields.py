"""Field tables: position, type, scale and signal of each number in a payload. The same rows decode and encode.

    value = raw x scale / full + offset          raw = round((value - offset) x full / scale)

`full` is the raw count at which the value is `scale`. A device that counts in fractions of its nominal value is thus
described as in its manual (25600 = 160 V), and converted with one rounding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collectors.reading import Value


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a payload. A negative scale inverts the sign where the device's convention is the opposite."""

    signal: str
    at: int
    """Offset in bytes."""
    kind: str
    """Type and byte order as in `struct`, for example ">H"."""
    scale: float = 1.0
    full: int = 1
    offset: float = 0.0
    shift: int = 0
    """Bit fields: number of bits to shift right."""
    mask: int | None = None
    """Bit fields: mask applied after shifting. None: the whole number."""
    absent: int | None = None
    """The raw count with which the device reports that it has no value."""


def decode(fields: Sequence[Field], payload: bytes) -> dict[str, Value]:
    """Return every field's value; None where the device reports none (absent count, NaN, infinity)."""
    return {field.signal: _value(field, struct.unpack_from(field.kind, payload, field.at)[0]) for field in fields}


def encode(fields: Sequence[Field], values: Mapping[str, Value], size: int) -> bytes:
    """Return the payload of `size` bytes whose fields are nearest to the values; struct.error if one does not fit.

    A field without a value gets its absent count, or zero. Bit fields of the same number are combined.
    """
    payload = bytearray(size)
    for field in fields:
        raw = _raw(field, values.get(field.signal))
        (before,) = struct.unpack_from(field.kind, payload, field.at)
        struct.pack_into(field.kind, payload, field.at, before | raw if isinstance(raw, int) else raw)
    return bytes(payload)


def _value(field: Field, number: int | float) -> Value:  # noqa: PYI041 - the two types are distinguished
    if isinstance(number, float):
        return number * field.scale / field.full + field.offset if math.isfinite(number) else None
    raw = number >> field.shift
    if field.mask is not None:
        raw &= field.mask
    return None if raw == field.absent else raw * field.scale / field.full + field.offset


def _raw(field: Field, value: Value) -> int | float:
    is_float = field.kind[-1] in "fd"
    if value is None:
        return math.nan if is_float else (field.absent or 0) << field.shift
    exact = (value - field.offset) * field.full / field.scale
    if is_float:
        return exact
    raw = round(exact)
    if field.mask is not None and raw & ~field.mask:
        raise struct.error(f"{field.signal}: {raw} does not fit into the bits {field.mask:#x}")
    return raw << field.shift
