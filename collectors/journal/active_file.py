"""The active file, the only one that is written: inserts rows and events, returns a sequence number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from collectors.host.clock import UNSYNCHRONISED
from collectors.journal.backlog import EventAt, Key, Row, Work
from collectors.journal.codec import Undecodable, encode_hot
from collectors.journal.records import ClockStep, Column, Corruption, FieldSpec, IntArray
from collectors.journal.row_mapping import (
    HOT,
    Lookup,
    canonical,
    checksum,
    fields_text,
    read_steps,
    read_streams,
    stream_hash,
)
from collectors.journal.schema import (
    APPLICATION_ID,
    EVENT_TAGS,
    FileSuspect,
    connect_writer,
    drafting,
    family,
    get_meta,
    has_tables,
    naming,
    newest_seq,
    number_of,
    put_meta,
    read_header,
    sync_directory,
    transaction,
)
from collectors.signals import find
from collectors.text import one_line

MOST_ROWS = 3600
"""Maximum number of rows in one hot row. After a long wait, rows are stored in pieces of this size."""
LOOK_BACK = 100
"""Number of the newest hot rows that are checked when the file is opened."""
MOVED_NS = 1_000_000
"""A stamp moved by more than this, to keep stamps rising, is an event. Less is two reads of the same instant."""
COPIED = ("boot", "clock", "stream")
"""Tables that are copied from file to file."""


def begin_file(path: Path, first_seq: int, meta: Mapping[str, str | int], before: sqlite3.Connection | None) -> None:
    """Create an empty journal file with the boots, clocks and streams of `before`."""
    with naming(path), drafting(path) as connection:
        put_meta(connection, **meta, file_no=number_of(path), first_seq=first_seq)
        for table in COPIED:
            rows = [] if before is None else before.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - constants
            if rows:
                marks = ",".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608
    with naming(path):
        sync_directory(path.parent)


class ActiveFile:
    """An open journal file. Use from one thread; SQLite's errors are raised as `schema.naming` translates them."""

    def __init__(self, path: Path, boot_id: str, now_ns: int, last_ns: dict[Key, int] | None = None) -> None:
        """Open the file; FileSuspect if it is damaged. `last_ns`: the newest stamp of each series, if known."""
        self.path = path
        self.boot_id = boot_id
        self._inode = path.stat().st_ino
        header = read_header(path)
        if header is None or header.application_id != APPLICATION_ID:
            raise FileSuspect(f"{path}: not a journal file", path)
        with naming(path):
            self.connection = connect_writer(path)
            try:
                if not has_tables(self.connection):
                    raise FileSuspect(f"{path}: tables are missing", path)
                self._load(now_ns)
                self.last_ns = self._read_last() if last_ns is None else last_ns
            except BaseException:
                self.connection.close()
                raise

    def _load(self, now_ns: int) -> None:
        """Read the state from the tables; also after a failed commit, when memory may be ahead of the disk."""
        self.seq = self.acknowledged = newest_seq(self.connection)
        self._first_seq = int(get_meta(self.connection).get("first_seq", 1))
        row = self.connection.execute("SELECT boot FROM boot WHERE boot_id=?", (self.boot_id,)).fetchone()
        if row is None:
            query = "INSERT INTO boot (boot_id, bt_first) VALUES (?, ?) RETURNING boot"
            row = self.connection.execute(query, (self.boot_id, now_ns)).fetchone()
        self.boot: int = row[0]
        self.steps = read_steps(self.connection, self.boot)
        self._streams: dict[Key, tuple[int, tuple[str, ...]]] = {}
        for number, stream in sorted(read_streams(self.connection).items()):  # the newest stream has all fields
            names = tuple(field.name for field in stream.fields)
            self._streams[stream.measurement, canonical(stream.tags)] = (number, names)
        self._stale = False

    @property
    def is_empty(self) -> bool:
        """Return whether no row or event of this file was ever acknowledged."""
        return self.acknowledged < self._first_seq

    def newest_ns(self, boot_id: str) -> int | None:
        """Return the newest stamp of a boot in this file, of a row or an event; None if there is none."""
        query = (
            "SELECT max(bt) FROM (SELECT max(bt0) AS bt, boot FROM hot GROUP BY boot UNION ALL "
            "SELECT max(bt1), boot FROM blk GROUP BY boot UNION ALL SELECT max(bt), boot FROM event GROUP BY boot) "
            "JOIN boot USING (boot) WHERE boot_id=?"
        )
        with naming(self.path):
            found = self.connection.execute(query, (boot_id,)).fetchone()[0]
        return None if found is None else int(found)

    def _read_last(self) -> dict[Key, int]:
        """Return the newest stamp of each series of this boot."""
        keys = {number: key for key, (number, _) in self._streams.items()}
        found: dict[Key, int] = {}
        lookup = Lookup(self.connection)
        rows = self.connection.execute(
            f"SELECT {HOT}, max(bt0) FROM hot WHERE boot=? GROUP BY stream",  # noqa: S608 - constants
            (self.boot,),
        ).fetchall()
        stamps = self.connection.execute("SELECT stream, max(bt1) FROM blk WHERE boot=? GROUP BY stream", (self.boot,))
        newest = dict(stamps.fetchall())
        for row in rows:
            try:
                newest[row[1]] = int(lookup.hot(row[:-1]).boottime_ns[-1])
            except Undecodable:
                newest[row[1]] = row[3]
        for number, stamp in newest.items():
            if number in keys:
                found[keys[number]] = max(stamp, found.get(keys[number], 0))
        return found

    @property
    def state(self) -> int:
        """Return the clock state of the present offset, for example SYNCHRONISED."""
        return self.steps[-1].state if self.steps else UNSYNCHRONISED

    def close(self) -> None:
        """Close the file so that any user can read it: a WAL file needs write access to be opened, even when closed."""
        self.connection.execute("PRAGMA busy_timeout=100")
        try:
            self.connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:  # a reader has it open: its WAL stays, which does no harm
            pass
        finally:
            self.connection.close()

    def check_newest(self) -> list[Corruption]:
        """Return which of the newest hot rows are damaged."""
        with naming(self.path):
            lookup = Lookup(self.connection)
            query = f"SELECT {HOT} FROM hot ORDER BY seq DESC LIMIT {LOOK_BACK}"  # noqa: S608 - constants
            damage = []
            for row in self.connection.execute(query):
                try:
                    lookup.hot(row)
                except Undecodable as error:
                    damage.append(Corruption(self.path.name, "hot", row[0], str(error)))
            return damage

    def commit(
        self,
        work: Work,
        steps: Sequence[tuple[str, ClockStep]],
        now_ns: int,
        meta: Mapping[str, str | float | None] | None = None,
    ) -> int:
        """Write rows, events, clock steps (each with its boot_id) and `meta` keys in one transaction.

        Returns the newest seq.
        """
        with naming(self.path):
            self._check_place()
            if self._stale:
                self._load(now_ns)
            self._stale, last_ns = True, dict(self.last_ns)
            with transaction(self.connection):
                self._insert_steps(steps, now_ns)
                events = list(work.events)
                for key, rows in work.rows.items():
                    for start in range(0, len(rows), MOST_ROWS):
                        events += self._insert_rows(key, rows[start : start + MOST_ROWS], last_ns)
                self.insert_events(self.boot, events)
                put_meta(self.connection, **(meta or {}))
            self._stale, self.last_ns, self.acknowledged = False, last_ns, self.seq
            return self.seq

    def _check_place(self) -> None:
        """Raise FileSuspect if the file is not where readers look: SQLite continues to write a deleted file."""
        try:
            moved = self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            moved = True
        if moved:
            raise FileSuspect(f"{self.path}: was moved or deleted while it was written", self.path)

    def _insert_steps(self, steps: Sequence[tuple[str, ClockStep]], now_ns: int) -> None:
        for boot_id, step in steps:
            boot = self.boot if boot_id == self.boot_id else self.boot_number(boot_id, now_ns)
            self.connection.execute(
                "INSERT INTO clock (boot, bt, off, state) VALUES (?, ?, ?, ?)",
                (boot, step.boottime_ns, step.offset_ns, step.state),
            )
            if boot == self.boot:
                self.steps.append(step)

    def boot_number(self, boot_id: str, first_ns: int) -> int:
        """Return this file's number of a boot; insert the boot if it is new."""
        self.connection.execute("INSERT OR IGNORE INTO boot (boot_id, bt_first) VALUES (?, ?)", (boot_id, first_ns))
        row = self.connection.execute("SELECT boot FROM boot WHERE boot_id=?", (boot_id,)).fetchone()
        return int(row[0])

    def insert_events(self, boot: int, events: Iterable[EventAt]) -> None:
        """Insert events of `boot`, or of the boot that they name, each with its own seq. Inside a transaction."""
        for event in events:
            self.seq += 1
            is_here = event.boot_id in ("", self.boot_id)
            number = boot if is_here else self.boot_number(event.boot_id, event.boottime_ns)
            row = (self.seq, number, event.boottime_ns, event.kind, one_line(event.detail))  # it may contain any path
            self.connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", row)
            if event.tags:
                put_meta(self.connection, **{f"{EVENT_TAGS}{self.seq}": event.tags})

    def _insert_rows(self, key: Key, rows: list[Row], newest_ns: dict[Key, int]) -> list[EventAt]:
        rows = sorted(rows, key=lambda row: row.boottime_ns)
        stamps, late = rising([row.boottime_ns for row in rows], newest_ns.get(key, -1))
        number, names = self._stream(key, dict.fromkeys(name for row in rows for name in row.values))
        payload = encode_hot(stamps, [_column(rows, name) for name in names])
        newest_ns[key] = int(stamps[-1])
        self.insert_hot(number, self.boot, int(stamps[0]), len(rows), payload)
        if not late:
            return []
        detail = f"{late} rows of {key[0]} {key[1]} came after younger ones and were stamped 1 ns after those"
        return [EventAt(int(stamps[0]), "late_rows", detail)]

    def insert_hot(self, stream: int, boot: int, first_ns: int, n: int, payload: bytes) -> None:
        """Insert one hot row under the next seq. Inside a transaction."""
        self.seq += 1
        crc = checksum(stream, boot, first_ns, n, payload)
        row = (self.seq, stream, boot, first_ns, n, crc, payload)
        self.connection.execute("INSERT INTO hot VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _stream(self, key: Key, names: Iterable[str]) -> tuple[int, tuple[str, ...]]:
        """Return number and fields of the series' stream; a new field creates a new stream that has all of them."""
        number, known = self._streams.get(key, (0, ()))
        new = [name for name in names if name not in known]
        if number and not new:
            return number, known
        fields = [FieldSpec(name, "f", _unit(key[0], name)) for name in (*known, *new)]
        self._streams[key] = (self.stream_number(key, fields), (*known, *new))
        return self._streams[key]

    def stream_number(self, key: Key, fields: Sequence[FieldSpec]) -> int:
        """Return this file's number of a stream; insert the stream if it is new. Inside a transaction."""
        measurement, tags = key
        text = fields_text(fields)
        digest = stream_hash(measurement, tags, text)
        query = "INSERT OR IGNORE INTO stream (measurement, tags, fields, hash) VALUES (?, ?, ?, ?)"
        self.connection.execute(query, (measurement, tags, text, digest))
        return int(self.connection.execute("SELECT stream FROM stream WHERE hash=?", (digest,)).fetchone()[0])

    def hot_bytes(self) -> int:
        """Return the size in bytes of the payload that waits for compaction."""
        with naming(self.path):
            row = self.connection.execute("SELECT coalesce(sum(length(payload)), 0) FROM hot").fetchone()
        return int(row[0])

    def wal_bytes(self) -> int:
        """Return the size of the WAL in bytes."""
        try:
            return family(self.path)[1].stat().st_size
        except FileNotFoundError:
            return 0


def rising(stamps: Sequence[int], last_ns: int) -> tuple[IntArray, int]:
    """Return the stamps, each made at least 1 ns later than the one before, and how many moved by more than 1 ms."""
    risen, late = [], 0
    for stamp in stamps:
        last_ns = max(stamp, last_ns + 1)
        late += last_ns - stamp > MOVED_NS
        risen.append(last_ns)
    return np.array(risen, dtype=np.int64), late


def _column(rows: Sequence[Row], name: str) -> Column:
    found = [row.values.get(name) for row in rows]
    missing = np.array([value is None for value in found])
    values = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
    return Column(values, missing if missing.any() else None)


def _unit(measurement: str, name: str) -> str:
    signal = find(measurement, name)
    return signal.unit if signal else ""
