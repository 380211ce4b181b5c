"""Charge and energy that flow into and out of a battery, integrated at the full sample rate.

A mean over a minute offsets inflow against outflow, so sums of means are too small where the current changes its sign.
Here the two are integrated separately, by this rule:

    between samples   The current is a straight line from one sample to the next. Its area above zero is charge in, the
                      area below zero is charge out; the area is divided exactly at a zero crossing.
    energy            The same with the power, voltage times current of each sample (or the sample's own `power_w`).
    gaps              Between neighbouring samples more than `gap_s` apart nothing is integrated: what was not measured
                      is not estimated. The poller uses 5 periods, or the time after which the instrument counts as
                      silent if that is longer. A sample without a plausible current is ignored.
    rows              At the first sample at least ROW_S after the last row, before a gap, and at the end of a session:
                      the amounts since the previous row, stamped with the last sample they include. So rows add up
                      over any range, restarts included. A crash or a power cut loses the amounts of at most ROW_S.

Charge in Ah, energy in Wh, all amounts positive. A row leaves out what was never measured, so a battery without voltage
has no energy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from collectors.reading import Reading, Value

MEASUREMENT = "throughput"
SOURCE = "battery"
"""The measurement whose readings are integrated."""
ROW_S = 15.0
SECONDS_PER_HOUR = 3600.0


def areas(before: float, after: float, seconds: float) -> tuple[float, float]:
    """Return the area above and the area below a straight line between two values, both positive, per value·second."""
    if before * after >= 0.0:
        area = (before + after) / 2 * seconds
        return max(area, 0.0), max(-area, 0.0)
    crossing_s = seconds * before / (before - after)
    first, second = before / 2 * crossing_s, after / 2 * (seconds - crossing_s)
    return max(first, second), max(-first, -second)


@dataclass(slots=True)
class _Amount:
    """One integrand: its newest sample, and the amounts since the last row."""

    boottime_ns: int = 0
    value: float | None = None
    flowed_in: float = 0.0
    flowed_out: float = 0.0
    is_measured: bool = False
    """Whether there is an amount since the last row, which may be zero."""

    def add(self, boottime_ns: int, value: float, gap_s: float) -> None:
        seconds = (boottime_ns - self.boottime_ns) / 1e9
        if self.value is not None and 0 < seconds <= gap_s:
            above, below = areas(self.value, value, seconds)
            self.flowed_in += above / SECONDS_PER_HOUR
            self.flowed_out += below / SECONDS_PER_HOUR
            self.is_measured = True
        self.boottime_ns, self.value = boottime_ns, value

    def take(self) -> tuple[float, float]:
        """Return the amounts in and out, and reset them."""
        amounts = self.flowed_in, self.flowed_out
        self.flowed_in, self.flowed_out, self.is_measured = 0.0, 0.0, False
        return amounts


@dataclass(slots=True)
class _Battery:
    tags: Mapping[str, str]
    row_ns: int
    """When the last row was due; the first sample after a gap."""
    newest_ns: int
    charge: _Amount = field(default_factory=_Amount)
    energy: _Amount = field(default_factory=_Amount)


class Integrator:
    """Converts one instrument's readings to rows of the throughput of its batteries. Memory: a few numbers each."""

    def __init__(self, gap_s: float) -> None:
        """`gap_s`: between samples further apart than this, in s, nothing is integrated."""
        self._gap_s = gap_s
        self._batteries: dict[tuple[tuple[str, str], ...], _Battery] = {}

    def add(self, reading: Reading) -> Iterable[Reading]:
        """Add a reading; yield the rows that are due now: none, one, or two around a gap that ends."""
        current_a = reading.values.get("current_a")
        if reading.measurement != SOURCE or current_a is None:
            return
        key, now_ns = tuple(sorted(reading.tags.items())), reading.boottime_ns
        battery = self._batteries.get(key)
        if battery is None or now_ns - battery.newest_ns > self._gap_s * 1e9:
            if battery is not None:
                yield from self._row(battery)
            battery = self._batteries[key] = _Battery(reading.tags, now_ns, now_ns)
        battery.charge.add(now_ns, current_a, self._gap_s)
        power_w = _power_w(reading.values, current_a)
        if power_w is not None:
            battery.energy.add(now_ns, power_w, self._gap_s)
        battery.newest_ns = now_ns
        if now_ns - battery.row_ns >= ROW_S * 1e9:
            yield from self._row(battery)

    def flush(self) -> Iterable[Reading]:
        """Yield the rows of amounts without a row yet; the samples stay, so that a short loss of the link is no gap."""
        for battery in self._batteries.values():
            yield from self._row(battery)

    def _row(self, battery: _Battery) -> Iterable[Reading]:
        battery.row_ns = battery.newest_ns
        values: dict[str, Value] = {}
        for amount, name, unit in ((battery.charge, "charge", "ah"), (battery.energy, "energy", "wh")):
            if amount.is_measured:
                values[f"{name}_in_{unit}"], values[f"{name}_out_{unit}"] = amount.take()
        if values:
            yield Reading(MEASUREMENT, battery.newest_ns, values, battery.tags)


def _power_w(values: Mapping[str, Value], current_a: float) -> Value:
    voltage_v = values.get("voltage_v")
    return values.get("power_w") if voltage_v is None else voltage_v * current_a
