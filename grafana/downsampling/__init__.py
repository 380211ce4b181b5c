"""Means, minima, maxima and counts per minute and per hour, and which of them a time range is shown from.

    policy      raw (whatever the shipper writes to), then <grain>_<aggregate>: m1_mean … m1_count, h1_mean … h1_count
    fields      keep the vocabulary's names: *where* a value is kept says whether it is a mean or a maximum, so a panel
                asks the same of every grain
    h1          is made from raw, not from m1: a mean of means weighs gaps wrongly
    grain       a measurement of three points in h1_mean that tells dashboards which policies fit a range of time

Text fields (a model's name, an event's words) are not reduced; events are read as they are, on any range.
"""

from __future__ import annotations

from dataclasses import dataclass

from collectors.signals import VOCABULARY

AGGREGATES = ("mean", "min", "max", "count")
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
    from_s: int
    """Ranges longer than this are shown from it,"""
    to_s: int
    """up to this length."""
    keep: str = ""
    again: str = ""
    """How far back each run computes again, so that what comes minutes late is in."""
    every: str = ""


RAW = Grain("raw", "10s", 360, 0, 6 * HOUR_S)
"""Pairs of instruments are formed in steps of ten seconds; single instruments are shown as finely as wanted."""
M1 = Grain("m1", "1m", 60, 6 * HOUR_S, 13 * 24 * HOUR_S, keep="104w", again="10m", every="1m")
"""Up to where the dashboards' 400 points of a range are an hour apart: hours, shown finer, would be lone points."""
H1 = Grain("h1", "1h", 1, 13 * 24 * HOUR_S, FOR_EVER_S, keep="INF", again="2h", every="15m")
REDUCED = (M1, H1)
MEASUREMENTS = tuple(VOCABULARY)


def policy(grain: Grain, aggregate: str) -> str:
    """Return the retention policy that holds this aggregate of this grain."""
    return f"{grain.name}_{aggregate}"


def choices(raw_policy: str) -> list[str]:
    """Return line protocol (stamps 0) that tells the dashboards what to read, for this name of the raw policy."""
    lines = []
    for grain in (RAW, *REDUCED):
        names = {"mean": raw_policy, "least": raw_policy, "most": raw_policy}
        if grain is not RAW:
            names = {"mean": policy(grain, "mean"), "least": policy(grain, "min"), "most": policy(grain, "max")}
        words = names | {"step": grain.step, "per_hour": str(grain.per_hour)}
        fields = ",".join(f'{key}="{value}"' for key, value in words.items())
        lines.append(f"grain,name={grain.name} {fields},from_s={grain.from_s}.0,to_s={grain.to_s}.0 0")
    return lines
