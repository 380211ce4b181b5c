"""Sigma-point Kalman filter with central differences, compiled: the main estimator.

Inside **discharge is positive**, as in the literature. Algorithm: G. L. Plett, J. Power Sources 161 (2006) 1356-1384,
on state, current noise w and voltage noise n; w enters the current, so state and voltage share it (through R0).

n does not act on the state and is additive in the voltage, so its two points add exactly Σ_v to P_y and are not
computed. The state's equations are linear except for the hysteresis under a point's own current, so the images of a
pair of points lie symmetrically around the centre's image; `soc.models.sigma_points` gives the sums over pairs. Where
the negative centre weight makes a variance of their second-order part negative, that part is left out and counted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.filters import Samples
from soc.models.compiled import compiled, inlined
from soc.models.measurement_update import anchor, keep_positive, measurement_update, report
from soc.models.options import Options
from soc.models.sigma_points import BEND_WEIGHT, POINT_WEIGHT, SPREAD, cholesky, sum_of_squares
from soc.models.state import FilterMemory
from soc.models.step_input import (
    CURRENT_SD,
    ETA_NOW,
    EXCESS_VAR,
    GAMMA_NOW,
    MEAN_CURRENT,
    OUTPUT_SHARE,
    PER_AMPERE,
    SEEN,
    STEP_SIZE,
    VOLTAGE_VAR,
    prepare,
)
from soc.models.time_update import predict_measurement, propagate_covariance, time_update

Array = NDArray[np.float64]


@compiled
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
    times, currents, voltages, temperatures, moved = samples
    step, S, D, point, gain = scratch
    for c in range(means.shape[0]):
        x, P, memory, out = means[c], covs[c], memories[c], outs[c]
        for j in range(STEP_SIZE):
            step[j] = math.nan
        for k in range(times.shape[1]):
            v = voltages[c, k]
            r, var = math.nan, math.nan
            if prepare(
                tables, o, x, P, memory, step, (times[c, k], currents[c, k], v, temperatures[c, k], moved[c, k])
            ):
                cholesky(P, S, tables.states)
                seen, var = _predict(tables, o, x, P, memory, step, S, D, point, gain)
                if step[SEEN] > 0.0:
                    r = v - seen
                    measurement_update(tables, o, x, P, memory, step, (r, var), gain, S)
                    anchor(tables, o, x, P, memory, step, v, gain, S)
                else:
                    keep_positive(tables, P, S, memory)
                var -= step[EXCESS_VAR]
            report(tables, o, x, P, out, k, r, var)


@inlined
def _predict(
    tables: Tables,
    o: Options,
    x: Array,
    P: Array,
    memory: Array,
    step: Array,
    S: Array,
    D: Array,
    point: Array,
    gain: Array,
) -> tuple[float, float]:
    """Replace x and P by the predicted ones and `gain` by P_xy; return the predicted voltage and its variance."""
    n, H = len(tables.states), len(tables.pairs)
    before = x[H]
    propagate_covariance(tables, o, step, S, D)
    time_update(tables, o, x, step)
    centre = predict_measurement(tables, o, x, step, 0.0)
    gain[:] = 0.0
    var, sum_h, sum_v, hh, hv, vv = step[VOLTAGE_VAR], 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(n + 1):
        noise_a = step[CURRENT_SD] if k == n else 0.0
        bend_h = _bend_hysteresis(tables, o, x, step, S, D, k, before, noise_a) if o.hysteresis_on_points else 0.0
        above = _pair(tables, o, x, step, D, k, point, SPREAD, bend_h, noise_a)
        below = _pair(tables, o, x, step, D, k, point, -SPREAD, bend_h, noise_a)
        slope, bend = (above - below) / (2.0 * SPREAD), above + below - 2.0 * centre
        for j in range(n):
            gain[j] += D[k, j] * slope
        var += slope * slope
        sum_h, sum_v = sum_h + bend_h, sum_v + bend
        hh, hv, vv = hh + bend_h * bend_h, hv + bend_h * bend, vv + bend * bend
    sum_of_squares(D, P, tables.states)
    shift_h, shift_v = POINT_WEIGHT * sum_h, POINT_WEIGHT * sum_v
    x[H] += shift_h
    hh, hv, vv = (BEND_WEIGHT * hh - shift_h**2, BEND_WEIGHT * hv - shift_h * shift_v, BEND_WEIGHT * vv - shift_v**2)
    if hh < 0.0 or vv < 0.0:
        memory[FilterMemory.BENDS_LEFT_OUT] += 1
        return centre + shift_v, var
    P[H, H] += hh
    gain[H] += hv
    return centre + shift_v, var + vv


@inlined
def _pair(
    tables: Tables,
    o: Options,
    x: Array,
    step: Array,
    D: Array,
    k: int,
    point: Array,
    sign: float,
    bend: float,
    noise: float,
) -> float:
    """Return the voltage of one point of pair k; `bend` is h₊ + h₋ − 2h of the pair."""
    for j in range(len(tables.states)):
        point[j] = x[j] + sign * D[k, j]
    point[len(tables.pairs)] += 0.5 * bend
    return predict_measurement(tables, o, point, step, sign * step[OUTPUT_SHARE] * noise)


@inlined
def _bend_hysteresis(
    tables: Tables, o: Options, x: Array, step: Array, S: Array, D: Array, k: int, before: float, noise_a: float
) -> float:
    """Propagate h of the points of pair k, each by its own current: correct D and return h₊ + h₋ − 2h."""
    n, H, Z = len(tables.states), len(tables.pairs), len(tables.pairs) + 1
    deviation = noise_a - (step[ETA_NOW] * D[k, Z + 1] if o.offset_state else 0.0)
    if deviation == 0.0 or step[OUTPUT_SHARE] == 0.0:
        return 0.0
    own = S[H, k] if k < n else 0.0
    above = _driven(step, before + SPREAD * own, SPREAD * deviation)
    below = _driven(step, before - SPREAD * own, -SPREAD * deviation)
    D[k, H] = (above - below) / (2.0 * SPREAD)
    return float(above + below - 2.0 * x[H])


@inlined
def _driven(step: Array, h: float, deviation_a: float) -> float:
    """Return h after the interval with a current that deviates by this much from the mean one."""
    current = step[ETA_NOW] * step[MEAN_CURRENT] + deviation_a
    decay: float = math.exp(-step[GAMMA_NOW] * abs(current) * step[PER_AMPERE])
    direction: float = 1.0 if current > 0.0 else (-1.0 if current < 0.0 else 0.0)
    return float(decay * h - (1.0 - decay) * direction)
