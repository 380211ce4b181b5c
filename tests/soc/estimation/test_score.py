"""Scores of estimates with known errors, and trials that change the data as described."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soc.errors import SeriesError
from soc.estimation.score import TRIALS, score
from soc.series import Series

TIME = np.arange(0.0, 3600.0)


def test_errors_are_scored_after_ten_minutes_only():
    soc = np.where(TIME < 600, 0.2, 0.51)
    found = score(TIME, soc, np.full_like(TIME, 0.01), np.full_like(TIME, 0.5))
    assert found.rms == pytest.approx(0.01)
    assert found.worst == pytest.approx(0.01)
    assert found.samples == 3000


def test_convergence_is_the_last_time_it_was_far_off():
    soc = np.full_like(TIME, 0.5)
    soc[:100] = soc[500] = 0.7
    assert score(TIME, soc, np.full_like(TIME, 0.01), np.full_like(TIME, 0.5)).converged_s == 501.0


def test_an_estimate_that_never_settles_has_not_converged():
    found = score(TIME, np.full_like(TIME, 0.7), np.full_like(TIME, 0.01), np.full_like(TIME, 0.5))
    assert math.isnan(found.converged_s)


def test_coverage_and_width_are_of_three_sigma():
    error = np.where(np.arange(len(TIME)) % 4 == 0, 0.04, 0.02)
    found = score(TIME, 0.5 + error, np.full_like(TIME, 0.01), np.full_like(TIME, 0.5))
    assert found.coverage == pytest.approx(0.75)
    assert found.half_width == pytest.approx(0.03)
    assert found.nees == pytest.approx(0.25 * 16 + 0.75 * 4)


def test_a_filter_with_the_true_sigma_scores_one():
    random = np.random.default_rng(3)
    found = score(
        TIME, 0.5 + 0.01 * random.standard_normal(len(TIME)), np.full_like(TIME, 0.01), np.full_like(TIME, 0.5)
    )
    assert found.nees == pytest.approx(1.0, abs=0.1)


def test_only_slow_innovations_are_autocorrelated():
    random = np.random.default_rng(4)
    white = random.standard_normal(len(TIME))
    slow = np.convolve(white, np.ones(50) / math.sqrt(50), "same")
    same = (TIME, np.full_like(TIME, 0.5), np.full_like(TIME, 0.01), np.full_like(TIME, 0.5))
    one = np.ones_like(TIME)
    assert score(*same, white, one).nis == pytest.approx(1.0, abs=0.1)
    assert score(*same, white, one).colour == pytest.approx(0.0, abs=0.06)
    assert score(*same, slow, one).colour > 0.9
    assert math.isnan(score(*same).nis)


def test_samples_without_reference_are_not_scored():
    reference = np.where(TIME < 3000, 0.5, np.nan)
    assert score(TIME, np.where(TIME < 3000, 0.5, 0.9), np.full_like(TIME, 0.01), reference).rms == 0.0


def test_a_recording_too_short_to_score_is_rejected():
    short = TIME[:500]
    with pytest.raises(SeriesError, match="too short"):
        score(short, short, short, short)


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(SeriesError, match="3600 times, 3599 estimates"):
        score(TIME, TIME[1:], TIME, TIME)


# ---- trials ---------------------------------------------------------------------------------------------------------


def recording(n: int = 7200) -> tuple[Series, np.ndarray]:
    random = np.random.default_rng(5)
    time = np.cumsum(random.choice([1.0, 1.0, 1.0, 2.0], n))
    current = -1.0 + random.standard_normal(n)
    reference = 1.0 + np.cumsum(current * np.diff(time, prepend=time[0])) / 3600 / 4.0
    return Series(time, current, 3.0 + reference, np.full(n, 25.0), np.cumsum(current)), reference


@pytest.mark.parametrize("name", TRIALS)
def test_every_trial_has_a_reference_for_each_sample_and_omits_a_false_counter(name):
    series, reference = recording()
    trial = TRIALS[name](series, reference)
    assert len(trial.series) == len(trial.reference)
    assert set(trial.reference) <= set(reference)
    assert name not in ("50 mA offset", "noise", "10 s means") or trial.series.charge_ah is None


def test_a_wrong_start_is_thirty_percent_off():
    series, reference = recording()
    assert TRIALS["−30 %"](series, reference).soc0 == pytest.approx(reference[0] - 0.3)
    high = TRIALS["+30 %"](series, reference)
    assert high.soc0 == pytest.approx(high.reference[0] + 0.3)
    assert high.soc0 <= 1.0


def test_the_offset_is_fifty_milliamperes_and_nothing_else():
    series, reference = recording()
    trial = TRIALS["50 mA offset"](series, reference)
    assert trial.series.current_a - series.current_a == pytest.approx(0.05)
    assert np.array_equal(trial.series.voltage_v, series.voltage_v)


def test_noise_is_the_same_at_every_call():
    series, reference = recording()
    first, second = (TRIALS["noise"](series, reference).series for _ in range(2))
    assert np.array_equal(first.current_a, second.current_a)
    assert np.std(first.voltage_v - series.voltage_v) == pytest.approx(0.005, rel=0.05)


def test_ten_second_means_keep_the_mean_and_are_stamped_at_the_end():
    n = 1000
    series = Series(np.arange(1.0, n + 1), np.arange(n) * 1.0, np.full(n, 3.5), np.full(n, 20.0))
    trial = TRIALS["10 s means"](series, np.linspace(1, 0, n))
    assert np.all(np.diff(trial.series.time_s)[:-1] == 10.0)
    assert trial.series.time_s[-1] == n
    assert trial.series.current_a[1] == pytest.approx(np.mean(np.arange(1, 11)))


@given(st.integers(200, 4000))
def test_means_of_any_length_lose_no_sample(n):
    series = Series(np.arange(n) * 1.0, np.ones(n), np.full(n, 3.5), np.full(n, 20.0))
    trial = TRIALS["10 s means"](series, np.linspace(1, 0, n))
    assert trial.series.current_a == pytest.approx(1.0)
    assert trial.series.time_s[-1] == n - 1


def test_the_gap_is_fifteen_minutes_in_the_middle():
    series, reference = recording()
    kept = TRIALS["15 min gap"](series, reference).series.time_s
    assert np.diff(kept).max() == pytest.approx(900.0, abs=3.0)
    assert kept[0] == series.time_s[0] and kept[-1] == series.time_s[-1]
