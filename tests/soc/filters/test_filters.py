"""Filters against the exact solution, against another library, and against properties that hold for any data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import soc
from soc import filters
from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters
from soc.errors import OptionError
from soc.estimation.estimator import Estimator, Model, carry_cells
from soc.filters import Samples
from soc.models.options import PLAIN, Options, options
from soc.models.state import FilterMemory, StateEstimate, blank_memory
from soc.series import Series

MODEST = settings(max_examples=25, deadline=None)
CURRENTS = st.lists(st.floats(-4, 4), min_size=2, max_size=40)


def drive(n: int, seed: int = 0, mean_a: float = -0.5) -> np.ndarray:
    """A current like that of a drive cycle: slow wandering with some charging."""
    noise = np.random.default_rng(seed).normal(0, 1, n)
    return np.convolve(noise, np.ones(20) / 5, "same") + mean_a


def exact_filter(cell: CellParameters, time_s, discharge_a, v, current_sd, voltage_sd, x, P):
    """The Kalman filter with noise shared by state and output (Anderson, Moore, Optimal Filtering, ch. 5)."""
    R0, R1, tau, Q = cell.r0_ohm[0, 0], cell.r_ohm[0, 0, 0], cell.tau_s[0, 0], cell.capacity_ah[0]
    results = []
    for k in range(1, len(time_s)):
        dt = time_s[k] - time_s[k - 1]
        a, c = np.exp(-dt / tau), dt / 3600 / Q
        F, B, C = np.diag([a, 1, 1]), np.array([1 - a, 0, -c]), np.array([-R1, 0, 1])
        x, P = F @ x + B * discharge_a[k], F @ P @ F.T + np.outer(B, B) * current_sd**2
        S = C @ P @ C + (R0 * current_sd) ** 2 - 2 * (C @ B) * R0 * current_sd**2 + voltage_sd**2
        L = (P @ C - B * R0 * current_sd**2) / S
        x = x + L * (v[k] - (3 + C @ x - R0 * discharge_a[k]))
        P = P - np.outer(L, L) * S
        results.append([x[2], np.sqrt(P[2, 2])])
    return np.array(results)


def begun(model: Model, P0: np.ndarray, z0: float) -> StateEstimate:
    mean = np.zeros(len(model.states))
    mean[model.states.index("z")] = z0
    return StateEstimate(*model.names, model.states, mean, P0, blank_memory())


def samples(time_s, current_a, voltage_v, temperature_degc=25.0) -> Samples:
    columns = np.broadcast_arrays(time_s, current_a, voltage_v, temperature_degc, np.nan)
    return Samples(*(np.array(c, dtype=float, ndmin=2) for c in columns))


@pytest.mark.parametrize("name", ["spkf", "ekf"])
def test_linear_model_gives_the_kalman_filter(linear_cell, name):
    time_s, current = np.cumsum(np.random.default_rng(1).uniform(0.5, 12, 500)), drive(500)
    v = 3.5 + 0.01 * current + np.random.default_rng(2).normal(0, 0.01, 500)
    model = Model(linear_cell, name, options(PLAIN, current_sd_a=0.1, sensor_v=0.01))
    P0 = np.diag([1e-4, 1e-2, 1e-2])
    _, out = model.carry(begun(model, P0, 0.6), samples(time_s, current, v))
    expected = exact_filter(linear_cell, time_s, -current, v, 0.1, 0.01, np.array([0, 0, 0.6]), P0)
    assert out[1:, :2] == pytest.approx(expected, abs=1e-9)


def both(cell: CellParameters, chosen: Options, n: int) -> tuple[np.ndarray, np.ndarray]:
    """z by the sigma points of this package and by those of filterpy, from the same start on the same data."""
    current = drive(n, mean_a=-0.3)
    series, _ = soc.simulate(cell, np.arange(n), current, 25.0, 0.8)
    results = []
    for name in ("spkf", "filterpy_ukf"):
        model = Model(cell, name, chosen)
        belief = begun(model, np.diag([1e-4, 1e-2, 1e-2]), 0.75)
        results.append(model.carry(belief, samples(series.time_s, current, series.voltage_v))[1][:, 0])
    return results[0], results[1]


def test_filterpy_agrees_to_rounding_without_cross_terms():
    cell = CellParameters.plain("no cross", 2.0, Ocv.of_points([0, 1], [3.0, 4.0]), 0.0, [(0.015, 20.0)])
    ours, theirs = both(cell, options(PLAIN, current_sd_a=0.1, sensor_v=0.01), 400)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_filterpy_agrees_closely_on_a_curve(vector_cell):
    ours, theirs = both(vector_cell, options(PLAIN, current_sd_a=0.1, sensor_v=0.02), 400)
    assert np.abs(ours - theirs)[100:].max() < 0.0025


def test_every_filter_is_found_and_an_unknown_one_is_named():
    assert filters.NAMES == ["coulomb", "ekf", "filterpy_ukf", "spkf"]
    with pytest.raises(OptionError, match=r"no filter 'spkff'; there are coulomb, ekf"):
        filters.find("spkff")


@pytest.mark.parametrize("name", ["spkf", "ekf"])
def test_counting_is_a_filter_without_measurement_updates(vector_cell, name):
    n, blind = 600, options(PLAIN, current_sd_a=0.1, sensor_v=1e9)
    columns = samples(np.arange(n), drive(n), 3.3)
    results = []
    for each in (name, "coulomb"):
        model = Model(vector_cell, each, blind)
        results.append(model.carry(begun(model, np.diag([1e-4, 1e-2, 1e-2]), 0.6), columns)[1][:, :2])
    assert results[0] == pytest.approx(results[1], abs=1e-12)


@MODEST
@given(currents=CURRENTS, shift=st.integers(-(10**6), 10**6))
def test_estimates_do_not_depend_on_the_origin_of_time(vector_cell, currents, shift):
    time_s = np.arange(len(currents), dtype=float)
    runs = [
        soc.estimate(
            Series(time_s + by, currents, np.full(len(currents), 3.3), np.full(len(currents), 25.0)), vector_cell
        )
        for by in (0, shift)
    ]
    assert np.array_equal(runs[0].soc, runs[1].soc)
    assert np.array_equal(runs[0].sd, runs[1].sd)


@MODEST
@given(currents=st.lists(st.floats(-4, 4), min_size=2, max_size=20), share=st.floats(0.1, 0.9), dt=st.floats(0.1, 60))
def test_an_interval_may_be_split(vector_cell, currents, share, dt):
    whole = np.arange(len(currents)) * dt
    split = np.sort(np.concatenate([whole, whole[:-1] + share * dt]))
    model = Model(vector_cell, "coulomb", PLAIN)
    start = begun(model, np.diag([1e-4, 1e-2, 1e-2]), 0.5)
    one, _ = model.carry(start, samples(whole, currents, 3.3))
    two, _ = model.carry(start, samples(split, np.concatenate([currents[:1], np.repeat(currents[1:], 2)]), 3.3))
    assert one.mean == pytest.approx(two.mean, abs=1e-9)


@MODEST
@given(currents=CURRENTS)
def test_charge_that_is_discharged_again_leaves_no_change(linear_cell, currents):
    there_and_back = np.concatenate([[0.0], currents, -np.array(currents)])
    model = Model(linear_cell, "coulomb", PLAIN)
    belief = begun(model, np.diag([1e-4, 1e-2, 1e-2]), 0.5)
    after, _ = model.carry(belief, samples(np.arange(len(there_and_back)), there_and_back, 3.3))
    assert after["z"] == pytest.approx(0.5, abs=1e-12)


@MODEST
@given(
    currents=st.lists(st.floats(-200, 200), min_size=2, max_size=40),
    voltages=st.lists(st.floats(0.1, 6), min_size=40, max_size=40),
    gaps=st.lists(st.floats(0.01, 1e5), min_size=40, max_size=40),
    name=st.sampled_from(["spkf", "ekf", "coulomb"]),
    offset=st.booleans(),
)
def test_any_data_leaves_a_finite_positive_covariance(warm_and_cold_cell, currents, voltages, gaps, name, offset):
    n = len(currents)
    series = Series(np.cumsum(gaps[:n]), currents, voltages[:n], np.linspace(-30, 60, n))
    belief = soc.estimate(series, warm_and_cold_cell, name, offset_state=offset).belief
    assert np.isfinite(belief.mean).all()
    assert np.array_equal(belief.cov, belief.cov.T)
    scale = np.sqrt(np.diag(belief.cov))
    assert np.linalg.eigvalsh(belief.cov / np.outer(scale, scale)).min() > -1e-9
    if name != "coulomb":
        assert abs(belief["h"]) <= 1


@MODEST
@given(parallel=st.integers(1, 50), seed=st.integers(0, 100))
def test_cells_in_parallel_show_the_same_state_of_charge(vector_cell, parallel, seed):
    current = drive(60, seed)
    series, _ = soc.simulate(vector_cell, np.arange(60), current, 25.0, 0.7)
    block = CellParameters.plain(
        "block",
        2.0 * parallel,
        vector_cell.ocv,
        0.010 / parallel,
        [(0.015 / parallel, 20.0)],
        efficiency=0.995,
        gamma=120.0,
        m_v=0.020,
        m0_v=0.002,
    )
    one = soc.estimate(series, vector_cell, soc0=0.6)
    wide = Series(series.time_s, current * parallel, series.voltage_v, series.temperature_degc)
    many = soc.estimate(wide, block, soc0=0.6, current_sd_a=0.1 * parallel)
    assert many.soc == pytest.approx(one.soc, abs=1e-6)


@MODEST
@given(cuts=st.lists(st.integers(1, 299), max_size=6, unique=True), name=st.sampled_from(["spkf", "ekf", "coulomb"]))
def test_any_split_of_a_stream_gives_the_same_bits(warm_and_cold_cell, cuts, name):
    series = _stream(warm_and_cold_cell)
    whole = soc.estimate(series, warm_and_cold_cell, name, soc0=0.7)
    stream = Estimator(warm_and_cold_cell, name, soc0=0.7)
    edges = [0, *sorted(cuts), 300]
    parts = [stream.run(series[low:high]) for low, high in pairwise(edges)]
    assert np.array_equal(np.concatenate([p.soc for p in parts]), whole.soc)
    assert np.array_equal(np.concatenate([p.sd for p in parts]), whole.sd)
    assert np.array_equal(stream.belief.cov, whole.belief.cov)


def test_live_steps_give_the_same_bits_as_a_replay(warm_and_cold_cell):
    series = _stream(warm_and_cold_cell)
    whole = soc.estimate(series, warm_and_cold_cell)
    live = Estimator(warm_and_cold_cell)
    rows = zip(series.time_s, series.current_a, series.voltage_v, series.temperature_degc, strict=True)
    points = [live.step(*map(float, row)) for row in rows]
    assert [p.soc for p in points] == whole.soc.tolist()
    assert [p.soc_hi for p in points] == whole.soc_hi.tolist()


def _stream(cell: CellParameters) -> Series:
    """Five minutes with changing temperature and an irregular clock, a gap included."""
    time_s = np.cumsum(np.where(np.arange(300) == 150, 200.0, np.random.default_rng(3).uniform(0.5, 2, 300)))
    series, _ = soc.simulate(cell, time_s, drive(300), np.linspace(24, -5, 300), 0.8)
    return series


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_cells_of_a_batch_are_independent(warm_and_cold_cell, threads):
    model = Model(warm_and_cold_cell)
    seeds = [3, 1, 4, 5, 9]
    columns = Samples(
        *(np.concatenate(c) for c in zip(*(_cell_samples(warm_and_cold_cell, s) for s in seeds), strict=True))
    )
    starts = [model.start(3.7, 25.0, 0.0, 0.5 + 0.01 * s) for s in seeds]
    beliefs, outs = carry_cells(model, starts, columns, threads)
    for k in range(len(seeds)):
        alone, out = model.carry(starts[k], Samples(*(c[k : k + 1] for c in columns)))
        assert np.array_equal(out, outs[k], equal_nan=True)
        assert np.array_equal(alone.cov, beliefs[k].cov)


def _cell_samples(cell: CellParameters, seed: int) -> Samples:
    series, _ = soc.simulate(cell, np.arange(100), drive(100, seed), 20.0, 0.6)
    return samples(series.time_s, series.current_a, series.voltage_v, 20.0)


@pytest.mark.slow
def test_covariance_is_symmetric_and_positive_after_ten_million_steps(vector_cell):
    model = Model(vector_cell, "spkf", options(offset_state=True))
    belief = model.start(3.3, 25.0, 0.0, 0.5, 0.2)
    n = 500_000
    noise = np.random.default_rng(7)
    for part in range(20):
        current = np.where(np.arange(n) % 7200 < 3600, 1.0, -1.0) * 0.5 + noise.normal(0, 0.5, n)
        voltage = 3.3 + 0.01 * current + noise.normal(0, 0.01, n)
        belief, out = model.carry(belief, samples(part * n + np.arange(n), current, voltage))
    assert belief.memory[FilterMemory.SAMPLES] == 10_000_000
    assert np.isfinite(out[1:]).all()
    assert np.array_equal(belief.cov, belief.cov.T)
    assert np.linalg.eigvalsh(belief.cov).min() > 0
