"""A journal under a clock that the test sets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from collectors.host.clock import FakeClock
from collectors.journal.backlog import EventAt, Row, Work
from collectors.journal.reader import JournalReader
from collectors.journal.records import Chunk
from collectors.journal.row_mapping import canonical
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter

SECOND = 10**9
QUIET = JournalSettings(ballast_mib=0.0, min_free_mib=0.0)
"""Nothing happens by itself unless a test asks for it."""


class Bench:
    """One collector's journal, opened and closed at will."""

    def __init__(self, state: Path) -> None:
        self.directory = state / "load"
        self.clock = FakeClock(boottime_ns=10 * SECOND, offset_ns=1_700_000_000 * SECOND)
        self.events: list[tuple[str, str]] = []
        self.reader = JournalReader(self.directory)
        self.open_writers: list[JournalWriter] = []
        self.killed_writers: list[JournalWriter] = []

    def open(self, settings: JournalSettings = QUIET) -> JournalWriter:
        writer = JournalWriter(self.directory, {"device": "load"}, settings, self.clock, self.report)
        self.open_writers.append(writer)
        return writer

    def report(self, kind: str, detail: str) -> None:
        self.events.append((kind, detail))

    def close(self, writer: JournalWriter) -> None:
        self.open_writers.remove(writer)
        writer.close()

    def kill(self, writer: JournalWriter) -> None:
        """Release the directory as the kernel does for a killed process: nothing is written or closed."""
        self.open_writers.remove(writer)
        self.killed_writers.append(writer)
        writer._place.release()

    def end(self) -> None:
        """Close what the test left open, and the files of killed writers."""
        for writer in list(self.open_writers):
            self.close(writer)
        for writer in self.killed_writers:
            writer._live.connection.close()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def write(self, writer: JournalWriter, count: int = 1, value: float = 1.0, step_s: float = 1.0) -> int:
        """Commit `count` rows one by one, `step_s` apart; the values count up from `value`."""
        seq = 0
        for i in range(count):
            self.clock.sleep_s(step_s)
            seq = writer.commit(rows({"voltage_v": value + i}, self.clock.boottime_ns()))
        return seq

    def values(self, name: str = "voltage_v") -> list[float]:
        """Return all values of a field as the reader finds them behind cursor 0, oldest first."""
        return [v for chunk in read_all(self.reader) for v in column(chunk, name)]

    def walls(self) -> list[float]:
        """Return the wall times in s of all rows whose time is known."""
        found = []
        for chunk in read_all(self.reader):
            wall_ns, known = self.reader.to_wall(chunk.boot_id, chunk.boottime_ns)
            found += [w / SECOND for w in wall_ns[known].tolist()]
        return found


def rows(values: Mapping[str, float | None], *stamps: int, measurement: str = "battery", **tags: str) -> Work:
    """Return work with one row of these values at each stamp."""
    return Work({(measurement, canonical({"device": "load", **tags})): [Row(stamp, values) for stamp in stamps]}, [])


def event(kind: str, detail: str = "", boottime_ns: int = 0) -> Work:
    return Work({}, [EventAt(boottime_ns, kind, detail)])


def column(chunk: Chunk, name: str) -> list[float]:
    """Return the present values of a field of a chunk."""
    for spec, found in zip(chunk.stream.fields, chunk.columns, strict=True):
        if spec.name == name:
            gaps = np.zeros(len(found.values), np.bool_) if found.missing is None else found.missing
            return [float(v) for v, gap in zip(found.values, gaps, strict=True) if not gap]
    return []


def read_all(reader: JournalReader, max_rows: int = 1000, seq: int = 0) -> list[Chunk]:
    """Return everything behind `seq`, as a shipper would read it."""
    found: list[Chunk] = []
    while True:
        batch = reader.after(seq, max_rows)
        if batch.hi == seq:
            return found
        found += batch.chunks
        seq = batch.hi


def fill(disk: Path) -> Path:
    """Return a file that takes all the space that was left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler
