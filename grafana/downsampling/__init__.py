"""Means, minima, maxima, counts and sums per minute and per hour, and which of them a time range is shown from.

    policy      raw (whatever the shipper writes to), then <grain>_<aggregate>: m1_mean … m1_sum, h1_mean … h1_sum
    sum         only of increments, amounts since the row before, such as the charge that flowed in: they add up
    fields      keep the vocabulary's names: *where* a value is kept says whether it is a mean or a maximum, so a panel
                asks the same of every grain
    h1          is made from raw, not from m1: a mean of means weighs gaps wrongly
    grain       a measurement of three points in h1_mean that tells dashboards which policies fit a range of time

Text fields (a model's name, an event's words) are not reduced; events are read as they are, on any range.
"""

from __future__ import annotations

from dataclasses import dataclass

from collectors.signals import VOCABULARY

AGGREGATES = ("mean", "min", "max", "count", "sum")
HOUR_S = 3600
FOR_EVER_S = 10**11
"""About 3000 years: longer than any range."""


@dataclass(frozen=True, slots=True)
class Grain:
    """One step of reduction."""

    name: str
    step: str
    per_hour: int
    """Steps in an hour: a whole number, because Grafana may escape a point as part of a pattern."""
    least_minutes: int
    """Two instruments are paired in a step only where each was heard in so many of its minutes (of a part of one: 1).
    Else the mean over a part of an hour would be compared with the mean over all of it."""
    from_s: int
    """Ranges longer than this are shown from it,"""
    to_s: int
    """up to this length."""
    keep: str = ""
    again: str = ""
    """How far back each run computes again, so that what comes minutes late is in."""
    every: str = ""


RAW = Grain("raw", "10s", 360, 1, 0, 6 * HOUR_S)
"""Pairs of instruments are formed in steps of ten seconds; single instruments are shown as finely as wanted."""
M1 = Grain("m1", "1m", 60, 1, 6 * HOUR_S, 13 * 24 * HOUR_S, keep="104w", again="10m", every="1m")
"""Up to where the dashboards' 400 points of a range are an hour apart: hours, shown finer, would be lone points."""
H1 = Grain("h1", "1h", 1, 54, 13 * 24 * HOUR_S, FOR_EVER_S, keep="INF", again="2h", every="15m")
REDUCED = (M1, H1)
MEASUREMENTS = tuple(VOCABULARY)


def reduced_fields(measurement: str, aggregate: str) -> list[str]:
    """Return the fields of a measurement that are reduced in this way; empty: none."""
    signals = VOCABULARY[measurement].values()
    return [signal.name for signal in signals if aggregate != "sum" or signal.is_increment]


def policy(grain: Grain, aggregate: str) -> str:
    """Return the retention policy that holds this aggregate of this grain."""
    return f"{grain.name}_{aggregate}"


def choices(raw_policy: str) -> list[str]:
    """Return line protocol (stamps 0) that tells the dashboards what to read, for this name of the raw policy."""
    lines = []
    for grain in (RAW, *REDUCED):
        names = dict.fromkeys(("mean", "least", "most", "sum", "minutes", "states"), raw_policy)
        if grain is not RAW:
            names = {"mean": policy(grain, "mean"), "least": policy(grain, "min"), "most": policy(grain, "max")}
            names |= {"sum": policy(grain, "sum"), "minutes": policy(M1, "mean"), "states": policy(M1, "max")}
        numbers = {"per_hour": grain.per_hour, "least_minutes": grain.least_minutes}
        words = names | {"step": grain.step} | {name: str(number) for name, number in numbers.items()}
        fields = ",".join(f'{key}="{value}"' for key, value in words.items())
        lines.append(f"grain,name={grain.name} {fields},from_s={grain.from_s}.0,to_s={grain.to_s}.0 0")
    return lines
