"""Rows and events that wait for their commit: bounded; adding one never blocks.

When the backlog is full, the oldest rows of the series with the most rows are dropped and counted. (Fast streams are
already decimated here, so the series with the most rows is the one with the most detail.) Rows in a running commit are
never dropped: either it succeeds, or they are put back. Events are bounded by kind: many events of one kind displace
no event of another.

Dropped rows and events are one `Loss` for each series and each kind, however long the disk accepts nothing; the next
commit writes each as an event. A failed commit returns losses as losses, so that they are merged and reported once.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from collectors.reading import Value

ROW_BYTES, VALUE_BYTES = 150, 56
"""Approximate memory of a waiting row: its tuple, stamp and dict, and each value in it (CPython, 64 bit)."""
MOST_EVENTS = 1000
MOST_SERIES = 200
"""Number of series whose losses are kept apart; those of all further series are one loss under OTHERS."""

Key = tuple[str, str]
"""Measurement and canonical tags: the series of a row."""

K = TypeVar("K")

OTHERS: Key = ("other series", "")


class Row(NamedTuple):
    """One reading before its commit."""

    boottime_ns: int
    values: Mapping[str, Value]


class EventAt(NamedTuple):
    """One event before its commit."""

    boottime_ns: int
    kind: str
    detail: str
    tags: str = ""
    """Canonical text of tags that this event adds to the journal's own or overrides; empty for most events."""
    boot_id: str = ""
    """The boot that `boottime_ns` counts from; empty: the present one."""


@dataclass(slots=True)
class Work:
    """What one commit writes."""

    rows: dict[Key, list[Row]] = field(default_factory=dict)
    events: list[EventAt] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.rows or self.events)


@dataclass(slots=True)
class Loss:
    """Rows of one series, or events of one kind, that were dropped; the stamps of the first and the last of them."""

    count: int
    first_ns: int
    last_ns: int

    def add(self, other: Loss) -> None:
        """Add another loss to this one."""
        self.count += other.count
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)

    def __str__(self) -> str:
        """Return the range as text for people."""
        return f"from boottime {self.first_ns} to {self.last_ns} ns"


@dataclass(slots=True)
class Losses:
    """Everything that was dropped and is not reported yet. Its size does not depend on the number of rows or events."""

    rows: dict[Key, Loss] = field(default_factory=dict)
    events: dict[str, Loss] = field(default_factory=dict)
    """By event kind."""

    @property
    def row_count(self) -> int:
        """Return how many rows were lost."""
        return sum(loss.count for loss in self.rows.values())

    @property
    def event_count(self) -> int:
        """Return how many events were lost."""
        return sum(loss.count for loss in self.events.values())

    def __bool__(self) -> bool:
        """Return whether anything was lost."""
        return bool(self.rows or self.events)

    def add_rows(self, key: Key, loss: Loss) -> None:
        """Add a loss of rows."""
        if key not in self.rows and len(self.rows) >= MOST_SERIES:
            key = OTHERS
        _add(self.rows, key, loss)

    def add_events(self, kind: str, loss: Loss) -> None:
        """Add a loss of events."""
        _add(self.events, kind, loss)

    def merge(self, other: Losses) -> None:
        """Add all losses of another instance."""
        for key, loss in other.rows.items():
            self.add_rows(key, loss)
        for kind, loss in other.events.items():
            self.add_events(kind, loss)

    def told(self, why: str, boot_id: str = "") -> list[EventAt]:
        """Return the events that report the losses, one for each series and kind."""
        rows = [
            EventAt(
                loss.last_ns,
                "samples_dropped",
                f"{loss.count} rows of {' '.join(filter(None, key))} {loss}: {why}",
                boot_id=boot_id,
            )
            for key, loss in self.rows.items()
        ]
        events = [
            EventAt(loss.last_ns, "events_dropped", f"{loss.count} events {kind} {loss}: {why}", boot_id=boot_id)
            for kind, loss in self.events.items()
        ]
        return rows + events


class Backlog:
    """Rows and events between the reader and the committer. Safe to use from any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.dropped = 0
        self.rows = 0
        """Rows that are not committed, including those in a running commit."""
        self.payload_bytes = 0
        """Approximate bytes that the next commit will write for the rows that are not in a running commit."""
        self._lock = threading.Lock()
        self._waiting: dict[Key, deque[Row]] = {}
        self._cost = 0
        self._events: dict[str, deque[tuple[int, EventAt]]] = {}
        """By kind; each event has its position in the order of all."""
        self._order = itertools.count()
        self._losses = Losses()
        self._work = Work()
        self._work_events: list[tuple[int, EventAt]] = []
        self._work_losses = Losses()

    @property
    def is_empty(self) -> bool:
        """Return whether everything is committed."""
        with self._lock:
            return not (self.rows or self._events or self._losses or self._work)

    @property
    def fill(self) -> float:
        """Return the fill level: 0 to 1."""
        return self._cost / self.limit_bytes

    def put_row(self, key: Key, row: Row) -> None:
        """Add a row; drop older ones if there is no room."""
        with self._lock:
            self._waiting.setdefault(key, deque()).append(row)
            self.rows += 1
            self._cost += _cost(row)
            self.payload_bytes += 8 * (1 + len(row.values))
            self._shrink()

    def put_event(self, event: EventAt) -> None:
        """Add an event; drop the oldest event of the most frequent kind if there are too many."""
        with self._lock:
            self._events.setdefault(event.kind, deque()).append((next(self._order), event))
            self._shrink_events()

    def take(self) -> Work:
        """Return everything that waits; it is kept until `done` or `give_back`. Losses so far become events in it."""
        with self._lock:
            rows = {key: list(waiting) for key, waiting in self._waiting.items() if waiting}
            self._work_events = sorted(itertools.chain(*self._events.values()), key=lambda pair: pair[0])
            self._work_losses, self._losses = self._losses, Losses()
            told = self._work_losses.told(
                f"the disk did not take them and more than {self.limit_bytes} bytes or {MOST_EVENTS} events waited "
                "in memory"
            )
            self._waiting, self._events, self.payload_bytes = {}, {}, 0
            self._work = Work(rows, [*(event for _, event in self._work_events), *told])
            return self._work

    def done(self) -> None:
        """Drop what `take` returned: it is committed."""
        with self._lock:
            for rows in self._work.rows.values():
                self.rows -= len(rows)
                self._cost -= sum(_cost(row) for row in rows)
            self._forget_work()

    def give_back(self) -> None:
        """Put back what `take` returned, before everything that was added since: its commit failed."""
        with self._lock:
            for key, rows in self._work.rows.items():
                self._waiting.setdefault(key, deque()).extendleft(reversed(rows))
                self.payload_bytes += sum(8 * (1 + len(row.values)) for row in rows)
            for order, event in reversed(self._work_events):
                self._events.setdefault(event.kind, deque()).appendleft((order, event))
            self._losses.merge(self._work_losses)
            self._forget_work()
            self._shrink()
            self._shrink_events()

    def outstanding(self) -> Losses:
        """Return what would be lost if the process ended now: all that waits, and losses not yet reported."""
        with self._lock:
            found = Losses()
            found.merge(self._losses)
            found.merge(self._work_losses)
            for key, rows in itertools.chain(self._waiting.items(), self._work.rows.items()):
                if rows:
                    found.add_rows(key, _span(row.boottime_ns for row in rows))
            for _, event in itertools.chain(self._work_events, *self._events.values()):
                found.add_events(event.kind, Loss(1, event.boottime_ns, event.boottime_ns))
            return found

    def _forget_work(self) -> None:
        self._work, self._work_events, self._work_losses = Work(), [], Losses()

    def _shrink(self) -> None:
        """Drop rows until the rest fits; rows in a running commit stay even if they alone exceed the limit."""
        while self._cost > self.limit_bytes and any(self._waiting.values()):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Drop the oldest waiting row of the series with most rows."""
        key = max(self._waiting, key=lambda k: len(self._waiting[k]))
        row = self._waiting[key].popleft()
        self.rows -= 1
        self.dropped += 1
        self._cost -= _cost(row)
        self.payload_bytes -= 8 * (1 + len(row.values))
        self._losses.add_rows(key, Loss(1, row.boottime_ns, row.boottime_ns))

    def _shrink_events(self) -> None:
        while sum(map(len, self._events.values())) > MOST_EVENTS:
            kind = max(self._events, key=lambda k: len(self._events[k]))
            _, event = self._events[kind].popleft()
            self._losses.add_events(kind, Loss(1, event.boottime_ns, event.boottime_ns))


def _add(losses: dict[K, Loss], key: K, loss: Loss) -> None:
    """Add a loss to the one under its key. The loss itself is never kept, since the caller may own it."""
    known = losses.get(key)
    if known is None:
        losses[key] = Loss(loss.count, loss.first_ns, loss.last_ns)
    else:
        known.add(loss)


def _span(stamps: Iterable[int]) -> Loss:
    """Return the loss of all rows with these stamps, at least one."""
    found = list(stamps)
    return Loss(len(found), min(found), max(found))


def _cost(row: Row) -> int:
    return ROW_BYTES + VALUE_BYTES * len(row.values)
