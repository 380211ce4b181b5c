"""The journal in wall time: rows of a range, roll-ups for charts, and the newest rows. Use it through JournalReader."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from collectors.journal.codec import Undecodable
from collectors.journal.compact import GROUP_BINS, NS, Bins, bins_of, concatenate, decode_bins, join
from collectors.journal.directory_view import ALL, DirectoryView
from collectors.journal.records import (
    SET_BY_PERSON,
    Chunk,
    Column,
    FieldSpec,
    IntArray,
    RollUp,
    RowRange,
    Stream,
)
from collectors.journal.row_mapping import BLK, HOT, Lookup, canonical
from collectors.journal.schema import connect_reader, snapshot
from collectors.journal.timeline import Timeline

PAGE_BLOCKS = 64
"""Number of blocks that are fetched at once."""

TimelineOf = Callable[[str], Timeline]


class TimeRange(NamedTuple):
    """A query: rows of [start_ns, end_ns) in wall time, of one measurement or of all; one field or all."""

    start_ns: int
    end_ns: int
    measurement: str | None = None
    field: str | None = None


class SeriesRows(NamedTuple):
    """One field of one set of tags: one line of a chart."""

    measurement: str
    tags: str
    field: FieldSpec


class ChunkPart(NamedTuple):
    """The rows of a chunk that lie in a time range and whose time is known."""

    chunk: Chunk
    wall_ns: IntArray
    by_person: npt.NDArray[np.bool_]
    """Marks the stamps whose time rests on a manually set clock."""


def spans(folder: DirectoryView, timeline_of: TimelineOf, window: TimeRange) -> Iterator[RowRange]:
    """Yield the rows of the time range, file by file, blocks before hot rows."""
    for cut in cuts(folder, timeline_of, window):
        yield RowRange(cut.chunk.stream, cut.wall_ns, cut.chunk.columns)


def cuts(folder: DirectoryView, timeline_of: TimelineOf, window: TimeRange, upto_seq: int = ALL) -> Iterator[ChunkPart]:
    """Yield the rows of the time range as `spans` does; a chunk that ends after `upto_seq` is left out, whole."""
    times, news = _Times(timeline_of), News()
    for path in folder.files():
        after: int | None = 0
        while after is not None:
            chunks, after = _page(folder, path, after, times, window)
            for chunk in map(news.of, chunks):
                cut = _cut(chunk, times[chunk.boot_id], window) if chunk.hi <= upto_seq else None
                if cut is not None:
                    yield cut


class News:
    """Filters out the rows of a chunk that a tailing caller has seen.

    A compaction joins rows that were read already with new ones in one block, which is returned again: its `lo` is at
    or before the newest seq that was seen of its stream and boot. Recovered rows are old but are returned as new.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], tuple[int, int]] = {}

    def of(self, chunk: Chunk) -> Chunk:
        """Return the chunk without the rows that were seen; it may be empty."""
        names = ",".join(field.name for field in chunk.stream.fields)
        key = (chunk.boot_id, chunk.stream.measurement, f"{canonical(chunk.stream.tags)} {names}")
        hi, last_ns = self._seen.get(key, (0, -1))
        if len(chunk.boottime_ns):
            self._seen[key] = (max(hi, chunk.hi), max(last_ns, int(chunk.boottime_ns[-1])))
        if chunk.lo > hi:
            return chunk
        return pick(chunk, chunk.boottime_ns > last_ns)


def pick(chunk: Chunk, rows: npt.NDArray[np.bool_]) -> Chunk:
    """Return the chunk with only these rows."""
    columns = [
        Column(np.asarray(c.values)[rows], None if c.missing is None else c.missing[rows]) for c in chunk.columns
    ]
    return replace(chunk, boottime_ns=chunk.boottime_ns[rows], columns=columns)


class _Times(dict[str, Timeline]):
    """Each boot's timeline, resolved once."""

    def __init__(self, timeline_of: TimelineOf) -> None:
        self._timeline_of = timeline_of

    def __missing__(self, boot_id: str) -> Timeline:
        self[boot_id] = self._timeline_of(boot_id)
        return self[boot_id]


def _page(
    folder: DirectoryView, path: Path, after: int, times: _Times, window: TimeRange
) -> tuple[list[Chunk], int | None]:
    """Return the chunks of the next blocks after id `after`, and where to continue; None: the file is exhausted.

    The last page also holds the hot rows, from the same snapshot: a compaction in between hides and doubles nothing.
    """

    def fetch() -> tuple[list[Chunk], int | None]:
        if not path.exists():  # deleted by retention, or quarantined, since the list was made
            return [], None
        with snapshot(connect_reader(path)) as connection:
            lookup = Lookup(connection)
            where, arguments = _touching(lookup, times, window, "bt0", "bt1")
            query = f"SELECT id, {BLK} FROM blk WHERE id>? AND ({where}) ORDER BY id LIMIT ?"  # noqa: S608 - constants
            rows = connection.execute(query, (after, *arguments, PAGE_BLOCKS)).fetchall()
            found = [folder.decoded(path, "blk", row[0], lookup.block, row[1:]) for row in rows]
            if len(rows) == PAGE_BLOCKS:
                return _of(found, window), rows[-1][0]
            return _of(found + _hot(folder, path, connection, lookup), window), None

    return folder.retrying(fetch)


def _of(chunks: Sequence[Chunk | None], window: TimeRange) -> list[Chunk]:
    return [c for c in chunks if c is not None and window.measurement in (None, c.stream.measurement)]


def _hot(folder: DirectoryView, path: Path, connection: sqlite3.Connection, lookup: Lookup) -> list[Chunk | None]:
    """Return the hot rows; all rows of one stream and boot form one chunk."""
    query = f"SELECT {HOT} FROM hot ORDER BY stream, boot, bt0"  # noqa: S608 - constants
    chunks = [folder.decoded(path, "hot", row[0], lookup.hot, row) for row in connection.execute(query)]
    groups: dict[tuple[int, str], list[Chunk]] = {}
    for chunk in chunks:
        if chunk is not None:
            groups.setdefault((chunk.stream.stream, chunk.boot_id), []).append(chunk)
    return [joined(group) for group in groups.values()]


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Return chunks of one stream and boot, joined into one."""
    stamps, columns = join(chunks)
    return replace(chunks[-1], lo=chunks[0].lo, boottime_ns=stamps, columns=columns)


def _touching(lookup: Lookup, times: _Times, window: TimeRange, first: str, last: str) -> tuple[str, list[int]]:
    """Return an SQL condition, and its arguments, for rows whose [first, last] touches the time range in any boot."""
    terms, arguments = ["0"], list[int]()
    for boot, boot_id in lookup.boot_ids.items():
        for low, high in times[boot_id].intervals(window.start_ns, window.end_ns):
            terms.append(f"boot=? AND {first}<? AND {last}>=?")
            arguments += [boot, high, low]
    return " OR ".join(terms), arguments


def _cut(chunk: Chunk, timeline: Timeline, window: TimeRange) -> ChunkPart | None:
    """Return the chunk's rows that lie in the time range and whose time is known."""
    wall_ns, known = timeline.to_wall(chunk.boottime_ns)
    inside = known & (wall_ns >= window.start_ns) & (wall_ns < window.end_ns)
    if not inside.any():
        return None
    by_person = timeline.states(chunk.boottime_ns) == SET_BY_PERSON
    if inside.all():
        return ChunkPart(chunk, wall_ns, by_person)
    return ChunkPart(pick(chunk, inside), wall_ns[inside], by_person[inside])


def rollups(folder: DirectoryView, timeline_of: TimelineOf, window: TimeRange, resolution_s: int) -> list[RollUp]:
    """Return every field's bins that begin in the time range, including those of rows that are not compacted yet."""
    times = _Times(timeline_of)
    parts: dict[tuple[str, str, str], list[tuple[Stream, Bins]]] = {}
    for path in folder.files():

        def fetch(path: Path = path) -> list[tuple[Stream, str, Bins]]:
            return _bins_in_file(folder, path, times, window, resolution_s)

        for stream, boot_id, bins in folder.retrying(fetch):
            key = (stream.measurement, canonical(stream.tags), boot_id)
            parts.setdefault(key, []).append((stream, bins))
    found: dict[SeriesRows, list[tuple[Stream, npt.NDArray[Any]]]] = {}
    for (measurement, tags, boot_id), pieces in parts.items():
        for field, stream, bins in _by_field(pieces):
            table = _in_window(bins, times[boot_id], window)
            found.setdefault(SeriesRows(measurement, tags, field), []).append((stream, table))
    return [r for series, tables in found.items() if len((r := _roll_up(series, tables)).wall_ns)]


def _bins_in_file(
    folder: DirectoryView, path: Path, times: _Times, window: TimeRange, resolution_s: int
) -> list[tuple[Stream, str, Bins]]:
    if not path.exists():
        return []
    with snapshot(connect_reader(path)) as connection:
        lookup = Lookup(connection)
        group_ns = GROUP_BINS[resolution_s] * resolution_s * NS
        where, arguments = _touching(lookup, times, window, "bt", f"bt+{group_ns}")
        query = f"SELECT rowid, stream, res, boot, bt, n, crc, payload FROM roll WHERE res=? AND ({where})"  # noqa: S608
        rows = connection.execute(query, (resolution_s, *arguments)).fetchall()
        hot = _of(_hot(folder, path, connection, lookup), window)
    found = []
    for rowid, stream, res, boot, bt, n, crc, payload in rows:
        known = lookup.streams.get(stream)
        if known is None or window.measurement not in (None, known.measurement):
            continue
        only = _index(known, window.field)
        if only is not None and only < 0:
            continue
        try:
            bins = decode_bins((stream, res, boot, bt), n, crc, payload, len(known.fields), only)
        except Undecodable as error:
            folder.note_damage(path, "roll", rowid, str(error))
            continue
        found.append((_with_field(known, only), lookup.boot_ids[boot], bins))
    for chunk in hot:
        only = _index(chunk.stream, window.field)
        columns = chunk.columns if only is None else chunk.columns[only : only + 1] if only >= 0 else ()
        if columns:
            bins = bins_of(chunk.boottime_ns, columns, resolution_s)
            found.append((_with_field(chunk.stream, only), chunk.boot_id, bins))
    return found


def _index(stream: Stream, field: str | None) -> int | None:
    """Return the index of the field in the stream; -1 if it has none of that name, None if all are requested."""
    if field is None:
        return None
    return next((i for i, spec in enumerate(stream.fields) if spec.name == field), -1)


def _with_field(stream: Stream, only: int | None) -> Stream:
    return stream if only is None else replace(stream, fields=(stream.fields[only],))


def _by_field(pieces: Sequence[tuple[Stream, Bins]]) -> Iterator[tuple[FieldSpec, Stream, Bins]]:
    """Yield each field's bins of one series and boot, merged over files and streams."""
    by_field: dict[FieldSpec, list[tuple[Stream, Bins]]] = {}
    for stream, bins in pieces:
        for index, field in enumerate(stream.fields):
            one = Bins(bins.start_ns, *(matrix[index : index + 1] for matrix in bins[1:]))
            by_field.setdefault(field, []).append((stream, one))
    for field, parts in by_field.items():
        yield field, parts[-1][0], concatenate([bins for _, bins in parts])


def _in_window(bins: Bins, timeline: Timeline, window: TimeRange) -> npt.NDArray[Any]:
    """Return (5, k): wall time as int64 seen as float64 bits, count, minimum, maximum, sum of bins in the range."""
    wall_ns, known = timeline.to_wall(bins.start_ns)
    inside = known & (wall_ns >= window.start_ns) & (wall_ns < window.end_ns) & (bins.counts[0] > 0)
    return np.vstack([wall_ns[inside].view(np.float64), *(matrix[:, inside] for matrix in bins[1:])])


def _roll_up(series: SeriesRows, tables: Sequence[tuple[Stream, npt.NDArray[Any]]]) -> RollUp:
    table = np.concatenate([part for _, part in tables], axis=1)
    wall_ns = np.ascontiguousarray(table[0]).view(np.int64)
    order = np.argsort(wall_ns, kind="stable")
    count, least, greatest, total = table[1:, order]
    return RollUp(tables[-1][0], series.field, wall_ns[order], count.astype(np.int64), least, greatest, total / count)


def tail(folder: DirectoryView, rows: int) -> list[Chunk]:
    """Return the newest rows of each stream, at most `rows`, from the active file and the one before it."""
    found: dict[tuple[str, str], Chunk] = {}
    for path in folder.files()[:-3:-1]:
        with snapshot(connect_reader(path)) as connection:
            lookup = Lookup(connection)
            for number in lookup.streams:
                chunks = _newest(folder, path, connection, lookup, number, rows)
                if not chunks:
                    continue
                whole = joined([c for c in chunks if c.boot_id == chunks[-1].boot_id])
                key = (whole.stream.measurement, canonical(whole.stream.tags))
                if key not in found or found[key].hi < whole.hi:
                    found[key] = pick(whole, np.arange(len(whole.boottime_ns)) >= len(whole.boottime_ns) - rows)
    return sorted(found.values(), key=lambda chunk: chunk.hi)


def _newest(
    folder: DirectoryView, path: Path, connection: sqlite3.Connection, lookup: Lookup, stream: int, rows: int
) -> list[Chunk]:
    """Return chunks with at least the stream's newest `rows` rows of this file, if it has so many; oldest first."""
    found, count = list[Chunk](), 0
    queries = (
        (f"SELECT seq, {HOT} FROM hot WHERE stream=? ORDER BY seq DESC LIMIT ?", "hot", lookup.hot),  # noqa: S608
        (f"SELECT id, {BLK} FROM blk WHERE stream=? ORDER BY id DESC LIMIT ?", "blk", lookup.block),  # noqa: S608
    )
    for query, table, decode in queries:
        for row in connection.execute(query, (stream, rows)):
            chunk = folder.decoded(path, table, row[0], decode, row[1:]) if count < rows else None
            if chunk is not None:
                found.insert(0, chunk)
                count += len(chunk.boottime_ns)
    return found
