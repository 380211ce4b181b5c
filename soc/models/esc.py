"""Enhanced self-correcting cell model, compiled. In this module **discharge is positive**, as in the literature.

    i' = i for i ≥ 0, η·i for i < 0
    i_Rj ← a_j·i_Rj + (1−a_j)·i'            a_j = exp(−Δt/τ_j)
    h    ← A·h − (1−A)·sgn(i')              A   = exp(−γ·|i'|·Δt/3600Q)
    z    ← z − i'·Δt/3600Q
    v    = OCV(z,T) + M·h + M0·s − R1·I0·asinh(i_R1/I0) − R2·i_R2 − … − R0·i + b

G. L. Plett, *Battery Management Systems* I (2015), ch. 2; the charge-transfer law and the dependence of R, M, M0 on z
are extensions of this project. State order: i_R1 .. i_Rn, h, z, then i_b and b if they are states.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import CELLS
from soc.cell.tables import M0, OCV, R0, R1, M, Tables
from soc.models.compiled import inlined

Array = NDArray[np.float64]


@inlined
def transfer(i_r: float, per_i0: float) -> float:
    """Return the charge-transfer law I0·asinh(i_R/I0), A, given 1/I0; linear for 1/I0 = 0."""
    return i_r if per_i0 <= 0.0 else math.asinh(i_r * per_i0) / per_i0


@inlined
def row_of(tables: Tables, temperature_degc: float) -> tuple[int, float]:
    """Return the row below this temperature and the weight of the next one; clamped to the tested range."""
    last = tables.points.shape[0] - 1
    place = (temperature_degc - tables.lowest_degc) * tables.per_k
    if not place > 0.0:
        return 0, 0.0
    if place >= last:
        return last, 0.0
    row = int(place)
    return row, place - row


@inlined
def corner(tables: Tables, row: int, k: int, x: Array, law: float, direction: float, current_a: float) -> float:
    """Return the voltage without bias and end slopes, V, with the parameters of one point of the tables."""
    v: float = tables.points[row, k, OCV] + tables.points[row, k, M] * x[len(tables.pairs)]
    v += tables.points[row, k, M0] * direction - tables.points[row, k, R0] * current_a
    v -= tables.points[row, k, R1] * law
    for j in range(1, len(tables.pairs)):
        v -= tables.points[row, k, R1 + j] * x[j]
    return v


@inlined
def voltage(
    tables: Tables, row: int, weight: float, x: Array, direction: float, current_a: float, per_i0: float
) -> float:
    """Return the terminal voltage, V, of state x (without bias) under this current; row and weight from `row_of`."""
    z = x[len(tables.pairs) + 1]
    law = transfer(x[0], per_i0)
    place = min(max(z, 0.0), 1.0) * CELLS
    k = min(int(place), CELLS - 1)
    f = place - k
    beyond: float = 0.0
    if z < 0.0:
        beyond = z * tables.ends[row, 0]
    elif z > 1.0:
        beyond = (z - 1.0) * tables.ends[row, 1]
    v: float = (1.0 - f) * corner(tables, row, k, x, law, direction, current_a)
    v += f * corner(tables, row, k + 1, x, law, direction, current_a)
    if weight > 0.0:
        w = (1.0 - f) * corner(tables, row + 1, k, x, law, direction, current_a)
        w += f * corner(tables, row + 1, k + 1, x, law, direction, current_a)
        v += weight * (w - v)
    return v + beyond
