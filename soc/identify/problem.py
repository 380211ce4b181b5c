"""The bounded linear problem of one temperature: normal equations, penalties, bounds, and its solution as an Anchor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import Ocv
from soc.identify.fit_results import Anchor, Settings
from soc.identify.least_squares import bending, bounded, correlation_time
from soc.identify.regressors import HysteresisLaw, Regressors, accumulate, columns_of, evaluate, room
from soc.identify.runs import Run

Array = NDArray[np.float64]


class Problem:
    """The bounded linear problem of one temperature: its columns, penalties, bounds and prior."""

    def __init__(
        self,
        runs: Sequence[Run],
        ocv: Ocv,
        settings: Settings,
        tau_s: Array,
        gamma: float,
        own: Anchor | None,
        neighbours: Mapping[float, Anchor],
        inner: Anchor | None,
    ) -> None:
        self.runs, self.settings, self.tau_s, self.gamma = runs, settings, tau_s, gamma
        self.capacity_ah = runs[0].capacity_ah if own is None else own.capacity_ah
        self.efficiency = runs[0].efficiency
        self.columns = [columns_of(run, ocv, settings, own, neighbours) for run in runs]
        self.m0_observable = any(run.regenerates for run in runs)
        self.prior = inner

    def law(self, charge_transfer_a: float) -> HysteresisLaw:
        """Return the given values of the linear problem."""
        n_s, n_r, n_m, _ = self.settings.sizes
        return HysteresisLaw(self.tau_s, self.gamma, self.capacity_ah, charge_transfer_a, n_s, n_r, n_m)

    def equations(self, charge_transfer_a: float) -> tuple[Array, Array, float, int]:
        """Return normal matrix, right side, Σy² and number of samples."""
        size = self.settings.unknowns
        matrix, right = np.zeros((size, size)), np.zeros(size)
        square, count = 0.0, 0
        for c in self.columns:
            s, n = accumulate(c, self.law(charge_transfer_a), room(len(self.tau_s)), matrix, right)
            square, count = square + s, count + n
        return matrix, right, square, count

    def solve(self, charge_transfer_a: float) -> tuple[Array, Array, float, NDArray[np.bool_]]:
        """Return coefficients, information matrix (per sample), rms error and which coefficients are free."""
        matrix, right, square, count = self.equations(charge_transfer_a)
        penalty, centre = self._penalty(matrix, right)
        low, high = self._bounds()
        information = matrix / count + penalty
        x = bounded(information, right / count + penalty @ centre, low, high)
        error = max(float(square - 2 * right @ x + x @ matrix @ x) / count, 0.0)
        return x, information, float(np.sqrt(error)), (x > low) & (x < high)

    def anchor(self, temperature_degc: float, charge_transfer_a: float) -> Anchor:
        """Return the solution as an Anchor, with the standard deviations of its coefficients."""
        x, information, rms, free = self.solve(charge_transfer_a)
        n_s, n_r, n_m, pairs = self.settings.sizes
        r = x[n_s : n_s + n_r * (1 + pairs)].reshape(1 + pairs, n_r)
        sd = np.zeros(len(x))
        looks = sum(self._independent_looks(c, x, charge_transfer_a) for c in self.columns)
        variance = np.diag(np.linalg.inv(information[np.ix_(free, free)])) / looks
        sd[free] = rms * np.sqrt(variance)
        return Anchor(
            temperature_degc=temperature_degc, capacity_ah=self.capacity_ah, efficiency=self.efficiency,
            charge_transfer_a=charge_transfer_a, shift_v=x[:n_s], r_v=r, m_v=x[-1 - n_m : -1], m0_v=float(x[-1]),
            rms_v=rms, sd=sd, m0_observable=self.m0_observable,
        )  # fmt: skip

    def voltage(self, run: Run, anchor: Anchor) -> Array:
        """Return the model's voltage along a run of this problem."""
        c = self.columns[self.runs.index(run)]
        return c.base_v + self._model(c, anchor.coefficients, anchor.charge_transfer_a)

    def _model(self, c: Regressors, x: Array, charge_transfer_a: float) -> Array:
        """Return the linear part of the model along one run, V."""
        out = np.empty(len(c.dt_s))
        evaluate(c, self.law(charge_transfer_a), room(len(self.tau_s)), x, out)
        return out

    def _independent_looks(self, c: Regressors, x: Array, charge_transfer_a: float) -> float:
        """Return the number of independent samples that the coloured residuals of a run are worth."""
        residual = (c.rest_v - self._model(c, x, charge_transfer_a))[c.keep]
        step = float(np.median(c.dt_s[1:]))
        return max(len(residual) / (1.0 + 2.0 * correlation_time(residual, step) / step), 1.0)

    def _penalty(self, matrix: Array, right: Array) -> tuple[Array, Array]:
        """Return the penalty matrix and right side; the prior is the inner neighbour's shapes, resistances to scale."""
        s = self.settings
        n_s, n_r, n_m, pairs = s.sizes
        size = len(right)
        penalty, centre = np.zeros((size, size)), np.zeros(size)
        penalty[:n_s, :n_s] = s.smooth_shift * bending(s.soc_knots) + s.ridge_shift * np.eye(n_s)
        for j in range(1 + pairs):
            block = slice(n_s + j * n_r, n_s + (j + 1) * n_r)
            penalty[block, block] = s.smooth_r * bending(s.r_knots) + s.ridge_r * np.eye(n_r)
        tail = slice(size - n_m - 1, size)
        penalty[tail, tail] = s.ridge_m * np.eye(n_m + 1)
        if n_m > 1:
            block = slice(size - n_m - 1, size - 1)
            penalty[block, block] = s.ridge_m * (np.eye(n_m) / n_m + bending(s.m_knots))
        if self.prior is not None:
            centre[:n_s] = self.prior.shift_v
            shape = np.concatenate([np.zeros(n_s), self.prior.r_v.ravel(), np.zeros(n_m + 1)])
            rest = right - matrix @ np.concatenate([self.prior.shift_v, np.zeros(size - n_s)])
            ratio = float(shape @ rest) / max(float(shape @ matrix @ shape), 1e-30)
            centre[n_s : size - n_m - 1] = max(ratio, 0.0) * self.prior.r_v.ravel()
        return penalty, centre

    def _bounds(self) -> tuple[Array, Array]:
        n_s, _, n_m, _ = self.settings.sizes
        size = self.settings.unknowns
        low, high = np.zeros(size), np.full(size, np.inf)
        low[:n_s], high[:n_s] = -self.settings.shift_limit_v, self.settings.shift_limit_v
        low[n_s : size - n_m - 1] = self.settings.r_floor_v
        if not self.m0_observable:
            high[-1] = 1e-12
        return low, high
