"""What waits for its commit: bounded, and the reader never waits for it.

When full, the oldest rows of the series that holds most are dropped, counted, and named
in an event that the next commit brings. (Fast streams reach this point decimated already, so a series that holds most
is the one with most detail.) Rows that a commit is busy with are never dropped: either it succeeds, or they come back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from collectors.reading import Value

ROW_BYTES, VALUE_BYTES = 150, 56
"""About what a waiting row costs in memory: its tuple, stamp and dict, and each value in it (CPython, 64 bit)."""
MOST_EVENTS = 1000

Key = tuple[str, str]
"""Measurement and canonical tags: the series that a row belongs to."""


class Row(NamedTuple):
    """One reading on its way."""

    boottime_ns: int
    values: Mapping[str, Value]


class EventAt(NamedTuple):
    """One event on its way."""

    boottime_ns: int
    kind: str
    detail: str
    tags: str = ""
    """Canonical text of tags that this event has beside, or instead of, the journal's own; most have none."""


@dataclass(slots=True)
class Work:
    """What one commit is to bring."""

    rows: dict[Key, list[Row]] = field(default_factory=dict)
    events: list[EventAt] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(self.rows or self.events)


@dataclass(slots=True)
class Loss:
    """Rows of one series that were dropped."""

    rows: int
    first_ns: int
    last_ns: int


class Backlog:
    """Rows and events between the reader and the committer. Any thread may use it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.dropped = 0
        self.rows = 0
        """Rows that are not committed, those in work included."""
        self.payload_bytes = 0
        """About what the next commit will write for the rows that are not in work."""
        self._lock = threading.Lock()
        self._waiting: dict[Key, deque[Row]] = {}
        self._cost = 0
        self._events: deque[EventAt] = deque()
        self._work = Work()
        self._losses: dict[Key, Loss] = {}
        self._events_lost = 0

    @property
    def fill(self) -> float:
        """Return how full it is: 0 to 1."""
        return self._cost / self.limit_bytes

    def put_row(self, key: Key, row: Row) -> None:
        """Take a row; drop older ones if there is no room."""
        with self._lock:
            self._waiting.setdefault(key, deque()).append(row)
            self.rows += 1
            self._cost += _cost(row)
            self.payload_bytes += 8 * (1 + len(row.values))
            self._shrink()

    def put_event(self, event: EventAt) -> None:
        """Take an event; drop the oldest one if there are too many."""
        with self._lock:
            self._events.append(event)
            if len(self._events) > MOST_EVENTS:
                self._events.popleft()
                self._events_lost += 1

    def take(self, now_ns: int) -> Work:
        """Return all that waits; it stays known until `done` or `give_back`. Losses so far become events in it."""
        with self._lock:
            rows = {key: list(waiting) for key, waiting in self._waiting.items() if waiting}
            events = [*self._events, *self._lost(now_ns)]
            self._waiting, self._events, self.payload_bytes = {}, deque(), 0
            self._work = Work(rows, events)
            return self._work

    def done(self) -> None:
        """Forget what was taken: it is committed."""
        with self._lock:
            for rows in self._work.rows.values():
                self.rows -= len(rows)
                self._cost -= sum(_cost(row) for row in rows)
            self._work = Work()

    def give_back(self) -> None:
        """Put what was taken back before what came since: its commit failed."""
        with self._lock:
            for key, rows in self._work.rows.items():
                self._waiting.setdefault(key, deque()).extendleft(reversed(rows))
                self.payload_bytes += sum(8 * (1 + len(row.values)) for row in rows)
            self._events.extendleft(reversed(self._work.events))
            self._work = Work()
            self._shrink()

    def _shrink(self) -> None:
        """Drop rows until the rest fits; what a commit is busy with stays even if it alone is too much."""
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
        loss = self._losses.setdefault(key, Loss(0, row.boottime_ns, row.boottime_ns))
        loss.rows += 1
        loss.last_ns = row.boottime_ns

    def _lost(self, now_ns: int) -> list[EventAt]:
        events = [
            EventAt(
                loss.last_ns,
                "samples_dropped",
                f"{loss.rows} rows of {measurement} {tags} from boottime {loss.first_ns} to {loss.last_ns} ns: "
                f"the disk did not take them and more than {self.limit_bytes} bytes waited in memory",
            )
            for (measurement, tags), loss in self._losses.items()
        ]
        if self._events_lost:
            events.append(EventAt(now_ns, "events_dropped", f"{self._events_lost} events: the disk did not take them"))
        self._losses, self._events_lost = {}, 0
        return events


def _cost(row: Row) -> int:
    return ROW_BYTES + VALUE_BYTES * len(row.values)
