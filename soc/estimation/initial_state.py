"""The initial state estimate: from a known state of charge, from rest, or from a sample under load.

Inside the state **discharge is positive**, as in the literature; in arguments positive current charges.

On a flat curve a voltage gives little information, and the variance shows this: the state of charge from a voltage is
as uncertain as the stretch of the curve within the voltage's uncertainty is wide.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import CELLS, GRID, find
from soc.cell.tables import BIAS_V, ERROR_V, M0, OCV, R0, R1, M, Tables
from soc.models.options import Options
from soc.models.state import StateEstimate, blank_memory, state_names
from soc.models.step_input import NO_HISTORY_VAR

Array = NDArray[np.float64]

POLARISED_SD = 0.5  # of h and of the pairs' share of the current, at a start under load
RESTED_PAIR_A = 1e-3  # current that a pair may still carry after a rest


def from_soc(
    tables: Tables, o: Options, names: tuple[str, str], soc: float, soc_sd: float, current_a: float
) -> StateEstimate:
    """Return a state estimate for a given z; pairs may carry up to the current. `names`: filter and model id."""
    n = len(tables.pairs)
    states = state_names(n, o.offset_state, o.bias_state)
    k = min(max(round(soc * CELLS), 0), CELLS)
    row = tables.trust.shape[0] // 2
    var = dict.fromkeys(states[:n], max(current_a * current_a, RESTED_PAIR_A**2))
    var |= {"h": NO_HISTORY_VAR, "z": max(soc_sd, o.soc_floor) ** 2, "i_b": o.offset_sd_a**2}
    var["b"] = (o.bias_scale * tables.trust[row, k, BIAS_V]) ** 2
    mean = np.zeros(len(states))
    mean[states.index("z")] = soc
    return StateEstimate(*names, states, mean, np.diag([var[s] for s in states]), blank_memory())


def from_voltage(
    tables: Tables, o: Options, names: tuple[str, str], voltage_v: float, temperature_degc: float, current_a: float
) -> StateEstimate:
    """Return a state estimate from one sample: z is where the curve has the voltage without the drop of the current.

    Without current the cell counts as rested. Under load half of the pairs' final drop is assumed, with the other half
    as its uncertainty.
    """
    table, drop, half = _curve(tables, temperature_degc, current_a)
    v = voltage_v - drop - half
    z = float(np.clip(find(table, v), 0.0, 1.0))
    k = min(max(round(z * CELLS), 0), CELLS)
    row = _row(tables, temperature_degc)
    point, trust = tables.points[row, k], tables.trust[row, k]
    sd = math.sqrt(
        o.sensor_v**2
        + (o.error_scale * trust[ERROR_V]) ** 2
        + (o.bias_scale * trust[BIAS_V]) ** 2
        + NO_HISTORY_VAR * point[M] ** 2
        + point[M0] ** 2
        + half**2
    )
    low, high = np.clip(find(table, np.array([v - sd, v + sd])), 0.0, 1.0)
    soc_sd = float(np.clip(0.5 * (high - low), 0.01, o.soc_sd_max))
    belief = from_soc(tables, o, names, z, soc_sd, POLARISED_SD * abs(current_a))
    mean = belief.mean.copy()
    mean[: len(tables.pairs)] = -POLARISED_SD * current_a
    return StateEstimate(*names, belief.states, mean, belief.cov, belief.memory)


def _row(tables: Tables, temperature_degc: float) -> int:
    """Return the nearest row of the tables."""
    last = tables.points.shape[0] - 1
    return int(np.clip(round((temperature_degc - tables.lowest_degc) * tables.per_k), 0, last))


def _curve(tables: Tables, temperature_degc: float, current_a: float) -> tuple[Array, float, float]:
    """Return the OCV table there, the ohmic drop and half of the pairs' final drop (positive when charging), V."""
    points = tables.points[_row(tables, temperature_degc)]
    middle = points[len(GRID) // 2]
    pairs = middle[R1 : R1 + len(tables.pairs)].sum()
    return points[:, OCV], float(middle[R0] * current_a), float(POLARISED_SD * pairs * current_a)
