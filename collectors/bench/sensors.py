"""What each instrument makes of the truth, and how far two of them agree.

    seen = round_to(resolution, gain · true + offset + noise)

Noise is white and its generator seeded for each instrument. Resolution is the instrument's own step; the bytes on the
wire may round once more. Sizes are those of the real bench: lab-instruments.md, sections 1.3 (charger: two decimals),
2.4 (load: nominal value / 25600) and 4 (hall sensor), and the recording's own
finding (2021-05-28) that the hall sensor reads 0.959 times what the charger's shunt reads, without an offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sensor:
    """How one quantity is seen."""

    noise: float = 0.0
    """Standard deviation, in the quantity's unit."""
    gain: float = 1.0
    offset: float = 0.0
    resolution: float = 0.0
    """Smallest step; 0: none."""

    def see(self, true: float, standard_normal: float) -> float:
        """Return what the instrument reads."""
        seen = self.gain * true + self.offset + self.noise * standard_normal
        return round(seen / self.resolution) * self.resolution if self.resolution else seen


EXACT = Sensor()


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument's view: which quantities it sees, and how."""

    period_s: float
    """Time between its samples on a real bench."""
    sensors: Mapping[str, Sensor] = field(default_factory=dict)
    """Key of the truth to its sensor; quantities that are not named are seen exactly."""


EA_FULL_SCALE = 25_600.0
EL_3160_60_NOMINAL = {"voltage_v": 160.0, "current_a": 60.0, "power_w": 400.0}

MPPT = Instrument(
    period_s=1.0,
    sensors={
        "battery.voltage_v": Sensor(noise=0.004, offset=0.01, resolution=0.01),
        "battery.current_a": Sensor(noise=0.008, resolution=0.01),
        "solar.voltage_v": Sensor(noise=0.01, resolution=0.01),
        "solar.current_a": Sensor(noise=0.008, resolution=0.01),
        "load.current_a": Sensor(noise=0.005, resolution=0.01),
        "battery.temperature_degc": Sensor(noise=0.05, resolution=0.1),
    },
)
LOAD = Instrument(
    period_s=1.0,
    sensors={
        f"load.{name}": Sensor(noise=0.5 * nominal / EA_FULL_SCALE, resolution=nominal / EA_FULL_SCALE)
        for name, nominal in EL_3160_60_NOMINAL.items()
    },
)
T7 = Instrument(
    period_s=0.1,
    sensors={
        # The converter's own noise is in the fake's volts; this is what hall sensor and divider do before it.
        "battery.voltage_v": Sensor(gain=1.0008),
        "battery.current_a": Sensor(noise=0.002, gain=0.959),
    },
)


class View:
    """A World as one instrument sees it: a source of truth behind the instrument's sensors."""

    def __init__(self, instrument: Instrument, seed: int) -> None:
        self._sensors = instrument.sensors
        self._rng = np.random.default_rng(seed)

    def see(self, true: Mapping[str, float | None]) -> dict[str, float | None]:
        """Return what the instrument reads; no value stays no value."""
        return {
            key: None if value is None else self._sensors.get(key, EXACT).see(value, self._rng.standard_normal())
            for key, value in true.items()
        }


class Course(NamedTuple):
    """One quantity as one instrument gave it: CLOCK_BOOTTIME in ns, rising, and the values."""

    boottime_ns: IntArray
    values: Array


@dataclass(frozen=True, slots=True)
class Agreement:
    """How `other` compares with `reference`, over samples of (nearly) the same instant; all in the quantity's unit."""

    pairs: int
    residual_mean: float
    """Of other − reference."""
    residual_std: float
    residual_median: float
    """Of |other − reference|."""
    gain: float | None
    """Slope of other over reference, from steady pairs; None where the reference hardly moved."""
    offset: float | None
    """Of the same line, at zero."""


LEAST_PAIRS = 3
TINY = 1e-9
"""A spread below this is rounding, not a movement."""
STEADY_STEPS = 3.0
"""A pair counts for the line when neither instrument moved more than this many times its usual step."""


def pair(reference: Course, other: Course, within_ns: int) -> tuple[IntArray, IntArray]:
    """Return indices of samples that belong together: for each of the reference the nearest other within the time."""
    if not len(reference.boottime_ns) or not len(other.boottime_ns):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    after = np.searchsorted(other.boottime_ns, reference.boottime_ns).clip(1, max(1, len(other.boottime_ns) - 1))
    last = len(other.boottime_ns) - 1
    before, after = after - 1, np.minimum(after, last)
    to_before = np.abs(reference.boottime_ns - other.boottime_ns[before])
    to_after = np.abs(reference.boottime_ns - other.boottime_ns[after])
    nearest = np.where(to_before <= to_after, before, after)
    is_near = np.minimum(to_before, to_after) <= within_ns
    return np.flatnonzero(is_near), nearest[is_near]


def agreement(reference: Course, other: Course, within_ns: int) -> Agreement | None:
    """Return how the two agree; None with fewer than LEAST_PAIRS samples in common.

    The samples of two instruments are never of exactly the same instant, so while the current moves they differ for
    no fault of theirs. Mean, deviation and median take all pairs; gain and offset (least squares) only steady ones.
    """
    mine, theirs = pair(reference, other, within_ns)
    if len(mine) < LEAST_PAIRS:
        return None
    x, y = reference.values[mine], other.values[theirs]
    residual = y - x
    gain, offset = _line(x, y)
    return Agreement(
        pairs=len(x),
        residual_mean=float(residual.mean()),
        residual_std=float(residual.std()),
        residual_median=float(np.median(np.abs(residual))),
        gain=gain,
        offset=offset,
    )


def _line(x: Array, y: Array) -> tuple[float | None, float | None]:
    """Return slope and intercept of y over x from steady pairs; None, None when x does not spread enough to say."""
    steady = _is_steady(x) & _is_steady(y)
    x, y = x[steady], y[steady]
    if len(x) < LEAST_PAIRS:
        return None, None
    spread = float(x.std())
    if spread <= max(10 * _usual_step(x), TINY):
        return None, None
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / spread**2)
    return slope, float(y.mean() - slope * x.mean())


def _usual_step(values: Array) -> float:
    """Return the median of the steps between neighbours that are not zero: noise or resolution."""
    steps = np.abs(np.diff(values))
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 0.0


def _is_steady(values: Array) -> npt.NDArray[np.bool_]:
    """Return which values are close to both neighbours."""
    limit = STEADY_STEPS * _usual_step(values)
    moves = np.abs(np.diff(values)) > limit
    steady: npt.NDArray[np.bool_] = ~(np.append(moves, False) | np.append(False, moves))
    return steady


def table(courses: Mapping[str, Course], pairs: Sequence[tuple[str, str]], within_ns: int) -> dict[str, Agreement]:
    """Return "reference/other" to their agreement, for every pair that has enough samples."""
    found = {}
    for reference, other in pairs:
        if reference in courses and other in courses:
            result = agreement(courses[reference], courses[other], within_ns)
            if result:
                found[f"{reference}/{other}"] = result
    return found
