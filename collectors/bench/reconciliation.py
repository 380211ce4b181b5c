"""The bench's books: what the fakes sent, what the journals hold, what the database gives back.

sent      every message with measured values (`collectors.fakes.serve.SentLog`)
opening   said while a collector was still finding out whom it talks to
harmed    touched by a fault on the way, or said right before the line was lost
kept      of the rest, what is in the journal; `lost` is what is not
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors import throughput
from collectors.bench.sensors import Course
from collectors.fakes.serve import SentLog
from collectors.journal.reader import JournalReader
from collectors.journal.records import Chunk, Column, EventRecord, IntArray

EARLY_NS = 5_000
"""A sample's stamp may be this much before the fake's note of when it began to send: both round."""
OPENING_NS = 5_000_000_000
"""A charge controller is listened to for 3 s before it is asked (lab-instruments.md, section 1.2)."""
CUT_OFF_NS = 100_000_000
"""What was said this shortly before the line was lost may still have been in the adapter."""

NO_CAUSE = frozenset(
    {"link_up", "collector_start", "collector_stop", "back_in_range", "input_back", "object_refused", "slots_skipped"}
)
"""Events that come with a gap and do not explain it."""

SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
"""Measurement and sorted tags."""
OWN = "collector"
"""The measurement in which a collector speaks about itself."""
NOT_MEASURED = (OWN, throughput.MEASUREMENT)
"""Measurements that the collector writes, and no instrument."""


@dataclass
class JournalSeries:
    """Rows of one series: boottime stamps and, for each field, values with None where there is none."""

    boottime_ns: list[int] = field(default_factory=list)
    fields: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, chunk: Chunk, since_ns: int) -> int:
        """Append the rows since this time that are newer than the last one; return how many."""
        after_ns = self.boottime_ns[-1] if self.boottime_ns else since_ns - 1
        start = int(np.searchsorted(chunk.boottime_ns, after_ns, side="right"))
        before, count = len(self.boottime_ns), len(chunk.boottime_ns) - start
        self.boottime_ns += chunk.boottime_ns[start:].tolist()
        columns = {s.name: column_values(c)[start:] for s, c in zip(chunk.stream.fields, chunk.columns, strict=True)}
        for name in columns.keys() - self.fields.keys():
            self.fields[name] = [None] * before
        for name, values in self.fields.items():
            values += columns.get(name, [None] * count)
        return count

    def forget_before(self, boottime_ns: int) -> None:
        """Forget all older rows."""
        first = bisect_left(self.boottime_ns, boottime_ns)
        del self.boottime_ns[:first]
        for values in self.fields.values():
            del values[:first]

    def course(self, name: str) -> Course:
        """Return one field's course, rows without a value left out."""
        present = [(t, v) for t, v in zip(self.boottime_ns, self.fields.get(name, ()), strict=False) if v is not None]
        return Course(np.array([t for t, _ in present], np.int64), np.array([v for _, v in present], np.float64))


def column_values(column: Column) -> list[Any]:
    """Return a column's values, None where it has none."""
    values = column.values.tolist() if isinstance(column.values, np.ndarray) else list(column.values)
    if column.missing is None:
        return values
    return [None if missing else value for value, missing in zip(values, column.missing.tolist(), strict=True)]


class Journal:
    """One collector's journal since a time of this boot, followed while it grows."""

    def __init__(self, reader: JournalReader, since_ns: int, tail_s: float | None = None) -> None:
        """`tail_s`: keep only the newest rows of each series, over so much time."""
        self.reader = reader
        self.series: dict[SeriesKey, JournalSeries] = {}
        self.events: list[EventRecord] = []
        self.rows = 0
        """How many were ever read, the collector's own left out."""
        self._since_ns = since_ns
        self._tail_s = tail_s
        self._cursor = 0

    def update(self) -> None:
        """Take in what is new."""
        while self.reader.newest_seq() > self._cursor:
            batch = self.reader.after(self._cursor)
            for chunk in batch.chunks:
                self._add(chunk)
            self.events += [event for event in batch.events if event.boottime_ns >= self._since_ns]
            self._cursor = batch.hi

    def _add(self, chunk: Chunk) -> None:
        key = (chunk.stream.measurement, tuple(sorted(chunk.stream.tags.items())))
        series = self.series.setdefault(key, JournalSeries())
        added = series.add(chunk, self._since_ns)
        self.rows += added if key[0] not in NOT_MEASURED else 0
        if self._tail_s and series.boottime_ns:
            series.forget_before(series.boottime_ns[-1] - round(self._tail_s * 1e9))

    def measured(self) -> dict[SeriesKey, JournalSeries]:
        """Return what the instrument said, not what the collector says about itself."""
        return {key: series for key, series in self.series.items() if key[0] not in NOT_MEASURED}

    def course(self, measurement: str, name: str) -> Course:
        """Return the course of a field, the series that has most of it if there are several."""
        found = [series.course(name) for (m, _), series in self.series.items() if m == measurement]
        nothing = Course(np.empty(0, np.int64), np.empty(0))
        return max(found, key=lambda course: len(course.values), default=nothing)

    def own(self) -> Mapping[str, float]:
        """Return the newest of the collector's reports on itself."""
        for (measurement, tags), series in self.series.items():
            if measurement == OWN and "outcome" not in dict(tags) and series.boottime_ns:
                return {name: values[-1] for name, values in series.fields.items() if values[-1] is not None}
        return {}

    def causes(self) -> list[tuple[int, str]]:
        """Return time and kind of the events that can explain a gap."""
        return [(event.boottime_ns, event.kind) for event in self.events if event.kind not in NO_CAUSE]

    def up_ns(self) -> IntArray:
        """Return when the link was up, each time."""
        return np.array([event.boottime_ns for event in self.events if event.kind == "link_up"], np.int64)

    def stamps(self) -> IntArray:
        """Return the stamps of all samples that hold at least one value, rising; one for all series of an instant."""
        found = {
            stamp
            for series in self.measured().values()
            for stamp, *values in zip(series.boottime_ns, *series.fields.values(), strict=True)
            if any(value is not None for value in values)
        }
        return np.array(sorted(found), np.int64)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What became of an instrument's samples."""

    sent: int
    opening: int
    harmed: int
    kept: int
    lost: int


def reconcile(sent: SentLog, stamps: IntArray, up_ns: IntArray, until_ns: int) -> Reconciliation:
    """Return what became of everything sent before `until_ns`, given what the journal holds.

    `stamps` are those of its samples, rising; `up_ns` those of the events that say that the link is up.
    """
    sent_ns = np.array(sent.boottime_ns, np.int64)
    is_sent = sent_ns < until_ns
    is_harmed = np.frombuffer(bytes(sent.harmed[: len(sent_ns)]), np.uint8).astype(bool)
    for gone_ns in sent.gone_ns:
        if gone_ns < until_ns:
            is_harmed |= (sent_ns >= gone_ns - CUT_OFF_NS) & (sent_ns < gone_ns)
    is_opening = is_sent & _opening(sent_ns, sent.connected_ns, up_ns)
    is_harmed &= is_sent & ~is_opening
    is_counted = is_sent & ~is_harmed & ~is_opening
    counted = int(is_counted.sum())
    kept = int((is_counted & _have_rows(sent_ns, stamps)).sum())
    return Reconciliation(
        sent=int(is_sent.sum()),
        opening=int(is_opening.sum()),
        harmed=int(is_harmed.sum()),
        kept=kept,
        lost=counted - kept,
    )


def _opening(sent_ns: IntArray, connected_ns: Iterable[int], up_ns: IntArray) -> npt.NDArray[np.bool_]:
    """Return which samples were said between a connection and the event that the link is up, within OPENING_NS."""
    opening = np.zeros(len(sent_ns), np.bool_)
    for start_ns in connected_ns:
        later_ns = up_ns[up_ns >= start_ns][:1]
        end_ns = min([start_ns + OPENING_NS, *later_ns.tolist()])
        opening |= (sent_ns >= start_ns) & (sent_ns <= end_ns)
    return opening


def _have_rows(sent_ns: IntArray, stamps: IntArray) -> npt.NDArray[np.bool_]:
    """Return which samples have a row in the journal.

    From the newest to the oldest, each row is that of the newest sample that was said before it and has none yet. So a
    row that was read late, after the next sample was said, takes nobody's place; and what was said later, as the bench
    came to its end, makes up for no sample that is missing.
    """
    has_row = np.zeros(len(sent_ns), np.bool_)
    free = len(sent_ns) - 1
    for stamp in reversed(stamps.tolist()):
        while free >= 0 and sent_ns[free] - EARLY_NS > stamp:
            free -= 1
        if free < 0:
            break
        has_row[free] = True
        free -= 1
    return has_row


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without a sample."""

    start_ns: int
    seconds: float
    cause: str
    """What happened around it, or what was given for a gap around which nothing is known to have happened."""


GAP_PERIODS = 2.5
AROUND_NS = 1_000_000_000


def gaps(stamps: IntArray, causes: Sequence[tuple[int, str]], period_s: float, unexplained: str) -> list[Gap]:
    """Return every time of more than GAP_PERIODS periods between two samples, with what happened around it."""
    found = []
    for before, width in zip(stamps.tolist(), np.diff(stamps).tolist(), strict=False):
        if width > GAP_PERIODS * period_s * 1e9:
            end = before + width + AROUND_NS
            kinds = {kind for at_ns, kind in causes if before - AROUND_NS <= at_ns <= end}
            found.append(Gap(before, width / 1e9, ", ".join(sorted(kinds)) or unexplained))
    return found
