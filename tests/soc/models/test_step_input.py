"""Intervals, gaps, missing values and starts: no value is invented, and every case is counted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import soc
from soc.errors import BeliefError, OptionError
from soc.estimation.estimator import Estimator
from soc.models.state import StateEstimate
from soc.series import Series
from soc.simulation.simulate import Faults, measured


def cycle(cell, n=3600, temperature=25.0, soc0=0.9, step=1.0):
    """A simulated drive of n samples with the truth."""
    noise = np.random.default_rng(11).normal(0, 1, n)
    current = np.convolve(noise, np.ones(15) / 4, "same") - 1.0
    return soc.simulate(cell, np.arange(n) * step, current, temperature, soc0)


def test_a_wrong_start_is_corrected(warm_and_cold_cell):
    series, truth = cycle(warm_and_cold_cell)
    result = soc.estimate(series, warm_and_cold_cell, soc0=0.6, soc0_sd=0.2)
    assert np.abs(result.soc - truth)[600:].max() < 0.02


@pytest.mark.parametrize("step", [0.1, 1.0, 10.0, 60.0])
def test_the_sampling_rate_changes_little(warm_and_cold_cell, step):
    series, truth = cycle(warm_and_cold_cell, n=int(3600 / step), step=step)
    result = soc.estimate(series, warm_and_cold_cell, soc0=0.85, soc0_sd=0.05)
    assert abs(result.soc[-1] - truth[-1]) < 0.015
    assert 0.004 < result.sd[-1] < 0.03


@pytest.mark.parametrize("gap", [slice(1000, 1030), slice(1000, 1900)])
@pytest.mark.parametrize("name", ["spkf", "ekf", "coulomb"])
def test_bounds_hold_across_a_gap(warm_and_cold_cell, gap, name):
    series, truth = cycle(warm_and_cold_cell)
    keep = np.ones(len(series), dtype=bool)
    keep[gap] = False
    result = soc.estimate(series[keep], warm_and_cold_cell, name, soc0=0.9, soc0_sd=0.01)
    assert result.health["gaps"] == 1
    assert result.health["long_gaps"] == (gap.stop - gap.start > 60)
    assert np.all((result.soc_lo <= truth[keep]) & (truth[keep] <= result.soc_hi))
    if gap.stop - gap.start > 60:
        assert result.sd[1000] > (5 if name == "coulomb" else 1) * result.sd[999]


def test_a_charge_counter_closes_a_gap(warm_and_cold_cell):
    series, truth = cycle(warm_and_cold_cell)
    keep = np.ones(len(series), dtype=bool)
    keep[1000:1900] = False
    counted = soc.estimate(series[keep], warm_and_cold_cell, "coulomb", soc0=0.9, soc0_sd=0.01, use_counter=True)
    assert counted.sd[-1] < 0.02
    assert counted.soc == pytest.approx(truth[keep], abs=2e-3)
    with pytest.raises(OptionError, match="no charge_ah"):
        soc.estimate(replace(series, charge_ah=None), warm_and_cold_cell, use_counter=True)


def test_a_new_sampling_rate_is_soon_no_gap(warm_and_cold_cell):
    time_s = np.concatenate([np.arange(100.0), 100 + 60.0 * np.arange(1, 100)])
    series, _ = soc.simulate(warm_and_cold_cell, time_s, np.full(199, -0.1), 25.0, 0.9)
    assert 1 <= soc.estimate(series, warm_and_cold_cell).health["gaps"] < 25


def test_time_that_does_not_rise_and_missing_values_are_skipped_and_counted(warm_and_cold_cell):
    live = Estimator(warm_and_cold_cell, soc0=0.5)
    for k in range(10):
        live.step(float(k), -1.0, 3.6, 25.0)
    before = live.belief
    for time_s, current in ((9.0, -1.0), (3.0, -1.0), (10.0, np.nan)):
        live.step(time_s, current, 3.6, 25.0)
    assert live.belief.counters["skipped"] == before.counters["skipped"] + 3
    assert np.array_equal(live.belief.mean, before.mean)
    point = live.step(11.0, -1.0, np.nan, 25.0)
    assert np.isnan(point.innovation_v)
    assert live.belief["z"] < before["z"]


def test_a_missing_temperature_is_held_with_growing_uncertainty(warm_and_cold_cell):
    series, _ = cycle(warm_and_cold_cell, n=1800)
    temperature = series.temperature_degc.copy()
    temperature[300:] = np.nan
    result = soc.estimate(replace(series, temperature_degc=temperature), warm_and_cold_cell)
    assert result.health["held_temperature"] == 1500
    assert result.health["lost_temperature"] == 900
    assert result.innovation_sd_v[-1] > 1.5 * result.innovation_sd_v[299]
    with pytest.raises(OptionError, match="no temperature at the start"):
        soc.estimate(replace(series, temperature_degc=np.full(1800, np.nan)), warm_and_cold_cell)


def test_temperatures_outside_the_tested_range_are_clamped_and_counted(warm_and_cold_cell):
    series, _ = cycle(warm_and_cold_cell, n=50)
    cold = soc.estimate(replace(series, temperature_degc=np.full(50, -30.0)), warm_and_cold_cell, soc0=0.9)
    edge = soc.estimate(replace(series, temperature_degc=np.full(50, -10.0)), warm_and_cold_cell, soc0=0.9)
    assert cold.health["outside_temperature"] == 49
    assert edge.health["outside_temperature"] == 0
    assert np.array_equal(cold.soc, edge.soc)


def test_a_stored_state_estimate_continues_as_if_never_stored(warm_and_cold_cell):
    series, _ = cycle(warm_and_cold_cell, n=400)
    whole = soc.estimate(series, warm_and_cold_cell, offset_state=True)
    first = soc.estimate(series[:250], warm_and_cold_cell, offset_state=True)
    stored = StateEstimate.from_dict(json.loads(json.dumps(first.belief.to_dict(), allow_nan=False)))
    second = soc.estimate(series[250:], warm_and_cold_cell, resume=stored, offset_state=True)
    assert np.array_equal(second.soc, whole.soc[250:])
    assert second.health == whole.health


def test_samples_already_in_the_state_estimate_are_skipped_with_a_warning(warm_and_cold_cell):
    series, _ = cycle(warm_and_cold_cell, n=100)
    stream = Estimator(warm_and_cold_cell)
    assert stream.run(series).warnings == ()
    again = stream.run(series[50:])
    assert again.warnings[0].startswith("time_s: 50 of 50 samples are not after the belief's time 99 s")
    assert again.health["skipped"] == 50


def test_a_state_estimate_of_another_kind_is_rejected(warm_and_cold_cell, vector_cell):
    belief = soc.estimate(cycle(warm_and_cold_cell, n=20)[0], warm_and_cold_cell).belief
    with pytest.raises(BeliefError, match="start anew"):
        Estimator(vector_cell, resume=belief)
    with pytest.raises(BeliefError, match="start anew"):
        Estimator(warm_and_cold_cell, "ekf", resume=belief)
    with pytest.raises(BeliefError, match="format 7"):
        StateEstimate.from_dict({**belief.to_dict(), "format": 7})
    with pytest.raises(BeliefError, match="damaged"):
        StateEstimate.from_dict({**belief.to_dict(), "mean": [1.0]})


def test_the_covariance_of_a_stored_state_estimate_grows_with_the_gap(warm_and_cold_cell):
    series, _ = cycle(warm_and_cold_cell, n=600)
    belief = soc.estimate(series, warm_and_cold_cell).belief
    sds = []
    for hours in (0.02, 0.5, 6):
        live = Estimator(warm_and_cold_cell, resume=belief)
        live.step(series.time_s[-1] + 3600 * hours, -1.0, np.nan, 25.0)
        sds.append(live.belief.sd("z"))
    assert sds[0] < sds[1] < sds[2] <= 0.45


def test_a_start_on_a_flat_curve_is_uncertain_and_on_a_steep_one_certain(vector_cell, warm_and_cold_cell):
    flat = Estimator(vector_cell)
    flat.step(0.0, 0.0, 3.305, 25.0)
    steep = Estimator(warm_and_cold_cell)
    steep.step(0.0, 0.0, 3.95, 25.0)
    assert flat.belief.sd("z") > 0.05 > steep.belief.sd("z")
    assert steep.belief["z"] == pytest.approx(0.75, abs=0.02)


def test_a_dead_band_widens_the_bound_in_proportion_to_time(linear_cell):
    n = 7200
    series, _ = soc.simulate(linear_cell, np.arange(n), np.full(n, -0.05), 25.0, 0.9)
    hidden = measured(series, Faults(dead_band_a=0.1), seed=1)
    assert not hidden.current_a.any()
    given = {"soc0": 0.9, "soc0_sd": 1e-3, "reference_sd": 0.0, "offset_state": False}
    plain = soc.estimate(hidden, linear_cell, "coulomb", **given)
    aware = soc.estimate(hidden, linear_cell, "coulomb", **given, dead_band_a=0.1)
    assert plain.sd[-1] < 0.005
    assert aware.sd[-1] == pytest.approx(0.05 * n / 3600 / 2.0, rel=0.1)


def test_unknown_options_and_values_out_of_range_are_named(vector_cell):
    with pytest.raises(OptionError, match="no such option: gate; there are coloured"):
        Estimator(vector_cell, gate=3)
    with pytest.raises(OptionError, match=r"option bump_sigma: .* got -1"):
        Estimator(vector_cell, bump_sigma=-1)
    with pytest.raises(OptionError, match=r"soc0 1.5"):
        soc.estimate(Series([0.0], [0.0], [3.3], [25.0]), vector_cell, soc0=1.5)
