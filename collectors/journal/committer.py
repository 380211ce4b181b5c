"""The interface through which the collector writes its journal: `put` queues, a thread commits.

put()      never blocks. Rows and events go to the backlog.
commit     `commit_window_s` after the previous one began, when `commit_bytes` wait, when REALTIME was set, and on stop.
           A sample is on the disk at the latest `commit_window_s` plus the duration of one commit after `put`; where a
           commit and its upkeep take longer than `commit_window_s`, their duration counts instead
disk full  rows wait in memory, up to `queue_mib`; the ballast is released; the commit is retried every second
I/O error  the file is quarantined and what was not acknowledged is committed to a new file. If that fails too, or
           nothing can be written at all, rows wait in memory as on a full disk. No disk error ends a running collector
stop       commits everything. What the disk does not accept is counted, recorded in reserved space (`held_losses`),
           raised by `stop`, and reported by events at the next start
other      any other error ends the thread; `failure` holds it, and the process should end with it
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from collectors.errors import CollectorError, JournalError
from collectors.host.clock import UNSYNCHRONISED, Clock
from collectors.journal.backlog import Backlog, EventAt, Row
from collectors.journal.row_mapping import canonical
from collectors.journal.schema import DiskFull, FileSuspect, translated_os
from collectors.journal.settings import MIB, JournalSettings
from collectors.journal.writer import JournalWriter
from collectors.reading import Event, Reading

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Time between attempts while the disk is full or fails."""
LAST_TRIES, LAST_RETRY_S = 5, 0.05
"""Attempts to commit at a stop, as long as half the time for it is left."""
OVER = {"disk_full": "disk_full_over", "disk_error": "disk_error_over"}
"""Event kinds that report that the disk accepts nothing, and those that report that it accepts data again."""
NOTE_S = 60.0
"""Time between records of what waits while the disk accepts nothing."""
START_S = 30.0
"""A disk that has not opened the journal by then is regarded as broken."""


class Committer:
    """Writes one collector's journal. `put` may be called from any thread."""

    def __init__(
        self, state_dir: Path, name: str, tags: Mapping[str, str], settings: JournalSettings, clock: Clock
    ) -> None:
        """`tags` are stored with every reading; a reading's own tags are added to them."""
        self.directory = state_dir / name
        self.acknowledged_seq = 0
        """Everything up to this seq survives a crash and a power cut."""
        self.journal_bytes = 0
        self.disk_free_bytes = 0
        self.clock_state = UNSYNCHRONISED
        self.committed_at_s = clock.monotonic_s()
        """When the thread last committed, or found nothing to commit; CLOCK_MONOTONIC in s."""
        self.failure: BaseException | None = None
        """The error that ended the thread, if any."""
        self._tags = dict(tags)
        self._settings = settings
        self._clock = clock
        self._backlog = Backlog(int(settings.queue_mib * MIB))
        self._keys: dict[tuple[tuple[str, str], ...], str] = {}
        self._wake_fd = -1
        self._stopping = False
        self._stop_until_s = 0.0
        self._ready = threading.Event()
        self._trouble: dict[str, str] = {}
        """Kinds of disk errors since the last successful commit, with the first message of each; empty: none."""
        self._upkeep_fails = False
        self._since_ns = 0
        self._noted_s = 0.0
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    @property
    def queue_rows(self) -> int:
        """Return how many rows are not committed yet."""
        return self._backlog.rows

    @property
    def trouble(self) -> str:
        """Return why the disk accepts nothing now; empty while it does."""
        return "; ".join(f"{kind}: {why}" for kind, why in dict(self._trouble).items())

    @property
    def dropped(self) -> int:
        """Return how many rows were dropped since the start because the disk did not accept them."""
        return self._backlog.dropped

    def start(self) -> None:
        """Open the journal. Raises JournalLocked, JournalNewer, JournalReadOnly or another JournalError."""
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread.start()
        if not self._ready.wait(START_S):
            raise JournalError(f"{self.directory}: not open after {START_S:g} s; is the disk well?")
        if self.failure is not None:
            raise self.failure

    def put(self, item: Reading | Event) -> None:
        """Queue a reading or an event; never blocks. A reading without values is ignored."""
        if isinstance(item, Event):
            boottime_ns = self._clock.boottime_ns() if item.boottime_ns is None else item.boottime_ns
            self._backlog.put_event(EventAt(boottime_ns, item.kind, item.detail))
        elif item.values:
            key = (item.measurement, self._tags_text(item.tags))
            self._backlog.put_row(key, Row(item.boottime_ns, item.values))
            if self._backlog.payload_bytes >= self._settings.commit_bytes and not self._trouble:
                self._wake()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Commit everything and close. Raises the error that ended the thread.

        JournalError: the commit did not end in time, or the disk did not accept everything; the text states the loss.
        """
        if self._thread.is_alive():
            self._stop_until_s = self._clock.monotonic_s() + timeout_s / 2
            self._stopping = True
            self._wake()
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise JournalError(f"{self.directory}: not committed after {timeout_s:g} s, {self.queue_rows} rows waiting")
        if self.failure is not None:
            raise self.failure

    def _tags_text(self, tags: Mapping[str, str]) -> str:
        """Return the canonical text of all tags, cached: the same few sets recur."""
        own = tuple(tags.items())
        text = self._keys.get(own)
        if text is None:
            text = self._keys[own] = canonical({**self._tags, **tags})
        return text

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _report(self, kind: str, detail: str) -> None:
        log.warning("%s: %s", kind, detail)
        self.put(Event(kind, detail))

    def _run(self) -> None:
        """Work until stopped. Expected errors are stored in `failure` only; a bug is logged with its traceback, too."""
        try:
            writer = JournalWriter(self.directory, self._tags, self._settings, self._clock, self._report)
            try:
                writer.begin_run()
                self._publish(writer)
                self._ready.set()
                self._serve(writer)
            finally:
                writer.close()
        except DiskFull as error:  # at the start only; later samples wait in memory
            self.failure = DiskFull(f"{error}; nothing is collected before there is space")
        except CollectorError as error:
            self.failure = error
        finally:
            self.failure = self.failure or sys.exc_info()[1]
            self._ready.set()

    def _serve(self, writer: JournalWriter) -> None:
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        step_fd = self._clock.step_fd()
        if step_fd is not None:
            poll.register(step_fd, select.POLLIN)
        while not self._stopping:
            began_s = self._clock.monotonic_s()
            self._commit(writer)
            if not self._trouble:
                self._keep_up(writer)
            wait_s = RETRY_S if self._trouble else self._rest_of_window_s(began_s)
            for fd, _ in poll.poll(wait_s * 1000):
                if fd == step_fd:
                    self._clock.clear_step()
                else:
                    os.eventfd_read(fd)
        self._finish(writer)

    def _rest_of_window_s(self, began_s: float) -> float:
        """Return how long to wait after a commit that began at `began_s`: the next one begins one window after it."""
        return max(0.0, began_s + self._settings.commit_window_s - self._clock.monotonic_s())

    def _finish(self, writer: JournalWriter) -> None:
        """Commit everything that waits; JournalError stating the loss if the disk does not accept it."""
        for _ in range(LAST_TRIES):
            if self._commit(writer):
                if self._backlog.is_empty:
                    writer.end_run()
                    return
                continue  # the end of the disk errors is an event, too
            if self._clock.monotonic_s() > self._stop_until_s:
                break
            self._clock.sleep_s(LAST_RETRY_S)
        lost = self._backlog.outstanding()
        is_noted = writer.note_held(lost, self._since_ns, self.trouble, is_final=True)
        later = "the next start tells of it" if is_noted else "this could not be noted for the next start"
        raise JournalError(
            f"{self.directory}: {lost.row_count} readings and {lost.event_count} events are lost; {later}. "
            f"The disk did not take them: {self.trouble}"
        )

    def _commit(self, writer: JournalWriter) -> bool:
        """Commit what waits and return True; if the disk does not accept it, return False and keep all of it."""
        try:
            self._commit_surely(writer)
        except (JournalError, OSError) as error:
            self._hold(writer, error if isinstance(error, JournalError) else translated_os(error, self.directory))
            return False
        if self._trouble:
            for kind in self._trouble:
                self._report(OVER[kind], f"{self.directory}: commits work again, {self.queue_rows} rows wait")
            self._trouble = {}
        self._publish(writer)
        return True

    def _commit_surely(self, writer: JournalWriter) -> None:
        """Commit, in a new file if the disk failed under the active one."""
        try:
            self._commit_once(writer)
        except FileSuspect as error:
            writer.replace_live(error)
            self._commit_once(writer)

    def _keep_up(self, writer: JournalWriter) -> None:
        """Do the upkeep. Work that is not done now is done later; commits continue meanwhile."""
        try:
            writer.upkeep()
        except (JournalError, OSError) as error:
            if isinstance(error, FileSuspect):
                writer.condemn(error)  # the next commit starts a new file
            if isinstance(error, DiskFull):
                self._make_room(writer)
            if not self._upkeep_fails:
                kind = "disk_full" if isinstance(error, DiskFull) else "disk_error"
                self._report(kind, f"{error}; compaction and clearing up wait, samples are committed")
            self._upkeep_fails = True
        else:
            self._upkeep_fails = False

    def _commit_once(self, writer: JournalWriter) -> None:
        work = self._backlog.take()
        try:
            writer.commit(work)
        except BaseException:
            self._backlog.give_back()
            raise
        self._backlog.done()

    def _hold(self, writer: JournalWriter, error: JournalError) -> None:
        """Keep everything waiting, report the error once, and take the measures that may help."""
        if isinstance(error, FileSuspect):
            writer.condemn(error)
        kind = "disk_full" if isinstance(error, DiskFull) else "disk_error"
        now_s = self._clock.monotonic_s()
        if not self._trouble:
            self._since_ns, self._noted_s = self._clock.boottime_ns(), -NOTE_S
        if kind not in self._trouble:
            self._trouble[kind] = str(error)
            self._report(kind, f"{error}; samples wait in memory, up to {self._settings.queue_mib:g} MiB")
        if isinstance(error, DiskFull):
            self._make_room(writer)
        if not self._stopping and now_s - self._noted_s >= NOTE_S:
            self._noted_s = now_s
            writer.note_held(self._backlog.outstanding(), self._since_ns, self.trouble, is_final=False)
        self.committed_at_s = self._clock.monotonic_s()  # still trying: a restart would lose what waits

    def _make_room(self, writer: JournalWriter) -> None:
        try:
            writer.make_room()
        except (JournalError, OSError) as error:
            log.warning("%s: no room could be made: %s", self.directory, error)

    def _publish(self, writer: JournalWriter) -> None:
        self.acknowledged_seq = writer.seq
        self.clock_state = writer.clock_state
        self.journal_bytes, self.disk_free_bytes = writer.journal_bytes, writer.disk_free_bytes
        self.committed_at_s = self._clock.monotonic_s()
