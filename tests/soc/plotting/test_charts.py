"""Charts show every measured sample, and no line over a gap."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import soc
from soc.cell import library
from soc.plotting import charts
from soc.series import Series


@pytest.fixture(scope="module")
def with_gaps() -> Series:
    time_s = np.concatenate([np.arange(300.0), 4000.0 + np.arange(300.0), 9000.0 + np.arange(5000.0)])
    n = len(time_s)
    return Series(time_s, np.full(n, -0.5), np.full(n, 3.7), np.full(n, 25.0))


def test_an_estimate_is_drawn_with_current_and_voltage(with_gaps: Series) -> None:
    found = soc.estimate(with_gaps, library.cell("lg_hg2"), soc0=0.5)
    figure = charts.estimated(with_gaps, found)
    labels = [axis.get_ylabel().split(",")[0] for axis in figure.axes]
    assert labels == ["current", "voltage", "state of charge", "innovation"]


def test_no_line_goes_over_a_gap(with_gaps: Series) -> None:
    found = soc.estimate(with_gaps, library.cell("lg_hg2"), soc0=0.5)
    figures = [charts.recorded(with_gaps), charts.estimated(with_gaps, found)]
    figures.append(charts.compared({"spkf": found}, with_gaps.time_s, found.soc))
    for axis in (axis for figure in figures for axis in figure.axes):
        for line in (line for line in axis.lines if len(line.get_xdata()) > 2):
            x = 3600.0 * np.asarray(line.get_xdata(), dtype=float)
            steps = np.diff(x)
            assert int(np.isnan(x).sum()) == 2
            assert np.nanmax(steps) < 60.0


def test_a_recording_without_gaps_is_drawn_unchanged() -> None:
    hours, rows = charts._hours(np.arange(100.0))
    assert rows.tolist() == list(range(100)) and np.isfinite(hours).all()
