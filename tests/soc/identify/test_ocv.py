"""OCV tests with known results: the formulas for capacity and efficiency, the blend, the mean of a slow pair."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from soc.cell.ocv import GRID
from soc.errors import SeriesError
from soc.identify.ocv import Script, blend, four_scripts, over_temperature, room_efficiency, slow_pair

CAPACITY_AH, EFFICIENCY, ROOM = 2.0, 0.98, 0.995
CURRENT_A, OHM = CAPACITY_AH / 30, 0.1
CURVE = 3.0 + 0.5 * GRID + 0.2 * GRID**3
LEFT_LOW, LEFT_HIGH = 0.02, 0.05  # the cold cell reaches its limits early


def script(current_a: float, begin: float, end: float, efficiency: float) -> Script:
    """One loaded branch with a rested sample at each end, from one state of charge to another."""
    sign = np.sign(current_a)
    moved_ah = abs(end - begin) * CAPACITY_AH / (efficiency if sign > 0 else 1.0)
    z = np.concatenate(([begin], np.linspace(begin, end, 800), [end]))
    counter = np.concatenate(([0.0], np.linspace(0.0, moved_ah, 800), [moved_ah]))
    current = np.concatenate(([0.0], np.full(800, current_a), [0.0]))
    none = np.zeros_like(counter)
    charged, discharged = (counter, none) if sign > 0 else (none, counter)
    return Script(np.arange(802) * 60.0, current, np.interp(z, GRID, CURVE) + OHM * current, charged, discharged)


def cold_test() -> list[Script]:
    return [
        script(-CURRENT_A, 1.0, LEFT_LOW, EFFICIENCY),
        script(-CURRENT_A, LEFT_LOW, 0.0, ROOM),
        script(+CURRENT_A, 0.0, 1.0 - LEFT_HIGH, EFFICIENCY),
        script(+CURRENT_A, 1.0 - LEFT_HIGH, 1.0, ROOM),
    ]


def room_test() -> list[Script]:
    return [script(-CURRENT_A, 1.0, 0.0, ROOM), script(+CURRENT_A, 0.0, 1.0, ROOM)]


def test_efficiency_and_capacity_follow_from_the_four_counters():
    room = room_efficiency(room_test())
    found = four_scripts(cold_test(), room)
    assert room == pytest.approx(ROOM, rel=1e-12)
    assert found.efficiency == pytest.approx(EFFICIENCY, rel=1e-12)
    assert found.capacity_ah == pytest.approx(CAPACITY_AH, rel=1e-12)


def test_the_curve_is_free_of_the_current_s_drop():
    found = four_scripts(cold_test(), ROOM)
    assert found.voltage_v == pytest.approx(CURVE, abs=1e-4)
    assert found.gap_v == pytest.approx(0.0, abs=1e-4)


def test_each_branch_is_weighted_where_it_started_from_rest():
    gap = 0.04
    curve, found = blend(CURVE - gap * (1 - GRID), CURVE + gap * GRID)
    assert found == pytest.approx(gap)
    assert curve == pytest.approx(CURVE, abs=1e-12)


def test_a_branch_that_stops_before_the_middle_is_refused():
    short = cold_test()
    short[2] = script(+CURRENT_A, 0.0, 0.4, EFFICIENCY)
    short[3] = script(+CURRENT_A, 0.4, 1.0, ROOM)
    with pytest.raises(SeriesError, match=r"charge 0\.40"):
        four_scripts(short, ROOM)


def pair(stop: float, gain: float = 1.0) -> tuple[NDArray[np.float64], ...]:
    """A slow discharge and the charge after it, up to `stop`; the charge counter is scaled by `gain`."""
    down, up = np.linspace(1, 0, 500), np.linspace(0, stop, 500)
    current = np.concatenate((np.full(500, -0.1), np.zeros(5), np.full(500, 0.1)))
    z = np.concatenate((down, np.zeros(5), up))
    charge = np.concatenate((down - 1, np.full(5, -1.0), gain * up - 1)) * CAPACITY_AH
    return current, np.interp(z, GRID, CURVE) + 0.02 * np.sign(current), charge


def test_a_slow_pair_gives_the_mean_of_its_branches_each_by_its_own_counter():
    found = slow_pair(*pair(1.0, gain=1.07))
    assert found.voltage_v == pytest.approx(CURVE, abs=1e-5)
    assert found.capacity_ah == pytest.approx(CAPACITY_AH)
    assert found.gap_v == pytest.approx(0.04, abs=1e-6)


def test_a_charge_that_was_stopped_early_is_continued_beside_the_discharge():
    found = slow_pair(*pair(0.8))
    assert found.voltage_v == pytest.approx(CURVE, abs=1e-5)


def test_a_recording_without_a_charge_is_no_slow_pair():
    with pytest.raises(SeriesError, match="slow pair"):
        slow_pair(np.full(10, -0.1), np.linspace(4, 3, 10), np.linspace(0, -1, 10))


def test_ocv_over_temperature_is_a_line_through_the_warm_tests_only():
    slope = 1e-4 * (1 - GRID)
    curves = {t: CURVE + t * slope for t in (0.0, 25.0, 45.0)}
    found = over_temperature(curves | {-20.0: CURVE - 0.3})
    assert found.ocv0_v == pytest.approx(CURVE, abs=1e-12)
    assert found.ocvrel_v_per_k == pytest.approx(slope, abs=1e-12)


def test_one_temperature_gives_no_slope():
    found = over_temperature({25.0: CURVE})
    assert np.array_equal(found.ocv0_v, CURVE)
    assert not found.ocvrel_v_per_k.any()
