"""Score an estimate against a reference: error, coverage of the bounds and consistency; and the trials for scoring.

All states of charge and errors are 0..1. A bound is judged by both its width and its coverage, so `Score` always has
both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soc.errors import SeriesError
from soc.series import Series

Array = NDArray[np.float64]

SETTLE_S = 600.0  # errors are scored after this time
CLOSE = 0.05  # an estimate has converged once it stays within this of the reference
SIGMAS = 3.0


@dataclass(frozen=True)
class Score:
    """The score of one estimate: `rms`, `worst`, `coverage` of ±3σ and mean `half_width` (3σ) after the first 10 min.

    `converged_s`: when the error fell below 5 % and stayed there, NaN if it never did. `nees`: mean of (error/σ)²,
    1 if σ is right, above if too small. `nis`: mean normalised innovation², 1 if tuned; `colour`: its innovation's
    lag-1 correlation, 0 if white; both NaN where no innovations were given.
    """

    rms: float
    worst: float
    converged_s: float
    coverage: float
    half_width: float
    nees: float
    nis: float
    colour: float
    samples: int


def score(
    time_s: ArrayLike,
    soc: ArrayLike,
    soc_sd: ArrayLike,
    reference: ArrayLike,
    innovation_v: ArrayLike | None = None,
    innovation_sd_v: ArrayLike | None = None,
    settle_s: float = SETTLE_S,
) -> Score:
    """Return the score of an estimate with standard deviations `soc_sd` against a reference at the same times.

    Raises `SeriesError` if lengths differ or nothing is left after `settle_s`.
    """
    t, z, sd, truth = (np.asarray(a, dtype=np.float64) for a in (time_s, soc, soc_sd, reference))
    if len({len(t), len(z), len(sd), len(truth)}) > 1:
        raise SeriesError(f"score: {len(t)} times, {len(z)} estimates, {len(sd)} deviations, {len(truth)} references")
    known = np.isfinite(truth)
    late = known & (t - t[:1] >= settle_s)
    if not late.any():
        raise SeriesError(f"score: no reference later than {settle_s:g} s after the start; the recording is too short")
    error = z - truth
    far = np.flatnonzero(known & (np.abs(error) > CLOSE))
    nis, colour = _innovations(innovation_v, innovation_sd_v)
    return Score(
        rms=float(np.sqrt(np.mean(error[late] ** 2))),
        worst=float(np.abs(error[late]).max()),
        converged_s=_after(t, int(far[-1]) if len(far) else -1),
        coverage=float(np.mean(np.abs(error[late]) <= SIGMAS * sd[late])),
        half_width=float(SIGMAS * sd[late].mean()),
        nees=float(np.mean((error[late] / np.maximum(sd[late], 1e-12)) ** 2)),
        nis=nis,
        colour=colour,
        samples=int(late.sum()),
    )


def _after(time_s: Array, last_far: int) -> float:
    """Return the seconds from the start to the sample after the last one that was far off; NaN if there is none."""
    return float(time_s[last_far + 1] - time_s[0]) if last_far + 1 < len(time_s) else float("nan")


def _innovations(innovation_v: ArrayLike | None, sd_v: ArrayLike | None) -> tuple[float, float]:
    """Return mean square and lag-1 correlation of the normalised innovations; leaves out samples without one (NaN)."""
    if innovation_v is None or sd_v is None:
        return float("nan"), float("nan")
    normal = np.asarray(innovation_v, dtype=np.float64) / np.asarray(sd_v, dtype=np.float64)
    normal = normal[np.isfinite(normal)]
    power = float(normal @ normal)
    if len(normal) < 2 or power <= 0.0:
        return float("nan"), float("nan")
    return power / len(normal), float(normal[1:] @ normal[:-1]) / power


# ---- trials ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trial:
    """The input of an estimator, and the reference at the same times."""

    series: Series
    reference: Array
    soc0: float
    soc0_sd: float


TRUE_SD = 0.01
WRONG = 0.3
OFFSET_A = 0.05
NOISE_A, NOISE_V = 0.05, 0.005
MEANS_S = 10.0
GAP_S = 900.0


def true_start(series: Series, reference: Array) -> Trial:
    """The unchanged recording; the initial state is its reference ± 1 %."""
    return Trial(series, reference, float(reference[0]), TRUE_SD)


def low_start(series: Series, reference: Array) -> Trial:
    """The initial state is 30 % too low, and its stated uncertainty is as large."""
    return Trial(series, reference, float(reference[0]) - WRONG, WRONG)


def low_start_believed(series: Series, reference: Array) -> Trial:
    """The initial state is 30 % too low, but its stated uncertainty is only 5 %."""
    return Trial(series, reference, float(reference[0]) - WRONG, 0.05)


def high_start(series: Series, reference: Array) -> Trial:
    """The initial state is 30 % too high, and its stated uncertainty is as large.

    The trial begins where 30 % too high is not above full, so often in the middle of a load.
    """
    begin = int(np.argmax(reference <= 1.0 - WRONG))
    return Trial(series[begin:], reference[begin:], float(reference[begin]) + WRONG, WRONG)


def offset(series: Series, reference: Array) -> Trial:
    """The current sensor reads 50 mA too much, and the estimator is not informed."""
    return Trial(_with(series, current_a=series.current_a + OFFSET_A), reference, float(reference[0]), TRUE_SD)


def noisy(series: Series, reference: Array) -> Trial:
    """White noise of 50 mA and 5 mV on the sensors (the same at every call)."""
    random = np.random.default_rng(20261121)
    current = series.current_a + NOISE_A * random.standard_normal(len(series))
    voltage = series.voltage_v + NOISE_V * random.standard_normal(len(series))
    return Trial(_with(series, current_a=current, voltage_v=voltage), reference, float(reference[0]), TRUE_SD)


def ten_second_means(series: Series, reference: Array) -> Trial:
    """Means over windows of 10 s, stamped at their ends, as a store that keeps only means returns them."""
    window = np.floor_divide(series.time_s - series.time_s[0] - 1e-9, MEANS_S).astype(np.int64)
    last = np.append(np.flatnonzero(np.diff(window)), len(window) - 1)
    count = np.diff(np.append(-1, last))
    mean = {
        name: np.add.reduceat(getattr(series, name), np.append(0, last[:-1] + 1)) / count
        for name in ("current_a", "voltage_v", "temperature_degc")
    }
    return Trial(Series(time_s=series.time_s[last], **mean), reference[last], float(reference[0]), TRUE_SD)


def gap(series: Series, reference: Array) -> Trial:
    """The recording without the 15 min in its middle."""
    since = series.time_s - series.time_s[0]
    middle = since[-1] / 2
    kept = np.abs(since - middle) > GAP_S / 2
    return Trial(series[kept], reference[kept], float(reference[0]), TRUE_SD)


TRIALS: Mapping[str, Callable[[Series, Array], Trial]] = {
    "true start": true_start,
    "−30 %": low_start,
    "−30 % believed": low_start_believed,
    "+30 %": high_start,
    "50 mA offset": offset,
    "noise": noisy,
    "10 s means": ten_second_means,
    "15 min gap": gap,
}


def _with(series: Series, **columns: Array) -> Series:
    """Return the series with other columns and without its counter, which would reveal the change of the sensor."""
    kept = {name: getattr(series, name) for name in ("time_s", "current_a", "voltage_v", "temperature_degc")}
    return Series(**{**kept, **columns})
