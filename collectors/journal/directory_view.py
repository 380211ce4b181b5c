"""A collector's directory as a reader sees it, while the writer rolls over, seals and quarantines files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from collectors.errors import JournalError
from collectors.journal.codec import Undecodable
from collectors.journal.records import Chunk, Corruption
from collectors.journal.schema import connect_reader, get_meta, journal_files, refuse_newer, snapshot

T = TypeVar("T")
TRIES = 5
"""Attempts to find a file that vanished before it was read."""
ALL = 2**63 - 1


class DirectoryView:
    """Opens each file for one snapshot, fetches, closes. Never writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._damage: dict[tuple[str, str, int], Corruption] = {}
        self._first_seq: dict[tuple[str, int], int] = {}

    @property
    def collector(self) -> str:
        """Return the collector's name."""
        return self.directory.name

    def take_damage(self) -> list[Corruption]:
        """Return the corruption records of all reads since the last call."""
        found, self._damage = list(self._damage.values()), {}
        return found

    def files(self) -> list[Path]:
        """Return the journal's files, oldest first. Raises JournalNewer if a newer version wrote any of them."""
        refuse_newer(self.directory)
        return journal_files(self.directory)

    def decoded(self, path: Path, table: str, number: int, decode: Callable[[Any], Chunk], row: Any) -> Chunk | None:
        """Return the row as a chunk; if it is damaged, record the corruption and return None."""
        try:
            return decode(row)
        except Undecodable as error:
            self.note_damage(path, table, number, str(error))
            return None

    def note_damage(self, path: Path, table: str, number: int, why: str) -> None:
        """Record a row that was left out; the same row only once."""
        self._damage[path.name, table, number] = Corruption(path.name, table, number, why)

    def files_after(self, seq: int) -> list[Path]:
        """Return the files that may hold something after `seq`, oldest first."""
        files = self.files()
        ends = [self._first_of(path) - 1 for path in files[1:]] + [ALL]
        return [path for path, last in zip(files, ends, strict=False) if last > seq]

    def _first_of(self, path: Path) -> int:
        key = (path.name, path.stat().st_ino)
        if key not in self._first_seq:
            with snapshot(connect_reader(path)) as connection:
                self._first_seq[key] = int(get_meta(connection)["first_seq"])
        return self._first_seq[key]

    def newest(self, read: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Return what `read` returns for the active file; `default` if there is none."""

        def once() -> T:
            files = self.files()
            if not files:
                return default
            with snapshot(connect_reader(files[-1])) as connection:
                return read(connection)

        return self.retrying(once)

    def each(self, read: Callable[[sqlite3.Connection], T]) -> list[T]:
        """Return what `read` returns for each file, oldest first."""

        def once() -> list[T]:
            found = []
            for path in self.files():
                with snapshot(connect_reader(path)) as connection:
                    found.append(read(connection))
            return found

        return self.retrying(once)

    def retrying(self, read: Callable[[], T]) -> T:
        """Return what `read` returns; retry if a file vanished, was replaced or was busy meanwhile."""
        for left in reversed(range(TRIES)):
            try:
                before = journal_files(self.directory)
            except OSError as error:
                raise unreadable(self.directory, error) from error
            try:
                return read()
            except (sqlite3.Error, OSError) as error:
                if not left or (journal_files(self.directory) == before and not _is_passing(error)):
                    raise unreadable(self.directory, error) from error
        raise AssertionError("the last try returns or raises")


def unreadable(path: Path, error: sqlite3.Error | OSError) -> JournalError:
    """Return the error that states why a directory cannot be read, and the remedy where permissions are the reason."""
    if isinstance(error, PermissionError):
        return JournalError(f"{path}: this user may not read it; run the command with sudo")
    return JournalError(f"{path}: cannot be read: {error.strerror if isinstance(error, OSError) else error}")


def _is_passing(error: sqlite3.Error | OSError) -> bool:
    """Return whether the error may be temporary: the file was being sealed or replaced."""
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return False
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_SCHEMA)
