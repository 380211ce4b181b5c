"""One collector's directory, locked: lists its files, creates new ones, quarantines damaged ones."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from collectors.errors import JournalLocked
from collectors.journal import held_losses, recovery
from collectors.journal.active_file import COPIED, begin_file
from collectors.journal.retention import disk_is_low
from collectors.journal.row_mapping import canonical
from collectors.journal.schema import (
    bad_files,
    connect_reader,
    family,
    get_meta,
    journal_files,
    newest_seq,
    number_of,
    path_of,
    refuse_newer,
    remove_family,
    snapshot,
    sync_directory,
    translated_os,
)
from collectors.journal.settings import MIB, JournalSettings
from collectors.journal.shipper_state import read_cursors, ship_db

RUN = "run"
"""Key of the meta table while a collector runs: its boot and start. A key left over: the run ended without a stop."""
KEPT = (RUN, held_losses.META)
"""Keys of the meta table that are copied from file to file, in addition to those of `recovery`."""
LEAP = 2**32
"""Numbers that are left out when an unreadable file may have used some."""


def lock(directory: Path) -> int:
    """Return a descriptor that holds the directory's lock until closed; JournalLocked if another process has it."""
    path = directory / "lock"
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise translated_os(error, path) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise JournalLocked(f"{directory}: another process writes this journal; stop it first") from error
    return fd


class JournalDirectory:
    """The directory, held by this process until `release`."""

    def __init__(self, directory: Path, tags: Mapping[str, str], settings: JournalSettings) -> None:
        """Lock the directory. Raises JournalLocked, JournalNewer (nothing was changed), JournalReadOnly."""
        self.directory = directory
        self._tags = dict(tags)
        self._settings = settings
        self._number = 0
        self._lock = lock(directory)
        try:
            refuse_newer(directory)
            for draft in directory.glob("j-*.new*"):
                draft.unlink()
        except OSError as error:
            self.release()
            raise translated_os(error, directory) from error
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock."""
        os.close(self._lock)

    def new_file(self, first_seq: int) -> Path:
        """Return a new journal file with the boots and streams of the newest readable one."""
        used = [number_of(p) for p in self.directory.glob("j-*.db*")]  # an orphan WAL must not meet a new file either
        self._number = max([self._number, *used]) + 1
        path = path_of(self.directory, self._number)
        meta: dict[str, str | int] = {"collector": self.directory.name, "tags": canonical(self._tags)}
        before = self._newest_readable()
        try:
            if before is not None:
                meta |= {k: v for k, v in get_meta(before).items() if k.startswith(recovery.KEY) or k in KEPT}
            begin_file(path, first_seq, meta, before)
        except BaseException:
            with suppress(OSError):
                remove_family(path)  # it may be complete, but is not known to be on the disk
            raise
        finally:
            if before is not None:
                before.close()
        return path

    def _newest_readable(self) -> sqlite3.Connection | None:
        for path in reversed(journal_files(self.directory)):
            try:
                connection = connect_reader(path)
            except sqlite3.Error:
                continue
            try:
                for table in (*COPIED, "meta"):
                    connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - constants
            except sqlite3.Error:
                connection.close()
                continue
            return connection
        return None

    def next_seq(self) -> int:
        """Return a number that was never used: after all files and all cursors, far after an unreadable file."""
        newest, leap = 0, 0
        for path in (*journal_files(self.directory), *bad_files(self.directory)):
            try:
                with snapshot(connect_reader(path)) as connection:
                    newest = max(newest, newest_seq(connection))
            except sqlite3.Error:
                leap = LEAP
        cursors = read_cursors(ship_db(self.directory), self.directory.name)
        return max(newest, 0, *cursors.values()) + leap + 1

    def put_aside(self, path: Path) -> Path:
        """Quarantine a damaged file: rename it with all that belongs to it; return its new name.

        If an earlier attempt renamed only the file itself, this one renames the rest to match.
        """
        taken = max((int(p.name.split(".bad-")[1].split(".")[0].split("-")[0]) for p in self._aside(path)), default=0)
        was_begun = taken and not path.exists()
        bad = path.with_name(f"{path.name}.bad-{taken if was_begun else taken + 1}")
        for old, new in zip(family(path), family(bad), strict=True):
            with suppress(FileNotFoundError):
                old.rename(new)
        sync_directory(self.directory)
        return bad

    def _aside(self, path: Path) -> list[Path]:
        return list(self.directory.glob(f"{path.name}.bad-*"))

    def make_ballast(self) -> None:
        """Reserve disk space, if none is reserved and the disk is not low."""
        path, size = self.directory / "ballast", int(self._settings.ballast_mib * MIB)
        if path.exists() or not size or disk_is_low(self.directory, self._settings):
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:  # no room: there is no ballast, and the next upkeep tries again
            path.unlink(missing_ok=True)

    def give_up_ballast(self) -> None:
        """Release the reserved space."""
        (self.directory / "ballast").unlink(missing_ok=True)
