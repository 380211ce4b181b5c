"""Requests to set the clock manually, from a command to the collector: `<state>/<collector>/clock-set.json`.

Only the collector writes its journal, so `collectors clock set` leaves a request. The collector applies it when it
next reads the clock, at most `commit_window_s` later. Where no collector runs, the command applies it under the
journal's lock. Applying a request twice changes nothing the second time.

`<state>/clock-set.json` is a request for the whole host. It stays, and every process that writes a journal in this
boot, now or later, applies it, unless the clock was set manually since or a time service has set it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from collectors.host.clock import SET_BY_PERSON, SYNCHRONISED
from collectors.journal.records import ClockStep
from collectors.journal.row_mapping import read_boots
from collectors.journal.timeline import step_by_person

NAME = "clock-set.json"


class ClockRequest(NamedTuple):
    """In this boot, REALTIME − BOOTTIME was `offset_ns`; set at `boottime_ns`, or after the boot was over."""

    boot_id: str
    boottime_ns: int
    offset_ns: int


def leave(directory: Path, wanted: ClockRequest) -> None:
    """Write a request for the collector; it replaces a request about the same boot that is not applied yet."""
    path = directory / NAME
    others = [r for r in _read(path) if r.boot_id != wanted.boot_id] if path.exists() else []
    _write(path, [*others, wanted])


def _write(path: Path, requests: Sequence[ClockRequest]) -> None:
    draft = path.with_name(f"{NAME}.new")
    draft.write_text(json.dumps(requests), encoding="utf-8")
    draft.chmod(0o644)
    draft.replace(path)


def leave_for_host(state_dir: Path, wanted: ClockRequest) -> None:
    """Write a request for every journal of this host, also for those that begin later in the same boot."""
    _write(state_dir / NAME, [wanted])


def for_host(state_dir: Path, boot_id: str, known: Sequence[ClockStep]) -> ClockStep | None:
    """Return the row that the host's request adds to a boot's clock table; None if the table has it, or a better one.

    A file that cannot be parsed counts as no request: it was written atomically, and nothing depends on it.
    """
    if known and known[-1].state == SYNCHRONISED:
        return None
    path = state_dir / NAME
    try:
        found = [wanted for wanted in _read(path) if wanted.boot_id == boot_id] if path.exists() else []
    except (OSError, ValueError):
        return None
    if not found or any(s.state == SET_BY_PERSON and s.boottime_ns >= found[-1].boottime_ns for s in known):
        return None
    return step_by_person(known, found[-1].boottime_ns, found[-1].offset_ns)


def is_waiting(directory: Path) -> bool:
    """Return whether a request is not applied yet."""
    return (directory / NAME).exists()


def pending(
    directory: Path, connection: sqlite3.Connection, report: Callable[[str, str], None]
) -> list[tuple[str, ClockStep]]:
    """Return the clock table's rows that requests ask for, each with its boot; report once what cannot be applied."""
    path = directory / NAME
    if not path.exists():
        return []
    boots = {boot.boot_id: boot for boot in read_boots(connection)}
    steps = []
    try:
        for wanted in _read(path):
            if wanted.boot_id not in boots:
                raise ValueError(f"boot {wanted.boot_id}: this journal does not know it")
            known = boots[wanted.boot_id].steps
            if known and (known[-1].state, known[-1].offset_ns) == (SET_BY_PERSON, wanted.offset_ns):
                continue
            steps.append((wanted.boot_id, step_by_person(known, wanted.boottime_ns, wanted.offset_ns)))
    except ValueError as error:
        report("clock_set_refused", f"{path}: {error}")
    if not steps:
        done(directory)
    return steps


def done(directory: Path) -> None:
    """Delete the requests: they are in the clock table."""
    (directory / NAME).unlink(missing_ok=True)


def _read(path: Path) -> list[ClockRequest]:
    """Return the requests in the file; ValueError if it holds anything else."""
    try:
        return [ClockRequest(str(b), int(bt), int(off)) for b, bt, off in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected [[boot_id, boottime_ns, offset_ns], …]: {error}") from error
