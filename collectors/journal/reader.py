"""Read access to one collector's journal while it is being written: chunks, events, times, ranges, roll-ups.

Every call opens the files it needs, takes one snapshot of each, fetches, and closes: an open snapshot would keep the
writer's WAL from shrinking. Nothing is written, so a sealed file needs no write access. Files may be rolled over,
sealed, thinned or quarantined between two calls; a file that vanishes during a call is looked for again.

    cursor     a seq. `after` and `chunks_after` return what is after it, whole blocks first, in order of `hi`;
               the first chunk may reach back before the cursor (sending that part again does no harm)
    time       `to_wall` and `states` use the boot's clock table, overridden by the offsets that the shipper froze
    damage     rows with a wrong checksum are left out; `take_damage` returns a record of each
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.journal import history
from collectors.journal.directory_view import ALL, DirectoryView
from collectors.journal.records import (
    Boot,
    Chunk,
    Chunks,
    ClockStep,
    Column,
    EventRecord,
    FieldSpec,
    IntArray,
    RollUp,
    RowRange,
    Stream,
    event_stamp_ns,
)
from collectors.journal.row_mapping import BLK, HOT, Lookup, canonical, read_boots, read_streams
from collectors.journal.schema import EVENT_TAGS, connect_reader, get_meta, newest_seq, snapshot
from collectors.journal.shipper_state import read_frozen, ship_db
from collectors.journal.timeline import Timeline, resolve, with_frozen


class JournalReader(DirectoryView):
    """Reads `<state>/<collector>`. Any thread, any user with read access; opens no file until a method is called."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._sealed_seqs: dict[tuple[str, int], tuple[int, int]] = {}

    def tags(self) -> Mapping[str, str]:
        """Return the tags that all readings and events of this collector carry; none are known before its first run."""
        nothing: dict[str, Any] = {}
        tags: Mapping[str, str] = json.loads(self.newest(get_meta, nothing).get("tags", "{}"))
        return tags

    def newest_seq(self) -> int:
        """Return the newest sequence number on the disk; 0 if nothing was written yet."""
        return self.newest(newest_seq, default=0)

    def commits_between(self, after: int, upto: int = ALL) -> int:
        """Return how many sequence numbers in (after, upto] were used.

        Numbers are left out between files: the writer leaves a wide gap where a damaged file may have used some.
        """
        return self.retrying(lambda: self._commits_between(after, upto))

    def _commits_between(self, after: int, upto: int) -> int:
        count = 0
        files = self.files()
        newest = files[-1] if files else None
        for path in self.files_after(after):
            first, last = self._seqs_of(path, is_sealed=path != newest)
            count += max(0, min(last, upto) - max(first - 1, after))
        return count

    def _seqs_of(self, path: Path, *, is_sealed: bool) -> tuple[int, int]:
        """Return the first and last sequence number of the file; the result of a sealed file is cached."""
        key = (path.name, path.stat().st_ino)
        if key not in self._sealed_seqs:
            with snapshot(connect_reader(path)) as connection:
                meta = get_meta(connection)
                first, last = int(meta["first_seq"]), max(newest_seq(connection), int(meta.get("last_seq", 0)))
            if not is_sealed or "last_seq" not in meta:
                return first, last
            self._sealed_seqs[key] = (first, last)
        return self._sealed_seqs[key]

    # After a cursor -------------------------------------------------------------------------------------------------

    def after(self, seq: int, max_rows: int = 5000) -> Chunks:
        """Return chunks and events after `seq`, about `max_rows` rows, and the cursor's position after them.

        Returns at least one chunk or event if there is any; an empty batch has `hi` = `seq`.
        """
        return self.retrying(lambda: self._after(seq, max_rows))

    def chunks_after(self, seq: int, max_rows: int = 5000) -> list[Chunk]:
        """Return the chunks of `after`: a cursor may move to a chunk's `hi` once the chunk is processed."""
        return list(self.after(seq, max_rows).chunks)

    def events_after(self, seq: int, limit: int = 1000) -> list[EventRecord]:
        """Return up to `limit` events after `seq`, in order."""
        return self.retrying(lambda: self._events_after(seq, limit))

    def _events_after(self, seq: int, limit: int) -> list[EventRecord]:
        found = list[EventRecord]()
        for path in self.files_after(seq):
            with snapshot(connect_reader(path)) as connection:
                found += _events(connection, seq, ALL, limit - len(found))
            if len(found) >= limit:
                break
        return found

    def _after(self, seq: int, max_rows: int) -> Chunks:
        chunks, events, hi = list[Chunk](), list[EventRecord](), seq
        for path in self.files_after(seq):
            with snapshot(connect_reader(path)) as connection:
                more, upto = self._chunks(connection, path, seq, max_rows - sum(len(c.boottime_ns) for c in chunks))
                chunks += more
                found = _events(connection, seq, upto, max_rows)
                events += found
                cut = len(found) == max_rows
                hi = max(hi, found[-1].seq if cut else min(upto, newest_seq(connection)))
            if upto < ALL or cut:
                break
        return Chunks([c for c in chunks if c.hi <= hi], events, hi)

    def _chunks(self, connection: sqlite3.Connection, path: Path, seq: int, max_rows: int) -> tuple[list[Chunk], int]:
        """Return the file's chunks after `seq`, and the seq up to which they are complete (ALL: to its end)."""
        lookup, found, rows, upto = Lookup(connection), list[Chunk](), 0, seq
        queries: Sequence[tuple[str, str, Callable[[Any], Chunk], int]] = (
            (f"SELECT {BLK} FROM blk WHERE hi>? ORDER BY hi", "blk", lookup.block, 1),  # noqa: S608 - constants
            (f"SELECT {HOT} FROM hot WHERE seq>? ORDER BY seq", "hot", lookup.hot, 0),  # noqa: S608 - constants
        )
        for query, table, decode, seq_at in queries:
            for row in connection.execute(query, (seq,)):
                if rows >= max_rows:
                    return found, upto
                upto = row[seq_at]
                chunk = self.decoded(path, table, row[seq_at], decode, row)
                if chunk is not None:
                    found.append(chunk)
                    rows += len(chunk.boottime_ns)
        return found, ALL

    # Time -----------------------------------------------------------------------------------------------------------

    def boots(self) -> list[Boot]:
        """Return all boots, oldest first, with what is known about their clocks; frozen offsets included."""
        known = {boot.boot_id: boot for boots in self.each(read_boots) for boot in boots}
        frozen = read_frozen(ship_db(self.directory), self.collector)
        return [replace(b, steps=with_frozen(b.steps, frozen.get(b.boot_id, ()))) for b in known.values()]

    def clock_steps(self, boot_id: str) -> list[ClockStep]:
        """Return the clock table of one boot, in order; empty if the boot is not known."""
        return self.retrying(lambda: self._clock_steps(boot_id))

    def _clock_steps(self, boot_id: str) -> list[ClockStep]:
        for path in reversed(self.files()):  # the active file knows all boots, unless it was begun without the others
            with snapshot(connect_reader(path)) as connection:
                boots = [boot for boot in read_boots(connection) if boot.boot_id == boot_id]
            if boots:
                frozen = read_frozen(ship_db(self.directory), self.collector)
                return with_frozen(boots[0].steps, frozen.get(boot_id, ()))
        return []

    def timeline(self, boot_id: str) -> Timeline:
        """Return the conversion of this boot's stamps to wall time, as known now. Take it once for many chunks.

        Before rows are shipped, store the segments that `Timeline.used` returns for their stamps in ship.db as frozen.
        """
        return resolve(self.clock_steps(boot_id))

    def to_wall(self, boot_id: str, boottime_ns: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Return wall time in ns since 1970 and whether it is known (else 0, and the row must not be shipped)."""
        return self.timeline(boot_id).to_wall(boottime_ns)

    # In wall time ---------------------------------------------------------------------------------------------------

    def streams(self) -> list[Stream]:
        """Return all streams of all files, without duplicates."""
        found: dict[tuple[str, str, tuple[Any, ...]], Stream] = {}
        for by_number in self.each(read_streams):
            for stream in by_number.values():
                found.setdefault((stream.measurement, canonical(stream.tags), tuple(stream.fields)), stream)
        return list(found.values())

    def range(self, start_ns: int, end_ns: int, measurement: str | None = None) -> Iterator[RowRange]:
        """Yield all rows whose wall time lies in [start_ns, end_ns), in parts, in bounded memory.

        Within a stream time rises, unless the clock was set back. Rows whose time is not known are left out.
        """
        return history.spans(self, self.timeline, history.TimeRange(start_ns, end_ns, measurement))

    def cuts(self, start_ns: int, end_ns: int, upto_seq: int = ALL) -> Iterator[history.ChunkPart]:
        """Yield the rows of `range` as parts of chunks; chunks that end after `upto_seq` are left out."""
        return history.cuts(self, self.timeline, history.TimeRange(start_ns, end_ns), upto_seq)

    def event_spans(self, start_ns: int, end_ns: int) -> Iterator[RowRange]:
        """Yield each event whose wall time lies in [start_ns, end_ns), with the stamp that it is shipped with."""
        after, tags = 0, self.tags()
        timelines: dict[str, Timeline] = {}
        while events := self.events_after(after):
            after = events[-1].seq
            for event in events:
                timeline = timelines.setdefault(event.boot_id, self.timeline(event.boot_id))
                wall_ns, known = timeline.to_wall(np.array([event.boottime_ns], dtype=np.int64))
                if known[0] and start_ns <= wall_ns[0] < end_ns:
                    stream = Stream(0, "event", {**tags, **event.tags, "kind": event.kind}, [FieldSpec("detail", "s")])
                    stamp = np.array([event_stamp_ns(event, int(wall_ns[0]))], dtype=np.int64)
                    yield RowRange(stream, stamp, [Column([event.detail])])

    def rollups(
        self, start_ns: int, end_ns: int, resolution_s: int, measurement: str | None = None, field: str | None = None
    ) -> list[RollUp]:
        """Return every field's bins of `resolution_s` (60 or 3600) that begin in [start_ns, end_ns), up to now.

        Reading one `field` is several times faster than reading all and selecting it.
        """
        window = history.TimeRange(start_ns, end_ns, measurement, field)
        return history.rollups(self, self.timeline, window, resolution_s)

    def tail(self, rows: int = 1) -> list[Chunk]:
        """Return the newest rows of each stream, at most `rows`; streams of the active file and the one before it."""
        return self.retrying(lambda: history.tail(self, rows))


def _events(connection: sqlite3.Connection, after: int, upto: int, limit: int) -> list[EventRecord]:
    query = (
        "SELECT seq, boot_id, bt, kind, detail, v FROM event JOIN boot USING (boot) LEFT JOIN meta ON k = ? || seq "
        "WHERE seq>? AND seq<=? ORDER BY seq LIMIT ?"
    )
    found = connection.execute(query, (EVENT_TAGS, after, upto, limit))
    return [
        EventRecord(seq, boot_id, boottime_ns, kind, detail, json.loads(tags) if tags else {})
        for seq, boot_id, boottime_ns, kind, detail, tags in found
    ]
