"""The simulated battery conserves charge and energy, stays within bounds, and repeats its course for the same seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import signals
from collectors.bench.battery import AMBIENT_DEGC, OCV_SOC, STEP_S, Battery, Setup, Weather, clear_sky, ocv_v

NO_LOSS = replace(Setup().cell, efficiency=1.0)


def test_every_cell_holds_the_charge_that_flowed_in() -> None:
    battery = Battery(replace(Setup(), cell=NO_LOSS), seed=3)
    battery.at(600.0)
    gained_ah = (battery.state.soc - Setup().start_soc) * battery.capacity_ah
    assert gained_ah == pytest.approx(np.full(4, battery.state.charged_ah), abs=1e-9)
    assert abs(battery.state.charged_ah) > 0.1


def test_counters_are_the_integrals_of_the_reported_values() -> None:
    battery = Battery(seed=3)
    charge_ah = load_ah = 0.0
    for step in range(1, 1201):
        true = battery.at(step * STEP_S)
        charge_ah += true["battery.current_a"] * STEP_S / 3600
        load_ah += true["load.current_a"] * STEP_S / 3600
    assert battery.state.charged_ah == pytest.approx(charge_ah)
    assert true["load.charge_ah"] == pytest.approx(load_ah)


@given(seed=st.integers(0, 1000), asked=st.lists(st.floats(0, 60), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_the_course_depends_on_the_seed_and_not_on_the_times_of_the_queries(seed: int, asked: list[float]) -> None:
    often, once = Battery(seed=seed), Battery(seed=seed)
    for time_s in sorted(asked):
        seen = often.at(time_s)
    assert seen == once.at(max(asked))


def test_another_seed_gives_another_course() -> None:
    assert Battery(seed=1).at(120.0) != Battery(seed=2).at(120.0)


def test_current_into_battery_and_load_is_the_chargers() -> None:
    battery = Battery(seed=5)
    for minute in range(1, 20):
        true = battery.at(minute * 60.0)
        own_a = Setup().charger_own_w / true["battery.voltage_v"]
        charger_a = true["solar.power_w"] / true["battery.voltage_v"]
        assert true["battery.current_a"] == pytest.approx(charger_a - true["load.current_a"] - own_a, abs=1e-3)


@pytest.mark.parametrize("start_of_day_s", [11 * 3600.0, 20 * 3600.0])
def test_a_full_or_empty_battery_stays_within_physical_bounds(start_of_day_s: float) -> None:
    """A fortieth of the usual capacity is full or empty within the hour."""
    small = replace(Setup(), start_of_day_s=start_of_day_s, cell=replace(Setup().cell, capacity_ah=1.0))
    battery = Battery(small, seed=4)
    for minute in range(60):
        true = battery.at(minute * 60.0)
        assert 10.0 < true["battery.voltage_v"] < 14.6
        assert battery.state.soc.max() < OCV_SOC[-1]
        assert battery.state.soc.min() > OCV_SOC[0]
        assert AMBIENT_DEGC - 1 < true["battery.temperature_degc"] < AMBIENT_DEGC + 40


def test_the_load_does_not_discharge_an_empty_battery() -> None:
    night = replace(Setup(), start_soc=0.03, start_of_day_s=22 * 3600.0, cell=replace(Setup().cell, capacity_ah=4.0))
    battery = Battery(night, seed=1)
    true = battery.at(1800.0)
    assert not battery.state.load_is_connected
    assert true["load.current_a"] == 0.0


def test_voltage_shows_resistance_at_once_and_relaxation_later() -> None:
    night = replace(Setup(), start_of_day_s=0.0)
    battery = Battery(night, seed=2)
    steps = [battery.at(n * STEP_S) for n in range(1, 2000)]
    jumps = [
        (b["battery.current_a"] - a["battery.current_a"], b["battery.voltage_v"] - a["battery.voltage_v"])
        for a, b in pairwise(steps)
        if abs(b["battery.current_a"] - a["battery.current_a"]) > 0.9
    ]
    assert jumps
    resistance_ohm = 4 * Setup().cell.r0_ohm
    for amps, volts in jumps:
        assert volts / amps == pytest.approx(resistance_ohm, rel=0.1)


def test_ocv_rises_with_charge_and_has_a_plateau() -> None:
    soc = np.linspace(0, 1, 101)
    assert (np.diff(ocv_v(soc)) > 0).all()
    assert np.ptp(ocv_v(np.linspace(0.3, 0.6, 31))) < 0.03


def test_solar_power_is_present_by_day_only() -> None:
    assert [clear_sky(hour * 3600.0) for hour in (0, 5, 20, 30 - 6)] == [0.0] * 4
    assert clear_sky(12 * 3600.0) == pytest.approx(1.0)
    assert 0.0 < clear_sky(8 * 3600.0) < 1.0


@given(st.floats(0, 1e6))
@settings(max_examples=50)
def test_clouds_reduce_solar_power_without_steps(time_s: float) -> None:
    weather = Weather(seed=1)
    assert 0.15 <= weather.clearness(time_s) <= 1.0
    assert abs(weather.clearness(time_s + 0.01) - weather.clearness(time_s)) < 0.01


def test_every_true_value_is_a_plausible_signal_of_the_vocabulary() -> None:
    for key, value in Battery(seed=1).at(300.0).items():
        signal = signals.find(*key.split("."))
        assert signal, key
        assert signal.low <= value <= signal.high, key
