"""Identification of cells with known parameters, and the linear algebra used for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters
from soc.identify.dynamic import fit, predict
from soc.identify.fit_results import Fit, Settings
from soc.identify.interpolation import filled, interpolated
from soc.identify.least_squares import bending, bounded, correlation_time, rounded
from soc.identify.runs import Run, counted_soc, dynamic_capacity, reference_warning
from soc.simulation.simulate import Faults, measured, simulate

OCV = Ocv.of_points([0, 0.1, 0.5, 1], [3.0, 3.4, 3.7, 4.2])
TWO_PAIRS = Settings(
    tau_start_s=(5.0, 200.0),
    soc_knots=np.linspace(0, 1, 6),
    r_knots=np.array([0.0, 0.5, 1.0]),
    evaluations=80,
    sweeps=2,
)


def cell(**changes: float) -> CellParameters:
    """A 3 Ah cell with two RC pairs and hysteresis, constants in z, at 25 °C."""
    plain = CellParameters.plain(
        "known", 3.0, OCV, 0.020, [(0.010, 8.0), (0.015, 120.0)], gamma=60.0, m_v=0.012, m0_v=0.0
    )
    return replace(plain, **changes)


def drive(known: CellParameters, seed: int, regeneration: float = 0.3, temperature_degc: float = 25.0) -> Run:
    """A drive from full to nearly empty: current steps of 5 to 60 s, some of them charging; 1 mV of noise."""
    random = np.random.default_rng(seed)
    steps = [np.full(random.integers(5, 60), random.uniform(-9.0, 6.0 * regeneration)) for _ in range(400)]
    current = np.concatenate([[0.0], *steps])[:7200]
    current *= 0.9 * 3.0 * 3600 / -current.sum()
    series, soc = simulate(known, np.arange(len(current)), current, temperature_degc, 1.0, hysteresis0=1.0)
    noisy = measured(series, Faults(voltage_sd_v=0.001), seed)
    return Run(f"drive {seed}", temperature_degc, 3.0, 1.0, noisy, soc)


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit([drive(cell(), 1), drive(cell(), 2)], OCV, TWO_PAIRS)


def test_known_resistances_are_found_within_their_stated_uncertainty(found):
    (anchor,) = found.anchors
    sd = anchor.sd[6:15].reshape(3, 3) / anchor.capacity_ah
    error = anchor.r_ohm - np.array([0.020, 0.010, 0.015])[:, None]
    assert np.all(np.abs(error) < 5 * sd + 2e-4)
    assert np.all(sd < 2e-3)


def test_known_poles_are_found(found):
    assert found.tau_s == pytest.approx([8.0, 120.0], rel=0.1)
    assert found.warnings == ()


def test_hysteresis_is_separated_from_resistance(found):
    assert found.anchors[0].m_v == pytest.approx([0.012], abs=0.002)
    assert found.gamma == pytest.approx(60.0, rel=0.35)


def test_the_fit_predicts_held_out_data(found):
    unseen = drive(cell(), 3)
    error = (unseen.series.voltage_v - predict(found, unseen))[unseen.soc > 0.15]
    assert np.sqrt(np.mean(error**2)) < 0.002


def test_without_charging_m0_is_zero_and_reported_as_unknown():
    rough = fit([drive(cell(m0_v=np.array([[0.008]])), 4, regeneration=-0.05)], OCV, replace(TWO_PAIRS, evaluations=10))
    assert rough.anchors[0].m0_v == pytest.approx(0.0, abs=1e-9)
    assert any("M0 not observable" in w for w in rough.warnings)


def test_m0_is_found_where_the_current_changes_sign():
    known = cell(m0_v=np.array([[0.008]]), m_v=np.array([[0.0]]))
    exact = fit([drive(known, 5)], OCV, replace(TWO_PAIRS, tau_start_s=(8.0, 120.0), evaluations=40, ridge_m=1e-6))
    assert exact.anchors[0].m0_v == pytest.approx(0.008, abs=0.001)


def test_a_pole_without_evidence_is_named():
    alone = CellParameters.plain("one pair", 3.0, OCV, 0.020, [(0.010, 8.0)])
    with_two = fit([drive(alone, 6)], OCV, replace(TWO_PAIRS, tau_start_s=(8.0, 8000.0), tau_range_s=(0.7, 9000.0)))
    assert any("not identifiable" in w for w in with_two.warnings)


def test_a_charge_transfer_law_is_found_in_the_cold():
    cold = cell(
        charge_transfer_a=np.array([1.5]), temperature_degc=np.array([-10.0]), r_ohm=np.array([[[0.06]], [[0.015]]])
    )
    law = fit([drive(cold, 7, temperature_degc=-10.0)], OCV, replace(TWO_PAIRS, tau_start_s=(8.0, 120.0)))
    assert law.anchors[0].charge_transfer_a == pytest.approx(1.5, rel=0.25)


def test_a_linear_cell_in_the_cold_stays_linear():
    law = fit([drive(cell(temperature_degc=np.array([-10.0])), 8, temperature_degc=-10.0)], OCV, TWO_PAIRS)
    assert law.anchors[0].charge_transfer_a == np.inf


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_bounded_solution_is_within_its_bounds_and_no_neighbour_within_them_is_better(seed):
    random = np.random.default_rng(seed)
    root = random.standard_normal((6, 6))
    matrix, right = root @ root.T + 0.1 * np.eye(6), random.standard_normal(6)
    low, high = np.zeros(6), np.full(6, 1.0)
    x = bounded(matrix, right, low, high)
    slope = matrix @ x - right
    assert np.all(x >= low) and np.all(x <= high)
    assert np.all(slope[x < high - 1e-9] > -1e-7)
    assert np.all(slope[x > low + 1e-9] < 1e-7)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_a_straight_line_has_no_bending(a, b):
    knots = np.array([0, 0.1, 0.15, 0.5, 1.0])
    line = a + b * knots
    assert line @ bending(knots) @ line == pytest.approx(0.0, abs=1e-9)


def test_the_correlation_time_of_a_first_order_process_is_its_time_constant():
    random, tau, step = np.random.default_rng(1), 40.0, 2.0
    a = np.exp(-step / tau)
    x = np.zeros(100_000)
    for k in range(1, len(x)):
        x[k] = a * x[k - 1] + random.standard_normal()
    assert correlation_time(x, step) == pytest.approx(tau, rel=0.15)
    assert correlation_time(random.standard_normal(10_000), step) < 2.0


def test_numbers_are_rounded_to_digits_not_to_decimals():
    assert rounded([123456.7, 0.000123456, np.inf], 3).tolist() == [123000.0, 0.000123, np.inf]


# ---- between temperatures -------------------------------------------------------------------------------------------


def three_temperatures(found: Fit) -> Fit:
    """Anchors at −15, 5 and 25 °C whose resistances follow one Arrhenius law."""
    base = found.anchors[0]
    at = [replace(base, temperature_degc=t, r_v=base.r_v * arrhenius(t)) for t in (-15.0, 5.0, 25.0)]
    return replace(found, anchors=tuple(at))


def arrhenius(temperature_degc: float) -> float:
    return float(np.exp(4000.0 * (1 / (temperature_degc + 273.15) - 1 / 298.15)))


def test_wide_gaps_get_a_row_in_the_middle_and_narrow_ones_none(found):
    wide = filled(three_temperatures(found))
    assert [a.temperature_degc for a in wide.anchors] == [-15.0, -5.0, 5.0, 15.0, 25.0]
    assert [a.tested for a in wide.anchors] == [True, False, True, False, True]
    assert filled(wide).anchors == wide.anchors


def test_an_arrhenius_law_is_interpolated_exactly(found):
    anchor = interpolated(three_temperatures(found).anchors, 15.0)
    assert anchor.r_v == pytest.approx(found.anchors[0].r_v * arrhenius(15.0), rel=1e-9)


def test_prediction_between_anchors_interpolates_log_r_against_one_over_t(found):
    known = three_temperatures(found)
    at_15 = replace(known, anchors=(interpolated(known.anchors, 15.0),))
    run = drive(cell(), 9, temperature_degc=15.0)
    assert predict(known, run) == pytest.approx(predict(at_15, run), abs=2e-4)


# ---- references -----------------------------------------------------------------------------------------------------


def test_capacity_and_efficiency_of_a_dynamic_test_follow_from_its_counters():
    capacity, eta, room = 2.0, 0.97, 0.995
    charged, discharged = 0.6, 2.4  # script 1: from full to 1 − (2.4 − 0.97·0.6)/2 = 0.091
    left = 1 - (discharged - eta * charged) / capacity
    d = (discharged, left * capacity, 0.0)
    c = (charged, 0.0, capacity / room)
    found_ah, found_eta = dynamic_capacity(c, d, room)
    assert (found_ah, found_eta) == pytest.approx((capacity, eta))
    soc = counted_soc(np.array([0.0, charged]), np.array([0.0, discharged]), capacity, eta)
    assert soc == pytest.approx([1.0, left])


def test_a_reference_that_contradicts_the_current_is_named():
    run = drive(cell(), 10)
    assert reference_warning(run) is None
    drifting = replace(run, soc=run.soc + np.linspace(0, 0.05, len(run.soc)))
    said = reference_warning(drifting)
    assert said is not None and "drive 10: reference inconsistent" in said
