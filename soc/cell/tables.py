"""A cell's parameters as dense tables over temperature and state of charge, for compiled code.

Compiled code reads `Tables`. Rows are temperatures, every `STEP_K` from the lowest to the highest tested one. The
interpolation (linear; log R against 1/T_K) is done once, here, so a step only blends two neighbouring rows. Columns
over z lie on the OCV's grid of 201 points, which contains knots at multiples of 0.5 % exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import CELLS, GRID, SLOPE_REACH, end_slopes
from soc.cell.parameters import CellParameters

Array = NDArray[np.float64]

STEP_K = 0.5
ZERO_DEGC_K = 273.15

# Columns of `Tables.rows`.
CAPACITY, EFFICIENCY, GAMMA, TRANSFER, ERROR_TIME, BIAS_TIME, RESISTANCE_SD, TAU = range(8)
# Columns of `Tables.points`; the resistances of the pairs follow R0.
OCV, M, M0, R0, R1 = range(5)
# Columns of `Tables.trust`.
ERROR_V, BIAS_V, SLOPE = range(3)


class Tables(NamedTuple):
    """The tables of one cell for the compiled step."""

    pairs: tuple[int, ...]  # one zero per R–C pair: the length of a tuple is known when code is compiled
    states: tuple[int, ...]  # one zero per state of the filter, for the same reason
    lowest_degc: float
    highest_degc: float
    per_k: float  # rows per kelvin
    points: Array  # [T, z, column]: OCV, M, M0, R0, R1 …
    ends: Array  # [T, 2]: OCV's slope below 0 and above 1
    rows: Array  # [T, column]: capacity, efficiency, gamma, 1/I0, correlation times, R's sd, τ1 …
    trust: Array  # [T, z, column]: standard deviations of voltage error and bias, OCV's slope


def tables(cell: CellParameters, states: int) -> Tables:
    """Return the cell's tables, for a filter with this number of states."""
    degc = _temperatures(cell.temperature_degc)
    linear = _linear_weights(cell.temperature_degc, degc)
    arrhenius = _linear_weights(-1 / (cell.temperature_degc + ZERO_DEGC_K), -1 / (degc + ZERO_DEGC_K))
    ocv = cell.ocv.ocv0_v + np.outer(degc, cell.ocv.ocvrel_v_per_k) + _on_grid(cell, linear @ cell.shift_v)
    resistances = [_on_grid(cell, _resistance(r, linear, arrhenius)) for r in (cell.r0_ohm, *cell.r_ohm)]
    hysteresis = [_on_grid(cell, linear @ m) for m in (cell.m_v, cell.m0_v)]
    noise = cell.noise
    trust = [_on_grid(cell, linear @ noise.error_v), _on_grid(cell, linear @ noise.bias_v), _slopes(ocv)]
    rows = (cell.capacity_ah, cell.efficiency, cell.gamma, 1 / cell.charge_transfer_a)
    rows += (noise.error_time_s, noise.bias_time_s, noise.resistance_sd, *cell.tau_s)
    return Tables(
        pairs=(0,) * cell.pairs,
        states=(0,) * states,
        lowest_degc=float(cell.temperature_degc[0]),
        highest_degc=float(cell.temperature_degc[-1]),
        per_k=1 / STEP_K if len(degc) > 1 else 0.0,
        points=np.ascontiguousarray(np.stack([ocv, *hysteresis, *resistances], axis=-1)),
        ends=np.array([end_slopes(row) for row in ocv]),
        rows=np.ascontiguousarray(np.stack([linear @ row for row in rows], axis=-1)),
        trust=np.ascontiguousarray(np.stack(trust, axis=-1)),
    )


def _temperatures(tested: Array) -> Array:
    """Return the rows' temperatures, °C: `STEP_K` apart, from the lowest tested one until the highest is covered."""
    count = int(np.ceil((tested[-1] - tested[0]) / STEP_K - 1e-9))
    return np.asarray(tested[0] + STEP_K * np.arange(count + 1))


def _linear_weights(known: Array, wanted: Array) -> Array:
    """Return the matrix that interpolates linearly from `known` to `wanted`, clamped at the ends."""
    return np.stack([np.interp(wanted, known, unit) for unit in np.eye(len(known))], axis=-1)


def _resistance(r: Array, linear: Array, arrhenius: Array) -> Array:
    """Interpolate R [T, z] by log R against 1/T_K; linearly in T for a knot that is zero at some temperature."""
    positive = (r > 0).all(axis=0)
    logs = np.log(np.where(positive, r, 1.0))
    return np.where(positive, np.exp(arrhenius @ logs), linear @ r)


def _on_grid(cell: CellParameters, values: Array) -> Array:
    """Return values [T, knot] on the z grid, constant beyond the outer knots."""
    return np.stack([np.interp(GRID, cell.soc_knots, row) for row in values])


def _slopes(ocv: Array) -> Array:
    """Return dOCV/dz [T, z] over ±1 %, V per unit of z."""
    reach = round(SLOPE_REACH * CELLS)
    middle = (ocv[:, 2 * reach :] - ocv[:, : -2 * reach]) / (2 * SLOPE_REACH)
    return np.pad(middle, ((0, 0), (reach, reach)), mode="edge")
