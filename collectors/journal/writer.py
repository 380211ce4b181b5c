"""The only writer of one collector's directory: the active file, and all maintenance around it.

Opening     lock; reject newer versions before anything is changed; open the newest file, or quarantine it if it is
            damaged; seal what an earlier run could not.
Commit      read the clock, apply manual clock requests (`clock_request`), write rows, events and clock atomically.
Upkeep      compaction; roll-over and sealing; retention; recovery of quarantined files; size of the WAL; ballast.
Run         a collector marks in the file that it runs, and removes the mark when it ends with nothing left to commit:
            the next start reports a run that was cut off, and what waited in its memory (`held_losses`).
Every loss is reported as an event, which the caller writes with its next commit.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from collectors.host.clock import SYNCHRONISED, Clock
from collectors.journal import clock_request, held_losses, recovery
from collectors.journal.active_file import ActiveFile
from collectors.journal.backlog import EventAt, Key, Losses, Work
from collectors.journal.compact import compact
from collectors.journal.directory import LEAP, RUN, JournalDirectory
from collectors.journal.records import ClockStep
from collectors.journal.retention import Report, Retention, disk_is_low, free_bytes, journal_bytes
from collectors.journal.row_mapping import read_steps
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
    remove_family,
    transaction,
)
from collectors.journal.settings import MIB, JournalSettings
from collectors.journal.shipper_state import read_frozen, ship_db, shipped_seq
from collectors.journal.timeline import step_after

log = logging.getLogger(__name__)

HOT_BYTES = 4 * MIB
"""Compact before compact_s is over when so much payload waits: it bounds memory and the WAL of fast streams."""
WAL_ALARM_BYTES = 32 * MIB
SEAL_BUSY_MS = 200
"""Maximum wait of sealing for a reader; it is retried soon."""
UPKEEP_S = 10.0
"""Time between checks of sizes and limits."""


class JournalWriter:
    """The directory's only writer. Use from one thread."""

    def __init__(
        self, directory: Path, tags: Mapping[str, str], settings: JournalSettings, clock: Clock, report: Report
    ) -> None:
        """Open the journal, or create it. Raises JournalLocked, JournalNewer, JournalReadOnly, JournalError."""
        self.directory = directory
        self._settings = settings
        self._clock = clock
        self._report = report
        self._retention = Retention(directory, settings, report, self._put_aside)
        self._place = JournalDirectory(directory, tags, settings)
        self._upto: dict[str, int] = {}
        """Up to which seq a condemned file was acknowledged, by its name before quarantine; other files: all of it."""
        self._to_put_aside: dict[Path, str] = {}
        """Condemned files that a new one has replaced, and the reasons."""
        self._salvage: dict[str, str] = {}
        """The meta table's entries of quarantined files, for a file whose meta table is no longer readable."""
        self._salvage_tries: Counter[str] = Counter()
        """Consecutive attempts at the next slice that the disk did not return."""
        self._meta: dict[str, str | float | None] = {}
        """Keys of the meta table that the next commit writes."""
        self._run = ""
        self._has_request = False
        self._held: held_losses.Held | None = None
        self._told: list[EventAt] = []
        """What earlier runs had left to report; the next commit writes it."""
        try:
            with naming(directory):
                self._before = held_losses.read(directory)
                self._live = self._open()
        except BaseException:
            self._place.release()
            raise
        self._condemned: FileSuspect | None = None
        self._take_up_aside()
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
        """Return the clock state of the present offset, for example SYNCHRONISED."""
        return self._live.state

    def begin_run(self) -> None:
        """Mark that a collector runs, and report by events how the previous run ended, if it did not end normally.

        The next commit writes both. Space is reserved to record what waits in memory when the disk accepts nothing.
        """
        with naming(self._live.path):
            meta = get_meta(self._live.connection)
        self._run = json.dumps([self._clock.boot_id, self._clock.boottime_ns()])
        self._meta[RUN] = self._run
        before = self._before
        if before is not None and before.id != meta.get(held_losses.META):
            self._told += before.told()
            self._meta[held_losses.META] = before.id
        if meta.get(RUN) and not (self._told and before is not None and before.is_final):
            self._told.append(self._cut_off(str(meta[RUN])))
        for event in self._told:
            log.warning("%s: %s", event.kind, event.detail)
        try:
            held_losses.reserve(self.directory)
        except OSError as error:  # then what waits may have no place for its record, and the next start says only that
            log.warning(
                "%s: no space could be reserved: %s", self.directory / held_losses.NAME, error.strerror or error
            )

    def _cut_off(self, run: str) -> EventAt:
        """Return the event that reports a run that ended without a stop."""
        boot_id, began_ns = json.loads(run)
        newest_ns = self._live.newest_ns(boot_id)
        upto = "nothing is committed" if newest_ns is None else f"committed up to boottime {newest_ns} ns"
        detail = f"the run that began at boottime {began_ns} ns of boot {boot_id}: {upto}; what it read later is lost"
        return EventAt(newest_ns or began_ns, "run_cut_off", detail, boot_id=boot_id)

    def end_run(self) -> None:
        """Mark that the run ended with everything committed. If that fails, the next start reports a cut-off run."""
        self._run = ""
        with suppress(sqlite3.Error):
            self._live.connection.execute("DELETE FROM meta WHERE k=?", (RUN,))
        with suppress(OSError):
            held_losses.remove(self.directory)

    def note_held(self, losses: Losses, since_ns: int, why: str, *, is_final: bool) -> bool:
        """Record on the disk what would be lost if the process ended now; return whether that succeeded."""
        upto = {**self._upto, self._live.path.name: self._live.acknowledged}
        now_ns = self._clock.boottime_ns()
        record = held_losses.Held(self._clock.boot_id, since_ns, now_ns, why, losses, is_final, upto, tuple(self._told))
        for _ in range(held_losses.TRIES if is_final else 1):
            try:
                held_losses.write(self.directory, record)
            except OSError as error:
                log.warning("%s: %s", self.directory / held_losses.NAME, error.strerror or error)
            else:
                self._held = record
                if not is_final:
                    self._meta[held_losses.META] = record.id  # the next successful commit writes what waits
                return True
        return False

    def close(self) -> None:
        """Close the active file and release the directory."""
        if self._condemned is None:
            with suppress(sqlite3.Error):  # the file's age is not worth a failure at the very end
                put_meta(self._live.connection, age_s=self._age())
            self._live.close()
        self._place.release()

    # Opening --------------------------------------------------------------------------------------------------------

    def _open(self) -> ActiveFile:
        if self._before is not None:
            self._upto = dict(self._before.uptos)
        files = journal_files(self.directory)
        if files:
            try:
                live = self._opened(files[-1])
                if live.acknowledged > self._upto.get(files[-1].name, live.acknowledged):
                    live.connection.close()
                    why = "it has commits that failed at the end of the run before, and were counted as lost"
                    raise FileSuspect(f"{files[-1]}: {why}", files[-1])
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

    def _opened(self, path: Path, last_ns: dict[Key, int] | None = None) -> ActiveFile:
        return ActiveFile(path, self._clock.boot_id, self._clock.boottime_ns(), last_ns)

    # Committing -----------------------------------------------------------------------------------------------------

    def commit(self, work: Work) -> int:
        """Write rows, events and the clock steps to the disk; return the newest seq.

        Raises DiskFull (nothing was written: keep the work, call `make_room`, try again later), FileSuspect (the same:
        call `replace_live`, try again now), other JournalErrors (stop).
        """
        if self._condemned is not None:
            self._replace()
        elif self._to_put_aside:
            self._put_rest_aside()
        if disk_is_low(self.directory, self._settings):
            self._retention.make_room(self._shipped())
        now_ns = self._clock.boottime_ns()
        with naming(self._live.path):
            steps = self._clock_steps()
        if not work and not steps and not self._meta:
            return self.seq
        seq = self._live.commit(Work(work.rows, [*self._told, *work.events]), steps, now_ns, self._meta)
        self._meta, self._told = {}, []
        self._forget_held()
        if self._has_request:
            with suppress(OSError):  # applying it twice does no harm; the commit is done
                clock_request.done(self.directory)
        self._hot_bytes += sum(8 * (1 + len(r.values)) for rows in work.rows.values() for r in rows)
        return seq

    def _clock_steps(self) -> list[tuple[str, ClockStep]]:
        """Return the rows that the clock table needs now, each with its boot."""
        asked = clock_request.pending(self.directory, self._live.connection, self._report)
        self._has_request = bool(asked)
        boot_id = self._clock.boot_id
        new = [step for boot, step in asked if boot == boot_id]
        if said := clock_request.for_host(self.directory.parent, boot_id, [*self._live.steps, *new]):
            new.append(said)
        known = [*self._live.steps, *new]
        if step := step_after(known[-1] if known else None, self._clock.look()):
            new.append(step)
        return [*((boot, step) for boot, step in asked if boot != boot_id), *((boot_id, step) for step in new)]

    def make_room(self) -> None:
        """Release the ballast, then delete files that every sink has."""
        self._place.give_up_ballast()
        self._retention.make_room(self._shipped())

    def _forget_held(self) -> None:
        """Delete the record of what waited: it is committed."""
        if self._held is None and self._before is None:
            return
        self._held = self._before = None
        with suppress(OSError):  # the commit's meta entry ends the record
            held_losses.clear(self.directory)

    def condemn(self, why: FileSuspect) -> None:
        """Stop writing the active file, if it is the one that failed; the next commit continues in a new one."""
        if self._condemned is None and why.path in (None, self._live.path):
            self._condemned = why
            with suppress(sqlite3.Error):
                self._live.connection.close()

    def replace_live(self, why: FileSuspect) -> None:
        """Quarantine the active file and continue in a new one; its rows are recovered between the next commits.

        Raises as `commit` does; then it stays condemned, and the next commit tries again.
        """
        self.condemn(why)
        if self._condemned is not None:
            self._replace()

    def _replace(self) -> None:
        """Begin the file after the condemned one. If anything fails, the next commit tries again."""
        before = self._live
        # Skip numbers: a reader may have seen numbers whose COMMIT did not return.
        live = self._begin(before.acknowledged + LEAP + 1)
        self._to_put_aside[before.path] = str(self._condemned)
        self._upto[before.path.name] = before.acknowledged
        self._live, self._hot_bytes, self._condemned = live, 0, None
        if self._run:
            self._meta[RUN] = self._run  # the new file may not have it
        if before.is_empty:
            with suppress(OSError):
                remove_family(before.path)  # it holds nothing; a failing disk would leave thousands of them
                del self._to_put_aside[before.path]
        self._put_rest_aside()

    def _begin(self, first_seq: int) -> ActiveFile:
        """Return the next file, opened; it does not exist if that fails."""
        before = self._live
        path = self._place.new_file(first_seq)
        try:
            return self._opened(path, before.last_ns)
        except BaseException:
            with suppress(OSError):
                remove_family(path)
            raise

    def _take_up_aside(self) -> None:
        """Finish what the previous run could not: files that it condemned, a WAL without the file it belongs to."""
        for path in journal_files(self.directory)[:-1]:
            if path.name in self._upto:
                self._to_put_aside[path] = "the disk failed under it in the run before"
        there = {path.name for path in self.directory.glob("j-*.db*")}
        for name in sorted(there):
            base = name.removesuffix("-wal")
            if name.endswith("-wal") and base not in there and any(other.startswith(f"{base}.bad-") for other in there):
                self._to_put_aside[self.directory / base] = "its write-ahead log was left behind"
        self._put_rest_aside()

    def _put_rest_aside(self) -> None:
        """Quarantine the remaining condemned files, and enter them for recovery. Raises the disk's errors."""
        for path, why in list(self._to_put_aside.items()):
            with naming(path):
                self._tell_aside(path, self._place.put_aside(path), why)
            del self._to_put_aside[path]
        self._note_bad()

    def _put_aside(self, path: Path, why: str) -> None:
        """Rename a damaged file and enter all of it for recovery."""
        self._to_put_aside[path] = why
        self._put_rest_aside()

    def _tell_aside(self, path: Path, bad: Path, why: str) -> None:
        self._report("file_quarantined", f"{path.name} was put aside as {bad.name}: {why}; what is readable is copied")

    def _note_bad(self) -> None:
        """Enter quarantined files in the active file's meta table, so that their recovery is not forgotten."""
        with naming(self._live.path):
            known = recovery.begun(self._live.connection)
            new = [bad.name for bad in bad_files(self.directory) if bad.name not in known]
            # What this process knows overrides the file: a slice whose COMMIT failed may show in the file.
            entries = {name: self._fresh(name) for name in new} | {n: t for n, t in self._salvage.items() if n in known}
            entries |= {name: self._salvage[name] for name in new if name in self._salvage}
            put_meta(self._live.connection, **{recovery.KEY + name: text for name, text in entries.items()})
            self._salvage = {name: progress.text() for name, progress in recovery.begun(self._live.connection).items()}

    def _fresh(self, bad: str) -> str:
        """Return the entry of a file whose recovery has not begun."""
        return recovery.Progress(self._upto.get(bad.split(".bad-")[0])).text()

    # Upkeep ---------------------------------------------------------------------------------------------------------

    def upkeep(self) -> None:
        """Do what is due; cheap when nothing is. Raises as `commit` does."""
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
        """Convert hot rows to blocks and roll-ups, and copy the offsets that the shipper froze."""
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
        self._live = self._begin(before.acknowledged + 1)
        self._began_s, self._age_s, self._hot_bytes = self._clock.monotonic_s(), 0.0, 0
        before.connection.close()
        self._unsealed.append(before.path)
        self._seal_rest()

    def _seal_rest(self) -> None:
        for path in list(self._unsealed):
            try:
                sealed = seal(path, self._clock.boottime_ns(), self._report)
            except FileSuspect as error:
                self._unsealed.remove(path)
                self._put_aside(path, str(error))
            else:
                if sealed:
                    self._unsealed.remove(path)

    def _salvage_one(self) -> None:
        """Recover one slice of a quarantined file; when it is exhausted, report that and release the file."""
        with naming(self._live.path):
            begun = recovery.begun(self._live.connection)
        for name, progress in begun.items():
            bad = self.directory / name
            if bad.exists() and progress.table:
                is_last_try = self._salvage_tries[name] >= recovery.PATIENCE
                try:
                    more = recovery.salvage_slice(self._live, bad, progress, is_last_try=is_last_try)
                except recovery.NotNow:
                    self._salvage_tries[name] += 1
                    return
                self._salvage[name], self._salvage_tries[name] = progress.text(), 0
                if more:
                    return
            if bad.exists():
                lost = f"at least {progress.lost} rows could not be read" if progress.lost else "nothing was lost"
                self._report("file_salvaged", f"{name}: {progress.rows} points copied, {lost}")
                self._finish_salvage(bad, keep=progress.lost > 0)
            with naming(self._live.path):
                self._live.connection.execute("DELETE FROM meta WHERE k=?", (recovery.KEY + name,))
            self._salvage.pop(name, None)

    def _finish_salvage(self, bad: Path, keep: bool) -> None:
        with naming(bad):
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
        """Return how long the active file has been written, in seconds, over all runs."""
        return self._age_s + self._clock.monotonic_s() - self._began_s

    def _live_bytes(self) -> int:
        """Return the active file's size in bytes without its WAL, which keeps its size."""
        return self._live.path.stat().st_size

    def _measure(self) -> None:
        self.journal_bytes, self.disk_free_bytes = journal_bytes(self.directory), free_bytes(self.directory)


def seal(path: Path, now_ns: int, report: Report) -> bool:
    """Make a file final: compacted, one file, readable by any user; False if a reader has it open: try again."""
    with naming(path):
        connection = connect_writer(path, SEAL_BUSY_MS)
        try:
            with transaction(connection):
                damage = compact(connection, path.name)
                put_meta(connection, sealed_ns=now_ns, last_seq=newest_seq(connection))
                connection.execute("DELETE FROM meta WHERE k=?", (RUN,))
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
    """Set the clock table to the offsets that were shipped: such a row never changes again."""
    connection.executemany(
        "UPDATE clock SET off=?, state=?, frozen=1 "
        "WHERE bt=? AND frozen=0 AND boot=(SELECT boot FROM boot WHERE boot_id=?)",
        [(s.offset_ns, s.state, s.boottime_ns, boot_id) for boot_id, steps in frozen.items() for s in steps],
    )


def _is_wal(path: Path) -> bool:
    header = read_header(path)
    return header is None or header.is_wal
