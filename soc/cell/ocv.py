"""Open-circuit voltage against state of charge and temperature: OCV(z,T) = OCV0(z) + T·OCVrel(z), T in °C.

Tables are uniform in z (201 points), so an index is computed by one multiplication. Outside 0..1 the curve continues
with a *bounded* slope: the last interval of a LiFePO4 table rises by hundreds of mV per %, and a linear extrapolation
from it would give sigma points absurd voltages. The inverse uses the curve made strictly increasing (isotonic
regression and a small slope).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SIZE = 201
GRID: Array = np.linspace(0.0, 1.0, SIZE)
CELLS = SIZE - 1
END_CELLS = 10  # the slope beyond an end is the mean over this many table intervals (5 %) next to it
END_SLOPE_MAX_V = 2.0  # upper limit of that slope, V per unit of z (20 mV per %)
END_SLOPE_SHARE = 0.5  # its lower limit as a share of the curve's mean slope: no cell is flat beyond its ends
TINY_SLOPE_V = 1e-4  # makes flat stretches invertible, V per unit of z
SLOPE_REACH = 0.01  # a slope is the central difference over ± this much z, never that of one table interval


@dataclass(frozen=True, eq=False)
class Ocv:
    """An OCV table: `ocv0_v` at 0 °C and `ocvrel_v_per_k`, its change with temperature, both on `GRID`."""

    ocv0_v: Array
    ocvrel_v_per_k: Array

    def __post_init__(self) -> None:
        for name in ("ocv0_v", "ocvrel_v_per_k"):
            table = np.array(getattr(self, name), dtype=np.float64)
            if table.shape != (SIZE,):
                raise ValueError(f"{name}: expected {SIZE} values, uniform in z from 0 to 1, got shape {table.shape}")
            table.setflags(write=False)
            object.__setattr__(self, name, table)

    @classmethod
    def of_points(cls, soc: ArrayLike, voltage_v: ArrayLike, slope_v_per_k: float = 0.0) -> Ocv:
        """Return the table of a curve given at some points (linear between them), the same at all temperatures."""
        table = np.interp(GRID, np.asarray(soc, dtype=float), np.asarray(voltage_v, dtype=float))
        return cls(table, np.full(SIZE, slope_v_per_k))

    def table(self, temperature_degc: float) -> Array:
        """Return the OCV on `GRID` at one temperature, V."""
        return self.ocv0_v + temperature_degc * self.ocvrel_v_per_k

    def voltage(self, soc: ArrayLike, temperature_degc: float) -> Array:
        """Return the OCV at these states of charge, V; the slope is bounded outside 0..1."""
        return read(self.table(temperature_degc), soc)

    def slope(self, soc: ArrayLike, temperature_degc: float) -> Array:
        """Return dOCV/dz at these states of charge, V per unit of z: the central difference over ±1 %."""
        return slope(self.table(temperature_degc), soc)

    def soc(self, voltage_v: ArrayLike, temperature_degc: float) -> Array:
        """Return the state of charge at which the rested cell has this voltage; beyond 0..1 by the bounded slope."""
        return find(self.table(temperature_degc), voltage_v)


def end_slopes(table: Array) -> tuple[float, float]:
    """Return the slopes used below 0 and above 1, V per unit of z: means over the last 5 %, bounded."""
    width = END_CELLS / CELLS
    low = (table[END_CELLS] - table[0]) / width
    high = (table[-1] - table[-1 - END_CELLS]) / width
    least = float(np.clip(END_SLOPE_SHARE * (table[-1] - table[0]), TINY_SLOPE_V, END_SLOPE_MAX_V))
    return float(np.clip(low, least, END_SLOPE_MAX_V)), float(np.clip(high, least, END_SLOPE_MAX_V))


def read(table: Array, soc: ArrayLike) -> Array:
    """Return the values of a `GRID` table at these z, with bounded slopes outside 0..1."""
    z = np.asarray(soc, dtype=np.float64)
    low, high = end_slopes(table)
    inside = np.interp(z, GRID, table)
    return np.asarray(inside + low * np.minimum(z, 0.0) + high * np.maximum(z - 1.0, 0.0))


def slope(table: Array, soc: ArrayLike) -> Array:
    """Return the slope of a `GRID` table at these z, V per unit of z, over ±1 %."""
    z = np.asarray(soc, dtype=np.float64)
    return (read(table, z + SLOPE_REACH) - read(table, z - SLOPE_REACH)) / (2 * SLOPE_REACH)


def find(table: Array, voltage_v: ArrayLike) -> Array:
    """Return the z at which a `GRID` table has these values: the inverse of `read`, on the curve made increasing."""
    v = np.asarray(voltage_v, dtype=np.float64)
    rising = increasing(table)
    low, high = end_slopes(table)
    inside = np.interp(v, rising, GRID)
    return np.asarray(inside + np.minimum(v - rising[0], 0.0) / low + np.maximum(v - rising[-1], 0.0) / high)


def increasing(table: Array) -> Array:
    """Return the nearest strictly increasing table: isotonic regression (pool adjacent violators) plus a tiny slope."""
    level: list[float] = []
    weight: list[int] = []
    for value in table:
        level.append(float(value))
        weight.append(1)
        while len(level) > 1 and level[-2] > level[-1]:
            n, m = weight[-2], weight[-1]
            level[-2:] = [(n * level[-2] + m * level[-1]) / (n + m)]
            weight[-2:] = [n + m]
    return np.repeat(level, weight) + TINY_SLOPE_V * (GRID - 0.5)
