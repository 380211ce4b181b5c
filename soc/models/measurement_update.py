"""The measurement update: gate, gain, clamps, covariance inflation (bump), anchors. Compiled; the filters share it.

The covariance is updated as P − L·P_xyᵀ − P_xy·Lᵀ + L·P_y·Lᵀ, which also holds when a state is not corrected (its row
of L is 0): a frozen current offset is a *considered* state; its variance neither shrinks nor grows. All repairs
are counted.

Gate, covariance inflation and monitor compare the innovation with its variance without the part that only accounts for
the colour of the error; the gain is computed with that part.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.models.compiled import inlined
from soc.models.options import Options
from soc.models.sigma_points import cholesky, rebuild
from soc.models.state import FilterMemory
from soc.models.step_input import CAPACITY_NOW, EXCESS_VAR, SLOPE_NOW

Array = NDArray[np.float64]

SOC_LOW, SOC_HIGH = -0.05, 1.05  # beyond these the state is clamped and counted

# Columns of a filter's output.
SOC, SD, INNOVATION, INNOVATION_SD, OFFSET = range(5)
OUTPUTS = 5


@inlined
def measurement_update(
    tables: Tables,
    o: Options,
    x: Array,
    P: Array,
    memory: Array,
    step: Array,
    seen: tuple[float, float],
    gain: Array,
    S: Array,
) -> None:
    """Correct x and P by the innovation; `seen` is (r, P_y); `gain` is P_xy on entry and is overwritten."""
    r, var = seen
    expected = var - step[EXCESS_VAR]
    Z = len(tables.pairs) + 1
    monitor(memory, r / math.sqrt(expected))
    if _is_fault(o, P, Z, memory, r, expected):
        keep_positive(tables, P, S, memory)
        return
    known = _known_by_curve(o, P[Z, Z], step[SLOPE_NOW])
    frozen = -1
    if o.offset_state and step[SLOPE_NOW] < o.offset_slope_v:
        frozen = Z + 1
        memory[FilterMemory.FROZEN_OFFSET] += 1
    _update(tables, x, P, r, var, gain, frozen)
    clamp(tables, x, memory)
    P[Z, Z] = max(P[Z, Z], known, o.soc_floor * o.soc_floor)
    _bump(o, P, Z, memory, r, expected)
    if P[Z, Z] < o.gate_sd * o.gate_sd:
        memory[FilterMemory.CONVERGED] = 1.0
    keep_positive(tables, P, S, memory)


@inlined
def _known_by_curve(o: Options, var: float, slope_v: float) -> float:
    """Return the least variance of z that a voltage can give: that of the curve's own error, at most the one before."""
    if o.ocv_sd_v * o.ocv_sd_v >= var * slope_v * abs(slope_v):
        return var if o.ocv_sd_v > 0.0 else 0.0
    return (o.ocv_sd_v / slope_v) ** 2


@inlined
def keep_positive(tables: Tables, P: Array, S: Array, memory: Array) -> None:
    """Make P symmetric and positive; counts the pivots that were raised."""
    floored = cholesky(P, S, tables.states)
    if floored > 0:
        memory[FilterMemory.FLOORED_PIVOTS] += floored
        rebuild(P, S, tables.states)


@inlined
def monitor(memory: Array, normalised: float) -> None:
    """Add to the sums for the mean of r²/P_y and the lag-1 correlation of r/√P_y."""
    if not math.isnan(memory[FilterMemory.LAST_NORMALISED]):
        memory[FilterMemory.SUM_LAGGED] += normalised * memory[FilterMemory.LAST_NORMALISED]
    memory[FilterMemory.UPDATES] += 1
    memory[FilterMemory.SUM_SQUARES] += normalised * normalised
    memory[FilterMemory.LAST_NORMALISED] = normalised


@inlined
def _is_fault(o: Options, P: Array, Z: int, memory: Array, r: float, var: float) -> bool:
    """Return whether the sample is left out: its voltage is far off while z is known. This ends after a time limit."""
    if r * r <= o.gate_sigma * o.gate_sigma * var or memory[FilterMemory.CONVERGED] == 0.0:
        memory[FilterMemory.GATE_SINCE] = math.nan
        return False
    time_s = memory[FilterMemory.TIME]
    if math.isnan(memory[FilterMemory.GATE_SINCE]):
        memory[FilterMemory.GATE_SINCE] = time_s
    if time_s - memory[FilterMemory.GATE_SINCE] > o.gate_limit_s:
        memory[FilterMemory.CONVERGED] = 0.0
        memory[FilterMemory.GATE_OPENED] += 1
        P[Z, Z] = max(P[Z, Z], o.soc_sd_max * o.soc_sd_max)
        return False
    memory[FilterMemory.GATED] += 1
    return True


@inlined
def _update(tables: Tables, x: Array, P: Array, r: float, var: float, gain: Array, frozen: int) -> None:
    """Move x by L·r and update P; L = P_xy/P_y, and the `frozen` state (−1: none) is not corrected."""
    n = len(tables.states)
    per = 1.0 / var
    for j in range(n):
        lj = 0.0 if j == frozen else gain[j] * per
        x[j] += lj * r
        for k in range(j + 1):
            lk = 0.0 if k == frozen else gain[k] * per
            p = P[j, k] - lj * gain[k] - gain[j] * lk + lj * lk * var
            P[j, k] = p
            P[k, j] = p


@inlined
def clamp(tables: Tables, x: Array, memory: Array) -> None:
    """Limit h to −1..1 and z to −0.05..1.05, and count each limitation."""
    H = len(tables.pairs)
    h, z = x[H], x[H + 1]
    if abs(h) > 1.0:
        memory[FilterMemory.CLAMPED_HYSTERESIS] += 1
        x[H] = min(max(h, -1.0), 1.0)
    if z < SOC_LOW or z > SOC_HIGH:
        memory[FilterMemory.CLAMPED_SOC] += 1
        x[H + 1] = min(max(z, SOC_LOW), SOC_HIGH)


@inlined
def _bump(o: Options, P: Array, Z: int, memory: Array, r: float, var: float) -> None:
    """Inflate P_zz when model and cell disagree; rarely, or the filter becomes a voltage look-up."""
    if r * r <= o.bump_sigma * o.bump_sigma * var or P[Z, Z] >= o.bump_sd * o.bump_sd:
        return
    if memory[FilterMemory.TIME] - memory[FilterMemory.BUMP_TIME] < o.bump_interval_s:
        return
    P[Z, Z] = min(P[Z, Z] * o.bump_factor, o.bump_sd * o.bump_sd)
    memory[FilterMemory.BUMP_TIME] = memory[FilterMemory.TIME]
    memory[FilterMemory.BUMPS] += 1


@inlined
def anchor(
    tables: Tables, o: Options, x: Array, P: Array, memory: Array, step: Array, voltage_v: float, gain: Array, S: Array
) -> None:
    """Measure z at a full or an empty cell: voltage beyond a limit with a small current into that end, for minutes."""
    current = memory[FilterMemory.CURRENT]
    is_full = voltage_v >= o.full_voltage_v and current <= 0.0
    is_empty = voltage_v <= o.empty_voltage_v and current >= 0.0
    if not (is_full or is_empty) or abs(current) > o.anchor_current_c * step[CAPACITY_NOW]:
        memory[FilterMemory.ANCHOR_SINCE] = math.nan
        return
    if math.isnan(memory[FilterMemory.ANCHOR_SINCE]):
        memory[FilterMemory.ANCHOR_SINCE] = memory[FilterMemory.TIME]
    sd = o.full_sd if is_full else o.empty_sd
    Z = len(tables.pairs) + 1
    if memory[FilterMemory.TIME] - memory[FilterMemory.ANCHOR_SINCE] < o.anchor_hold_s:
        return
    memory[FilterMemory.ANCHOR_TIME] = memory[FilterMemory.TIME]
    if P[Z, Z] <= sd * sd:
        return
    for j in range(len(tables.states)):
        gain[j] = P[j, Z]
    _update(tables, x, P, (1.0 if is_full else 0.0) - x[Z], P[Z, Z] + sd * sd, gain, -1)
    clamp(tables, x, memory)
    memory[FilterMemory.ANCHORS] += 1
    keep_positive(tables, P, S, memory)


@inlined
def report(tables: Tables, o: Options, x: Array, P: Array, out: Array, k: int, r: float, var: float) -> None:
    """Fill row k of the output; innovation and its sd are nan if there was none. Offset: positive charges."""
    Z = len(tables.pairs) + 1
    out[k, SOC] = x[Z]
    out[k, SD] = math.sqrt(P[Z, Z] + o.reference_sd * o.reference_sd)
    out[k, INNOVATION] = r
    out[k, INNOVATION_SD] = math.sqrt(var)
    out[k, OFFSET] = -x[Z + 1] if o.offset_state else 0.0
