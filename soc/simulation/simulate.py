"""Simulate a Series from cell model and current, with the faults of real instruments on request.

Inside **discharge is positive**, as in the literature; in arguments and results positive current charges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soc.cell.parameters import CellParameters
from soc.cell.tables import CAPACITY, EFFICIENCY, GAMMA, TAU, TRANSFER, Tables, tables
from soc.errors import OptionError
from soc.models.compiled import compiled
from soc.models.esc import row_of, voltage
from soc.series import Series

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Faults:
    """The errors that an instrument adds; sd = standard deviation; by default there are none."""

    voltage_sd_v: float = 0.0
    voltage_offset_v: float = 0.0
    voltage_step_v: float = 0.0  # resolution
    current_sd_a: float = 0.0
    current_offset_a: float = 0.0
    current_gain: float = 1.0
    current_step_a: float = 0.0
    dead_band_a: float = 0.0  # smaller currents are reported as exactly zero


def simulate(
    cell: CellParameters,
    time_s: ArrayLike,
    current_a: ArrayLike,
    temperature_degc: ArrayLike,
    soc0: float,
    hysteresis0: float = 0.0,
) -> tuple[Series, Array]:
    """Return the model's response to this current (positive charges), from rest, and the true state of charge.

    The current of a sample flows during the interval that ends at its time; the first sample is the initial state.
    `charge_ah` counts exactly. A single temperature applies to all samples.
    """
    time, current = (np.array(a, dtype=np.float64) for a in (time_s, current_a))
    temperature = np.broadcast_to(np.asarray(temperature_degc, dtype=np.float64), time.shape).copy()
    if not time.shape == current.shape == temperature.shape:
        raise OptionError(f"simulate: lengths differ: time {time.shape}, current {current.shape}")
    state = np.zeros(cell.pairs + 2)
    state[cell.pairs : cell.pairs + 2] = hysteresis0, soc0
    volts, soc = np.empty_like(time), np.empty_like(time)
    _run(tables(cell, cell.pairs + 2), time, -current, temperature, state, volts, soc)
    charge = np.concatenate(([0.0], np.cumsum(current[1:] * np.diff(time)))) / 3600.0
    return Series(time, current, volts, temperature, charge), soc


def measured(series: Series, faults: Faults, seed: int) -> Series:
    """Return the recording as an instrument with these faults reports it; the same seed gives the same noise."""
    noise = np.random.default_rng(seed)
    v = series.voltage_v + faults.voltage_offset_v + noise.normal(0.0, faults.voltage_sd_v, len(series))
    i = series.current_a * faults.current_gain + faults.current_offset_a
    i = i + noise.normal(0.0, faults.current_sd_a, len(series))
    i = np.where(np.abs(i) < faults.dead_band_a, 0.0, i)
    return replace(series, voltage_v=_rounded(v, faults.voltage_step_v), current_a=_rounded(i, faults.current_step_a))


def _rounded(values: Array, step: float) -> Array:
    return np.round(values / step) * step if step > 0.0 else values


@compiled
def _run(
    tables: Tables, time_s: Array, current_a: Array, temperature_degc: Array, x: Array, voltage_v: Array, soc: Array
) -> None:
    """Fill in voltage and state of charge; discharge is positive."""
    n, s = len(tables.pairs), 0.0
    for k in range(time_s.shape[0]):
        row, weight = row_of(tables, temperature_degc[k])
        after = min(row + 1, tables.rows.shape[0] - 1)
        i, dt = current_a[k], time_s[k] - time_s[k - 1] if k > 0 else 0.0
        capacity = _blend(tables, row, after, weight, CAPACITY)
        stored = i if i >= 0.0 else i * _blend(tables, row, after, weight, EFFICIENCY)
        for j in range(n):
            a = math.exp(-dt / _blend(tables, row, after, weight, TAU + j))
            x[j] = a * x[j] + (1.0 - a) * stored
        moved = stored * dt / (3600.0 * capacity)
        decay = math.exp(-_blend(tables, row, after, weight, GAMMA) * abs(moved))
        x[n] = decay * x[n] - (1.0 - decay) * (1.0 if stored > 0.0 else -1.0)
        x[n + 1] -= moved
        if abs(i) > 0.01 * capacity:
            s = -1.0 if i > 0.0 else 1.0
        voltage_v[k] = voltage(tables, row, weight, x, s, i, _blend(tables, row, after, weight, TRANSFER))
        soc[k] = x[n + 1]


@compiled
def _blend(tables: Tables, row: int, after: int, weight: float, column: int) -> float:
    """Return a value of the rows at this temperature."""
    low: float = tables.rows[row, column]
    return float(low + weight * (tables.rows[after, column] - low))
