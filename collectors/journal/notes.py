"""Notes: events written by people and tools, in a journal of the host: `<state>/notes`.

It is a journal like any other: the same code reads, ships and exports it. But no process holds it open: the writer of
a note locks the directory, commits, and releases it. A collector updates its own clock table; the clock table of the
notes is updated by every collector, and every shipper of the same user, that sees the clock's state change
(`TailingReader`). So a note written before the time was known gets its time as samples do. A note takes some 200
bytes, so the journal stays one file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from collectors.errors import JournalError, JournalLocked
from collectors.host.clock import Clock
from collectors.journal.backlog import EventAt, Work
from collectors.journal.reader import JournalReader
from collectors.journal.retention import Report
from collectors.journal.row_mapping import canonical
from collectors.journal.schema import DiskFull, FileSuspect
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter

log = logging.getLogger(__name__)

NAME = "notes"
WAIT_S = 10.0
"""Writing a note takes well under a second; a process that holds the directory for longer is stuck."""
LOOK_S = 0.05
SETTINGS = JournalSettings(ballast_mib=0.0)


def write(
    state_dir: Path,
    bench: str,
    kind: str,
    detail: str,
    tags: Mapping[str, str],
    clock: Clock,
    wait_s: float = WAIT_S,
) -> int:
    """Write a note to the disk; return the clock state of its time, for example SYNCHRONISED.

    Raises JournalLocked when others write for longer than `wait_s`, another JournalError when the note cannot be kept.
    """
    directory = state_dir / NAME
    happened_ns = clock.boottime_ns()
    noticed: list[tuple[str, str]] = []
    try:
        writer = _opened(directory, bench, clock, lambda kind, detail: noticed.append((kind, detail)), wait_s)
    except DiskFull as error:
        raise DiskFull(f"{error}; the note is not kept") from error
    try:
        known = JournalReader(directory).tags()
        own = {key: value for key, value in {"bench": bench, **tags}.items() if known.get(key) != value}
        note = EventAt(happened_ns, kind, detail, canonical(own) if own else "")
        try:
            _commit(writer, Work(events=[*_events(noticed, clock), note]))
        except DiskFull as error:
            raise DiskFull(f"{error}; the note is not kept") from error
        try:
            writer.upkeep()
            _commit(writer, Work(events=_events(noticed, clock)))
        except (JournalError, OSError) as error:  # the note is on the disk; the next writer cleans up
            log.warning("the note is kept; %s is not cleared up: %s", directory, error)
        return writer.clock_state
    finally:
        writer.close()


def _opened(directory: Path, bench: str, clock: Clock, report: Report, wait_s: float) -> JournalWriter:
    """Return the directory's writer as soon as no other process writes; JournalLocked when that takes too long."""
    until_s = clock.monotonic_s() + wait_s
    while True:
        try:
            return JournalWriter(directory, {"bench": bench}, SETTINGS, clock, report)
        except JournalLocked as error:
            if clock.monotonic_s() >= until_s:
                raise JournalLocked(
                    f"{directory}: other notes were being written for {wait_s:g} s; try again"
                ) from error
            clock.sleep_s(LOOK_S)


def _events(noticed: list[tuple[str, str]], clock: Clock) -> list[EventAt]:
    """Return what the writer reported as events, once."""
    found = [EventAt(clock.boottime_ns(), kind, detail) for kind, detail in noticed]
    noticed.clear()
    return found


def _commit(writer: JournalWriter, work: Work) -> None:
    """Commit, in a new file if the disk failed under the old one."""
    try:
        writer.commit(work)
    except FileSuspect as error:
        writer.replace_live(error)
        writer.commit(work)


class TailingReader:
    """Updates the notes' clock table at its first call and whenever the clock's state has changed."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._state: int | None = None

    def __call__(self, clock_state: int) -> None:
        """Compare with the state that the caller's own journal has seen; cheap when it has not changed."""
        if clock_state == self._state:
            return
        self._state = clock_state
        if (self._state_dir / NAME).is_dir():
            follow_clock(self._state_dir, self._clock)


def follow_clock(state_dir: Path, clock: Clock) -> None:
    """Enter the present clock reading. A process that is writing a note does that itself; other errors are logged."""
    directory = state_dir / NAME
    if not os.access(directory, os.W_OK):  # the shipper's user only reads it; the collectors, who own it, update it
        return
    try:
        tags = JournalReader(directory).tags()
        writer = JournalWriter(
            directory, tags, SETTINGS, clock, lambda kind, detail: log.warning("%s: %s", kind, detail)
        )
        try:
            _commit(writer, Work())
        finally:
            writer.close()
    except JournalLocked:
        pass
    except JournalError as error:
        log.warning("%s", error)
