"""Finds stretches whose sums miss points that arrived late, and computes them again.

An hour is late when raw holds another number of values than the counts that were stored with its sums. Hours that are
still running are left to the continuous queries. Repeating it is harmless: equal series and time overwrite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from collectors.signals import VOCABULARY
from grafana.downsampling import MEASUREMENTS, REDUCED, Grain, influxdb1, policy
from grafana.downsampling.server import Server

HOUR_S = 3600


class Stretch(NamedTuple):
    """Hours of one measurement whose sums are not what raw says."""

    grain: Grain
    measurement: str
    from_s: int
    to_s: int


def late(server: Server, from_s: int, to_s: int) -> Iterator[Stretch]:
    """Yield the stretches between these times (widened to whole hours, the running one left out)."""
    first, last = from_s // HOUR_S * HOUR_S, to_s // HOUR_S * HOUR_S
    raw = server.default_policy()
    for measurement in MEASUREMENTS:
        there = _per_hour(server, "count", raw, measurement, first, last)
        for grain in REDUCED:
            stored = _per_hour(server, "sum", policy(grain, "count"), measurement, first, last)
            hours = sorted(hour for hour in there if there[hour] != stored.get(hour))
            yield from (Stretch(grain, measurement, *span) for span in _joined(hours))


def backfill(server: Server, from_s: int, to_s: int) -> list[Stretch]:
    """Compute late stretches again and return them."""
    raw = server.default_policy()
    found = list(late(server, from_s, to_s))
    for stretch in found:
        for statement in influxdb1.again(server.database, raw, *stretch):
            server.query(statement)
    return found


def _per_hour(
    server: Server, function: str, policy_name: str, measurement: str, from_s: int, to_s: int
) -> dict[int, dict[str, float]]:
    """Return hour to field to how many values it has, leaving out fields and hours that have none."""
    fields = ", ".join(f'{function}("{name}") AS "{name}"' for name in VOCABULARY[measurement])
    found: dict[int, dict[str, float]] = {}
    for series in server.query(
        f'SELECT {fields} FROM "{policy_name}"."{measurement}" WHERE time >= {from_s}s AND time < {to_s}s '
        "GROUP BY time(1h) fill(none)"
    ):
        for hour, *counts in series["values"]:
            named = zip(series["columns"][1:], counts, strict=True)
            found[hour] = {name: float(count) for name, count in named if count}
    return {hour: counts for hour, counts in found.items() if counts}


def _joined(hours: list[int]) -> Iterator[tuple[int, int]]:
    """Yield runs of neighbouring hours as (first, end)."""
    start = None
    for at, hour in enumerate(hours):
        start = hour if start is None else start
        if at + 1 == len(hours) or hours[at + 1] != hour + HOUR_S:
            yield start, hour + HOUR_S
            start = None
