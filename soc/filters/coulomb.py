"""Coulomb counting, compiled: the state moves with the charge; the voltage is compared but never corrects the state.

Inside **discharge is positive**, as in the literature. The method equals any of the filters with an infinite Σ_v: the
charge that flows moves z and increases its variance, and nothing reduces the variance. Innovations show the difference
between model and cell.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.filters import Samples
from soc.models.compiled import compiled
from soc.models.linear import predict
from soc.models.measurement_update import keep_positive, monitor, report
from soc.models.options import Options
from soc.models.step_input import EXCESS_VAR, SEEN, STEP_SIZE, prepare

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
    step, S, D, gradient, gain = scratch
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
                seen, var = predict(tables, o, x, P, step, S, D, gradient, gain)
                keep_positive(tables, P, S, memory)
                var -= step[EXCESS_VAR]
                if step[SEEN] > 0.0:
                    r = v - seen
                    monitor(memory, r / math.sqrt(var))
            report(tables, o, x, P, out, k, r, var)
