"""Sensor models: computes each instrument's reading from the true values, and the agreement of two instruments.

    seen = round_to(resolution, gain · true + offset + noise)

Noise is white, and its generator is seeded for each instrument. Resolution is the instrument's own step; the bytes on
the wire may round once more. Magnitudes are those of the real bench. Charger: two decimals
(tests/frames/libresolar_mppt). Load: nominal value / 25600 (docs/protocols/ea_el3000a.md, section 4). Hall sensor:
docs/protocols/labjack_t7.md, section 7; in the recording of 2021-05-28 it reads 0.959 times the current of the
charger's shunt, without an offset.
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
    """The sensor model of one quantity."""

    noise: float = 0.0
    """Standard deviation, in the quantity's unit."""
    gain: float = 1.0
    offset: float = 0.0
    resolution: float = 0.0
    """Smallest step; 0: none."""

    def see(self, true: float, standard_normal: float) -> float:
        """Return the instrument's reading."""
        seen = self.gain * true + self.offset + self.noise * standard_normal
        return round(seen / self.resolution) * self.resolution if self.resolution else seen


EXACT = Sensor()


@dataclass(frozen=True, slots=True)
class Instrument:
    """The sensor models and the period of one instrument."""

    period_s: float
    """Time between its samples on a real bench."""
    sensors: Mapping[str, Sensor] = field(default_factory=dict)
    """Key of the true value to its sensor; quantities that are not listed are read exactly."""


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
        # The fake adds the converter's own noise to its volts; these are the errors of hall sensor and divider.
        "battery.voltage_v": Sensor(gain=1.0008),
        "battery.current_a": Sensor(noise=0.002, gain=0.959),
    },
)


class View:
    """One instrument's readings of the true values, with its sensors' errors."""

    def __init__(self, instrument: Instrument, seed: int) -> None:
        self._sensors = instrument.sensors
        self._rng = np.random.default_rng(seed)

    def see(self, true: Mapping[str, float | None]) -> dict[str, float | None]:
        """Return the instrument's readings; None stays None."""
        return {
            key: None if value is None else self._sensors.get(key, EXACT).see(value, self._rng.standard_normal())
            for key, value in true.items()
        }


class Course(NamedTuple):
    """One quantity of one instrument: CLOCK_BOOTTIME in ns, ascending, and the values."""

    boottime_ns: IntArray
    values: Array


@dataclass(frozen=True, slots=True)
class Agreement:
    """Comparison of `other` with `reference` over (nearly) simultaneous samples; all in the quantity's unit."""

    pairs: int
    residual_mean: float
    """Mean of other − reference."""
    residual_std: float
    residual_median: float
    """Median of |other − reference|."""
    gain: float | None
    """Slope of other over reference, from steady pairs; None where the reference hardly changed."""
    offset: float | None
    """Intercept of the same line."""


LEAST_PAIRS = 3
TINY = 1e-9
"""A spread below this is rounding, not a change."""
STEADY_STEPS = 3.0
"""A pair is used for the line when neither instrument changed by more than this many times its usual step."""


def pair(reference: Course, other: Course, within_ns: int) -> tuple[IntArray, IntArray]:
    """Return the indices of paired samples: for each reference sample the nearest other one within `within_ns`."""
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
    """Return the agreement of the two; None with fewer than LEAST_PAIRS pairs.

    The samples of two instruments are never exactly simultaneous, so they differ while the current changes, without an
    error of either. Mean, deviation and median use all pairs; gain and offset (least squares) only steady ones.
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
    """Return slope and intercept of y over x from steady pairs; None, None when the spread of x is too small."""
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
    """Return the median of the non-zero steps between neighbours: noise or resolution."""
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
    """Return "reference/other" to agreement, for every pair with enough samples."""
    found = {}
    for reference, other in pairs:
        if reference in courses and other in courses:
            result = agreement(courses[reference], courses[other], within_ns)
            if result:
                found[f"{reference}/{other}"] = result
    return found
