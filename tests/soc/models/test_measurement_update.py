"""The measurement update: outlier gating, covariance inflation, sensor offsets, anchors and stated bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import soc
from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters
from soc.estimation.estimator import Estimator, Model
from soc.filters import Samples
from soc.models.options import PLAIN, options
from soc.series import Series
from soc.simulation.simulate import Faults, measured


def drive(cell, n, mean_a=-0.3, soc0=0.9, seed=5):
    current = np.convolve(np.random.default_rng(seed).normal(0, 1, n), np.ones(15) / 4, "same") + mean_a
    return soc.simulate(cell, np.arange(n), current, 25.0, soc0)


def spoiled(series: Series, rows: slice, volts: float) -> Series:
    voltage = series.voltage_v.copy()
    voltage[rows] += volts
    return replace(series, voltage_v=voltage)


def test_an_outlier_is_gated_once_the_filter_has_converged(warm_and_cold_cell):
    series, _ = drive(warm_and_cold_cell, 1200)
    clean = soc.estimate(series, warm_and_cold_cell, soc0=0.9, soc0_sd=0.01)
    hit = soc.estimate(spoiled(series, slice(900, 903), 1.5), warm_and_cold_cell, soc0=0.9, soc0_sd=0.01)
    assert hit.health["gated"] == 3
    assert hit.soc == pytest.approx(clean.soc, abs=5e-3)


def test_a_wrong_start_is_gated_for_a_limited_time(warm_and_cold_cell):
    series, truth = drive(warm_and_cold_cell, 1800)
    result = soc.estimate(series, warm_and_cold_cell, soc0=0.2, soc0_sd=0.001)
    assert result.health["gated"] > 0
    assert result.health["gate_opened"] >= 1
    assert abs(result.soc[-1] - truth[-1]) < 0.05


def test_covariance_is_inflated_at_most_once_a_minute(warm_and_cold_cell):
    series, _ = drive(warm_and_cold_cell, 600)
    wrong = spoiled(series, slice(0, 600), 0.3)
    often = soc.estimate(wrong, warm_and_cold_cell, soc0=0.9, soc0_sd=0.01, bump_interval_s=0.0)
    limited = soc.estimate(wrong, warm_and_cold_cell, soc0=0.9, soc0_sd=0.01)
    assert 1 <= limited.health["bumps"] <= 10
    assert limited.health["bumps"] <= often.health["bumps"]


def test_an_offset_is_learned_on_a_slope_and_unchanged_on_a_plateau(warm_and_cold_cell, vector_cell):
    series, _ = drive(warm_and_cold_cell, 4 * 3600, mean_a=-0.3)
    result = soc.estimate(
        measured(series, Faults(current_offset_a=0.1), 1), warm_and_cold_cell, soc0=0.9, offset_state=True
    )
    assert result.offset_a[-1] == pytest.approx(0.1, abs=0.06)
    assert result.health["frozen_offset"] == 0

    flat, _ = soc.simulate(vector_cell, np.arange(1800), np.zeros(1800), 25.0, 0.55)
    frozen = soc.estimate(flat, vector_cell, soc0=0.55, soc0_sd=0.01, offset_state=True)
    assert frozen.health["frozen_offset"] == 1799
    assert np.ptp(frozen.offset_a) == 0.0
    assert frozen.belief.sd("i_b") >= 0.02  # neither learned nor reset


def test_an_overload_makes_the_offset_unknown_again(warm_and_cold_cell):
    live = Estimator(warm_and_cold_cell, soc0=0.5, offset_state=True, full_scale_a=20.0, offset_sd_a=0.1)
    live.step(0.0, 0.0, 3.7, 25.0)
    cov = live.belief.cov.copy()
    k = live.belief.states.index("i_b")
    cov[k, :], cov[:, k] = 0, 0
    cov[k, k] = 1e-6
    live.belief = replace(live.belief, cov=cov)
    live.step(1.0, 30.0, np.nan, 25.0)
    assert live.belief.sd("i_b") == pytest.approx(0.1, rel=1e-6)


def full_charge(voltage_v: float, tail_a: float, minutes: float) -> Series:
    """A cell that is charged at constant current, then held at a voltage."""
    n = int(minutes * 60)
    return Series(np.arange(n), np.full(n, tail_a), np.full(n, voltage_v), np.full(n, 25.0))


@pytest.fixture
def lfp_cell(vector_cell) -> CellParameters:
    return replace(vector_cell, chemistry="LFP")


def test_a_full_cell_is_an_anchor_with_a_variance(lfp_cell):
    result = soc.estimate(full_charge(3.5, 0.05, 10), lfp_cell, "spkf", soc0=0.7, soc0_sd=0.2, error_scale=100)
    assert result.health["anchors"] >= 1
    assert result.soc[-1] == pytest.approx(1.0, abs=0.02)
    assert 0.005 < result.sd[-1] < 0.02
    assert result.anchor_age_s == 0.0


@pytest.mark.parametrize(("voltage_v", "tail_a", "minutes"), [(3.5, 1.0, 10), (3.5, 0.05, 4), (3.4, 0.05, 10)])
def test_voltage_alone_is_no_anchor(lfp_cell, voltage_v, tail_a, minutes):
    result = soc.estimate(full_charge(voltage_v, tail_a, minutes), lfp_cell, soc0=0.7, soc0_sd=0.2)
    assert result.health["anchors"] == 0
    assert np.isnan(result.anchor_age_s)


def test_the_bound_on_a_plateau_is_as_wide_as_the_curve_is_flat(vector_cell):
    n = 6 * 3600
    current = np.where(np.arange(n) % 3600 < 1800, 0.3, -0.3)
    series, truth = soc.simulate(vector_cell, np.arange(n), current, 25.0, 0.55)
    cell, known = vector_cell, {"soc0": 0.55, "offset_state": False}
    result = soc.estimate(series, cell, **known, soc0_sd=0.3)
    slope, ocv_sd = 0.2, 0.002  # the steepest position reached, V per unit of z; V
    assert ocv_sd / slope <= result.sd[-1] < 0.1
    assert soc.estimate(series, cell, **known, soc0_sd=0.3, ocv_sd_v=0.01).sd[-1] > 0.05
    counted_from_known = soc.estimate(series, cell, **known, soc0_sd=0.005, ocv_sd_v=0.01)
    assert counted_from_known.sd[-1] < 0.02  # the curve's error does not reduce the information of coulomb counting
    assert np.all(np.abs(result.soc - truth) <= 3 * result.sd)


def test_more_samples_of_a_coloured_error_add_no_information(linear_cell):
    sds = []
    for step in (1.0, 10.0):
        n = int(3600 / step)
        series, _ = soc.simulate(linear_cell, step * np.arange(n), np.zeros(n), 25.0, 0.5)
        sds.append(soc.estimate(series, linear_cell, soc0=0.5, soc0_sd=0.2).sd[-1])
    assert sds[1] == pytest.approx(sds[0], rel=0.05)


@pytest.mark.parametrize("bias_state", [True, False])
def test_error_stays_inside_the_stated_deviation(bias_state):
    """Many cells whose voltage errors are what the model says: coloured, with a slow bias."""
    cell = CellParameters.plain("honest", 3.0, Ocv.of_points([0, 1], [3.2, 4.1]), 0.02, [(0.015, 20.0)])
    rng, n, inside, normalised = np.random.default_rng(2), 3600, [], []
    for seed in range(40):
        series, truth = drive(cell, n, mean_a=-0.5, soc0=0.8, seed=seed)
        bias = rng.normal(0, np.hypot(0.005, 0.002)) * np.exp(-np.arange(n) / 4000)
        error = _coloured(rng, n, 0.005, 60.0) + bias
        start = np.clip(0.8 + rng.normal(0, 0.1), 0, 1)
        observed = replace(series, voltage_v=series.voltage_v + error)
        result = soc.estimate(observed, cell, soc0=start, soc0_sd=0.1, bias_state=bias_state, offset_state=False)
        inside.append(np.mean(np.abs(result.soc - truth)[600:] <= 3 * result.sd[600:]))
        normalised.append(((result.soc - truth)[-1] / result.sd[-1]) ** 2)
    assert np.mean(inside) > 0.99
    assert 0.2 < np.mean(normalised) < 1.5


def _coloured(rng: np.random.Generator, n: int, sd: float, t_c: float) -> np.ndarray:
    a = np.exp(-1 / t_c)
    error = np.empty(n)
    error[0] = rng.normal(0, sd)
    for k in range(1, n):
        error[k] = a * error[k - 1] + rng.normal(0, sd * np.sqrt(1 - a * a))
    return error


def test_a_large_uncertainty_on_a_bent_curve_leaves_a_positive_covariance():
    """Many correlated pairs on a sharp knee: the usual weighted sum is negative there (n_a = 7, W_0 = -4/3)."""
    knee = Ocv.of_points([0, 0.5, 0.52, 1], [3.0, 3.0001, 3.4, 3.4001])
    cell = CellParameters.plain("knee", 2.0, knee, 0.001, [(0.001, 9.0), (0.001, 99.0)])
    model = Model(cell, "spkf", options(PLAIN, offset_state=True, offset_sd_a=500.0, sensor_v=1e-6, soc_sd_max=9.0))
    start = model.start(3.2, 25.0, 0.0, 0.51, 0.3)
    mix = np.eye(5) + 0.9 * np.random.default_rng(0).normal(0, 1, (5, 5))
    scale = np.diag([1.0, 1.0, 0.3, 0.3, 1.0])
    belief = replace(start, cov=scale @ mix @ mix.T @ scale)
    times = np.arange(20.0)
    columns = (times, np.zeros(20), np.full(20, 3.2), np.full(20, 25.0), np.full(20, np.nan))
    after, out = model.carry(belief, Samples(*(np.array(c)[None] for c in columns)))
    assert after.counters["bends_left_out"] > 0
    assert np.isfinite(out[1:]).all()
    assert np.linalg.eigvalsh(after.cov).min() > -1e-12


def test_output_is_not_clipped_and_a_clamped_state_is_counted(vector_cell):
    series = Series(np.arange(600), np.full(600, 0.5), np.full(600, 4.2), np.full(600, 25.0))
    result = soc.estimate(series, vector_cell, soc0=0.99, soc0_sd=0.1)
    assert result.soc.max() > 1.0
    assert result.health["clamped_soc"] > 0


def test_efficiency_is_applied_once(vector_cell):
    n = 3601
    series, truth = soc.simulate(vector_cell, np.arange(n), np.full(n, 0.5), 25.0, 0.2)
    assert truth[-1] - 0.2 == pytest.approx(0.995 * 0.5 / 2.0, rel=1e-9)
    counted = soc.estimate(series, vector_cell, "coulomb", soc0=0.2)
    assert counted.soc[-1] == pytest.approx(truth[-1], abs=1e-9)


def test_ten_milliamperes_on_a_large_cell_are_counted():
    cell = CellParameters.plain("large", 280.0, Ocv.of_points([0, 1], [3.0, 3.5]), 0.0002, [(0.0001, 20.0)])
    n = 36001
    series, truth = soc.simulate(cell, np.arange(n), np.full(n, 0.01), 25.0, 0.5)
    counted = soc.estimate(series, cell, "coulomb", soc0=0.5)
    assert counted.soc[-1] - 0.5 == pytest.approx(0.1 / 280, rel=1e-6)
    assert truth[-1] == pytest.approx(counted.soc[-1], abs=1e-12)
