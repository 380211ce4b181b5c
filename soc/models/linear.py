"""The linearised prediction, compiled; the extended Kalman filter and coulomb counting share it.

Let the rows of D be the images of the columns of P's root and of the current's noise. Then P⁺ = DᵀD is
F P Fᵀ + B Bᵀ Σ_w. The voltage's gradient along each row of D, with the direct effect of the noise through R0, gives
P_xy and P_y with both cross terms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.models.compiled import inlined
from soc.models.options import Options
from soc.models.sigma_points import cholesky, sum_of_squares
from soc.models.step_input import (
    CURRENT_SD,
    DECAY_H,
    ETA_NOW,
    GAMMA_NOW,
    MEAN_CURRENT,
    OUTPUT_SHARE,
    PER_AMPERE,
    VOLTAGE_VAR,
)
from soc.models.time_update import predict_measurement, propagate_covariance, time_update

Array = NDArray[np.float64]

REACH_SOC = 0.0075  # the curve's slope is a central difference over ± this much z, not the slope of one table interval
REACH = 1e-2  # for all other states, in which the voltage is (nearly) linear


@inlined
def predict(
    tables: Tables, o: Options, x: Array, P: Array, step: Array, S: Array, D: Array, gradient: Array, gain: Array
) -> tuple[float, float]:
    """Replace x and P by the predicted ones and `gain` by P_xy; return the predicted voltage and its variance."""
    n = len(tables.states)
    cholesky(P, S, tables.states)
    propagate_covariance(tables, o, step, S, D)
    if o.hysteresis_on_points and step[OUTPUT_SHARE] > 0.0:
        _drive_hysteresis(tables, o, x, step, D)
    time_update(tables, o, x, step)
    _differentiate(tables, o, x, step, gradient)
    ohm = (predict_measurement(tables, o, x, step, REACH) - predict_measurement(tables, o, x, step, -REACH)) / (
        2.0 * REACH
    )
    var = step[VOLTAGE_VAR]
    gain[:] = 0.0
    for k in range(n + 1):
        slope = ohm * step[OUTPUT_SHARE] * step[CURRENT_SD] if k == n else 0.0
        for j in range(n):
            slope += gradient[j] * D[k, j]
        for j in range(n):
            gain[j] += D[k, j] * slope
        var += slope * slope
    sum_of_squares(D, P, tables.states)
    return predict_measurement(tables, o, x, step, 0.0), var


@inlined
def _differentiate(tables: Tables, o: Options, x: Array, step: Array, gradient: Array) -> None:
    """Fill in ∂v/∂x by central differences."""
    for j in range(len(tables.states)):
        reach = REACH_SOC if j == len(tables.pairs) + 1 else REACH
        centre = x[j]
        x[j] = centre + reach
        above = predict_measurement(tables, o, x, step, 0.0)
        x[j] = centre - reach
        gradient[j] = (above - predict_measurement(tables, o, x, step, 0.0)) / (2.0 * reach)
        x[j] = centre


@inlined
def _drive_hysteresis(tables: Tables, o: Options, x: Array, step: Array, D: Array) -> None:
    """Add the effect of noise and offset on h: ∂h/∂i' = −γ·Δt/3600Q·A·(1 + sgn(i')·h)."""
    n, H = len(tables.states), len(tables.pairs)
    driving = step[MEAN_CURRENT]
    direction = 1.0 if driving > 0.0 else (-1.0 if driving < 0.0 else 0.0)
    slope = -step[GAMMA_NOW] * step[PER_AMPERE] * step[DECAY_H] * (1.0 + direction * x[H])
    D[n, H] += slope * step[CURRENT_SD]
    if o.offset_state:
        for k in range(n):
            D[k, H] -= slope * step[ETA_NOW] * D[k, H + 2]
