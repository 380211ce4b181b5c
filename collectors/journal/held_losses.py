"""What would be lost if the collector ended now, in a file with reserved space: `<state>/<collector>/held`.

While the disk accepts nothing, samples wait in memory. No journal row can record that, but a file whose blocks are
allocated can be overwritten. So the collector reserves one when it starts. From the first failed commit on it records
there how many rows and events wait, of which series and from when to when; the last record is written when it ends.
`status` shows the record, and the next start turns it into events. A successful commit ends the record: its `id` is
stored in the journal's meta table in that commit, so that no record is reported twice.

One record of SIZE bytes: JSON, padded with blanks. What cannot be parsed (torn by a power cut) is no record.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collectors.journal.backlog import OTHERS, EventAt, Key, Loss, Losses
from collectors.text import encodable

NAME = "held"
SIZE = 16 * 1024
META = "held"
"""Key of the journal's meta table: the id of the newest record that has ended."""
TRIES = 5
"""Attempts at the last record; a disk with intermittent errors may accept the next one."""
MOST_FILES = 50
EMPTY = b" " * SIZE


@dataclass(frozen=True, slots=True)
class Held:
    """What one process had not committed at `at_ns`."""

    boot_id: str
    since_ns: int
    """CLOCK_BOOTTIME of the first commit that failed, in ns."""
    at_ns: int
    why: str
    losses: Losses
    is_final: bool = False
    """Whether it was written when the process ended: then the numbers are exact, else they grew until it ended."""
    uptos: dict[str, int] = field(default_factory=dict)
    """Files to be quarantined, by name: up to which seq their rows were acknowledged. The rest is in `losses`."""
    earlier: tuple[EventAt, ...] = ()
    """What earlier runs had left to report, and this one could not commit either; without tags."""

    @property
    def id(self) -> str:
        """Return the identifier of this record."""
        return f"{self.boot_id} {self.at_ns}"

    def told(self) -> list[EventAt]:
        """Return the events that report, at the next start, what was lost."""
        end = "when the collector ended" if self.is_final else "when the collector was killed, or later"
        return [*self.earlier, *self.losses.told(f"lost with the process's memory {end}: {self.why}", self.boot_id)]

    def text(self) -> bytes:
        """Return the record as it is stored, SIZE bytes; series for which there is no room are merged into one loss."""
        losses, earlier = self.losses, list(self.earlier)
        while True:
            table = {
                "boot_id": self.boot_id, "since_ns": self.since_ns, "at_ns": self.at_ns, "why": self.why[:500],
                "final": self.is_final, "uptos": dict(list(self.uptos.items())[-MOST_FILES:]),
                "rows": [[*key, loss.count, loss.first_ns, loss.last_ns] for key, loss in losses.rows.items()],
                "events": [[kind, loss.count, loss.first_ns, loss.last_ns] for kind, loss in losses.events.items()],
                "earlier": [[e.boottime_ns, e.kind, e.detail, e.boot_id] for e in earlier],
            }  # fmt: skip
            text = encodable(json.dumps(table, ensure_ascii=False, separators=(",", ":"))).encode()
            if len(text) <= SIZE:
                return text.ljust(SIZE)
            losses = _halved(losses)
            if len(losses.rows) <= 1 and earlier:
                gone = earlier.pop(0)
                losses.add_events(gone.kind, Loss(1, gone.boottime_ns, gone.boottime_ns))


def _halved(losses: Losses) -> Losses:
    """Return the losses with the second half of the series merged, then with all events merged into one kind."""
    found = Losses()
    keep = len(losses.rows) // 2
    for number, (key, loss) in enumerate(losses.rows.items()):
        found.add_rows(key if number < keep else OTHERS, loss)
    for kind, loss in losses.events.items():
        found.add_events(kind if keep else "of several kinds", loss)
    return found


def reserve(directory: Path) -> None:
    """Create the file with all its blocks if it does not exist. OSError if there is no room for it."""
    path = directory / NAME
    if path.exists():
        return
    try:
        _write(path, EMPTY, os.O_CREAT)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def write(directory: Path, record: Held) -> None:
    """Write the record to the disk, over the one before. OSError when that fails."""
    _write(directory / NAME, record.text(), os.O_CREAT)


def clear(directory: Path) -> None:
    """Delete the record; the space stays reserved. OSError when that fails."""
    _write(directory / NAME, EMPTY, 0)


def remove(directory: Path) -> None:
    """Release the space. OSError when that fails."""
    (directory / NAME).unlink(missing_ok=True)


def _write(path: Path, data: bytes, flags: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o640)
    try:
        if os.pwrite(fd, data, 0) != len(data):
            raise OSError(f"{path}: not all of it could be written")
        os.fsync(fd)
    finally:
        os.close(fd)


def read(directory: Path) -> Held | None:
    """Return the record; None if there is none, or it is not complete. OSError if it may not be read."""
    try:
        text = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None
    return parse(text)


def parse(text: bytes) -> Held | None:
    """Return the record that `text` holds; None if it is not complete."""
    try:
        return _parsed(json.loads(text))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _parsed(table: Any) -> Held:
    losses = Losses()
    for measurement, tags, count, first_ns, last_ns in table["rows"]:
        key: Key = (str(measurement), str(tags))
        losses.add_rows(key, Loss(int(count), int(first_ns), int(last_ns)))
    for kind, count, first_ns, last_ns in table["events"]:
        losses.add_events(str(kind), Loss(int(count), int(first_ns), int(last_ns)))
    return Held(
        str(table["boot_id"]), int(table["since_ns"]), int(table["at_ns"]), str(table["why"]), losses,
        bool(table["final"]), {str(name): int(seq) for name, seq in table["uptos"].items()},
        tuple(EventAt(int(at), str(kind), str(detail), "", str(boot)) for at, kind, detail, boot in table["earlier"]),
    )  # fmt: skip
