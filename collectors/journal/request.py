"""A person's word about the time, on its way to the collector: `<state>/<collector>/clock-set.json`.

Only the collector writes its journal, so `collectors clock set` leaves a request; the collector takes it at its next
look at the clock, at most `commit_window_s` later. Where no collector runs, `apply` does the same under the lock.
Taking it twice does no harm: the second time changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from collectors.clock import SET_BY_PERSON
from collectors.journal.records import ClockStep
from collectors.journal.tables import read_boots
from collectors.journal.timeline import step_by_person

NAME = "clock-set.json"


class Request(NamedTuple):
    """In this boot, REALTIME − BOOTTIME was `offset_ns`; said at `boottime_ns`, or after the boot was over."""

    boot_id: str
    boottime_ns: int
    offset_ns: int


def leave(directory: Path, wanted: Request) -> None:
    """Leave a request for the collector; it replaces one about the same boot that is not taken yet."""
    path = directory / NAME
    others = [r for r in _read(path) if r.boot_id != wanted.boot_id] if path.exists() else []
    draft = path.with_name(f"{NAME}.new")
    draft.write_text(json.dumps([*others, wanted]), encoding="utf-8")
    draft.chmod(0o644)
    draft.replace(path)


def is_waiting(directory: Path) -> bool:
    """Return whether a request is not taken yet."""
    return (directory / NAME).exists()


def pending(
    directory: Path, connection: sqlite3.Connection, report: Callable[[str, str], None]
) -> list[tuple[str, ClockStep]]:
    """Return the clock table's rows that people ask for, each with its boot; what cannot be done is reported, once."""
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
    """Forget the requests: they are in the clock table."""
    (directory / NAME).unlink(missing_ok=True)


def _read(path: Path) -> list[Request]:
    """Return the requests in the file; ValueError if it holds anything else."""
    try:
        return [Request(str(b), int(bt), int(off)) for b, bt, off in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected [[boot_id, boottime_ns, offset_ns], …]: {error}") from error
