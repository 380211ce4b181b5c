"""Gaps in a recording: every filter continues behind them, and no charge is counted over them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import soc
from soc import filters
from soc.cell import library
from soc.errors import FilterError, SeriesError
from soc.estimation.cleaning import CleanedRecording, Pack
from soc.estimation.estimator import Estimator
from soc.series import Series, counted_ah, gaps, wrong_sign

FIVE_MINUTES = np.concatenate([np.arange(600.0), 900.0 + np.arange(600.0)])

RECORDINGS: Mapping[str, Series] = {
    "three rows, two hours apart": Series([0.0, 7200.0, 14400.0], [1.5] * 3, [3.9] * 3, [25.0] * 3),
    "five minutes under load": Series(FIVE_MINUTES, np.full(1200, -1.0), np.full(1200, 3.7), np.full(1200, 25.0)),
    "half a day before a load": Series([0.0, 1.0, 43200.0, 43201.0], [0, 0, -3, -3], [3.9, 3.9, 3.8, 3.8], [25.0] * 4),
    "a year": Series([0.0, 1.0, 3.15e7, 3.15e7 + 1], [0, 0, -3, -3], [3.9, 3.9, 3.8, 3.8], [25.0] * 4),
}


@pytest.mark.parametrize("cell", ["lg_hg2", "a123_26650"])
@pytest.mark.parametrize("name", filters.NAMES)
@pytest.mark.parametrize("kind", RECORDINGS)
def test_every_filter_continues_behind_a_gap(kind: str, name: str, cell: str) -> None:
    if name == "filterpy_ukf":
        pytest.importorskip("filterpy")
    series = RECORDINGS[kind]
    found = soc.estimate(series, library.cell(cell), name, soc0=0.8, soc0_sd=0.02)
    assert np.isfinite(found.soc).all() and (found.sd > 0).all()
    assert np.linalg.eigvalsh(found.belief.cov).min() > -1e-12 * max(1.0, np.trace(found.belief.cov))
    behind = int(np.argmax(np.diff(series.time_s))) + 1
    if name == "coulomb" and series.current_a[behind] != 0.0:
        assert found.sd[behind] > found.sd[behind - 1]


@pytest.mark.parametrize(
    ("time_s", "expected"),
    [
        ([], []),
        ([5.0], []),
        ([0, 1], [False]),
        ([0, 1, 43200], [False, True]),
        ([0, 1, 43200, 43201], [False, True, False]),
        ([0, 7200, 14400], [False, False]),
        ([0, 1, 2, 4.4], [False, False, False]),
        ([0, 0.1, 0.2, 2.6], [False, False, False]),  # not longer than 2.5 s
    ],
)
def test_a_gap_is_an_interval_much_longer_than_the_usual_one(time_s: list[float], expected: list[bool]) -> None:
    assert gaps(time_s).tolist() == expected


def test_no_charge_is_counted_over_a_gap() -> None:
    assert counted_ah(RECORDINGS["half a day before a load"]).tolist() == pytest.approx([0.0, 0.0, 0.0, -3 / 3600])


def test_a_pause_is_not_taken_for_another_unit() -> None:
    series = RECORDINGS["half a day before a load"]
    columns = {name: getattr(series, name) for name in ("time_s", "current_a", "voltage_v", "temperature_degc")}
    taken = CleanedRecording(library.cell("lg_hg2"), Pack()).take(columns)
    assert taken is not None and len(taken[0]) == 4


def test_a_balanced_cycle_in_milliseconds_is_another_unit() -> None:
    """The net charge of a whole cycle is zero; the charge moved in between cannot be this cell's."""
    time_s = np.arange(0.0, 7201.0)
    current_a = np.where(time_s <= 3600.0, -3.0, 3.0)
    series, _ = soc.simulate(library.cell("lg_hg2"), time_s, np.clip(current_a, -2.0, 2.0), 25.0, 0.9)
    columns = {name: getattr(series, name) for name in ("time_s", "current_a", "voltage_v", "temperature_degc")}
    columns["time_s"] = 1000 * columns["time_s"]
    with pytest.raises(SeriesError, match="milliseconds"):
        CleanedRecording(library.cell("lg_hg2"), Pack()).take(columns)


def test_a_step_over_a_gap_is_no_evidence_of_the_sign() -> None:
    # blocks of close samples, with current steps between the blocks only
    time_s = np.sort(np.concatenate([k * 1000.0 + np.arange(5.0) for k in range(8)]))
    current_a = np.repeat([(-1.0) ** k for k in range(8)], 5)
    voltage_v = np.repeat([3.7 - 0.1 * (-1.0) ** k for k in range(8)], 5)
    assert wrong_sign(Series(time_s, current_a, voltage_v, np.full(40, 25.0))) is None


def test_a_filter_without_finite_numbers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Estimator(library.cell("lg_hg2"), soc0=0.5)
    run = live.model._run

    def failing(*arguments: object) -> None:
        run(*arguments)  # type: ignore[arg-type]
        arguments[6][0, 2:, 0] = np.nan  # type: ignore[index]

    monkeypatch.setattr(live.model, "_run", failing)
    with pytest.raises(FilterError, match="filter spkf: no finite estimate from sample 2 on, at 43200 s"):
        live.run(RECORDINGS["half a day before a load"])


intervals = st.lists(
    st.one_of(st.floats(0.05, 10.0), st.floats(60.0, 1e5), st.floats(1e5, 1e8)), min_size=1, max_size=30
)


@pytest.mark.parametrize("name", filters.NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), intervals_s=intervals)
def test_no_pattern_of_gaps_makes_a_filter_fail(name: str, data: st.DataObject, intervals_s: list[float]) -> None:
    if name == "filterpy_ukf":
        pytest.importorskip("filterpy")
    n = len(intervals_s) + 1
    cell = library.cell(data.draw(st.sampled_from(["lg_hg2", "lfp_1ah2"])))
    column = st.lists(st.floats(-3.0, 3.0), min_size=n, max_size=n)
    current_a = np.array(data.draw(column)) * cell.nominal_ah
    voltage_v = np.clip(3.5 + 0.3 * np.array(data.draw(column)), 2.5, 4.3)
    series = Series(np.concatenate([[0.0], np.cumsum(intervals_s)]), current_a, voltage_v, np.full(n, 20.0))
    found = soc.estimate(series, cell, name)
    assert np.isfinite(found.soc).all() and np.isfinite(found.sd).all()
