"""Join the signals of several instruments on one time base.

Every sample of the current is a row. It is joined with the newest voltage known at that time, at most 2 s old, and the
newest temperature, at most 10 min old (a place may set other limits). Nothing is interpolated, and no value comes from
the future; a row without a voltage has a missing value. Times are whole nanoseconds since 1970 up to the last step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from soc.stores._columns import Columns
from soc.stores._select import Group, Selection

Array = NDArray[np.float64]
Times = NDArray[np.int64]
Signal = tuple[Times, Array]

SECOND_NS = 10**9
OF_AGE = {"voltage_v": "voltage_age_s", "temperature_degc": "temperature_age_s"}


class JoinedSignal(Protocol):
    """A store of tagged measurements."""

    window_ns: int
    """The span of time that is fetched at once."""

    def first(self, group: Group, field: str, after: int | None, until: int) -> int | None:
        """Return the time of the field's first value after one time and not after another; None if there is none."""
        ...

    def fetch(self, group: Group, fields: Sequence[str], after: int, until: int) -> Mapping[str, Signal]:
        """Return times (rising) and values of each field in that span."""
        ...

    def close(self) -> None:
        """Release open resources."""
        ...


def ns(seconds: float) -> int:
    """Return whole nanoseconds, rounded to the microsecond: the resolution of a double for a time since 1970."""
    return round(seconds * 1e6) * 1000


def seconds(whole: Times) -> Array:
    """Return nanoseconds as the nearest double of seconds; a direct division would round twice."""
    return np.asarray(whole // SECOND_NS + (whole % SECOND_NS) / SECOND_NS, dtype=np.float64)


def joined(
    source: JoinedSignal, selection: Selection, since_s: float | None, until_s: float | None
) -> Iterator[Columns]:
    """Yield the rows later than the later beginning and not later than the earliest end, a window at a time."""
    begins = [ns(s) for s in (selection.since_s, since_s) if s is not None]
    after = max(begins, default=None)
    until = min(ns(s) for s in (selection.until_s, until_s, time.time()) if s is not None)
    try:
        while (first := source.first(*selection.signals["current_a"], after, until)) is not None:
            end = min(first + source.window_ns, until)
            yield _window(source, selection, first - 1, end)
            after = end
    finally:
        source.close()


def _window(source: JoinedSignal, selection: Selection, after: int, until: int) -> Columns:
    """Return the columns of the samples after one time and not after another."""
    ages = {name: ns(selection.ages_s[age]) for name, age in OF_AGE.items()}
    groups: dict[Group, list[str]] = {}
    for group, field in selection.signals.values():
        groups.setdefault(group, []).append(field)
    fetched = {group: source.fetch(group, names, after - max(ages.values()), until) for group, names in groups.items()}
    found = {name: fetched[group][field] for name, (group, field) in selection.signals.items()}
    times, current = found["current_a"]
    own = times > after
    at = times[own]
    columns = {name: newest(*found[name], at, age) for name, age in ages.items()}
    return {"time_s": seconds(at), "current_a": current[own], **columns}


def newest(known: Times, values: Array, at: Times, age: int) -> Array:
    """Return for each time the last value known then, NaN where it is older than `age`."""
    if len(known) == 0:
        return np.full(len(at), np.nan)
    k = np.searchsorted(known, at, side="right") - 1
    fresh = (k >= 0) & (at - known[np.maximum(k, 0)] <= age)
    return np.where(fresh, values[np.maximum(k, 0)], np.nan)
