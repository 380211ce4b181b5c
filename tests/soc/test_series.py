"""A recording is valid, or an error names what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import soc
from soc.errors import SeriesError
from soc.series import Series, tidied, wrong_sign

GOOD = {
    "time_s": [0.0, 1.0, 2.0, 4.0],
    "current_a": [0.0, -1.0, -1.0, 2.0],
    "voltage_v": [3.7, 3.6, 3.6, 3.8],
    "temperature_degc": [25.0, 25.0, np.nan, 25.0],
}


def test_a_good_recording_is_kept_and_frozen():
    series = Series(**GOOD)
    assert len(series) == 4
    assert series.duration_s == 4.0
    assert series.period_s == 1.0
    with pytest.raises(ValueError, match="read-only"):
        series.voltage_v[0] = 0
    assert series[1:3].time_s.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_s": [0.0, 2.0, 1.0, 4.0]}, r"time_s goes back at row 2: 1 after 2 \(1 such rows\); sort"),
        ({"time_s": [0.0, 1.0, 1.0, 4.0]}, r"time_s repeats at row 2"),
        ({"time_s": [0.0, np.nan, 1.0, 4.0]}, r"time_s at row 1: nan"),
        ({"voltage_v": [3.7, np.nan, 3.6, np.nan]}, r"voltage_v at row 1: nan is not a number.*\(2 such rows\)"),
        ({"voltage_v": [3700.0, 3600, 3600, 3800]}, r"voltage_v at row 0: 3700 is no cell voltage: mV"),
        ({"voltage_v": [0.0037, 0.0036, 0.0036, 0.0038]}, r"kilovolts"),
        ({"current_a": [0.0, -1e4, 0.0, 0.0]}, r"current_a at row 1: -10000 is no cell current: milliamperes"),
        ({"current_a": [0.0, np.inf, 0.0, 0.0]}, r"current_a at row 1: inf"),
        ({"temperature_degc": [298.0] * 4}, r"temperature_degc at row 0: 298 is no cell temperature: kelvin"),
        ({"current_a": [0.0, 1.0]}, r"columns differ in length: time_s 4, current_a 2"),
        ({"current_a": [["a"]] * 4}, r"current_a: not numbers"),
        ({k: [] for k in GOOD}, r"no rows"),
    ],
)
def test_a_bad_recording_names_column_row_and_value(change, message):
    with pytest.raises(SeriesError, match=message):
        Series(**{**GOOD, **change})


def test_tidied_drops_and_counts_rows_and_changes_no_value():
    columns = {
        "time_s": [0.0, 1.0, 3.0, 2.0, 3.0, 4.0, 5.0],
        "current_a": [0.0, np.nan, 1.0, 1.0, 1.0, 1.0, 1.0],
        "voltage_v": [3.7, 3.7, 3.7, 3.7, 3.7, np.nan, 3.8],
        "temperature_degc": [25.0] * 7,
    }
    series, dropped = tidied(columns)
    assert series.time_s.tolist() == [0.0, 3.0, 5.0]
    assert (dropped.missing, dropped.not_rising, dropped.total) == (2, 2, 4)
    with pytest.raises(SeriesError, match="no rows"):
        tidied({k: [np.nan] for k in GOOD})


def test_a_reversed_sign_is_detected_with_evidence_and_a_right_one_is_not(vector_cell):
    current = np.where(np.arange(200) % 20 < 10, -1.0, 0.5)
    series, _ = soc.simulate(vector_cell, np.arange(200), current, 25.0, 0.6)
    turned = Series(series.time_s, -series.current_a, series.voltage_v, series.temperature_degc)
    assert wrong_sign(series) is None
    assert "voltage falls when current_a rises: in 19 of 19" in str(wrong_sign(turned))
    assert "wrong sign" in soc.estimate(turned, vector_cell).warnings[0]
    assert soc.estimate(series, vector_cell).warnings == ()


def test_a_pack_is_its_average_cell():
    pack = {**GOOD, "voltage_v": np.array(GOOD["voltage_v"]) * 16, "current_a": np.array(GOOD["current_a"]) * 4}
    assert Series.of_pack(pack, series=16, parallel=4).voltage_v == pytest.approx(GOOD["voltage_v"])
    assert Series.of_pack(pack, series=16, parallel=4).current_a == pytest.approx(GOOD["current_a"])
