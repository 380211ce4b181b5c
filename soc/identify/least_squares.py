"""Least squares with bounds and penalties, and the correlation time of residuals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import lsq_linear

Array = NDArray[np.float64]


def bounded(matrix: Array, right: Array, low: Array, high: Array) -> Array:
    """Return the x within the bounds that minimises ½·xᵀAx − bᵀx; A symmetric positive definite."""
    factor = np.linalg.cholesky(matrix)
    target = np.linalg.solve(factor, right)
    x = np.linalg.solve(factor.T, target)
    if np.all(x >= low) and np.all(x <= high):
        return np.asarray(x)
    solution = lsq_linear(factor.T, target, bounds=(low, high), method="bvls").x
    return np.clip(solution, low, high)  # the solver exceeds the bounds by a rounding error


def bending(knots: Array) -> Array:
    """Return the matrix whose quadratic form is ∫(second derivative)² of the piecewise-linear curve on the knots."""
    size = len(knots)
    form = np.zeros((size, size))
    for k in range(1, size - 1):
        left, right = knots[k] - knots[k - 1], knots[k + 1] - knots[k]
        row = np.zeros(size)
        row[k - 1 : k + 2] = 1 / left, -1 / left - 1 / right, 1 / right
        form += np.outer(row, row) * (left + right) / 2
    return form


def correlation_time(residual: Array, step_s: float) -> float:
    """Return the integral of the autocorrelation over positive lags up to its first zero, s."""
    x = residual - residual.mean()
    power = float(x @ x)
    if power <= 0.0 or len(x) < 3:
        return 0.0
    n = 1 << (2 * len(x) - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(x, n)) ** 2
    rho = np.fft.irfft(spectrum, n)[: len(x)] / power
    crossing = np.flatnonzero(rho <= 0.0)
    return float(rho[1 : crossing[0] if len(crossing) else len(x)].sum()) * step_s


def rounded(values: ArrayLike, digits: int = 5) -> Array:
    """Round the values to this number of significant digits; more digits would suggest false accuracy."""
    array = np.asarray(values, dtype=np.float64)
    return np.array([float(f"{value:.{digits}g}") for value in array.flat]).reshape(array.shape)
