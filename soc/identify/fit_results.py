"""The settings of an identification and its results: one anchor per temperature, and the fit as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import Ocv

Array = NDArray[np.float64]

KELVIN = 273.15
SOC_KNOTS: Array = np.concatenate((np.arange(0, 4) * 0.025, np.arange(2, 21) * 0.05)).round(3)
R_KNOTS: Array = np.array([0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


@dataclass(frozen=True, eq=False)
class Settings:
    """Settings of the fit. Penalties are in V² per unit of what they weigh; the defaults suit cells of 1 to 3 Ah."""

    tau_start_s: tuple[float, ...] = (2.0, 25.0, 150.0)
    tau_range_s: tuple[float, float] = (0.7, 3000.0)
    gamma_start: float = 100.0
    gamma_range: tuple[float, float] = (5.0, 1500.0)
    charge_transfer_below_degc: float = 5.0
    charge_transfer_rate: tuple[float, float] = (0.1, 10.0)  # I0 in capacities per hour
    soc_knots: Array = field(default_factory=lambda: SOC_KNOTS)
    r_knots: Array = field(default_factory=lambda: R_KNOTS)
    m_knots: Array = field(default_factory=lambda: np.array([0.5]))
    lowest_soc: float = 0.03  # below this the voltage drops steeply and would distort the fit
    smooth_shift: float = 1e-5
    ridge_shift: float = 1e-6
    shift_limit_v: float = 0.5
    smooth_r: float = 1.3e-4
    ridge_r: float = 1e-9
    ridge_m: float = 1e-3
    r_floor_v: float = 1e-4  # V at 1C; positive, because log R must exist
    evaluations: int = 120
    sweeps: int = 3

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Return the number of knots of the shift, of a resistance and of M, and the number of R–C pairs."""
        return len(self.soc_knots), len(self.r_knots), len(self.m_knots), len(self.tau_start_s)

    @property
    def unknowns(self) -> int:
        """Return the number of linear unknowns of one temperature."""
        n_s, n_r, n_m, pairs = self.sizes
        return n_s + n_r * (1 + pairs) + n_m + 1


@dataclass(frozen=True, eq=False)
class Anchor:
    """The fit at one temperature. `r_v` [1 + pairs, r_knots] is R·(1C) in V, R0 first.

    `sd` are the standard deviations of `coefficients`, computed with the number of independent samples that the
    coloured residuals are worth; zero for a value on a bound.
    """

    temperature_degc: float
    capacity_ah: float
    efficiency: float
    charge_transfer_a: float
    shift_v: Array
    r_v: Array
    m_v: Array
    m0_v: float
    rms_v: float
    sd: Array
    m0_observable: bool
    tested: bool = True  # False: interpolated between tested temperatures

    @property
    def r_ohm(self) -> Array:
        """Return the resistances, Ω."""
        return self.r_v / self.capacity_ah

    @property
    def coefficients(self) -> Array:
        """Return all linear unknowns in one row: shift, resistances (V at 1C), M, M0."""
        return np.concatenate([self.shift_v, self.r_v.ravel(), self.m_v, [self.m0_v]])


@dataclass(frozen=True, eq=False)
class Fit:
    """Anchors by rising temperature, their shared parameters, and the warnings of the fit."""

    ocv: Ocv
    settings: Settings
    tau_s: Array
    gamma: float
    anchors: tuple[Anchor, ...]
    warnings: tuple[str, ...] = ()
