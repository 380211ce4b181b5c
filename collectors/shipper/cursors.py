"""The shipper's durable state: `<state>/ship.db`.

    cursor      (sink, collector): everything up to `seq` is confirmed; rows after `live` are not read yet
    span        (sink, collector, after, upto]: behind `live` and not confirmed yet. `boot_id` NULL: a backlog range
                that drains while live rows are sent; else rows that wait for the clock offset of this boot
    dead        lines that a sink rejected permanently, with its response; `unsorted`: still to be sent one by one
    sink_types  the type that each field has in a sink; it does not change there
    frozen      clock offsets that rows were sent with: they never change again (`collectors.journal.shipper_state`)
    health      the state of each sink: "ok", "retry" or "hold" (a person must act), the reason, and since when
    confirmed   (sink, collector, day): at `wall_ns` everything up to `seq` was confirmed; for the journal's retention
    verified    the results of `collectors ship --verify`, newest last
    known_good  a line that each sink has stored lately: it distinguishes a faulty batch from a faulty server

Guarantee   A cursor may lag behind what the sink has stored, and never leads. Cursors move only after a 204, in memory
            at once and on the disk at the next `save`. After an interruption, the rows in between are sent again; they
            overwrite themselves. Every state on the disk is consistent: `seq` is the minimum of `live` and all `after`,
            written in the same transaction. What must not be repeated in another form (frozen offsets, dead letters,
            types) is written to the disk first.
Corruption  A file that is damaged, or that the disk does not read back, raises StoreDamaged. The shipper renames it to
            `ship.db.bad-N` and starts again from the journals; repeated rows overwrite themselves. No other program
            renames it.
File        SQLite with a rollback journal, not WAL: collectors of other users read `cursor` to decide whether a journal
            file may be deleted, and a WAL database cannot be opened without write permission to its directory.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from collectors.errors import ConfigError, JournalError, JournalNewer
from collectors.journal.records import ClockStep
from collectors.journal.schema import sync_directory
from collectors.journal.settings import MOST_CONFIRMED_DAYS
from collectors.shipper.retry import Refusal

VERSION = 1
APPLICATION_ID = 0x62_66_73_68  # "bfsh"
DEAD_KEPT_DAYS, DEAD_KEPT_BYTES = 90.0, 64 * 2**20
UNSORTED = "unsorted"
DAY_NS = 86_400 * 10**9
MOST_VERSION = 1000
"""A version above this is corruption, not a newer program's file."""
BAD_FILES_KEPT = 3
UNAVAILABLE = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR,
})  # fmt: skip
"""Primary result codes of a file that may be intact: nothing was changed, and a retry may succeed."""
READ_FAILED = frozenset({
    sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS,
})  # fmt: skip
"""Extended result codes of a disk that does not read back what was written."""

SCHEMA = """
CREATE TABLE cursor(sink TEXT, collector TEXT, seq INTEGER NOT NULL, live INTEGER NOT NULL,
                    PRIMARY KEY(sink, collector)) WITHOUT ROWID;
CREATE TABLE span(sink TEXT, collector TEXT, after INTEGER, upto INTEGER NOT NULL, boot_id TEXT);
CREATE TABLE dead(id INTEGER PRIMARY KEY, sink TEXT NOT NULL, collector TEXT NOT NULL, seq INTEGER NOT NULL,
                  line TEXT NOT NULL, digest BLOB NOT NULL, status INTEGER, reason TEXT NOT NULL, error TEXT NOT NULL,
                  first_ns INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 1);
CREATE UNIQUE INDEX dead_line ON dead(sink, digest);
CREATE TABLE sink_types(sink TEXT, measurement TEXT, field TEXT, type TEXT NOT NULL,
                        PRIMARY KEY(sink, measurement, field)) WITHOUT ROWID;
CREATE TABLE frozen(collector TEXT, boot_id TEXT, bt INTEGER, off INTEGER NOT NULL, state INTEGER NOT NULL,
                    PRIMARY KEY(collector, boot_id, bt)) WITHOUT ROWID;
CREATE TABLE health(sink TEXT PRIMARY KEY, state TEXT NOT NULL, why TEXT NOT NULL, since_ns INTEGER NOT NULL,
                    lines_sent INTEGER NOT NULL) WITHOUT ROWID;
"""


# Tables that were added later. An older version of the program does not use them, so the file's version stays.
LATER_TABLES = """
CREATE TABLE IF NOT EXISTS confirmed(sink TEXT, collector TEXT, day INTEGER, seq INTEGER NOT NULL,
                                     wall_ns INTEGER NOT NULL, PRIMARY KEY(sink, collector, day)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verified(id INTEGER PRIMARY KEY, sink TEXT NOT NULL, done_ns INTEGER NOT NULL,
                                    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, "values" INTEGER NOT NULL,
                                    missing INTEGER NOT NULL, resent INTEGER NOT NULL, different INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS known_good(sink TEXT PRIMARY KEY, line TEXT NOT NULL) WITHOUT ROWID;
"""


TABLES = frozenset(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", SCHEMA + LATER_TABLES))


class StoreDamaged(JournalError):
    """ship.db is damaged, or the disk does not read it back: it must be quarantined and replaced by a new one."""


class StoreUnavailable(JournalError):
    """ship.db cannot be written or read at present; nothing was changed."""


def translated(error: sqlite3.Error, path: Path) -> JournalError:
    """Return the StoreUnavailable or StoreDamaged that corresponds to SQLite's error."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code not in READ_FAILED and code & 0xFF in UNAVAILABLE:
        return StoreUnavailable(f"{path}: {error} ({name}); is the disk full, and may this user write the file?")
    return StoreDamaged(f"{path}: damaged: {error} ({name})")


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError:  # a bug in this program
        raise
    except sqlite3.Error as error:
        raise translated(error, path) from error


def open_existing(path: Path) -> ShipStore:
    """Return the store for a command other than the shipper: no file is created or quarantined.

    Raises ConfigError when there is no file, JournalError with advice when it is damaged.
    """
    if not path.exists():
        raise ConfigError(f"{path}: not there; nothing was ever shipped from this state folder")
    try:
        return ShipStore(path)
    except StoreDamaged as error:
        words = "`collectors ship` puts it aside at its next start and sends everything again"
        raise JournalError(f"{error}; {words}") from error


def put_aside(path: Path) -> Path:
    """Quarantine a damaged ship.db and SQLite's files beside it; return its new path. The newest three are kept."""
    taken = sorted(int(p.name.rpartition("-")[2]) for p in path.parent.glob(f"{path.name}.bad-*") if _number_of(p))
    bad = path.with_name(f"{path.name}.bad-{max(taken, default=0) + 1}")
    try:
        for suffix in ("-journal", "-wal", "-shm"):
            beside = path.with_name(f"{path.name}{suffix}")
            if beside.exists():
                beside.rename(bad.with_name(f"{bad.name}{suffix}"))
        path.rename(bad)
        for number in taken[: max(0, len(taken) + 1 - BAD_FILES_KEPT)]:
            for old in path.parent.glob(f"{path.name}.bad-{number}*"):
                if old.name.removeprefix(f"{path.name}.bad-{number}") in ("", "-journal", "-wal", "-shm"):
                    old.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise JournalError(f"{path}: damaged, and cannot be renamed: {error.strerror}; move it away by hand") from error
    return bad


def _number_of(path: Path) -> bool:
    return path.name.rpartition("-")[2].isdecimal()


@dataclass(slots=True)
class BacklogRange:
    """Rows (after, upto] that are not confirmed.

    `after` advances beyond `upto` until it reaches `live`: compaction may have put rows from before `upto` into blocks
    that end after it.
    """

    after: int
    upto: int
    boot_id: str | None = None
    """The boot whose clock offset the rows wait for; None for a backlog, which waits for nothing."""


@dataclass(slots=True)
class Cursors:
    """How far one collector's journal is read for one sink. `BacklogRange`s lie at or below `live`."""

    live: int = 0
    spans: list[BacklogRange] = field(default_factory=list)

    @property
    def confirmed(self) -> int:
        """Return the seq up to which everything is confirmed."""
        return min([self.live, *(span.after for span in self.spans)])

    def split(self, newest: int) -> None:
        """Make the rows after `live` up to `newest` a backlog range, and move `live` to `newest`."""
        for span in self.spans:
            if span.boot_id is None and span.upto == self.live:
                span.upto = newest
                break
        else:
            self.spans.append(BacklogRange(self.live, newest))
        self.live = newest

    def advance(self, span: BacklogRange | None, hi: int) -> None:
        """Record that every row of the range (None: of the live rows) up to `hi` is confirmed or waits for its clock.

        A range that has reached `live` is complete and is removed.
        """
        if span is None:
            self.live = max(self.live, hi)
            return
        span.after = max(span.after, hi)
        if span.after >= self.live:
            self.spans.remove(span)

    def hold(self, lo: int, hi: int, boot_id: str) -> None:
        """Record that rows lo..hi wait for the clock offset of this boot; adjacent ranges are merged."""
        for span in self.spans:
            if span.boot_id == boot_id and span.after < lo <= span.upto + 1:
                span.upto = max(span.upto, hi)
                return
        self.spans.append(BacklogRange(lo - 1, hi, boot_id))


class Health(NamedTuple):
    """The state of a sink."""

    state: str
    """"ok", "retry" (automatic) or "hold" (a person must act)."""
    why: str
    since_ns: int
    """Wall time in ns at which the state began."""
    lines_sent: int
    """Lines confirmed since the shipper started."""


class Verified(NamedTuple):
    """Result of one verification of a database. Times are wall time in ns; the other numbers count values."""

    id: int
    sink: str
    done_ns: int
    start_ns: int
    end_ns: int
    values: int
    missing: int
    """Values that the sink had acknowledged but that were not found."""
    resent: int
    different: int


class DeadLetter(NamedTuple):
    """A line that a sink rejected permanently."""

    id: int
    sink: str
    collector: str
    seq: int
    line: str
    status: int | None
    reason: str
    error: str
    first_ns: int
    tries: int


_DEAD_COLUMNS = "id, sink, collector, seq, line, status, reason, error, first_ns, tries"


class ShipStore:
    """All access to ship.db goes through this class. It is thread-safe.

    A call that fails raises StoreDamaged or StoreUnavailable and changes nothing.
    """

    def __init__(self, path: Path, *, check: bool = False) -> None:
        """Open the file or create it; with `check`, read all of it once.

        Raises JournalNewer when a newer version wrote the file, StoreDamaged, StoreUnavailable.
        """
        self.path = path
        self._lock = threading.RLock()
        if path.exists() and not path.stat().st_size:
            raise StoreDamaged(f"{path}: damaged: it has no content")
        with _translating(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            with _translating(path):
                self._prepare(check=check)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, *, check: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        if version and (application != APPLICATION_ID or not 0 < version <= MOST_VERSION):
            raise StoreDamaged(f"{self.path}: damaged: its header is not that of a ship.db")
        if version > VERSION:
            raise JournalNewer(f"{self.path}: version {version}, this program knows {VERSION}; install a newer one")
        if check and (problems := self._db.execute("PRAGMA quick_check(1)").fetchall()) != [("ok",)]:
            raise StoreDamaged(f"{self.path}: damaged: {problems[0][0] if problems else 'no answer to quick_check'}")
        self._db.execute("PRAGMA journal_mode=TRUNCATE")
        self._db.execute("PRAGMA synchronous=FULL")
        if version < VERSION:
            script = f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION};"
            self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {script} COMMIT;")
        self._db.executescript(f"BEGIN IMMEDIATE; {LATER_TABLES} COMMIT;")
        there = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if missing := TABLES - there:
            raise StoreDamaged(f"{self.path}: damaged: without {', '.join(sorted(missing))}")

    def __enter__(self) -> Self:
        """Return itself; closed at the block's end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the file. Nothing is saved by this call."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _translating(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with suppress(sqlite3.Error):  # the first error is the one to report
                        self._db.execute("ROLLBACK")
                raise

    def _all(self, query: str, arguments: Iterable[object] = ()) -> list[tuple]:  # type: ignore[type-arg]
        with self._lock, _translating(self.path):
            return self._db.execute(query, tuple(arguments)).fetchall()

    def marks(self, sink: str) -> dict[str, Cursors]:
        """Return the saved cursors of this sink, by collector."""
        cursors = self._all("SELECT collector, live FROM cursor WHERE sink=?", [sink])
        query = "SELECT collector, after, upto, boot_id FROM span WHERE sink=? ORDER BY after"
        spans = self._all(query, [sink])
        found = {name: Cursors(live) for name, live in cursors}
        for name, after, upto, boot_id in spans:
            if name not in found or not _are_seqs(after, upto):
                raise StoreDamaged(f"{self.path}: damaged: span of {name!r}: {after!r} to {upto!r}")
            found[name].spans.append(BacklogRange(after, upto, boot_id))
        for name, mark in found.items():
            if not isinstance(name, str) or not _are_seqs(mark.live):
                raise StoreDamaged(f"{self.path}: damaged: cursor of {name!r}: {mark.live!r}")
        return found

    def save(self, sink: str, marks: Mapping[str, Cursors], known_good: str | None = None) -> None:
        """Write the sink's cursors, and a line that it has stored, to the disk in one transaction."""
        with self._transaction() as db:
            db.execute("DELETE FROM span WHERE sink=?", [sink])
            for name, mark in marks.items():
                db.execute("REPLACE INTO cursor VALUES(?,?,?,?)", [sink, name, mark.confirmed, mark.live])
                spans = [(sink, name, span.after, span.upto, span.boot_id) for span in mark.spans]
                db.executemany("INSERT INTO span VALUES(?,?,?,?,?)", spans)
            if known_good is not None:
                db.execute("REPLACE INTO known_good VALUES(?,?)", [sink, known_good])

    def note_confirmed(self, now_ns: int) -> None:
        """Record, once a day, the positions of the saved cursors at this wall time."""
        day = now_ns // DAY_NS
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO confirmed SELECT sink, collector, ?, seq, ? FROM cursor", [day, now_ns])
            db.execute("DELETE FROM confirmed WHERE day<?", [day - round(MOST_CONFIRMED_DAYS) - 2])

    def known_good(self, sink: str) -> str | None:
        """Return a line that the sink has stored; None when none is known."""
        rows = self._all("SELECT line FROM known_good WHERE sink=?", [sink])
        return str(rows[0][0]) if rows else None

    def freeze(self, collector: str, boot_id: str, steps: Sequence[ClockStep]) -> None:
        """Freeze these clock segments' offsets; they are on the disk on return. Offsets frozen earlier are kept."""
        with self._transaction() as db:
            rows = [(collector, boot_id, s.boottime_ns, s.offset_ns, s.state) for s in steps]
            db.executemany("INSERT OR IGNORE INTO frozen VALUES(?,?,?,?,?)", rows)

    def set_health(self, sink: str, health: Health) -> None:
        """Record the sink's state, for people and other programs."""
        with self._transaction() as db:
            db.execute("REPLACE INTO health VALUES(?,?,?,?,?)", [sink, *health])

    def health(self, sink: str) -> Health | None:
        """Return the sink's state; None before the first request."""
        rows = self._all("SELECT state, why, since_ns, lines_sent FROM health WHERE sink=?", [sink])
        return Health(*rows[0]) if rows else None

    def types(self, sink: str) -> dict[tuple[str, str], str]:
        """Return the sink's type of each (measurement, field)."""
        rows = self._all("SELECT measurement, field, type FROM sink_types WHERE sink=?", [sink])
        return {(measurement, name): kind for measurement, name, kind in rows}

    def forget_types(self, sink: str, measurement: str) -> None:
        """Delete the measurement's types: the sink has stored a line that contradicts them."""
        with self._transaction() as db:
            db.execute("DELETE FROM sink_types WHERE sink=? AND measurement=?", [sink, measurement])

    def set_types(self, sink: str, types: Mapping[tuple[str, str], str]) -> None:
        """Record these types; they replace earlier ones of the same fields."""
        rows = [(sink, measurement, name, kind) for (measurement, name), kind in types.items()]
        with self._transaction() as db:
            db.executemany("REPLACE INTO sink_types VALUES(?,?,?,?)", rows)

    def add_dead(self, sink: str, collector: str, seq: int, refused: Sequence[Refusal]) -> None:
        """Store rejected lines; a line that is rejected again increases the number of tries of its dead letter."""
        now_ns = time.time_ns()
        rows = [
            (sink, collector, seq, r.line, _digest(r.line), r.status, r.reason, r.error[:500], now_ns) for r in refused
        ]
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO dead(sink, collector, seq, line, digest, status, reason, error, first_ns)"
                " VALUES(?,?,?,?,?,?,?,?,?) ON CONFLICT(sink, digest) DO UPDATE SET"
                " tries=tries+1, status=excluded.status, reason=excluded.reason, error=excluded.error",
                rows,
            )

    def are_dead(self, sink: str, lines: Sequence[str]) -> list[bool]:
        """Return for each line whether it is a dead letter of the sink."""
        query = "SELECT 1 FROM dead WHERE sink=? AND digest=?"
        return [bool(self._all(query, [sink, _digest(line)])) for line in lines]

    def note_verified(self, found: Verified) -> None:
        """Store the result of a verification under a new `id`, and delete all but the last hundred results."""
        with self._transaction() as db:
            db.execute("INSERT INTO verified VALUES(NULL,?,?,?,?,?,?,?,?)", found[1:])
            db.execute("DELETE FROM verified WHERE id <= (SELECT max(id) FROM verified) - 100")

    def verified_after(self, number: int) -> list[Verified]:
        """Return the results of the verifications after the one with this id, oldest first."""
        return [Verified(*row) for row in self._all("SELECT * FROM verified WHERE id>? ORDER BY id", [number])]

    def dead_count(self, sink: str) -> int:
        """Return how many lines the sink rejected permanently."""
        return int(self._all("SELECT count(*) FROM dead WHERE sink=? AND reason<>?", [sink, UNSORTED])[0][0])

    def dead(
        self, sink: str | None = None, collector: str | None = None, reason: str | None = None,
        ids: Sequence[int] = (), limit: int = -1,
    ) -> list[DeadLetter]:  # fmt: skip
        """Return the dead letters that match every given condition, oldest first."""
        wanted = {"sink": sink, "collector": collector, "reason": reason}
        conditions = [f"{name}=?" for name, value in wanted.items() if value is not None]
        arguments: list[object] = [value for value in wanted.values() if value is not None]
        if ids:
            conditions.append(f"id IN ({','.join('?' * len(ids))})")
            arguments += ids
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        query = f"SELECT {_DEAD_COLUMNS} FROM dead {where} ORDER BY id LIMIT ?"  # noqa: S608 - only constant names
        return [DeadLetter(*row) for row in self._all(query, [*arguments, limit])]

    def remove_dead(self, ids: Sequence[int]) -> None:
        """Delete these dead letters: the sink has stored them now, or a person deleted them."""
        with self._transaction() as db:
            db.executemany("DELETE FROM dead WHERE id=?", [(number,) for number in ids])

    def trim_dead(self) -> int:
        """Delete dead letters older than 90 days or beyond 64 MiB, expired lines first; return how many."""
        with self._transaction() as db:
            oldest_ns = time.time_ns() - round(DEAD_KEPT_DAYS * DAY_NS)
            dropped = db.execute("DELETE FROM dead WHERE first_ns<?", [oldest_ns]).rowcount
            order = "ORDER BY reason='expired', id DESC"  # letters to keep come first
            sizes = f"SELECT id, sum(length(line)+100) OVER ({order}) AS total FROM dead"  # noqa: S608 - only constants
            query = f"DELETE FROM dead WHERE id IN (SELECT id FROM ({sizes}) WHERE total>?)"  # noqa: S608
            return dropped + db.execute(query, [DEAD_KEPT_BYTES]).rowcount


def _are_seqs(*numbers: object) -> bool:
    """Return whether these can be sequence numbers of a journal."""
    return all(isinstance(number, int) and 0 <= number < 2**62 for number in numbers)


def _digest(line: str) -> bytes:
    return hashlib.blake2b(line.encode(), digest_size=16).digest()
