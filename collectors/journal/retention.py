"""Which sealed files are deleted, and in which order. Whole files are unlinked, which works on a full disk, too.

    1  a file that every sink has: older than `keep_days` and confirmed for `keep_confirmed_days`, or the journal is
       over its cap, or the disk is low or full: the oldest first, and no more than needed
    2  over the cap, nothing of 1 left: the oldest file's blocks; roll-ups, events and clocks stay   (an event)
    3  over the cap, nothing of 2 left: the oldest file                                               (an event)

A confirmed file is kept because a database can lose what it acknowledged: `collectors ship --verify` sends it again.
Without sinks the journal is the store: rule 1 does not apply, and `keep_days` deletes by age alone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from collectors.journal.active_file import COPIED
from collectors.journal.records import SYNCHRONISED
from collectors.journal.row_mapping import read_steps
from collectors.journal.schema import (
    FileSuspect,
    bad_files,
    connect_reader,
    drafting,
    family,
    get_meta,
    journal_files,
    kept_files,
    naming,
    number_of,
    put_meta,
    read_header,
    size_of,
    snapshot,
)
from collectors.journal.settings import MIB, JournalSettings
from collectors.journal.shipper_state import confirmed_seq, ship_db
from collectors.journal.timeline import resolve

MOST_CAP_BYTES = 8 * 2**30
CAP_SHARE = 0.25
LEAST_FREE_SHARE = 0.02
DAY_NS = 86_400 * 10**9

Report = Callable[[str, str], None]
"""Receives an event's kind and detail."""


class Sealed(NamedTuple):
    """What retention needs to know about a sealed file."""

    path: Path
    size: int
    first_seq: int
    last_seq: int
    points: int
    """Rows whose values the file still holds; 0 when only roll-ups are left."""
    last_wall_ns: int | None
    """Wall time in ns at which its newest row was written, if that boot's clock is known."""


def free_bytes(directory: Path) -> int:
    """Return how many bytes an unprivileged user may still write to the directory's disk."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def disk_is_low(directory: Path, settings: JournalSettings) -> bool:
    """Return whether less than `min_free_mib` or 2 % of the disk is free."""
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    return free < settings.min_free_mib * MIB or free < LEAST_FREE_SHARE * disk.f_blocks * disk.f_frsize


def cap_bytes(directory: Path, settings: JournalSettings) -> int:
    """Return the maximum size of the journal in bytes."""
    if settings.cap_mib is not None:
        return int(settings.cap_mib * MIB)
    disk = os.statvfs(directory)
    return min(MOST_CAP_BYTES, int(CAP_SHARE * disk.f_blocks * disk.f_frsize))


def journal_bytes(directory: Path) -> int:
    """Return the size of the journal in bytes, including quarantined files."""
    return sum(size_of(path) for find in (journal_files, bad_files, kept_files) for path in find(directory))


def describe(path: Path) -> Sealed:
    """Return what retention needs to know about a sealed file."""
    with naming(path), snapshot(connect_reader(path)) as connection:
        meta = get_meta(connection)
        (points,) = connection.execute("SELECT coalesce(sum(n), 0) FROM blk").fetchone()
        return Sealed(
            path, size_of(path), int(meta["first_seq"]), int(meta["last_seq"]), points, _last_wall_ns(connection)
        )


def _last_wall_ns(connection: sqlite3.Connection) -> int | None:
    query = "SELECT boot, max(bt1) FROM blk GROUP BY boot ORDER BY boot DESC LIMIT 1"
    row = connection.execute(query).fetchone()
    if row is None:
        return None
    segments = resolve(read_steps(connection, row[0])).segments
    return row[1] + segments[-1].offset_ns if segments and segments[-1].state == SYNCHRONISED else None


class Retention:
    """Keeps one collector's directory within its limits."""

    def __init__(
        self, directory: Path, settings: JournalSettings, report: Report, put_aside: Callable[[Path, str], None]
    ) -> None:
        """`put_aside` quarantines a sealed file that turns out to be damaged; it also receives the reason."""
        self._directory = directory
        self._settings = settings
        self._report = report
        self._put_aside = put_aside
        self._known: dict[Path, Sealed] = {}
        self._over_cap = False

    def run(self, shipped_seq: int, now_wall_ns: int | None) -> None:
        """Delete what may and must be deleted. `now_wall_ns`: None while the wall time is not known."""
        sealed = self._sealed()
        old = [file for file in sealed if self._too_old(file, now_wall_ns) and self._has_gone_out(file, shipped_seq)]
        if old and now_wall_ns is not None:
            settled_seq = self._settled_seq(shipped_seq, now_wall_ns)
            for file in old:
                if not self._settings.sinks or file.last_seq <= settled_seq:
                    self._drop(file, sealed, "older than keep_days")
        cap = cap_bytes(self._directory, self._settings)
        for file in list(sealed):
            if self._is_shipped(file, shipped_seq) and self._must_shrink(cap):
                self._drop(file, sealed, "shipped, and the space is needed")
        self._enforce(sealed, cap)

    def make_room(self, shipped_seq: int) -> None:
        """Delete sealed files that all sinks have, oldest first: at least one, and more while the disk is low."""
        for file in self._sealed():
            if self._is_shipped(file, shipped_seq):
                self._drop(file, [file], "shipped, and the disk is full")
                if not disk_is_low(self._directory, self._settings):
                    return

    def _settled_seq(self, now_shipped_seq: int, now_wall_ns: int) -> int:
        """Return the seq up to which every sink has had everything for `keep_confirmed_days`."""
        kept_ns = round(self._settings.keep_confirmed_days * DAY_NS)
        if not kept_ns:
            return now_shipped_seq
        path = ship_db(self._directory)
        return confirmed_seq(path, self._directory.name, self._settings.sinks, now_wall_ns - kept_ns)

    def _enforce(self, sealed: list[Sealed], cap: int) -> None:
        """Delete data that not every sink has: first the rows, keeping roll-ups, then whole files. Each is an event."""
        over = journal_bytes(self._directory) > cap
        if over and not self._over_cap:
            self._report("journal_over_cap", f"{self._directory}: {journal_bytes(self._directory)} bytes, cap {cap}")
        self._over_cap = over
        for path in kept_files(self._directory):
            if journal_bytes(self._directory) <= cap:
                return
            self._report("file_dropped", f"{path.name}: put aside as damaged earlier, and the journal is over its cap")
            _unlink(path)
        for file in [f for f in sealed if f.points]:
            if journal_bytes(self._directory) <= cap:
                return
            try:
                self._thin(file)
            except FileSuspect as error:
                self._put_aside(file.path, str(error))
        for file in list(sealed):
            if journal_bytes(self._directory) <= cap:
                return
            self._drop(file, sealed, "over the cap", lost=True)

    def _sealed(self) -> list[Sealed]:
        """Return all sealed files, oldest first, without the active file and any that is not sealed yet."""
        for path in journal_files(self._directory)[:-1]:
            header = read_header(path)
            if path in self._known or (header and header.is_wal):
                continue
            try:
                self._known[path] = describe(path)
            except FileSuspect as error:
                self._put_aside(path, str(error))
        self._known = {path: file for path, file in self._known.items() if path.exists()}
        return sorted(self._known.values(), key=lambda file: number_of(file.path))

    def _is_shipped(self, file: Sealed, shipped_seq: int) -> bool:
        return bool(self._settings.sinks) and file.last_seq <= shipped_seq

    def _has_gone_out(self, file: Sealed, shipped_seq: int) -> bool:
        return not self._settings.sinks or file.last_seq <= shipped_seq

    def _too_old(self, file: Sealed, now_wall_ns: int | None) -> bool:
        if self._settings.keep_days is None or now_wall_ns is None or file.last_wall_ns is None:
            return False
        return now_wall_ns - file.last_wall_ns > self._settings.keep_days * DAY_NS

    def _must_shrink(self, cap: int) -> bool:
        return journal_bytes(self._directory) > cap or disk_is_low(self._directory, self._settings)

    def _drop(self, file: Sealed, sealed: list[Sealed], why: str, lost: bool = False) -> None:
        loss = "; not every sink has it" if lost and self._settings.sinks else ""
        span = f"seq {file.first_seq} to {file.last_seq}, {file.points} points"
        self._report("file_dropped" if lost else "file_deleted", f"{file.path.name}: {span}: {why}{loss}")
        _unlink(file.path)
        sealed.remove(file)
        self._known.pop(file.path, None)

    def _thin(self, file: Sealed) -> None:
        """Replace the file by one without rows, atomically."""
        self._report(
            "file_thinned",
            f"{file.path.name}: seq {file.first_seq} to {file.last_seq}: {file.points} points are now roll-ups only: "
            "over the cap",
        )
        with naming(file.path), snapshot(connect_reader(file.path)) as before, drafting(file.path, wal=False) as after:
            put_meta(after, **get_meta(before))
            for table in (*COPIED, "roll", "event"):
                for row in before.execute(f"SELECT * FROM {table}"):  # noqa: S608 - constants
                    after.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)  # noqa: S608
        file.path.chmod(0o440)
        self._known.pop(file.path, None)


def _unlink(path: Path) -> None:
    for member in family(path):
        member.unlink(missing_ok=True)
