"""Sums over the sigma points of the central-difference filter, and a root that keeps a covariance positive. Compiled.

The centre weight is W_0 = (h² − n)/h², the outer weight W = 1/(2h²), h = √3, the same for mean and covariance
(Nørgaard, Poulsen, Ravn, Automatica 36 (2000) 1627). Let y₊, y₋ be the images of a pair and y₀ that of the centre. With
the slope a = (y₊ − y₋)/2h and the bend b = y₊ + y₋ − 2y₀, ΣW = 1 makes the weighted sums

    mean = y₀ + W·Σb            cov(x, y) = Σ a_x a_y + W/2·Σ b_x b_y − (W·Σb_x)(W·Σb_y)

for any n, so the negative W_0 of n > 3 appears only in the last term.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from soc.models.compiled import inlined

Array = NDArray[np.float64]

SPREAD = math.sqrt(3.0)
POINT_WEIGHT = 1.0 / 6.0
BEND_WEIGHT = POINT_WEIGHT / 2.0
PIVOT_FLOOR = 1e-18


@inlined
def cholesky(P: Array, S: Array, states: tuple[int, ...]) -> int:
    """Fill S (lower) with P = S Sᵀ; return how many pivots were raised to the floor of 1e-18.

    Below such a pivot the column is set to zero, as it is for a positive semidefinite P. The values there are rounding
    errors, and divided by the root of the floor they would grow without bound.
    """
    floored = 0
    n = len(states)
    for k in range(n):
        pivot = P[k, k]
        for m in range(k):
            pivot -= S[k, m] * S[k, m]
        if not pivot > PIVOT_FLOOR:
            pivot = PIVOT_FLOOR
            floored += 1
            S[k, k] = math.sqrt(pivot)
            for j in range(k + 1, n):
                S[j, k] = 0.0
            continue
        S[k, k] = math.sqrt(pivot)
        per = 1.0 / S[k, k]
        for j in range(k + 1, n):
            rest = P[j, k]
            for m in range(k):
                rest -= S[j, m] * S[k, m]
            S[j, k] = rest * per
    return floored


@inlined
def rebuild(P: Array, S: Array, states: tuple[int, ...]) -> None:
    """Fill P with S Sᵀ, both triangles."""
    n = len(states)
    for j in range(n):
        for k in range(j + 1):
            total = 0.0
            for m in range(k + 1):
                total += S[j, m] * S[k, m]
            P[j, k] = total
            P[k, j] = total


@inlined
def sum_of_squares(D: Array, P: Array, states: tuple[int, ...]) -> None:
    """Fill P with Dᵀ D, the covariance of the deviations in the rows of D."""
    n = len(states)
    for j in range(n):
        for k in range(j + 1):
            total = 0.0
            for m in range(n + 1):
                total += D[m, j] * D[m, k]
            P[j, k] = total
            P[k, j] = total
