"""Extended Kalman filter with both cross terms, compiled: the reference for the sigma-point filter.

Inside **discharge is positive**, as in the literature. Source: G. L. Plett, J. Power Sources 134 (2004) 277-292. The
noise of the current is correlated between state and voltage, through R0, as in Anderson, Moore, *Optimal Filtering*.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.filters import Samples
from soc.models.compiled import compiled
from soc.models.linear import predict
from soc.models.measurement_update import anchor, keep_positive, measurement_update, report
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
                if step[SEEN] > 0.0:
                    r = v - seen
                    measurement_update(tables, o, x, P, memory, step, (r, var), gain, S)
                    anchor(tables, o, x, P, memory, step, v, gain, S)
                else:
                    keep_positive(tables, P, S, memory)
                var -= step[EXCESS_VAR]
            report(tables, o, x, P, out, k, r, var)
