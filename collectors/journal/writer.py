"""One collector's folder, held by the one process that writes it: the live file, and all that happens around it.

Beginning   lock; refuse newer versions before anything is touched; open the newest file, or put it aside if it is
            damaged; seal what an earlier run could not.
A commit    looks at the clock, takes a person's word for it (see `request`), writes rows, events and clock in one go.
Upkeep      compaction; roll-over and sealing; retention; salvage of files put aside; an eye on the WAL; the ballast.
Every loss is reported as an event, which the caller brings with its next commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from collectors.clock import SYNCHRONISED, Clock
from collectors.journal import request, salvage
from collectors.journal.backlog import Key, Work
from collectors.journal.compact import compact
from collectors.journal.live import LiveFile
from collectors.journal.place import LEAP, Place
from collectors.journal.records import ClockStep
from collectors.journal.retention import Report, Retention, disk_is_low, free_bytes, journal_bytes
from collectors.journal.schema import (
    DiskFull,
    FileSuspect,
    bad_files,
    connect_writer,
    family,
    get_meta,
    journal_files,
    naming,
    newest_seq,
    put_meta,
    read_header,
    transaction,
)
from collectors.journal.settings import MIB, JournalSettings
from collectors.journal.shipped import read_frozen, ship_db, shipped_seq
from collectors.journal.tables import read_steps
from collectors.journal.timeline import step_after

HOT_BYTES = 4 * MIB
"""Compact before compact_s is over when so much payload waits: it bounds memory and the WAL of fast streams."""
WAL_ALARM_BYTES = 32 * MIB
SEAL_BUSY_MS = 200
"""Sealing waits no longer for a reader; it is tried again soon."""
UPKEEP_S = 10.0
"""Between looks at sizes and limits."""


class Writer:
    """The folder's one writer. One thread."""

    def __init__(
        self, directory: Path, tags: Mapping[str, str], settings: JournalSettings, clock: Clock, report: Report
    ) -> None:
        """Open the journal, or make it. Raises JournalLocked, JournalNewer, JournalReadOnly, JournalError."""
        self.directory = directory
        self._settings = settings
        self._clock = clock
        self._report = report
        self._retention = Retention(directory, settings, report, self._put_aside)
        self._place = Place(directory, tags, settings)
        try:
            with naming(directory):
                self._live = self._open()
        except BaseException:
            self._place.release()
            raise
        self._condemned: FileSuspect | None = None
        self._note_bad(None)
        self._hot_bytes = self._live.hot_bytes()
        self._wal_alarm = False
        self._unsealed = [p for p in journal_files(directory)[:-1] if _is_wal(p)]
        self._began_s = clock.monotonic_s()
        self._compacted_s = self._looked_s = self._began_s
        self._age_s = float(get_meta(self._live.connection).get("age_s", 0.0))
        for damage in self._live.check_newest():
            report("row_damaged", f"{damage.file}: {damage.table} {damage.row}: {damage.why}")
        self._place.make_ballast()
        self._measure()

    @property
    def seq(self) -> int:
        """Return the newest sequence number on the disk."""
        return self._live.acknowledged

    @property
    def clock_state(self) -> int:
        """Return what the present offset is worth."""
        return self._live.state

    def close(self) -> None:
        """Close the live file and let go of the folder."""
        if self._condemned is None:
            with suppress(sqlite3.Error):  # the file's age is worth no failure at the very end
                put_meta(self._live.connection, age_s=self._age())
            self._live.close()
        self._place.release()

    # Opening --------------------------------------------------------------------------------------------------------

    def _open(self) -> LiveFile:
        files = journal_files(self.directory)
        if files:
            try:
                live = self._opened(files[-1])
            except FileSuspect as error:
                self._tell_aside(files[-1], self._place.put_aside(files[-1]), str(error))
            except DiskFull:
                self._place.give_up_ballast()
                return self._opened(files[-1])
            else:
                if "sealed_ns" not in get_meta(live.connection):
                    return live
                live.connection.close()
        return self._opened(self._place.new_file(self._place.next_seq()))

    def _opened(self, path: Path, last_ns: dict[Key, int] | None = None) -> LiveFile:
        return LiveFile(path, self._clock.boot_id, self._clock.boottime_ns(), last_ns)

    # Committing -----------------------------------------------------------------------------------------------------

    def commit(self, work: Work) -> int:
        """Put rows, events and what the clock says on the disk; return the newest seq.

        Raises DiskFull (nothing was written: keep the work, call `make_room`, try again later), FileSuspect (the same:
        call `replace_live`, try again now), other JournalErrors (stop).
        """
        if self._condemned is not None:
            self._replace()
        if disk_is_low(self.directory, self._settings):
            self._retention.make_room(self._shipped())
        now_ns = self._clock.boottime_ns()
        with naming(self._live.path):
            steps = self._clock_steps()
        if not work and not steps:
            return self.seq
        seq = self._live.commit(work, steps, now_ns)
        if steps:
            request.done(self.directory)
        self._hot_bytes += sum(8 * (1 + len(r.values)) for rows in work.rows.values() for r in rows)
        return seq

    def _clock_steps(self) -> list[tuple[str, ClockStep]]:
        """Return the rows that the clock table needs now, each with its boot."""
        steps = request.pending(self.directory, self._live.connection, self._report)
        mine = [step for boot_id, step in steps if boot_id == self._clock.boot_id]
        last = mine[-1] if mine else self._live.steps[-1] if self._live.steps else None
        step = step_after(last, self._clock.look())
        return [*steps, *([(self._clock.boot_id, step)] if step else [])]

    def make_room(self) -> None:
        """Give up the ballast, then what every sink has."""
        self._place.give_up_ballast()
        self._retention.make_room(self._shipped())

    def replace_live(self, why: FileSuspect) -> None:
        """Put the live file aside and go on in a new one; what it holds is salvaged between the next commits."""
        self._condemned = why
        with suppress(sqlite3.Error):
            self._live.connection.close()
        self._replace()

    def _replace(self) -> None:
        """Begin the file after the condemned one. DiskFull: it stays condemned, and the next commit tries again."""
        before = self._live
        # The leap: a reader may have seen numbers whose COMMIT did not return.
        live = self._opened(self._place.new_file(before.acknowledged + LEAP + 1), before.last_ns)
        self._live, self._hot_bytes = live, 0
        self._put_aside(before.path, str(self._condemned), upto=before.acknowledged)
        self._condemned = None

    def _put_aside(self, path: Path, why: str, upto: int | None = None) -> None:
        """Rename a damaged file and enter it for salvage, up to `upto`; None: all of it."""
        self._tell_aside(path, self._place.put_aside(path), why)
        self._note_bad(upto)

    def _tell_aside(self, path: Path, bad: Path, why: str) -> None:
        self._report("file_quarantined", f"{path.name} was put aside as {bad.name}: {why}; what is readable is copied")

    def _note_bad(self, upto: int | None) -> None:
        """Enter files that were put aside in the live file's meta table, so that their salvage is not forgotten."""
        with naming(self._live.path):
            known = salvage.begun(self._live.connection)
            new = [bad.name for bad in bad_files(self.directory) if bad.name not in known]
            put_meta(self._live.connection, **{salvage.KEY + name: salvage.Progress(upto).text() for name in new})

    # Upkeep ---------------------------------------------------------------------------------------------------------

    def upkeep(self) -> None:
        """Do what is due: cheap when nothing is. Raises as `commit` does."""
        now_s = self._clock.monotonic_s()
        self._salvage_one()
        if self._hot_bytes < HOT_BYTES and now_s - self._looked_s < min(UPKEEP_S, self._settings.compact_s):
            return
        self._looked_s = now_s
        if now_s - self._compacted_s >= self._settings.compact_s or self._hot_bytes >= HOT_BYTES:
            self.compact()
        if self._live_bytes() >= self._settings.roll_mib * MIB or self._age() >= self._settings.roll_s:
            self.roll()
        self._seal_rest()
        self._watch_wal()
        self._place.make_ballast()
        look = self._clock.look()
        now_wall_ns = look.boottime_ns + look.offset_ns if look.state == SYNCHRONISED else None
        self._retention.run(self._shipped(), now_wall_ns)
        self._measure()

    def compact(self) -> None:
        """Turn hot rows into blocks and roll-ups, and copy what the shipper froze."""
        frozen = read_frozen(ship_db(self.directory), self.directory.name)
        with naming(self._live.path), transaction(self._live.connection):
            damage = compact(self._live.connection, self._live.path.name)
            _copy_frozen(self._live.connection, frozen)
            put_meta(self._live.connection, age_s=self._age())
        for found in damage:
            self._report("row_damaged", f"{found.file}: {found.table} {found.row}: {found.why}")
        self._live.steps = read_steps(self._live.connection, self._live.boot)
        self._compacted_s, self._hot_bytes = self._clock.monotonic_s(), 0

    def roll(self) -> None:
        """Begin the next file, switch to it, seal the one before."""
        before = self._live
        self._live = self._opened(self._place.new_file(before.acknowledged + 1), before.last_ns)
        self._began_s, self._age_s, self._hot_bytes = self._clock.monotonic_s(), 0.0, 0
        before.connection.close()
        self._unsealed.append(before.path)
        self._seal_rest()

    def _seal_rest(self) -> None:
        for path in list(self._unsealed):
            try:
                sealed = seal(path, self._clock.boottime_ns(), self._report)
            except FileSuspect as error:
                self._put_aside(path, str(error))
                sealed = True
            if sealed:
                self._unsealed.remove(path)

    def _salvage_one(self) -> None:
        """Copy one slice out of a file that was put aside; when it has given all, say so and let it go."""
        with naming(self._live.path):
            begun = salvage.begun(self._live.connection)
        for name, progress in begun.items():
            bad = self.directory / name
            if bad.exists() and progress.table and salvage.salvage_slice(self._live, bad, progress):
                return
            if bad.exists():
                lost = f"at least {progress.lost} rows could not be read" if progress.lost else "nothing was lost"
                self._report("file_salvaged", f"{name}: {progress.rows} points copied, {lost}")
                self._finish_salvage(bad, keep=progress.lost > 0)
            with naming(self._live.path):
                self._live.connection.execute("DELETE FROM meta WHERE k=?", (salvage.KEY + name,))

    def _finish_salvage(self, bad: Path, keep: bool) -> None:
        for member in family(bad)[::-1]:
            if not keep or member != bad:
                member.unlink(missing_ok=True)
        if keep:
            bad.rename(bad.with_name(f"{bad.name}.kept"))

    def _watch_wal(self) -> None:
        size = self._live.wal_bytes()
        if size > WAL_ALARM_BYTES and not self._wal_alarm:
            self._report("wal_large", f"{self._live.path.name}-wal: {size} bytes: a reader keeps an old view open")
        self._wal_alarm = size > WAL_ALARM_BYTES

    def _shipped(self) -> int:
        return shipped_seq(ship_db(self.directory), self.directory.name, self._settings.sinks)

    def _age(self) -> float:
        """Return how long the live file has been written, in seconds, over all runs."""
        return self._age_s + self._clock.monotonic_s() - self._began_s

    def _live_bytes(self) -> int:
        """Return the live file's size without its WAL, which keeps its size."""
        return self._live.path.stat().st_size

    def _measure(self) -> None:
        self.journal_bytes, self.disk_free_bytes = journal_bytes(self.directory), free_bytes(self.directory)


def seal(path: Path, now_ns: int, report: Report) -> bool:
    """Make a file final: compacted, in one piece, readable by anybody; False if a reader is busy with it: try again."""
    with naming(path):
        connection = connect_writer(path, SEAL_BUSY_MS)
        try:
            with transaction(connection):
                damage = compact(connection, path.name)
                put_meta(connection, sealed_ns=now_ns, last_seq=newest_seq(connection))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "delete":
                return False
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return False
            raise
        finally:
            connection.close()
    path.chmod(0o440)
    for found in damage:
        report("row_damaged", f"{found.file}: {found.table} {found.row}: {found.why}")
    return True


def _copy_frozen(connection: sqlite3.Connection, frozen: Mapping[str, Sequence[ClockStep]]) -> None:
    """Make the clock table say what the shipper shipped: such a row never changes again."""
    connection.executemany(
        "UPDATE clock SET off=?, state=?, frozen=1 "
        "WHERE bt=? AND frozen=0 AND boot=(SELECT boot FROM boot WHERE boot_id=?)",
        [(s.offset_ns, s.state, s.boottime_ns, boot_id) for boot_id, steps in frozen.items() for s in steps],
    )


def _is_wal(path: Path) -> bool:
    header = read_header(path)
    return header is None or header.is_wal
