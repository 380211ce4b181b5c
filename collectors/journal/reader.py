"""Everybody's way into one collector's journal, while it is being written: chunks, events, times, ranges, roll-ups.

Every call opens the files it needs, takes one unchanging view of each, fetches, and closes: an open view would keep the
writer's WAL from shrinking. Nothing is written, so a sealed file needs no write access. Files that are rolled over,
sealed, thinned or put aside between two calls are no matter; a file that vanishes during one is looked for again.

    cursor     a seq. `after` and `chunks_after` give what lies behind it, whole blocks first, in order of `hi`;
               the first chunk may reach back before the cursor (sending that part again does no harm)
    time       `to_wall` and `states` by the boot's clock table, with what the shipper froze put over it
    damage     rows whose checksum does not hold are left out; `take_damage` tells which
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from collectors.errors import JournalError
from collectors.journal.codec import Undecodable
from collectors.journal.records import (
    Batch,
    Boot,
    Chunk,
    ClockStep,
    Damage,
    EventRecord,
    IntArray,
    Stream,
)
from collectors.journal.schema import connect_reader, get_meta, journal_files, newest_seq, refuse_newer, snapshot
from collectors.journal.shipped import read_frozen, ship_db
from collectors.journal.tables import BLK, HOT, Lookup, canonical, read_boots, read_streams
from collectors.journal.timeline import Timeline, resolve, with_frozen

T = TypeVar("T")
TRIES = 5
"""Looks for a file that vanished while it was about to be read."""
ALL = 2**63 - 1


class JournalReader:
    """Reads `<state>/<collector>`. Any thread, any user with read access; opens nothing until asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._damage: dict[tuple[str, str, int], Damage] = {}
        self._first_seq: dict[tuple[str, int], int] = {}

    @property
    def collector(self) -> str:
        """Return the collector's name."""
        return self.directory.name

    def take_damage(self) -> list[Damage]:
        """Return what reads had to leave out since the last call."""
        found, self._damage = list(self._damage.values()), {}
        return found

    def tags(self) -> Mapping[str, str]:
        """Return the tags that all readings of this collector carry; for its events. None are known before it ran."""
        nothing: dict[str, Any] = {}
        tags: Mapping[str, str] = json.loads(self._newest(get_meta, nothing).get("tags", "{}"))
        return tags

    def newest_seq(self) -> int:
        """Return the newest sequence number on the disk; 0 where nothing was written yet."""
        return self._newest(newest_seq, default=0)

    # Behind a cursor ------------------------------------------------------------------------------------------------

    def after(self, seq: int, max_rows: int = 5000) -> Batch:
        """Return chunks and events behind `seq`, about `max_rows` rows, and where the cursor stands after them.

        At least one chunk or event if there is any; an empty batch has `hi` = `seq`.
        """
        return self._retrying(lambda: self._after(seq, max_rows))

    def chunks_after(self, seq: int, max_rows: int = 5000) -> list[Chunk]:
        """Return the chunks of `after`: a cursor may move to each one's `hi` when it is done with it."""
        return list(self.after(seq, max_rows).chunks)

    def events_after(self, seq: int, limit: int = 1000) -> list[EventRecord]:
        """Return up to `limit` events behind `seq`, in order."""
        return self._retrying(lambda: self._events_after(seq, limit))

    def _events_after(self, seq: int, limit: int) -> list[EventRecord]:
        found = list[EventRecord]()
        for path in self._files_after(seq):
            with snapshot(connect_reader(path)) as connection:
                found += _events(connection, seq, ALL, limit - len(found))
            if len(found) >= limit:
                break
        return found

    def _after(self, seq: int, max_rows: int) -> Batch:
        chunks, events, hi = list[Chunk](), list[EventRecord](), seq
        for path in self._files_after(seq):
            with snapshot(connect_reader(path)) as connection:
                more, upto = self._chunks(connection, path, seq, max_rows - sum(len(c.boottime_ns) for c in chunks))
                chunks += more
                found = _events(connection, seq, upto, max_rows)
                events += found
                cut = len(found) == max_rows
                hi = max(hi, found[-1].seq if cut else min(upto, newest_seq(connection)))
            if upto < ALL or cut:
                break
        return Batch([c for c in chunks if c.hi <= hi], events, hi)

    def _chunks(self, connection: sqlite3.Connection, path: Path, seq: int, max_rows: int) -> tuple[list[Chunk], int]:
        """Return the file's chunks behind `seq`, and the seq up to which that is everything (ALL: to its end)."""
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
                chunk = self._decoded(path, table, row[seq_at], decode, row)
                if chunk is not None:
                    found.append(chunk)
                    rows += len(chunk.boottime_ns)
        return found, ALL

    def _decoded(self, path: Path, table: str, number: int, decode: Callable[[Any], Chunk], row: Any) -> Chunk | None:
        try:
            return decode(row)
        except Undecodable as error:
            self._damage[path.name, table, number] = Damage(path.name, table, number, str(error))
            return None

    # Time -----------------------------------------------------------------------------------------------------------

    def boots(self) -> list[Boot]:
        """Return all boots, oldest first, with what is known about their clocks; frozen offsets included."""
        known: list[Boot] = self._newest(read_boots, default=[])
        frozen = read_frozen(ship_db(self.directory), self.collector)
        return [Boot(b.boot_id, b.first_ns, with_frozen(b.steps, frozen.get(b.boot_id, ()))) for b in known]

    def clock_steps(self, boot_id: str) -> list[ClockStep]:
        """Return the clock table of one boot, in order; none if the boot is not known."""
        return [step for boot in self.boots() if boot.boot_id == boot_id for step in boot.steps]

    def timeline(self, boot_id: str) -> Timeline:
        """Return how this boot's stamps become wall time, as known now. Take it once for many chunks."""
        return resolve(self.clock_steps(boot_id))

    def to_wall(self, boot_id: str, boottime_ns: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Return wall time in ns since 1970 and whether it is known (else 0, and the row must not be shipped)."""
        return self.timeline(boot_id).to_wall(boottime_ns)

    # Everything of a kind -------------------------------------------------------------------------------------------

    def streams(self) -> list[Stream]:
        """Return all streams of all files, each content once."""
        found: dict[tuple[str, str, tuple[Any, ...]], Stream] = {}
        for by_number in self._each(read_streams):
            for stream in by_number.values():
                found.setdefault((stream.measurement, canonical(stream.tags), tuple(stream.fields)), stream)
        return list(found.values())

    # Files ----------------------------------------------------------------------------------------------------------

    def _files_after(self, seq: int) -> list[Path]:
        """Return the files that may hold something behind `seq`, oldest first."""
        refuse_newer(self.directory)
        files = journal_files(self.directory)
        firsts = [self._first_of(path) for path in files[1:]]
        return [path for path, next_first in zip(files, [*firsts, ALL], strict=True) if next_first - 1 > seq]

    def _first_of(self, path: Path) -> int:
        key = (path.name, path.stat().st_ino)
        if key not in self._first_seq:
            with snapshot(connect_reader(path)) as connection:
                self._first_seq[key] = int(get_meta(connection)["first_seq"])
        return self._first_seq[key]

    def _newest(self, read: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Return what `read` finds in the live file; `default` if there is none."""

        def once() -> T:
            refuse_newer(self.directory)
            files = journal_files(self.directory)
            if not files:
                return default
            with snapshot(connect_reader(files[-1])) as connection:
                return read(connection)

        return self._retrying(once)

    def _each(self, read: Callable[[sqlite3.Connection], T]) -> list[T]:
        """Return what `read` finds in each file, oldest first."""

        def once() -> list[T]:
            refuse_newer(self.directory)
            found = []
            for path in journal_files(self.directory):
                with snapshot(connect_reader(path)) as connection:
                    found.append(read(connection))
            return found

        return self._retrying(once)

    def _retrying(self, read: Callable[[], T]) -> T:
        """Return what `read` returns; once more if a file vanished, was replaced or was busy meanwhile."""
        for left in reversed(range(TRIES)):
            before = journal_files(self.directory)
            try:
                return read()
            except (sqlite3.Error, FileNotFoundError) as error:
                if not left or (journal_files(self.directory) == before and not _is_passing(error)):
                    raise JournalError(f"{self.directory}: cannot be read: {error}") from error
        raise AssertionError("the last try returns or raises")


def _is_passing(error: sqlite3.Error | FileNotFoundError) -> bool:
    """Return whether the error may go away by itself: the file was being sealed or replaced."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_SCHEMA)


def _events(connection: sqlite3.Connection, after: int, upto: int, limit: int) -> list[EventRecord]:
    query = (
        "SELECT seq, boot_id, bt, kind, detail FROM event JOIN boot USING (boot) "
        "WHERE seq>? AND seq<=? ORDER BY seq LIMIT ?"
    )
    return [EventRecord(*row) for row in connection.execute(query, (after, upto, limit))]
