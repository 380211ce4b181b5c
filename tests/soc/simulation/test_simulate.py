"""The simulator solves the model's equations; filters predict its output."""

from __future__ import annotations

import math

import numpy as np
import pytest

import soc
from soc.errors import OptionError
from soc.simulation.simulate import Faults, measured


def by_hand(cell, dt, discharge_a, soc0):
    """The equations in plain loops, at the first tested temperature; z stays between the last two knots."""
    u, h, z, s, volts = [0.0] * cell.pairs, 0.0, soc0, 0.0, []
    q, eta, gamma, i0 = (float(a[0]) for a in (cell.capacity_ah, cell.efficiency, cell.gamma, cell.charge_transfer_a))
    at = lambda table: float(np.interp(z, cell.soc_knots, table))  # noqa: E731
    for k, i in enumerate(discharge_a):
        step = dt if k else 0.0
        stored = i if i >= 0 else eta * i
        for j in range(cell.pairs):
            a = math.exp(-step / cell.tau_s[j, 0])
            u[j] = a * u[j] + (1 - a) * stored
        A = math.exp(-abs(gamma * stored * step / 3600 / q))
        h = A * h - (1 - A) * np.sign(stored)
        z -= stored * step / 3600 / q
        if abs(i) > q / 100:
            s = -np.sign(i)
        v = float(cell.ocv.voltage(z, cell.temperature_degc[0])) + at(cell.shift_v[0])
        v += at(cell.m_v[0]) * h + at(cell.m0_v[0]) * s - at(cell.r0_ohm[0]) * i
        v -= at(cell.r_ohm[0, 0]) * i0 * math.asinh(u[0] / i0)
        v -= sum(at(cell.r_ohm[j, 0]) * u[j] for j in range(1, cell.pairs))
        volts.append(v)
    return np.array(volts), z


def test_the_simulator_is_the_models_equations(warm_and_cold_cell):
    current = np.random.default_rng(4).normal(0, 2, 300)
    series, truth = soc.simulate(warm_and_cold_cell, 2.0 * np.arange(300), current, -10.0, 0.7)
    volts, z = by_hand(warm_and_cold_cell, 2.0, -current, 0.7)
    assert series.voltage_v == pytest.approx(volts, abs=1e-9)
    assert truth[-1] == pytest.approx(z, abs=1e-12)
    assert series.charge_ah[-1] == pytest.approx(np.sum(current[1:]) * 2 / 3600)


@pytest.mark.parametrize("name", ["spkf", "ekf", "coulomb", "filterpy_ukf"])
def test_a_filter_with_the_true_start_predicts_the_measurements(warm_and_cold_cell, name):
    n = 200 if name == "filterpy_ukf" else 2000
    current = np.random.default_rng(4).normal(-0.5, 1, n)
    temperature = np.linspace(20, -8, n)
    series, truth = soc.simulate(warm_and_cold_cell, np.arange(n), current, temperature, 0.9)
    result = soc.estimate(series, warm_and_cold_cell, name, soc0=0.9, soc0_sd=0.01, offset_state=True)
    assert np.nanmax(np.abs(result.innovation_v)) < 0.01
    assert result.soc == pytest.approx(truth, abs=0.005)
    assert result.model == warm_and_cold_cell.id
    assert result.version == f"{name}-1"


def test_instrument_errors_are_as_configured_and_repeatable(linear_cell):
    series, _ = soc.simulate(linear_cell, np.arange(5000), np.full(5000, 1.0), 25.0, 0.2)
    faults = Faults(
        voltage_sd_v=0.01, voltage_offset_v=0.1, current_gain=1.1, current_offset_a=0.2, current_step_a=0.25
    )
    one, two = (measured(series, faults, seed=3) for _ in range(2))
    assert np.array_equal(one.voltage_v, two.voltage_v)
    assert np.std(one.voltage_v - series.voltage_v) == pytest.approx(0.01, rel=0.05)
    assert np.mean(one.voltage_v - series.voltage_v) == pytest.approx(0.1, abs=1e-3)
    assert np.all(one.current_a == 1.25)


def test_lengths_must_agree(linear_cell):
    with pytest.raises(OptionError, match="lengths differ"):
        soc.simulate(linear_cell, np.arange(3), np.zeros(2), 25.0, 0.5)
