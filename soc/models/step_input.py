"""Compute the input of one step from one sample: intervals, gaps, currents, noises. Compiled; all filters share it.

Here **discharge is positive**, as in the literature; `prepare` reverses the sign of the sample's current.

A sample's current is the mean over the interval that ends at its time (`previous_current`: instantaneous samples).
A sample whose time does not rise is skipped. A *gap* (an interval much longer than usual) is one long step. Up to a
minute it uses the mean of the currents at its ends. Longer gaps use the recent mean for a limited time, with the recent
rms current as its uncertainty; after an hour without current the pairs are at rest.

Noises that are added to a state enter before the transition, divided by its factor squared, so that the sigma points
at which the voltage is predicted include them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import CELLS
from soc.cell.tables import (
    BIAS_TIME,
    BIAS_V,
    CAPACITY,
    EFFICIENCY,
    ERROR_TIME,
    ERROR_V,
    GAMMA,
    R0,
    R1,
    RESISTANCE_SD,
    SLOPE,
    TAU,
    TRANSFER,
    Tables,
)
from soc.models.compiled import inlined
from soc.models.esc import row_of, transfer
from soc.models.options import Options
from soc.models.state import FilterMemory

Array = NDArray[np.float64]

# Indices into `step`, the input of one step.
DT = 0  # s
CURRENT = 1  # current over the interval, A
OUTPUT_CURRENT = 2  # current at the time of the voltage, A
OUTPUT_SHARE = 3  # share of the current noise in the output current: 1, or 0 in a gap
CURRENT_SD = 4  # A
VOLTAGE_VAR = 5  # V²
DIRECTION = 6  # s
PER_AMPERE = 7  # Δt/3600Q, 1/A
ROW, WEIGHT = 8, 9  # of the tables
ETA, ETA_NOW = 10, 24  # efficiency of charge current; of this current
GAMMA_NOW = 11
PER_I0 = 12
DECAY_H = 13  # A at the mean current
DECAY_B = 14  # of the voltage bias
SLOPE_NOW = 15  # dOCV/dz, V
CAPACITY_NOW = 16  # Ah
LOST = 17  # 1: temperature missing for too long
KEY_DT, KEY_T = 18, 19  # Δt and temperature for which the cached entries were computed
RECENT = 20  # weight of this sample in running means
SEEN = 21  # 1: there is a voltage for the measurement update
MEAN_CURRENT = 22  # CURRENT minus the estimated offset, A
EXCESS_VAR = 25  # the part of VOLTAGE_VAR beyond the error's own variance, due to its colour, V²
DECAY = 26  # a_1 .. a_n
STEP_SIZE = DECAY + 3

OUTSIDE_K = 2.0  # smaller excursions from the tested temperatures are not counted
NO_HISTORY_VAR = 0.3  # of h when its history is unknown
DECAY_LEAST = 1e-6  # a factor may become small but not zero: noise is divided by its square


@inlined
def prepare(
    tables: Tables,
    o: Options,
    x: Array,
    P: Array,
    memory: Array,
    step: Array,
    sample: tuple[float, float, float, float, float],
) -> bool:
    """Fill `step` and add process noise to P for a sample; return False if there is no step.

    A sample is time, current, voltage, temperature and the mean current over the interval by a charge counter (nan:
    there is none); positive current charges.
    """
    time_s, current_a, voltage_v, temperature_degc, counted_a = sample
    current_a, counted_a = -current_a, -counted_a  # from here on discharge is positive
    memory[FilterMemory.SAMPLES] += 1
    if not (math.isfinite(time_s) and math.isfinite(current_a)):
        memory[FilterMemory.SKIPPED] += 1
        return False
    dt = time_s - memory[FilterMemory.TIME]
    if dt <= 0.0 or not _take_temperature(o, memory, step, time_s, temperature_degc):
        memory[FilterMemory.SKIPPED] += 1
        return False
    if math.isnan(dt):
        _start_clock(memory, time_s, current_a)
        return False
    is_gap = _is_gap(o, memory, dt) and not math.isfinite(counted_a)
    _set_interval(tables, o, memory, step, dt)
    _set_currents(o, memory, step, current_a, counted_a, is_gap)
    _add_process_noise(tables, o, x, P, step, is_gap)
    _set_voltage_noise(tables, o, x, P, step)
    step[SEEN] = 1.0 if math.isfinite(voltage_v) else 0.0
    _remember(tables, o, x, memory, step, time_s, current_a)
    return True


@inlined
def _take_temperature(o: Options, memory: Array, step: Array, time_s: float, temperature_degc: float) -> bool:
    """Store the temperature, or hold the last one; return False if there never was one."""
    step[LOST] = 0.0
    if math.isfinite(temperature_degc):
        memory[FilterMemory.TEMPERATURE] = temperature_degc
        memory[FilterMemory.TEMPERATURE_TIME] = time_s
        return True
    if math.isnan(memory[FilterMemory.TEMPERATURE]):
        return False
    memory[FilterMemory.HELD_TEMPERATURE] += 1
    if not time_s - memory[FilterMemory.TEMPERATURE_TIME] <= o.temperature_hold_s:
        memory[FilterMemory.LOST_TEMPERATURE] += 1
        step[LOST] = 1.0
    return True


@inlined
def _start_clock(memory: Array, time_s: float, current_a: float) -> None:
    """Start the clock: the interval before the first sample is unknown, so this sample makes no step."""
    memory[FilterMemory.TIME] = time_s
    memory[FilterMemory.CURRENT] = current_a
    memory[FilterMemory.MEAN] = current_a
    memory[FilterMemory.MEAN_SQUARE] = current_a * current_a


@inlined
def _is_gap(o: Options, memory: Array, dt: float) -> bool:
    """Return whether the interval is a gap; learns the usual period, so that a new sampling rate soon is not one."""
    if o.period_s > 0.0:
        memory[FilterMemory.PERIOD] = o.period_s
    elif math.isnan(memory[FilterMemory.PERIOD]):
        memory[FilterMemory.PERIOD] = dt
    period = memory[FilterMemory.PERIOD]
    if o.period_s <= 0.0:
        memory[FilterMemory.PERIOD] = period + 0.1 * (min(dt, 3.0 * period) - period)
    is_gap = dt > o.gap_ratio * period and dt > o.gap_least_s
    if is_gap:
        memory[FilterMemory.GAPS] += 1
        if dt > o.gap_short_s:
            memory[FilterMemory.LONG_GAPS] += 1
    return is_gap


@inlined
def _set_interval(tables: Tables, o: Options, memory: Array, step: Array, dt: float) -> None:
    """Set the entries that depend on Δt and temperature only; they are kept while both stay the same."""
    temperature = memory[FilterMemory.TEMPERATURE]
    if temperature < tables.lowest_degc - OUTSIDE_K or temperature > tables.highest_degc + OUTSIDE_K:
        memory[FilterMemory.OUTSIDE_TEMPERATURE] += 1
    if step[KEY_DT] == dt and step[KEY_T] == temperature:
        return
    row, weight = row_of(tables, temperature)
    after = min(row + 1, tables.rows.shape[0] - 1)
    a, b = tables.rows[row], tables.rows[after]
    step[DT], step[ROW], step[WEIGHT] = dt, row, weight
    step[CAPACITY_NOW] = a[CAPACITY] + weight * (b[CAPACITY] - a[CAPACITY])
    step[ETA] = a[EFFICIENCY] + weight * (b[EFFICIENCY] - a[EFFICIENCY])
    step[GAMMA_NOW] = a[GAMMA] + weight * (b[GAMMA] - a[GAMMA])
    step[PER_I0] = a[TRANSFER] + weight * (b[TRANSFER] - a[TRANSFER])
    step[PER_AMPERE] = dt / (3600.0 * step[CAPACITY_NOW])
    step[DECAY_B] = max(math.exp(-dt / a[BIAS_TIME]), DECAY_LEAST)
    step[RECENT] = 1.0 - math.exp(-min(dt, o.gap_short_s) / o.recent_s)
    for j in range(len(tables.pairs)):
        step[DECAY + j] = math.exp(-dt / (a[TAU + j] + weight * (b[TAU + j] - a[TAU + j])))
    step[KEY_DT], step[KEY_T] = dt, temperature


@inlined
def _set_currents(o: Options, memory: Array, step: Array, current_a: float, counted_a: float, is_gap: bool) -> None:
    """Set the current over the interval with its noise, and the current at its end."""
    dt, last = step[DT], memory[FilterMemory.CURRENT]
    step[OUTPUT_CURRENT] = current_a
    step[OUTPUT_SHARE] = 1.0
    step[CURRENT] = last if o.previous_current else current_a
    if math.isfinite(counted_a):
        step[CURRENT] = counted_a
    step[CURRENT_SD] = o.current_sd_a * math.sqrt(min(1.0, o.current_time_s / dt))
    if not is_gap:
        return
    step[OUTPUT_SHARE] = 0.0
    possible = math.sqrt(memory[FilterMemory.MEAN_SQUARE])
    if dt <= o.gap_short_s:
        step[CURRENT] = 0.5 * (last + current_a)
    else:
        step[CURRENT] = memory[FilterMemory.MEAN] * min(1.0, o.gap_carry_s / dt)
        if not math.isnan(o.gap_current_a):
            possible = o.gap_current_a
        possible = max(possible, abs(current_a), abs(last))
    step[CURRENT_SD] = min(math.hypot(possible, step[CURRENT_SD]), o.soc_sd_max / step[PER_AMPERE])


@inlined
def _add_process_noise(tables: Tables, o: Options, x: Array, P: Array, step: Array, is_gap: bool) -> None:
    """Add to P the process noise of the interval other than that of the current."""
    n, H, Z = len(tables.pairs), len(tables.pairs), len(tables.pairs) + 1
    dt, per_ampere = step[DT], step[PER_AMPERE]
    offset = x[Z + 1] if o.offset_state else 0.0
    step[MEAN_CURRENT] = step[CURRENT] - offset
    step[ETA_NOW] = step[ETA] if step[MEAN_CURRENT] < 0.0 else 1.0
    moved = abs(step[ETA_NOW] * step[MEAN_CURRENT]) * per_ampere
    step[DECAY_H] = max(math.exp(-step[GAMMA_NOW] * moved), DECAY_LEAST)
    walk = o.capacity_sd * o.capacity_sd * moved + o.soc_walk * o.soc_walk * dt / 3600.0
    if o.dead_band_a > 0.0 and step[CURRENT] == 0.0:
        grown = 0.5 * o.dead_band_a * per_ampere
        walk += 2.0 * math.sqrt(P[Z, Z]) * grown + grown * grown
    P[Z, Z] = max(P[Z, Z], min(P[Z, Z] + walk, o.soc_sd_max * o.soc_sd_max))
    h_var, decay = o.hysteresis_sd * o.hysteresis_sd, step[DECAY_H]
    if is_gap:
        h_var, decay = NO_HISTORY_VAR, math.exp(-step[GAMMA_NOW] * (moved + step[CURRENT_SD] * per_ampere))
    P[H, H] += h_var * (1.0 - decay * decay) / (step[DECAY_H] * step[DECAY_H])
    if is_gap and dt >= o.rest_s and abs(step[OUTPUT_CURRENT]) < 0.02 * step[CAPACITY_NOW]:
        _rest(P, x, n)
    if o.offset_state:
        P[Z + 1, Z + 1] += o.offset_walk_a * o.offset_walk_a * dt / 3600.0
        if abs(step[OUTPUT_CURRENT]) >= o.full_scale_a:
            P[Z + 1, Z + 1] = max(P[Z + 1, Z + 1], o.offset_sd_a * o.offset_sd_a)


@inlined
def _rest(P: Array, x: Array, pairs: int) -> None:
    """Set the pairs to rest: after hours without current no R–C pair carries any."""
    for j in range(pairs):
        x[j] = 0.0
        for k in range(P.shape[0]):
            P[j, k] = 0.0
            P[k, j] = 0.0
        P[j, j] = 1e-6


@inlined
def _set_voltage_noise(tables: Tables, o: Options, x: Array, P: Array, step: Array) -> None:
    """Set the variance of the voltage error at this state, its slow part in P, and the slope of the curve."""
    z = min(max(x[len(tables.pairs) + 1], 0.0), 1.0)
    k, row = int(z * CELLS + 0.5), int(step[ROW] + step[WEIGHT] + 0.5)
    step[SLOPE_NOW] = tables.trust[row, k, SLOPE]
    drop = tables.points[row, k, R0] * abs(step[OUTPUT_CURRENT])
    drop += tables.points[row, k, R1] * abs(transfer(x[0], step[PER_I0]))
    for j in range(1, len(tables.pairs)):
        drop += tables.points[row, k, R1 + j] * abs(x[j])
    relative = o.resistance_scale * tables.rows[row, RESISTANCE_SD]
    if step[LOST] > 0.0:
        relative = math.hypot(relative, o.temperature_missing_sd)
    error = (o.error_scale * tables.trust[row, k, ERROR_V]) ** 2 + (relative * drop) ** 2
    bias = (o.bias_scale * tables.trust[row, k, BIAS_V]) ** 2
    looks = 2.0 / step[DT] if o.coloured else 0.0
    step[EXCESS_VAR] = error * looks * tables.rows[row, ERROR_TIME]
    step[VOLTAGE_VAR] = o.sensor_v * o.sensor_v + error + step[EXCESS_VAR]
    if o.bias_state:
        B = len(tables.states) - 1
        P[B, B] += bias * (1.0 / (step[DECAY_B] * step[DECAY_B]) - 1.0)
    else:
        excess = bias * looks * tables.rows[row, BIAS_TIME]
        step[EXCESS_VAR] += excess
        step[VOLTAGE_VAR] += bias + excess


@inlined
def _remember(
    tables: Tables, o: Options, x: Array, memory: Array, step: Array, time_s: float, current_a: float
) -> None:
    """Store the sample for the next step; the direction changes only with a current above C/100."""
    offset = x[len(tables.pairs) + 2] if o.offset_state else 0.0
    if abs(current_a - offset) > 0.01 * step[CAPACITY_NOW]:
        memory[FilterMemory.DIRECTION] = -1.0 if current_a > offset else 1.0
    step[DIRECTION] = memory[FilterMemory.DIRECTION]
    memory[FilterMemory.TIME] = time_s
    memory[FilterMemory.CURRENT] = current_a
    memory[FilterMemory.MEAN] += step[RECENT] * (current_a - memory[FilterMemory.MEAN])
    memory[FilterMemory.MEAN_SQUARE] += step[RECENT] * (current_a * current_a - memory[FilterMemory.MEAN_SQUARE])
