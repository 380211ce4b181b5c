"""The factor of a singular, or by rounding nearly singular, covariance keeps the covariance's magnitude."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from soc.models.sigma_points import cholesky


def factor(P: np.ndarray) -> tuple[np.ndarray, int]:
    S = np.zeros_like(P)
    return S, cholesky(P, S, (0,) * len(P))


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, 1e-16, 1e-12, 1e-9]))
@settings(max_examples=100, deadline=None)
def test_a_singular_covariance_is_factored_without_growth(seed, rank, error):
    random = np.random.default_rng(seed)
    root = random.standard_normal((6, rank))
    wrong = error * random.standard_normal((6, 6))
    P = root @ root.T + wrong + wrong.T
    S, _ = factor(P)
    assert np.abs(S @ S.T - P).max() < 1e-3 * np.abs(P).max() + 1e4 * error


def test_three_equally_relaxed_pairs_do_not_enlarge_the_other_states():
    P = np.full((4, 4), 0.42)
    P[3] = P[:, 3] = 0.3
    P[3, 3] = 0.5
    P[3, 1] = P[1, 3] = 0.3 + 1e-7  # a rounding error under a pivot that is zero
    S, floored = factor(P)
    assert floored == 2
    assert np.abs(S @ S.T - P).max() < 1e-6


def test_a_positive_covariance_is_factored_exactly():
    random = np.random.default_rng(1)
    root = random.standard_normal((7, 7))
    P = root @ root.T
    S, floored = factor(P)
    assert floored == 0
    assert np.allclose(S @ S.T, P, rtol=0, atol=1e-12)
