"""Hot rows to blocks and roll-ups, in one transaction: a crash leaves either the old form or the new one.

Blocks    up to BLOCK_ROWS rows of one stream and boot, in order of time. `lo` and `hi` are the lowest and highest seq
          of the hot rows in the block; no two blocks share a `hi`, and a hot row is never split. So a cursor at the
          `hi` of one block, or at the seq of any hot row, skips no other row. The next compaction reopens a block that
          is not full: full blocks need a third less space than short ones.
Roll-ups  count, minimum, maximum and sum of every field in bins of RESOLUTIONS_S seconds of boottime. Each hot row is
          compacted once, so bins are added up; the next compaction completes a bin that is not over yet.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from collectors.journal.codec import CODEC, Undecodable, decode_block, encode_block
from collectors.journal.records import Chunk, Column, Corruption, FloatArray, IntArray
from collectors.journal.row_mapping import BLK, HOT, Lookup, checksum

BLOCK_ROWS = 3600
RESOLUTIONS_S = (60, 3600)
GROUP_BINS = {60: 60, 3600: 24}
"""Bins that share one row of the roll table: an hour's minutes, a day's hours."""
NS = 10**9
SNAP = 1e-12
"""A sum this close (relatively) to a decimal with six places is stored as that decimal: the rest is rounding noise."""


class Bins(NamedTuple):
    """Statistics of every field in the bins that hold rows; starts have shape (k,), statistics (fields, k)."""

    start_ns: IntArray
    counts: FloatArray
    least: FloatArray
    greatest: FloatArray
    total: FloatArray


def compact(connection: sqlite3.Connection, file: str) -> list[Corruption]:
    """Convert all hot rows to blocks and roll-ups; return the rows that were damaged and are lost.

    Must run inside the caller's transaction. Memory: one block at a time.
    """
    (last,) = connection.execute("SELECT max(seq) FROM hot").fetchone()
    if last is None:
        return []
    lookup, damage = Lookup(connection), list[Corruption]()
    for stream, boot in connection.execute("SELECT DISTINCT stream, boot FROM hot ORDER BY stream, boot").fetchall():
        query = f"SELECT {HOT} FROM hot WHERE stream=? AND boot=? ORDER BY bt0, seq"  # noqa: S608 - constants
        chunks = _decoded(connection.execute(query, (stream, boot)), lookup, file, damage)
        short = _take_short_block(connection, stream, boot, lookup)
        for group in _groups(chain(short, chunks)):
            store_block(connection, stream, boot, group, file, damage, counted=len(short))
            short = []
    connection.execute("DELETE FROM hot WHERE seq<=?", (last,))
    return damage


def _decoded(rows: sqlite3.Cursor, lookup: Lookup, file: str, damage: list[Corruption]) -> Iterator[Chunk]:
    for row in rows:
        try:
            yield lookup.hot(row)
        except Undecodable as error:
            damage.append(Corruption(file, "hot", row[0], str(error)))


def _take_short_block(connection: sqlite3.Connection, stream: int, boot: int, lookup: Lookup) -> list[Chunk]:
    """Delete and return the newest block of the stream if it has room for more rows; a damaged block is left."""
    query = f"SELECT id, {BLK} FROM blk WHERE stream=? AND boot=? ORDER BY bt0 DESC LIMIT 1"  # noqa: S608 - constants
    row = connection.execute(query, (stream, boot)).fetchone()
    if row is None:
        return []
    try:
        chunk = lookup.block(row[1:])
    except Undecodable:
        return []
    if len(chunk.boottime_ns) > BLOCK_ROWS * 5 // 6:
        return []
    connection.execute("DELETE FROM blk WHERE id=?", row[:1])
    return [chunk]


def _groups(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Yield runs of chunks with at most BLOCK_ROWS rows, or one chunk that alone has more; stamps rise in each run."""
    group, rows = list[Chunk](), 0
    for chunk in chunks:
        n = len(chunk.boottime_ns)
        overlaps = bool(group) and chunk.boottime_ns[0] <= group[-1].boottime_ns[-1]
        if group and (rows + n > BLOCK_ROWS or overlaps):
            yield group
            group, rows = [], 0
        group.append(chunk)
        rows += n
    if group:
        yield group


def join(chunks: Sequence[Chunk]) -> tuple[IntArray, list[Column]]:
    """Return stamps and columns of chunks of one stream, concatenated."""
    stamps = np.concatenate([c.boottime_ns for c in chunks])
    columns = []
    for index in range(len(chunks[0].columns)):
        parts = [c.columns[index] for c in chunks]
        values = np.concatenate([np.asarray(p.values, dtype=np.float64) for p in parts])
        gaps = [np.zeros(len(p.values), np.bool_) if p.missing is None else p.missing for p in parts]
        has_gaps = any(p.missing is not None for p in parts)
        columns.append(Column(values, np.concatenate(gaps) if has_gaps else None))
    return stamps, columns


def store_block(
    connection: sqlite3.Connection,
    stream: int,
    boot: int,
    group: Sequence[Chunk],
    file: str,
    damage: list[Corruption],
    counted: int = 0,
) -> None:
    """Insert the chunks, all of this stream and boot, as one block, and add them to the roll-ups.

    The first `counted` chunks are in the roll-ups already.
    """
    stamps, columns = join(group)
    payload = encode_block(stamps, columns)
    first_ns, n = int(stamps[0]), len(stamps)
    head = (min(c.lo for c in group), max(c.hi for c in group), stream, boot, first_ns, int(stamps[-1]), n, CODEC)
    crc = checksum(stream, boot, first_ns, n, payload)
    query = "INSERT INTO blk (lo, hi, stream, boot, bt0, bt1, n, codec, crc, payload) VALUES (?,?,?,?,?,?,?,?,?,?)"
    connection.execute(query, (*head, crc, payload))
    if counted == len(group):
        return
    stamps, columns = join(group[counted:])
    for resolution_s in RESOLUTIONS_S:
        bins = bins_of(stamps, columns, resolution_s)
        group_ns = resolution_s * GROUP_BINS[resolution_s] * NS
        groups = bins.start_ns // group_ns * group_ns
        for start_ns in np.unique(groups):
            part = Bins(bins.start_ns[groups == start_ns], *(m[:, groups == start_ns] for m in bins[1:]))
            _add_to_roll(connection, (stream, resolution_s, boot, int(start_ns)), part, file, damage)


def bins_of(stamps: IntArray, columns: Sequence[Column], resolution_s: int) -> Bins:
    """Return the rows' statistics; missing and non-finite values are not counted."""
    values = np.array([c.values for c in columns], dtype=np.float64)
    here = np.isfinite(values)
    for row, column in zip(here, columns, strict=True):
        if column.missing is not None:
            row &= ~column.missing
    width_ns = resolution_s * NS
    rows = Bins(
        stamps // width_ns * width_ns,
        here.astype(np.float64),
        np.where(here, values, np.inf),
        np.where(here, values, -np.inf),
        np.where(here, values, 0.0),
    )
    return merge(rows)


def merge(bins: Bins) -> Bins:
    """Return the bins with those of equal start merged; starts rise."""
    order = np.argsort(bins.start_ns, kind="stable")
    start_ns = bins.start_ns[order]
    first = np.flatnonzero(np.diff(start_ns, prepend=start_ns[:1] - 1))
    with np.errstate(over="ignore", invalid="ignore"):  # a sum may overflow to infinity, which is stored
        total = np.add.reduceat(bins.total[:, order], first, axis=1)
    return Bins(
        start_ns[first],
        np.add.reduceat(bins.counts[:, order], first, axis=1),
        np.minimum.reduceat(bins.least[:, order], first, axis=1),
        np.maximum.reduceat(bins.greatest[:, order], first, axis=1),
        total,
    )


def concatenate(parts: Sequence[Bins]) -> Bins:
    """Return all bins of the parts, those of equal start merged."""
    starts = np.concatenate([p.start_ns for p in parts])
    matrices = [np.concatenate([p[i] for p in parts], axis=1) for i in range(1, 5)]
    return merge(Bins(starts, *matrices))


def _add_to_roll(
    connection: sqlite3.Connection, key: tuple[int, int, int, int], bins: Bins, file: str, damage: list[Corruption]
) -> None:
    """Merge the bins with those that the row `key`, (stream, res, boot, bt), already holds."""
    query = "SELECT rowid, n, crc, payload FROM roll WHERE stream=? AND res=? AND boot=? AND bt=?"
    row = connection.execute(query, key).fetchone()
    if row is not None:
        rowid, n, crc, payload = row
        try:
            bins = concatenate([decode_bins(key, n, crc, payload, len(bins.counts)), bins])
        except Undecodable as error:
            damage.append(Corruption(file, "roll", rowid, str(error)))
    payload = encode_block(bins.start_ns, _bin_columns(bins))
    crc = checksum(key[0], key[2], key[3], len(bins.start_ns), payload)
    query = "INSERT OR REPLACE INTO roll (stream, res, boot, bt, n, crc, payload) VALUES (?,?,?,?,?,?,?)"
    connection.execute(query, (*key, len(bins.start_ns), crc, payload))


def _bin_columns(bins: Bins) -> list[Column]:
    """Return four columns for each field; minimum and maximum of an empty bin are stored as 0 and have no meaning."""
    columns = list[Column]()
    for count, least, greatest, total in zip(*bins[1:], strict=True):
        empty = count == 0
        parts = (count, np.where(empty, 0.0, least), np.where(empty, 0.0, greatest), _snapped(total))
        columns.extend(Column(values) for values in parts)
    return columns


def _snapped(total: FloatArray) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):  # sums beyond 1e302 have no decimal form
        decimal = np.round(total, 6)
        return np.where(np.abs(decimal - total) <= SNAP * np.abs(total), decimal, total)


def decode_bins(
    key: tuple[int, int, int, int], n: int, crc: int, payload: bytes, fields: int, only: int | None = None
) -> Bins:
    """Return a row of the roll table; `key` is (stream, res, boot, bt). Undecodable if it is damaged.

    `only`: the one field to decode.
    """
    stream, _, boot, group_ns = key
    if checksum(stream, boot, group_ns, n, payload) != crc:
        raise Undecodable(f"roll-up of stream {stream} at {group_ns}: wrong checksum")
    wanted = range(4 * fields) if only is None else range(4 * only, 4 * only + 4)
    stamps, columns = decode_block(payload, CODEC, n, 4 * fields, wanted)
    matrix = np.array([c.values for c in columns], dtype=np.float64).reshape(-1, 4, n)
    counts = matrix[:, 0]
    least, greatest = np.where(counts, matrix[:, 1], np.inf), np.where(counts, matrix[:, 2], -np.inf)
    return Bins(stamps, counts, least, greatest, matrix[:, 3])
