"""`plot` draws the rows of the journals: gaps stay empty, each series is a line, a long range keeps its extremes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.cli.plot import drawing, pieces, thinned
from collectors.errors import ConfigError
from collectors.host.clock import UNSYNCHRONISED
from tests.collectors.cli.test_export import SECOND, START, fill, run

END = f"{START[:-2]}59"


def plot(*arguments: str, state: Path) -> str:
    return run("plot", *arguments, "--from", START, "--to", END, "--width", "80", "--height", "20", state=state).output


def test_every_collector_that_has_the_signal_is_a_line_with_its_name(tmp_path: Path) -> None:
    fill(tmp_path, "load")
    fill(tmp_path, "mppt")
    text = plot("battery.voltage_v", state=tmp_path)
    assert " load" in text and " mppt" in text and "battery.voltage_v" in text and "13.09" in text
    assert max(map(len, text.splitlines())) <= 80 and "\033" not in text
    assert " mppt" not in plot("battery.voltage_v", "load", state=tmp_path)
    assert " cell=2" in plot("cell.voltage_v", "load", state=tmp_path)


def test_a_missing_value_is_no_value(tmp_path: Path) -> None:
    fill(tmp_path)
    assert "-0.5" in plot("battery.current_a", state=tmp_path)


def drawn_columns(text: str) -> set[int]:
    """Return the columns in which something is drawn."""
    rows = [line.replace("┤", "│") for line in text.splitlines()]
    lines = [line.partition("│")[2] for line in rows if "│" in line and "⢕" not in line]
    return {at for line in lines for at, letter in enumerate(line.rstrip("│")) if letter != " "}


def test_nothing_is_drawn_in_a_gap() -> None:
    stamps = np.array([*range(100), *range(200, 300)], np.int64) * SECOND
    values = np.sin(stamps / 2e10)
    text = drawing("a.b", {"x": (stamps, values)}, (0, 300 * SECOND), (84, 20), is_colored=False)
    columns = drawn_columns(text)
    width = max(columns) + 1
    assert not columns & set(range(width * 110 // 300, width * 190 // 300))
    assert len(columns) > width // 2


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50))
def test_concatenated_pieces_are_the_series(steps: list[int]) -> None:
    stamps = np.cumsum(np.array(steps, np.int64))
    values = np.arange(len(stamps), dtype=np.float64)
    parts = list(pieces(stamps, values))
    assert np.array_equal(np.concatenate([t for t, _ in parts]), stamps)
    assert np.array_equal(np.concatenate([v for _, v in parts]), values)
    usual = np.median(np.diff(stamps)) if len(stamps) > 1 else 0
    assert all(np.all(np.diff(t) <= 2.5 * usual) for t, _ in parts)


@given(st.integers(0, 2**32), st.integers(1, 5000), st.integers(1, 160))
def test_thinning_keeps_the_extremes_and_the_order(seed: int, count: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    stamps = np.sort(random.choice(10**6, count, replace=False)).astype(np.int64)
    values = random.normal(size=count)
    shown_ns, shown = thinned(stamps, values, (0, 10**6), columns)
    assert len(shown) <= max(4 * columns, 4 * min(columns, count))
    assert (shown.min(), shown.max()) == (values.min(), values.max())
    assert np.all(np.diff(shown_ns) > 0) and (shown_ns[0], shown_ns[-1]) == (stamps[0], stamps[-1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["voltage_v"], "expected MEASUREMENT.SIGNAL; there are: battery.current_a, battery.voltage_v, cell.voltage_v"),
        (["battery.power_w"], "no values of battery.power_w from 2026-11-18T11:06:40Z"),
        (["battery.voltage_v", "nobody"], "no journal of nobody"),
        (["battery.voltage_v", "--device", "none"], "no values of"),
    ],
)
def test_an_unknown_signal_is_reported_with_the_available_ones(arguments: list[str], says: str, tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(ConfigError, match=says):
        plot(*arguments, state=tmp_path)


def test_samples_that_wait_for_the_clock_are_named(tmp_path: Path) -> None:
    fill(tmp_path, state_of_clock=UNSYNCHRONISED)
    with pytest.raises(ConfigError, match=r"no values of .*; load: some samples have no known time: .* clock$"):
        plot("battery.voltage_v", state=tmp_path)


def test_a_range_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(ConfigError, match="earlier"):
        run("plot", "battery.voltage_v", "--from", END, "--to", START, state=tmp_path)


def test_only_plot_waits_for_the_drawing_library() -> None:
    code = "import sys, collectors.cli.plot, collectors.cli.tail; print('plotext' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
