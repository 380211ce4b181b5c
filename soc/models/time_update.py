"""The time update of one interval: propagate state and covariance and predict the voltage. Compiled.

Here **discharge is positive**, as in the literature. The state's equations are linear except for the hysteresis, and
the hysteresis is linear in h at a given current, so a whole column of deviations is propagated exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.models.compiled import inlined
from soc.models.esc import voltage
from soc.models.options import Options
from soc.models.step_input import (
    CURRENT_SD,
    DECAY,
    DECAY_B,
    DECAY_H,
    DIRECTION,
    ETA_NOW,
    MEAN_CURRENT,
    OUTPUT_CURRENT,
    PER_AMPERE,
    PER_I0,
    ROW,
    WEIGHT,
)

Array = NDArray[np.float64]


@inlined
def time_update(tables: Tables, o: Options, x: Array, step: Array) -> None:
    """Propagate the state over the interval at the mean current."""
    H, Z = len(tables.pairs), len(tables.pairs) + 1
    driving = step[MEAN_CURRENT]
    current = step[ETA_NOW] * driving
    for j in range(H):
        x[j] = step[DECAY + j] * x[j] + (1.0 - step[DECAY + j]) * current
    direction = 1.0 if driving > 0.0 else (-1.0 if driving < 0.0 else 0.0)
    x[H] = step[DECAY_H] * x[H] - (1.0 - step[DECAY_H]) * direction
    x[Z] -= current * step[PER_AMPERE]
    if o.bias_state:
        x[len(tables.states) - 1] *= step[DECAY_B]


@inlined
def propagate_covariance(tables: Tables, o: Options, step: Array, S: Array, D: Array) -> None:
    """Fill the rows of D with the propagated columns of S and, last, the effect of the current's noise (one sd)."""
    n, H, Z = len(tables.states), len(tables.pairs), len(tables.pairs) + 1
    for k in range(n + 1):
        for j in range(n):
            D[k, j] = S[j, k] if k < n else 0.0
        current = step[CURRENT_SD] if k == n else 0.0
        if o.offset_state:
            current -= step[ETA_NOW] * D[k, Z + 1]
        for j in range(H):
            D[k, j] = step[DECAY + j] * D[k, j] + (1.0 - step[DECAY + j]) * current
        D[k, H] *= step[DECAY_H]
        D[k, Z] -= current * step[PER_AMPERE]
        if o.bias_state:
            D[k, n - 1] *= step[DECAY_B]


@inlined
def predict_measurement(tables: Tables, o: Options, x: Array, step: Array, noise_a: float) -> float:
    """Return the terminal voltage of a state, V, at the current of the sample plus this noise."""
    current = step[OUTPUT_CURRENT] + noise_a
    if o.offset_state:
        current -= x[len(tables.pairs) + 2]
    v = voltage(tables, int(step[ROW]), step[WEIGHT], x, step[DIRECTION], current, step[PER_I0])
    return v + x[len(tables.states) - 1] if o.bias_state else v
