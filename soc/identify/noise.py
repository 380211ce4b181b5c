"""Measure the errors of a cell model on held-out data.

Residuals of a cell model are coloured: over minutes of a drive cycle they have the same sign. So three properties are
measured: their size (per state of charge), their correlation time (integral of the autocorrelation), and their slow
part (a bias that a filter can follow). The part that grows with the overpotential is the resistances' relative error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from soc.cell.parameters import Noise
from soc.identify.dynamic import by_temperature, predict, refine
from soc.identify.fit_results import Anchor, Fit
from soc.identify.interpolation import with_rows
from soc.identify.least_squares import correlation_time, rounded
from soc.identify.regressors import place
from soc.identify.runs import Run

Array = NDArray[np.float64]

SLOW_S = 600.0  # a moving mean of this length gives the slow part of a residual
LEAST_V = 0.5e-3  # lower limit: no tester and no model is better
TIME_RANGE_S = (5.0, 300.0)
BIAS_TIME_RANGE_S = (300.0, 3000.0)  # with a longer time the bias would explain a wrong initial state
VISIT_S = 120.0  # a knot of z with less time than this near it counts as hardly seen
UNSEEN_FACTOR = 1.5  # its error is the whole run's error times this


@dataclass(frozen=True)
class ModelUncertainty:
    """Noise parameters that residuals do not determine, chosen on held-out cycles: bounds hold and errors are least.

    `error_factor` multiplies the fast voltage error, whose spectrum is not that of one correlation time. `capacity_sd`,
    `reference_sd` and `ocv_sd_v` as in `Noise`.
    """

    error_factor: float = 2.0
    capacity_sd: float = 0.003
    reference_sd: float = 0.005
    ocv_sd_v: float = 0.002


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The voltage error along a run, V; `how` says what the fit left out: the run, its temperature, or nothing."""

    run: Run
    residual_v: Array
    how: str

    @property
    def used(self) -> NDArray[np.bool_]:
        """Return the samples above 5 % state of charge, where a model is judged."""
        return self.run.soc >= 0.05

    @property
    def rms_v(self) -> float:
        """Return the root mean square of the error, V."""
        return float(np.sqrt(np.mean(self.residual_v[self.used] ** 2)))


def held_out(runs: Sequence[Run], found: Fit) -> list[HeldOut]:
    """Return every run's voltage error from a fit without that run.

    The fit is repeated without the run where its temperature has another run; else its own error counts ("nothing" held
    out). A temperature between others gives a second error: interpolated from the others as if it had not been tested.
    """
    groups = by_temperature(runs)
    errors = []
    for run in runs:
        t = run.temperature_degc
        others = [r for r in groups[t] if r is not run and r.kind == run.kind]
        anchors = {a.temperature_degc: a for a in found.anchors}
        if others:
            rest = [r for r in groups[t] if r is not run]
            renewed = refine({t: rest}, found.ocv, found.settings, found.tau_s, found.gamma, anchors, 1)
            errors.append(_error(replace(found, anchors=renewed), run, "run"))
        else:
            errors.append(_error(found, run, "nothing"))
        if min(anchors) < t < max(anchors):
            left = replace(found, anchors=tuple(a for a in found.anchors if a.temperature_degc != t))
            errors.append(_error(with_rows(left, [t]), run, "temperature"))
    return errors


def _error(found: Fit, run: Run, how: str) -> HeldOut:
    return HeldOut(run, run.series.voltage_v - predict(found, run), how)


def noise_of(found: Fit, errors: Sequence[HeldOut], knots: Array, doubt: ModelUncertainty) -> Noise:
    """Return the noise section of a cell: per temperature from its held-out residuals, on `knots` of z.

    A row that was not tested has the mean of its neighbours, plus half of the interpolation error at the nearest tested
    temperatures when these are left out: those were twice as far from their neighbours.
    """
    tested = {
        a.temperature_degc: _statistics(found, a, _of(errors, a, "run", "nothing"), knots, doubt)
        for a in found.anchors
        if a.tested
    }
    missed = {
        a.temperature_degc: _rms([e.rms_v for e in _of(errors, a, "temperature")]) for a in found.anchors if a.tested
    }
    rows = [tested.get(a.temperature_degc) or _between(a.temperature_degc, tested, missed) for a in found.anchors]
    return Noise(
        error_v=rounded([r.error_v for r in rows], 3),
        error_time_s=rounded([r.error_time_s for r in rows], 3),
        bias_v=rounded([r.bias_v for r in rows], 3),
        bias_time_s=rounded([r.bias_time_s for r in rows], 3),
        resistance_sd=rounded([r.resistance_sd for r in rows], 3),
        ocv_sd_v=doubt.ocv_sd_v,
        capacity_sd=doubt.capacity_sd,
        sensor_v=0.001,
        current_sd_a=0.01 * float(np.median([a.capacity_ah for a in found.anchors])),
        reference_sd=doubt.reference_sd,
    )


def _of(errors: Sequence[HeldOut], anchor: Anchor, *how: str) -> list[HeldOut]:
    return [e for e in errors if e.run.temperature_degc == anchor.temperature_degc and e.how in how]


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else 0.0


def _between(temperature_degc: float, tested: dict[float, _Statistics], missed: dict[float, float]) -> _Statistics:
    """Return the statistics of a row between two tested temperatures."""
    low = max(t for t in tested if t < temperature_degc)
    high = min(t for t in tested if t > temperature_degc)
    a, b = tested[low], tested[high]
    extra = max(missed[low], missed[high]) / 2
    return _Statistics(
        error_v=(a.error_v + b.error_v) / 2,
        error_time_s=(a.error_time_s + b.error_time_s) / 2,
        bias_v=np.hypot((a.bias_v + b.bias_v) / 2, extra),
        bias_time_s=max(a.bias_time_s, b.bias_time_s),
        resistance_sd=(a.resistance_sd + b.resistance_sd) / 2,
    )


@dataclass(frozen=True, eq=False)
class _Statistics:
    error_v: Array
    error_time_s: float
    bias_v: Array
    bias_time_s: float
    resistance_sd: float


def _statistics(
    found: Fit, anchor: Anchor, errors: Sequence[HeldOut], knots: Array, doubt: ModelUncertainty
) -> _Statistics:
    """Return size, correlation times and resistance part of the residuals of one temperature."""
    slow = [moving_mean(e.residual_v, _window(e.run)) for e in errors]
    fast = [e.residual_v - s for e, s in zip(errors, slow, strict=True)]
    pol = [_overpotential(found, anchor, e.run) for e in errors]
    kept = [e.used for e in errors]
    steps = [e.run.series.period_s for e in errors]
    relative = _relative_error(
        [f[k] for f, k in zip(fast, kept, strict=True)], [p[k] for p, k in zip(pol, kept, strict=True)]
    )
    rest = [np.maximum(f**2 - (relative * p) ** 2, 0.0) for f, p in zip(fast, pol, strict=True)]
    socs = [e.run.soc for e in errors]
    time = np.mean([correlation_time(f[k], s) for f, k, s in zip(fast, kept, steps, strict=True)])
    bias_time = np.mean([correlation_time(f[k], s) for f, k, s in zip(slow, kept, steps, strict=True)])
    return _Statistics(
        error_v=doubt.error_factor * cautious_rms(socs, rest, steps, knots),
        error_time_s=float(np.clip(time, *TIME_RANGE_S)),
        bias_v=cautious_rms(socs, [s**2 for s in slow], steps, knots),
        bias_time_s=float(np.clip(bias_time, *BIAS_TIME_RANGE_S)),
        resistance_sd=relative,
    )


def cautious_rms(socs: Sequence[Array], squares: Sequence[Array], steps_s: Sequence[float], knots: Array) -> Array:
    """Return the rms for each knot of z, from the mean of its own and the overall mean square.

    Where a knot was hardly seen, 1.5 times the overall rms replaces its own. The mean with the overall value
    prevents that a small error by chance in one recording counts as an accurate model there.
    """
    near, seen = local_mean(socs, squares, steps_s, knots)
    whole = float(np.average(near, weights=seen))
    near = np.where(seen >= VISIT_S, near, UNSEEN_FACTOR**2 * whole)
    return np.asarray(np.maximum(np.sqrt((near + whole) / 2), LEAST_V))


def local_mean(
    socs: Sequence[Array], values: Sequence[Array], steps_s: Sequence[float], knots: Array
) -> tuple[Array, Array]:
    """Return the mean of values near each knot of z over time (0 where never), and the time spent there, s."""
    total, seconds = np.zeros(len(knots)), np.zeros(len(knots))
    for soc, value, step in zip(socs, values, steps_s, strict=True):
        k, w = place(soc, knots)
        for at, share in ((k, w), (np.minimum(k + 1, len(knots) - 1), 1 - w)):
            np.add.at(total, at, share * value * step)
            np.add.at(seconds, at, share * step)
    return total / np.maximum(seconds, 1e-9), seconds


def moving_mean(values: Array, width: int) -> Array:
    """Return the centred moving mean over `width` samples, over the available ones at the ends."""
    width = min(width, len(values))
    kernel = np.ones(width)
    return np.asarray(np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same"))


def _window(run: Run) -> int:
    return max(int(SLOW_S / run.series.period_s), 1)


def _relative_error(residuals: Sequence[Array], overpotentials: Sequence[Array]) -> float:
    """Return the r of E[residual²] = e² + r²·overpotential², by least squares; 0 if the result is negative."""
    square = np.concatenate(residuals) ** 2
    load = np.concatenate(overpotentials) ** 2
    centred = load - load.mean()
    power = float(centred @ centred)
    return float(np.sqrt(max(float(centred @ square) / power, 0.0))) if power > 0 else 0.0


def _overpotential(found: Fit, anchor: Anchor, run: Run) -> Array:
    """Return the model's R0·i + ΣR·i_R along a run, V, the weight of resistance errors."""
    idle = replace(anchor, r_v=np.full_like(anchor.r_v, 1e-12))
    with_r, without_r = replace(found, anchors=(anchor,)), replace(found, anchors=(idle,))
    return predict(with_r, run) - predict(without_r, run)
