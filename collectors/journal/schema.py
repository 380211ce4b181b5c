"""The journal's files: names, tables, pragmas, and how each file may be opened.

Only the collector process opens a file read-write, in one thread. All others open it with `mode=ro` and read what was
committed. `synchronous=FULL` makes an acknowledged row survive a power cut; the WAL lets readers and the writer work
at the same time. A new file is completed under another name and then renamed: no incomplete journal file exists.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from collectors.errors import JournalError, JournalLocked, JournalNewer, JournalReadOnly

APPLICATION_ID = 0x62617474  # "batt"
USER_VERSION = 1
BUSY_MS = 5000
EVENT_TAGS = "tags:"
"""Prefix of `meta` keys that end in an event's seq: the event's own tags, where it has any."""

# One blob per (stream, width, group of bins) instead of one row per field and bin: a tenth of the space, and a chart
# reads few rows. `roll.payload` is a codec 1 block: stamps are the starts of the bins; four columns for each field:
# count, minimum, maximum, sum. The module docstrings of `compact` and `codec` define blocks and payloads.
TABLES = """
CREATE TABLE meta  (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE boot  (boot INTEGER PRIMARY KEY, boot_id TEXT UNIQUE NOT NULL, bt_first INTEGER NOT NULL);
CREATE TABLE clock (id INTEGER PRIMARY KEY, boot INTEGER NOT NULL, bt INTEGER NOT NULL, off INTEGER NOT NULL,
                    state INTEGER NOT NULL, maxerr_us INTEGER, frozen INTEGER NOT NULL DEFAULT 0);
CREATE TABLE stream(stream INTEGER PRIMARY KEY, measurement TEXT NOT NULL, tags TEXT NOT NULL, fields TEXT NOT NULL,
                    hash TEXT UNIQUE NOT NULL);
CREATE TABLE hot   (seq INTEGER PRIMARY KEY, stream INTEGER NOT NULL, boot INTEGER NOT NULL, bt0 INTEGER NOT NULL,
                    n INTEGER NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE blk   (id INTEGER PRIMARY KEY, lo INTEGER NOT NULL, hi INTEGER NOT NULL, stream INTEGER NOT NULL,
                    boot INTEGER NOT NULL, bt0 INTEGER NOT NULL, bt1 INTEGER NOT NULL, n INTEGER NOT NULL,
                    codec INTEGER NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX blk_t ON blk(stream, boot, bt0);
CREATE INDEX blk_h ON blk(hi);
CREATE TABLE roll  (stream INTEGER, res INTEGER, boot INTEGER, bt INTEGER, n INTEGER NOT NULL, crc INTEGER NOT NULL,
                    payload BLOB NOT NULL, PRIMARY KEY (stream, res, boot, bt));
CREATE TABLE event (seq INTEGER PRIMARY KEY, boot INTEGER, bt INTEGER, kind TEXT, detail TEXT);
"""

NAME = re.compile(r"j-(\d{8,})\.db")
BAD_NAME = re.compile(r"j-(\d{8,})\.db\.bad-(\d+)")


class DiskFull(JournalError):
    """No space: roll back, keep what waits, make room, try again."""


class FileSuspect(JournalError):
    """The file is damaged or the disk failed under it: quarantine it, continue in a new one."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class Header(NamedTuple):
    """The contents of the first 100 bytes of a database (SQLite file format, section 1.3)."""

    application_id: int
    user_version: int
    is_wal: bool


def path_of(directory: Path, number: int) -> Path:
    """Return the path of file `number`."""
    return directory / f"j-{number:08d}.db"


def number_of(path: Path) -> int:
    """Return the file's number, also of a quarantined file."""
    return int(path.name.split(".")[0].removeprefix("j-"))


def journal_files(directory: Path) -> list[Path]:
    """Return the journal's files, oldest first; none if the directory does not exist."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if NAME.fullmatch(p.name)), key=number_of)


def bad_files(directory: Path) -> list[Path]:
    """Return the quarantined files that are not recovered yet, oldest first."""
    return sorted((p for p in directory.iterdir() if BAD_NAME.fullmatch(p.name)), key=number_of)


def kept_files(directory: Path) -> list[Path]:
    """Return the quarantined files whose recovery is finished but incomplete, oldest first."""
    return sorted(directory.glob("j-*.db.bad-*.kept"), key=number_of)


def read_header(path: Path) -> Header | None:
    """Return the file's header without opening the file as a database; None if it is not a database."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        return None
    return Header(int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big"), head[19] == 2)


def refuse_newer(directory: Path) -> None:
    """Raise JournalNewer if any file was written by a newer version. Reads headers only, changes nothing."""
    for path in journal_files(directory):
        header = read_header(path)
        if header and header.application_id == APPLICATION_ID and header.user_version > USER_VERSION:
            raise JournalNewer(
                f"{path}: format {header.user_version}, this program knows up to {USER_VERSION}; nothing was touched. "
                "Run the newer version, or move the folder aside to start anew"
            )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Translate errors of SQLite and of the system to JournalError, naming the file and what happens next."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.ProgrammingError) or _code(error) == sqlite3.SQLITE_ERROR:
            raise  # a bug in this program, not an error of the file
        raise _translated(error, path) from error
    except OSError as error:
        raise translated_os(error, path) from error


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's extended code; an error without one is text that is not UTF-8, found by Python."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)


def _translated(error: sqlite3.Error, path: Path) -> JournalError:
    code = _code(error)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return DiskFull(f"{path}: disk full ({error})")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalLocked(f"{path}: locked for more than {BUSY_MS / 1000:g} s: another process writes this journal")
    if code == sqlite3.SQLITE_READONLY_DBMOVED:
        return FileSuspect(f"{path}: was moved or deleted while it was written", path)
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH):
        return JournalReadOnly(
            f"{path}: cannot be written ({error}); check its owner, and whether the disk is read-only"
        )
    return FileSuspect(f"{path}: {error} (SQLite error {code})", path)


def translated_os(error: OSError, path: Path) -> JournalError:
    """Return the JournalError for a failed system call."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{path}: disk full ({error.strerror})")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return JournalReadOnly(f"{path}: cannot be written ({error.strerror}); check its owner and the disk")
    return JournalError(f"{path}: {error.strerror or error}")


def connect_writer(path: Path, busy_ms: int = BUSY_MS) -> sqlite3.Connection:
    """Return the writing connection; JournalError if SQLite rejects the settings that the guarantees need."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    try:
        connection.execute(f"PRAGMA busy_timeout={busy_ms:d}")
        journal_mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        for pragma in ("synchronous=FULL", "wal_autocheckpoint=1000", "temp_store=MEMORY", "mmap_size=0",
                       "foreign_keys=OFF", "cache_size=-1024"):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
        if (journal_mode, synchronous) != ("wal", 2):
            raise JournalError(
                f"{path}: journal_mode={journal_mode}, synchronous={synchronous}; expected wal, 2: "
                "put the journal on a local disk"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path, busy_ms: int = BUSY_MS) -> sqlite3.Connection:
    """Return a read-only connection. Close it after each read: an open read keeps the WAL from shrinking.

    A writer that died while it changed a file's journal mode leaves the rollback to the next process that opens it.
    The rollback needs write access: a reader that has it performs this one step, under SQLite's own locks.
    """
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout={busy_ms:d}")
        connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError as error:
        connection.close()
        if _code(error) != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        connection = sqlite3.connect(f"{uri}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA query_only=1")
        connection.execute(f"PRAGMA busy_timeout={busy_ms:d}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit everything that is done inside, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Yield a connection with one snapshot for several reads, then close it."""
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def draft_of(path: Path) -> Path:
    """Return the temporary name under which `path` is created."""
    return path.with_name(f"{path.name}.new")


@contextmanager
def drafting(path: Path, wal: bool = True) -> Iterator[sqlite3.Connection]:
    """Yield a connection to an empty journal that appears as `path`, complete and on the disk, if no error occurred.

    An active file is a WAL file from the beginning, a sealed one is not.
    """
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o640)
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        for pragma in ("page_size=4096", "journal_mode=DELETE", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        with transaction(connection):
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={USER_VERSION}")
            for statement in TABLES.split(";\n")[:-1]:
                connection.execute(statement)
            yield connection
        if wal:
            connection.execute("PRAGMA journal_mode=WAL")
    except BaseException:
        connection.close()
        for member in (*family(draft), draft.with_name(f"{draft.name}-journal")):
            member.unlink(missing_ok=True)
        raise
    connection.close()
    draft.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Return when the directory's entries are on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def family(path: Path) -> list[Path]:
    """Return the file and the two files that SQLite keeps beside it; these three belong together."""
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


def remove_family(path: Path) -> None:
    """Delete the file and those that SQLite keeps beside it, if they exist. OSError when that fails."""
    for member in family(path):
        member.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the file's size with its WAL in bytes; 0 if it does not exist."""
    total = 0
    for member in family(path):
        try:
            total += member.stat().st_size
        except FileNotFoundError:
            continue
    return total


def put_meta(connection: sqlite3.Connection, **values: str | float | None) -> None:
    """Set keys of the meta table."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def get_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the meta table."""
    return dict(connection.execute("SELECT k, v FROM meta").fetchall())


def newest_seq(connection: sqlite3.Connection) -> int:
    """Return the highest sequence number that this file, or any before it, has used."""
    query = "SELECT (SELECT max(seq) FROM hot), (SELECT max(seq) FROM event), (SELECT max(hi) FROM blk)"
    numbers = [number or 0 for number in connection.execute(query).fetchone()]
    return max(*numbers, int(get_meta(connection).get("first_seq", 1)) - 1)


def has_tables(connection: sqlite3.Connection) -> bool:
    """Return whether the file has all tables of a journal."""
    found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    return set(re.findall(r"CREATE TABLE (\w+)", TABLES)) <= found
