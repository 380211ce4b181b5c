"""Reconciles the samples that the fakes sent with the samples in the journals.

sent      every message with measured values (`collectors.fakes.serve.SentLog`)
opening   sent while a collector was still identifying the instrument
harmed    affected by an injected fault in transit, or sent right before the connection was lost
kept      of the rest, the samples in the journal; `lost`: those that are not in it
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
"""A sample's time stamp may precede the fake's record of the start of sending by this much: both are rounded."""
OPENING_NS = 5_000_000_000
"""Longest opening: the driver listens 3 s before it asks (docs/protocols/libresolar_mppt.md, section 2)."""
CUT_OFF_NS = 100_000_000
"""A message sent this shortly before the connection was lost may still have been in the adapter."""

NO_CAUSE = frozenset(
    {"link_up", "collector_start", "collector_stop", "back_in_range", "input_back", "object_refused", "slots_skipped"}
)
"""Events that accompany a gap but do not explain it."""

SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
"""Measurement and sorted tags."""
OWN = "collector"
"""The measurement in which a collector reports on itself."""
NOT_MEASURED = (OWN, throughput.MEASUREMENT)
"""Measurements that come from the collector, not from an instrument."""


@dataclass
class JournalSeries:
    """Rows of one series: boot times and, for each field, values, None where there is none."""

    boottime_ns: list[int] = field(default_factory=list)
    fields: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, chunk: Chunk, since_ns: int) -> int:
        """Append the rows since `since_ns` that are newer than the last row; return how many."""
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
        """Remove all older rows."""
        first = bisect_left(self.boottime_ns, boottime_ns)
        del self.boottime_ns[:first]
        for values in self.fields.values():
            del values[:first]

    def course(self, name: str) -> Course:
        """Return one field's course; rows without a value are omitted."""
        present = [(t, v) for t, v in zip(self.boottime_ns, self.fields.get(name, ()), strict=False) if v is not None]
        return Course(np.array([t for t, _ in present], np.int64), np.array([v for _, v in present], np.float64))


def column_values(column: Column) -> list[Any]:
    """Return a column's values, None where there is none."""
    values = column.values.tolist() if isinstance(column.values, np.ndarray) else list(column.values)
    if column.missing is None:
        return values
    return [None if missing else value for value, missing in zip(values, column.missing.tolist(), strict=True)]


class Journal:
    """One collector's journal since a time of this boot, read incrementally."""

    def __init__(self, reader: JournalReader, since_ns: int, tail_s: float | None = None) -> None:
        """`tail_s`: keep only the newest rows of each series, over this many seconds; None: keep all."""
        self.reader = reader
        self.series: dict[SeriesKey, JournalSeries] = {}
        self.events: list[EventRecord] = []
        self.rows = 0
        """Number of rows read so far, without the collector's own."""
        self._since_ns = since_ns
        self._tail_s = tail_s
        self._cursor = 0

    def update(self) -> None:
        """Read the new rows and events."""
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
        """Return the instrument's series, without the collector's own."""
        return {key: series for key, series in self.series.items() if key[0] not in NOT_MEASURED}

    def course(self, measurement: str, name: str) -> Course:
        """Return the course of a field, of the series with most values if there are several."""
        found = [series.course(name) for (m, _), series in self.series.items() if m == measurement]
        nothing = Course(np.empty(0, np.int64), np.empty(0))
        return max(found, key=lambda course: len(course.values), default=nothing)

    def own(self) -> Mapping[str, float]:
        """Return the collector's newest report on itself."""
        for (measurement, tags), series in self.series.items():
            if measurement == OWN and "outcome" not in dict(tags) and series.boottime_ns:
                return {name: values[-1] for name, values in series.fields.items() if values[-1] is not None}
        return {}

    def causes(self) -> list[tuple[int, str]]:
        """Return boot time and kind of the events that can explain a gap."""
        return [(event.boottime_ns, event.kind) for event in self.events if event.kind not in NO_CAUSE]

    def up_ns(self) -> IntArray:
        """Return the boot times of the events `link_up`."""
        return np.array([event.boottime_ns for event in self.events if event.kind == "link_up"], np.int64)

    def stamps(self) -> IntArray:
        """Return the boot times of all samples with at least one value, ascending; one for all series of a time."""
        found = {
            stamp
            for series in self.measured().values()
            for stamp, *values in zip(series.boottime_ns, *series.fields.values(), strict=True)
            if any(value is not None for value in values)
        }
        return np.array(sorted(found), np.int64)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Numbers of an instrument's samples; the module's docstring defines them."""

    sent: int
    opening: int
    harmed: int
    kept: int
    lost: int


def reconcile(sent: SentLog, stamps: IntArray, up_ns: IntArray, until_ns: int) -> Reconciliation:
    """Reconcile the samples sent before `until_ns` with the journal.

    `stamps`: boot times of the journal's samples, ascending; `up_ns`: boot times of its events `link_up`.
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
    """Return which samples were sent between a connection and the next event `link_up`, within OPENING_NS."""
    opening = np.zeros(len(sent_ns), np.bool_)
    for start_ns in connected_ns:
        later_ns = up_ns[up_ns >= start_ns][:1]
        end_ns = min([start_ns + OPENING_NS, *later_ns.tolist()])
        opening |= (sent_ns >= start_ns) & (sent_ns <= end_ns)
    return opening


def _have_rows(sent_ns: IntArray, stamps: IntArray) -> npt.NDArray[np.bool_]:
    """Return which samples have a row in the journal.

    From the newest to the oldest, each row is assigned to the newest sample that was sent before it and has no row yet.
    Thus a row that was read late, after the next sample was sent, does not take that sample's place, and samples sent
    at the end of the run do not replace missing ones.
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
    """A period without a sample."""

    start_ns: int
    seconds: float
    cause: str
    """The events around it, or the text given for a gap without such events."""


GAP_PERIODS = 2.5
AROUND_NS = 1_000_000_000


def gaps(stamps: IntArray, causes: Sequence[tuple[int, str]], period_s: float, unexplained: str) -> list[Gap]:
    """Return every gap of more than GAP_PERIODS periods between two samples, with the events around it."""
    found = []
    for before, width in zip(stamps.tolist(), np.diff(stamps).tolist(), strict=False):
        if width > GAP_PERIODS * period_s * 1e9:
            end = before + width + AROUND_NS
            kinds = {kind for at_ns, kind in causes if before - AROUND_NS <= at_ns <= end}
            found.append(Gap(before, width / 1e9, ", ".join(sorted(kinds)) or unexplained))
    return found
