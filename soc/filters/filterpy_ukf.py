"""filterpy's unscented Kalman filter on the same cell model: an independent estimator, and the reference of the tests.

Inside **discharge is positive**, as in the literature. Additive noise, Q = B Bᵀ Σ_w and R = Σ_v + R0² Σ_w: the same as
the other filters except for the cross terms. α = 1, β = 2, κ = 3 − n. Intervals, gaps and noises are those of all
filters; there is no gate, no covariance inflation and no anchor. No other module needs filterpy. Slow: about
2 000 steps/s.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.filters import Samples
from soc.models import linear, measurement_update, step_input, time_update
from soc.models.compiled import compiled
from soc.models.options import Options
from soc.models.sigma_points import cholesky
from soc.models.step_input import CURRENT_SD, EXCESS_VAR, OUTPUT_SHARE, SEEN, VOLTAGE_VAR

Array = NDArray[np.float64]

prepare = compiled(step_input.prepare.py_func)  # type: ignore[attr-defined]
predict = compiled(linear.predict.py_func)  # type: ignore[attr-defined]
move = compiled(time_update.time_update.py_func)  # type: ignore[attr-defined]
see = compiled(time_update.predict_measurement.py_func)  # type: ignore[attr-defined]
clamp = compiled(measurement_update.clamp.py_func)  # type: ignore[attr-defined]
report = compiled(measurement_update.report.py_func)  # type: ignore[attr-defined]
monitor = compiled(measurement_update.monitor.py_func)  # type: ignore[attr-defined]


def run(
    tables: Tables,
    o: Options,
    means: Array,
    covs: Array,
    memories: Array,
    samples: Samples,
    outs: Array,
    scratch: tuple[Array, Array, Array, Array, Array],
) -> None:
    """Carry state estimates (means [c, n], covs [c, n, n], memories) through samples [c, k]; fill outs [c, k, 5]."""
    for c in range(len(means)):
        scratch[0][:] = math.nan
        for k in range(samples[0].shape[1]):
            now = tuple(float(column[c, k]) for column in samples)
            r, var = _step(tables, o, means[c], covs[c], memories[c], now, scratch)
            report(tables, o, means[c], covs[c], outs[c], k, r, var)


def _step(
    tables: Tables, o: Options, x: Array, P: Array, memory: Array, now: tuple[float, ...], scratch: tuple[Array, ...]
) -> tuple[float, float]:
    """Carry one state estimate through one sample; return the innovation and its variance, or nan."""
    step, S, D, gradient, gain = scratch
    if not prepare(tables, o, x, P, memory, step, now):
        return math.nan, math.nan
    noise, r_var = _noises(tables, o, x, P, step, (S, D, gradient, gain))
    ukf = _ukf(tables, o, step, x, P, noise)
    ukf.predict()
    x[:], P[:] = ukf.x, ukf.P
    if step[SEEN] == 0.0:
        return math.nan, math.nan
    ukf.update(now[2], R=r_var)
    x[:], P[:] = ukf.x, 0.5 * (ukf.P + ukf.P.T)
    innovation, var = float(ukf.y.item()), float(ukf.S.item() - step[EXCESS_VAR])
    monitor(memory, innovation / math.sqrt(var))
    clamp(tables, x, memory)
    return innovation, var


def _noises(
    tables: Tables, o: Options, x: Array, P: Array, step: Array, room: tuple[Array, Array, Array, Array]
) -> tuple[Array, float]:
    """Return Q = B Bᵀ Σ_w and R = Σ_v + R0² Σ_w: the effect of the current's noise on the state and on the voltage."""
    D = room[1]
    predict(tables, o, x.copy(), P.copy(), step, *room)
    ohm = see(tables, o, x, step, 0.5) - see(tables, o, x, step, -0.5)
    through = ohm * step[OUTPUT_SHARE] * step[CURRENT_SD]
    return np.outer(D[-1], D[-1]), float(step[VOLTAGE_VAR] + through * through)


@compiled
def _factorise(P: Array, S: Array, states: tuple[int, ...]) -> int:
    """Call `soc.models.sigma_points.cholesky` from Python."""
    return cholesky(P, S, states)


def _root(P: Array) -> Array:
    """Return the upper root of P for filterpy; P may be semidefinite: a long gap leaves no variance of a pair."""
    S = np.zeros_like(P)
    _factorise(np.ascontiguousarray(P), S, (0,) * len(P))
    return S.T


def _ukf(tables: Tables, o: Options, step: Array, x: Array, P: Array, noise: Array) -> Any:
    """Return filterpy's filter, set up for this step."""
    from filterpy.kalman import MerweScaledSigmaPoints, UnscentedKalmanFilter

    def fx(point: Array, _dt: float) -> Array:
        moved = point.copy()
        move(tables, o, moved, step)
        return moved

    def hx(point: Array) -> Array:
        return np.array([see(tables, o, point, step, 0.0)])

    n = len(x)
    points = MerweScaledSigmaPoints(n, alpha=1.0, beta=2.0, kappa=3.0 - n, sqrt_method=_root)
    ukf = UnscentedKalmanFilter(dim_x=n, dim_z=1, dt=1.0, hx=hx, fx=fx, points=points)
    ukf.x, ukf.P, ukf.Q = x.copy(), P.copy(), noise
    return ukf
