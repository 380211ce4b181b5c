"""Rows to bytes and back, lossless. Pure; integers and floats are little endian.

Hot payload (one commit of one stream, n rows, m fields; fast to write):

    flags    u8        bit 0: some values are missing
    stamps   i64[n-1]  boottime in ns minus the first row's, which is stored beside the payload
    values   f64[m*n]  field by field; a missing value is any NaN
    missing  bits[m*n] rounded up to bytes, only with bit 0

Block payload, codec 1 (up to some thousand rows; compact): a zstd frame around

    unit     u16       1 or 1000: stamps count in so many ns; 1000 only if every stamp is a multiple
    stamps   planes64  zig-zag second differences, counted from 0, 0
    then for each field
    form     u8        0..9: integers over 10^form; 15: raw floats; +16: some values are missing
    missing  bits[n]   only with +16
    base     i64       the first integer                                               (form 0..9)
    step     u64       greatest common divisor of all differences of the integers      (form 0..9)
    values   planes32  zig-zag differences of (integer - base) / step                  (form 0..9)
             planes64  the floats' own bits                                            (form 15)

planes: all lowest bytes, then all second bytes and so on, so that slow changes become runs of zeros for zstd. Each
field is its own zstd block with its own statistics: 8 % smaller than all fields in one.
A decimal form is used only when integer / 10^form restores every value bit for bit; −0.0, NaN, subnormals and
integers beyond 2^53 are stored as raw floats. The step suits instruments that count in fractions of a nominal value
(60 A / 25600). Differences wrap around and are exact for any input. A missing value repeats the one before it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import zstandard

from collectors.journal.records import Column, FloatArray, IntArray

CODEC = 1
LEVEL = 1
"""Smaller here than level 3, whose matches cost more than they save; and faster."""
FORMS = 10
"""Number of decimal forms, 10^0 to 10^9."""
RAW, WITH_MISSING = 15, 16
EXACT = 2.0**53
"""Below this, a float represents every integer exactly."""
PROBE = 8
"""Number of values that are tested before all are."""

_BASE_STEP = struct.Struct("<qQ")
BoolArray = npt.NDArray[np.bool_]
UIntArray = npt.NDArray[np.uint64]


class Undecodable(ValueError):
    """The payload is not what its codec writes: it is damaged, or of another version."""


def encode_hot(stamps: IntArray, columns: Sequence[Column]) -> bytes:
    """Return the payload of n ≥ 1 rows; it does not contain the first stamp."""
    missing = [c.missing for c in columns]
    gaps = any(m is not None and m.any() for m in missing)
    parts = [bytes([gaps]), (stamps[1:] - stamps[0]).astype("<i8").tobytes()]
    parts += [_floats(c).tobytes() for c in columns]
    if gaps:
        flags = [np.zeros(len(stamps), np.bool_) if m is None else m for m in missing]
        parts.append(np.packbits(np.concatenate(flags)).tobytes())
    return b"".join(parts)


def decode_hot(payload: bytes, first_ns: int, n: int, fields: int) -> tuple[IntArray, list[Column]]:
    """Return stamps and one column for each field; Undecodable if the payload has not exactly that."""
    take = _Taker(payload)
    flags = take.bytes(1)[0]
    if flags > 1:
        raise Undecodable(f"hot payload: flags {flags:#x}, expected 0 or 1")
    stamps = np.full(n, first_ns, dtype=np.int64)
    stamps[1:] += np.frombuffer(take.bytes(8 * (n - 1)), "<i8")
    values = np.frombuffer(take.bytes(8 * n * fields), "<f8").reshape(fields, n)
    if not flags:
        take.end()
        return stamps, [Column(v) for v in values]
    missing = take.bits(n * fields).reshape(fields, n)
    take.end()
    return stamps, [_column(v, m) for v, m in zip(values, missing, strict=True)]


def encode_block(stamps: IntArray, columns: Sequence[Column]) -> bytes:
    """Return the payload of n ≥ 1 rows, codec 1."""
    unit = 1000 if not (stamps % 1000).any() else 1
    parts = [np.uint16(unit).astype("<u2").tobytes(), _planes(_zigzag64(_differences(stamps // unit)))]
    parts = [b"".join(parts), *(_encode_column(column) for column in columns)]
    frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False).compressobj(size=sum(map(len, parts)))
    blocks = [frame.compress(part) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts]
    return b"".join(blocks) + frame.flush()


def decode_block(
    payload: bytes, codec: int, n: int, fields: int, wanted: range | None = None
) -> tuple[IntArray, list[Column]]:
    """Return stamps and one column for each field; Undecodable if the payload has not exactly that.

    `wanted`: decode only these fields' columns, and return only those.
    """
    if codec != CODEC:
        raise Undecodable(f"codec {codec}, expected {CODEC}")
    most = 2 + 8 * n + fields * (17 + n // 8 + 1 + 8 * n)
    try:
        if zstandard.frame_content_size(payload) > most:
            raise Undecodable(f"block claims more than the {most} bytes expected of {n} rows")
        take = _Taker(zstandard.ZstdDecompressor().decompress(payload))
    except zstandard.ZstdError as error:
        raise Undecodable(f"not a zstd frame: {error}") from error
    unit = int.from_bytes(take.bytes(2), "little")
    if unit not in (1, 1000):
        raise Undecodable(f"stamp unit {unit}, expected 1 or 1000")
    stamps = np.cumsum(np.cumsum(_unzigzag64(take.planes64(n)))) * unit
    columns = [_decode_column(take, n, wanted is None or index in wanted) for index in range(fields)]
    take.end()
    return stamps, [column for column in columns if column is not None]


def _encode_column(column: Column) -> bytes:
    missing = column.missing if column.missing is not None and column.missing.any() else None
    values = _floats(column)
    flag, bitmap = (0, b"") if missing is None else (WITH_MISSING, np.packbits(missing).tobytes())
    if missing is not None:
        values = _repeat_before(values, missing)
    for form in range(FORMS):
        counted = _as_steps(values, form)
        if counted is not None:
            base, step, counts = counted
            deltas = np.diff(counts, prepend=np.int32(0))
            zigzag = ((deltas << 1) ^ (deltas >> 31)).view(np.uint32)
            return bytes([form | flag]) + bitmap + _BASE_STEP.pack(base, step) + _planes(zigzag)
    return bytes([RAW | flag]) + bitmap + _planes(values.view(np.uint64))


def _decode_column(take: _Taker, n: int, is_wanted: bool) -> Column | None:
    mark = take.bytes(1)[0]
    form = mark & ~WITH_MISSING
    if form >= FORMS and form != RAW:
        raise Undecodable(f"column form {mark}, expected 0 to {FORMS - 1} or {RAW}, or that + {WITH_MISSING}")
    if not is_wanted:
        take.bytes(((n + 7) // 8 if mark & WITH_MISSING else 0) + (8 * n if form == RAW else _BASE_STEP.size + 4 * n))
        return None
    missing = take.bits(n) if mark & WITH_MISSING else None
    if form == RAW:
        values: FloatArray = take.planes64(n).view(np.float64)
    else:
        base, step = _BASE_STEP.unpack(take.bytes(_BASE_STEP.size))
        zigzag = take.planes32(n)
        counts = np.cumsum((zigzag >> 1).astype(np.int32) ^ -(zigzag & 1).astype(np.int32), dtype=np.int32)
        values = (np.int64(base) + counts * np.uint64(step).astype(np.int64)) / 10.0**form
    return Column(values) if missing is None else _column(values, missing)


def _as_steps(values: FloatArray, form: int) -> tuple[int, int, npt.NDArray[np.int32]] | None:
    """Return (base, step, counts) such that (base + step * count) / 10^form is each value bit for bit, or None."""
    if _as_integers(values[:PROBE], form) is None:
        return None
    integers = _as_integers(values, form)
    if integers is None:
        return None
    differences = integers - integers[0]
    step = int(np.gcd.reduce(differences)) or 1
    counts = differences // step
    if np.abs(counts).max() >= 2**31:
        return None
    return int(integers[0]), step, counts.astype(np.int32)


def _as_integers(values: FloatArray, form: int) -> IntArray | None:
    """Return the integers that over 10^form are the values bit for bit, or None."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * 10.0**form)
        if not (np.abs(scaled) < EXACT).all():  # NaN compares false
            return None
    integers = scaled.astype(np.int64)
    same = (integers / 10.0**form).view(np.int64) == values.view(np.int64)
    return integers if same.all() else None


def _floats(column: Column) -> FloatArray:
    return np.ascontiguousarray(column.values, dtype="<f8")


def _column(values: FloatArray, missing: BoolArray) -> Column:
    """Return a column whose missing values read as NaN."""
    return Column(np.where(missing, np.nan, values), missing) if missing.any() else Column(values)


def _repeat_before(values: FloatArray, missing: BoolArray) -> FloatArray:
    """Return the values, each missing one replaced by the last present one before it, else 0."""
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(values))))
    return np.where(last < 0, 0.0, values[last])


def _differences(stamps: IntArray) -> IntArray:
    """Return second differences; the first two count from 0."""
    zero = np.int64(0)
    return np.diff(np.diff(stamps, prepend=zero), prepend=zero)


def _zigzag64(values: IntArray) -> UIntArray:
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def _unzigzag64(values: UIntArray) -> IntArray:
    return (values >> np.uint64(1)).view(np.int64) ^ -(values & np.uint64(1)).view(np.int64)


def _planes(words: npt.NDArray[np.uint32] | UIntArray) -> bytes:
    """Return all lowest bytes, then all second bytes and so on."""
    return np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1).T.tobytes()


class _Taker:
    """Takes bytes from the front; Undecodable when there are too few, or some are left at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def bytes(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise Undecodable(f"{len(self._data)} bytes, expected at least {end}")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def bits(self, count: int) -> BoolArray:
        """Return the next `count` flags; the last byte's other bits are ignored."""
        return np.unpackbits(np.frombuffer(self.bytes((count + 7) // 8), np.uint8), count=count).astype(np.bool_)

    def planes32(self, count: int) -> npt.NDArray[np.uint32]:
        """Return `count` words of 32 bits that `_planes` wrote."""
        planes = np.frombuffer(self.bytes(4 * count), np.uint8).reshape(4, count)
        return np.ascontiguousarray(planes.T).view("<u4").reshape(count)

    def planes64(self, count: int) -> UIntArray:
        """Return `count` words of 64 bits that `_planes` wrote."""
        planes = np.frombuffer(self.bytes(8 * count), np.uint8).reshape(8, count)
        return np.ascontiguousarray(planes.T).view("<u8").reshape(count)

    def end(self) -> None:
        """Reject bytes that were not consumed."""
        if self._at != len(self._data):
            raise Undecodable(f"{len(self._data)} bytes, expected {self._at}")
