"""Notes: what people and their tools did, in a journal of the host's own: `<state>/notes`.

It is a journal like any other: read, shipped and exported by the same code. Only nobody holds it open: whoever writes a
note locks the folder, commits, and lets go. So the clock's table, which a collector keeps up itself, is kept up here by
every collector, and every shipper of the same user, that sees the clock's state change (`TailingReader`): a note
written before the time was known gets its time as samples do. A note takes some 200 bytes, so the journal stays one
file.
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
"""A note is written in well under a second, so whoever holds the folder for so long is not well."""
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
    """Put a note on the disk; return what the time it carries is worth.

    Raises JournalLocked when others write for longer than `wait_s`, another JournalError when it cannot be kept.
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
        except (JournalError, OSError) as error:  # the note is on the disk; who comes next clears up
            log.warning("the note is kept; %s is not cleared up: %s", directory, error)
        return writer.clock_state
    finally:
        writer.close()


def _opened(directory: Path, bench: str, clock: Clock, report: Report, wait_s: float) -> JournalWriter:
    """Return the folder's writer as soon as nobody else is; JournalLocked when that takes too long."""
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
    """Return what the writer noticed as events, once."""
    found = [EventAt(clock.boottime_ns(), kind, detail) for kind, detail in noticed]
    noticed.clear()
    return found


def _commit(writer: JournalWriter, work: Work) -> None:
    """Commit; in a new file if the disk failed under the old one."""
    try:
        writer.commit(work)
    except FileSuspect as error:
        writer.replace_live(error)
        writer.commit(work)


class TailingReader:
    """Brings the notes' clock table up to date at its first call and whenever the clock's state has changed."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._state: int | None = None

    def __call__(self, clock_state: int) -> None:
        """Take the state that the caller's own journal has seen; cheap when it is the one before."""
        if clock_state == self._state:
            return
        self._state = clock_state
        if (self._state_dir / NAME).is_dir():
            follow_clock(self._state_dir, self._clock)


def follow_clock(state_dir: Path, clock: Clock) -> None:
    """Enter what the clock says now. A note that is just being written does that itself; other trouble is logged."""
    directory = state_dir / NAME
    if not os.access(directory, os.W_OK):  # the shipper's user only reads it; collectors, whose it is, keep it up
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
