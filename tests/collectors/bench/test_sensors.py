"""Simulated sensors apply their gain, offset, noise and resolution; the agreement table estimates them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.bench import replay
from collectors.bench.sensors import LOAD, MPPT, T7, Course, Instrument, Sensor, View, agreement, pair, table

RECORDING = Path(__file__).parents[4] / "shared/data/bench/bench-2021-05-28.csv"
SECOND = 10**9


def course(values: object, start_ns: int = 0, step_ns: int = SECOND) -> Course:
    array = np.asarray(values, dtype=np.float64)
    return Course(start_ns + step_ns * np.arange(len(array), dtype=np.int64), array)


@given(st.floats(-100, 100), st.floats(0.9, 1.1), st.floats(-1, 1))
def test_without_noise_and_steps_a_sensor_is_a_line(true: float, gain: float, offset: float) -> None:
    assert Sensor(gain=gain, offset=offset).see(true, 0.7) == gain * true + offset


@given(st.floats(-100, 100))
def test_resolution_is_the_smallest_step_and_costs_half_of_it(true: float) -> None:
    seen = Sensor(resolution=0.01).see(true, 0.0)
    assert seen == pytest.approx(true, abs=0.005 + 1e-9)
    assert seen / 0.01 == pytest.approx(round(seen / 0.01), abs=1e-6)


def test_noise_has_its_size_and_repeats_with_its_seed() -> None:
    views = [View(Instrument(1.0, {"x": Sensor(noise=0.5)}), seed) for seed in (1, 1, 2)]
    seen = [[view.see({"x": 0.0})["x"] or 0.0 for _ in range(2000)] for view in views]
    assert seen[0] == seen[1] != seen[2]
    assert np.std(seen[0]) == pytest.approx(0.5, rel=0.1)


def test_missing_values_stay_missing_and_unknown_quantities_are_exact() -> None:
    assert View(MPPT, 1).see({"battery.voltage_v": None, "solar.power_w": 1 / 3}) == {
        "battery.voltage_v": None,
        "solar.power_w": 1 / 3,
    }


def test_the_instruments_of_the_bench_have_the_resolutions_of_their_data_sheets() -> None:
    assert LOAD.sensors["load.voltage_v"].resolution == 0.00625
    assert MPPT.sensors["battery.current_a"].resolution == 0.01
    assert T7.sensors["battery.current_a"].gain == 0.959


def test_agreement_estimates_gain_offset_and_noise() -> None:
    rng = np.random.default_rng(1)
    true = np.repeat(rng.uniform(-5, 5, 30), 40)
    mine = course(true + 0.01 * rng.standard_normal(len(true)))
    theirs = course(1.03 * true + 0.2 + 0.01 * rng.standard_normal(len(true)), start_ns=SECOND // 10)
    found = agreement(mine, theirs, SECOND // 2)
    assert found
    assert found.pairs == len(true)
    assert found.gain == pytest.approx(1.03, abs=0.002)
    assert found.offset == pytest.approx(0.2, abs=0.005)
    assert found.residual_mean == pytest.approx(float(np.mean(0.03 * true + 0.2)), abs=0.005)


def test_a_constant_quantity_gives_no_gain() -> None:
    found = agreement(course(np.full(100, 12.8)), course(np.full(100, 12.9)), SECOND)
    assert found
    assert (found.pairs, found.gain, found.offset) == (100, None, None)
    assert found.residual_mean == pytest.approx(0.1)
    assert found.residual_std == pytest.approx(0.0, abs=1e-9)
    assert found.residual_median == pytest.approx(0.1)


def test_samples_at_different_times_are_not_paired() -> None:
    assert agreement(course(range(10)), course(range(10), start_ns=100 * SECOND), SECOND) is None
    assert agreement(course([]), course(range(10)), SECOND) is None


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=20, unique=True).map(sorted),
    st.lists(st.integers(0, 1000), min_size=1, max_size=20, unique=True).map(sorted),
    st.integers(0, 50),
)
def test_pairs_are_the_nearest_ones(mine: list[int], theirs: list[int], within: int) -> None:
    a, b = (Course(np.array(t, np.int64), np.zeros(len(t))) for t in (mine, theirs))
    left, right = pair(a, b, within)
    for i, stamp in enumerate(mine):
        nearest = min(abs(stamp - other) for other in theirs)
        if nearest <= within:
            assert abs(theirs[right[list(left).index(i)]] - stamp) == nearest
        else:
            assert i not in left


def test_the_table_has_the_pairs_that_can_be_compared() -> None:
    courses = {"a": course(range(10)), "b": course(range(10)), "c": course([])}
    assert list(table(courses, [("a", "b"), ("a", "c"), ("a", "absent")], SECOND)) == ["a/b"]


@pytest.mark.skipif(not RECORDING.exists(), reason=f"the recording is not here: {RECORDING}")
def test_the_recordings_hall_sensor_reads_96_percent_of_the_shunt() -> None:
    rows = replay.read(RECORDING).rows

    def of(instrument: str, key: str) -> Course:
        found = [(i, row[instrument][key]) for i, row in enumerate(rows) if key in row.get(instrument, {})]
        return Course(np.array([i for i, _ in found], np.int64), np.array([v for _, v in found]))

    found = agreement(of("mppt", "battery.current_a"), of("t7", "battery.current_a"), 0)
    assert found
    assert found.pairs == 6723
    assert found.gain == pytest.approx(0.957, abs=0.01)
    assert found.offset == pytest.approx(0.0, abs=0.03)
