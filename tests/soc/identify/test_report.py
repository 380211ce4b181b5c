"""Noise, held-out data and the report of an identification on simulated runs; shipped cells and real recordings."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

import soc
from soc.cell.library import cell as shipped
from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters
from soc.cell.toml_file import dump, parse
from soc.estimation.score import score
from soc.identify import About, Identified, Settings, identify, recipes
from soc.identify.noise import ModelUncertainty, cautious_rms, held_out, local_mean, moving_mean
from soc.identify.report import summary, to_html, to_json
from soc.identify.result import cells_without
from soc.identify.runs import Run
from soc.plotting.svg import Line, chart, thinned, ticks
from soc.simulation.simulate import Faults, measured, simulate

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "cells"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the lab recordings are not beside the checkout: {DATA}")

OCV = Ocv.of_points([0, 0.1, 0.5, 1], [3.0, 3.4, 3.7, 4.2])
ABOUT = About("test", "NMC", 3.0, 2.8, 4.2, "simulated <here>", "as the test says")
SETTINGS = Settings(
    tau_start_s=(8.0,), soc_knots=np.linspace(0, 1, 6), r_knots=np.array([0.0, 0.5, 1.0]), evaluations=50, sweeps=2
)


def run(seed: int, temperature_degc: float) -> Run:
    """A drive whose resistances grow in the cold, with 2 mV of noise."""
    grown = float(np.exp(3000.0 * (1 / (temperature_degc + 273.15) - 1 / 298.15)))
    known = CellParameters.plain("known", 3.0, OCV, 0.02 * grown, [(0.01 * grown, 8.0)])
    random = np.random.default_rng(seed)
    current = np.concatenate([np.full(random.integers(5, 60), random.uniform(-9.0, 3.0)) for _ in range(300)])[:5000]
    current *= 0.85 * 3.0 * 3600 / -current.sum()
    series, truth = simulate(known, np.arange(len(current)), current, temperature_degc, 1.0)
    noisy = measured(series, Faults(voltage_sd_v=0.002), seed)
    return Run(f"run {seed}", temperature_degc, 3.0, 1.0, noisy, truth)


@pytest.fixture(scope="module")
def found() -> Identified:
    """Two runs at 25 °C, one at 0 and one at −20 °C."""
    return identify([run(1, 25.0), run(2, 25.0), run(3, 0.0), run(4, -20.0)], OCV, ABOUT, SETTINGS)


def test_a_like_run_or_a_temperature_or_nothing_is_held_out(found):
    how = {(e.run.name, e.how) for e in found.held_out}
    assert how == {
        ("run 1", "run"),
        ("run 2", "run"),
        ("run 3", "nothing"),
        ("run 3", "temperature"),
        ("run 4", "nothing"),
    }


def test_the_residual_of_a_good_model_is_the_sensors_noise(found):
    assert all(e.rms_v == pytest.approx(0.002, rel=0.2) for e in found.held_out if e.how != "temperature")


def test_a_test_of_another_kind_does_not_replace_a_run(found):
    other = replace(run(5, 0.0), kind="slow discharge")
    errors = held_out([run(3, 0.0), other], found.fit)
    assert {e.how for e in errors} == {"nothing", "temperature"}


def test_rows_in_wide_gaps_have_a_larger_uncertainty(found):
    cell = found.cell
    assert cell.temperature_degc.tolist() == [-20.0, -10.0, 0.0, 12.5, 25.0]
    tested = (cell.noise.bias_v[0] + cell.noise.bias_v[2]) / 2
    assert np.all(cell.noise.bias_v[1] > tested)


def test_the_cell_reads_back_from_its_file_and_estimates(found):
    again = parse(dump(found.cell))
    assert again.id == found.cell.id
    fresh = run(6, 25.0)
    result = soc.estimate(fresh.series, again, soc0=0.7, soc0_sd=0.3)
    assert score(result.time_s, result.soc, result.sd, fresh.soc).rms < 0.005


def test_cells_without_a_run_differ_from_the_cell_and_between_each_other(found):
    cells = {r.name: (cell, how) for r, cell, how in cells_without(found, ABOUT)}
    assert {name: how for name, (_, how) in cells.items()} == {
        "run 1": "run",
        "run 2": "run",
        "run 3": "temperature",
        "run 4": "nothing",
    }
    assert len({cell.id for cell, _ in cells.values()}) == 4
    assert 0.0 not in cells["run 3"][0].temperature_degc


def test_the_error_factor_scales_the_fast_error_only():
    runs = [run(1, 25.0), run(2, 25.0)]
    one, four = (
        identify(runs, OCV, replace(ABOUT, doubt=ModelUncertainty(error_factor=f)), SETTINGS).cell.noise
        for f in (1.0, 4.0)
    )
    assert four.error_v == pytest.approx(4 * one.error_v, rel=0.01)
    assert np.array_equal(four.bias_v, one.bias_v)


def test_a_sparsely_sampled_position_takes_more_than_the_whole_error():
    soc_seen, square = np.full(1000, 0.5), np.full(1000, 4e-6)
    near = cautious_rms([soc_seen], [square], [1.0], np.linspace(0, 1, 3))
    assert near[1] == pytest.approx(0.002)
    assert near[0] == near[2] > 0.002


def test_a_local_mean_weighs_by_time():
    mean, seconds = local_mean(
        [np.array([0.0, 0.0]), np.array([0.0])],
        [np.array([1.0, 1.0]), np.array([4.0])],
        [1.0, 2.0],
        np.array([0.0, 1.0]),
    )
    assert mean[0] == pytest.approx((1 + 1 + 8) / 4)
    assert seconds.tolist() == [4.0, 0.0]


def test_a_moving_mean_keeps_a_constant_up_to_the_ends():
    assert moving_mean(np.full(50, 3.0), 7) == pytest.approx(3.0)


# ---- the report -----------------------------------------------------------------------------------------------------


def test_the_json_report_names_errors_parameters_and_noise(found):
    read = json.loads(to_json(found))
    assert read == summary(found)
    assert [t["temperature_degc"] for t in read["temperatures"]] == [-20.0, 0.0, 25.0]
    warm = read["temperatures"][-1]
    assert warm["parameters"]["r0_ohm"]["value"] == pytest.approx(0.02, rel=0.1)
    assert warm["parameters"]["r0_ohm"]["sd"] > 0
    assert warm["without_run_rms_v"] == pytest.approx(0.002, rel=0.2)
    assert warm["without_temperature_rms_v"] is None


def test_the_html_report_fetches_nothing_and_escapes_what_it_quotes(found):
    page = to_html(replace(found, warnings=("R < 0 & so on",)))
    assert "simulated &lt;here&gt;" in page and "R &lt; 0 &amp; so on" in page
    for fetching in ("<script", "<link", "src=", "url(", "@import"):
        assert fetching not in page
    assert page.count("<svg") >= 4


def test_a_chart_is_well_formed_and_leaves_gaps_where_nothing_was_measured():
    x = np.arange(5.0)
    drawn = ElementTree.fromstring(
        chart([Line("a & b", x, np.array([1, 2, np.nan, 3, 4]))], "x", "y").split("<p class")[0]
    )
    assert len(drawn.findall("polyline")) == 2


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 17.0), (1e-4, 3e-4), (2.8, 4.2)])
def test_ticks_are_few_round_and_inside(low, high):
    marks = ticks(low, high)
    assert 3 <= len(marks) <= 8
    assert low - 1e-9 <= marks[0] and marks[-1] <= high + 1e-9


def test_thinning_keeps_the_extremes():
    y = np.random.default_rng(1).standard_normal(10_000)
    x, kept = thinned(np.arange(10_000.0), y)
    assert len(x) <= 600
    assert (kept.min(), kept.max()) == (y.min(), y.max())


# ---- the shipped cells, and real recordings -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lg_hg2", "a123_26650", "panasonic_18650pf", "lfp_1ah2"])
def test_shipped_cells_state_their_source_and_uncertainty(name):
    cell = shipped(name)
    assert len(cell.source) > 50 and len(cell.procedure) > 50
    assert cell.sd["r0_ohm"].shape == cell.r0_ohm.shape
    assert np.all(cell.noise.error_v > 0)
    for degc in cell.temperature_degc:
        table = cell.ocv.table(float(degc)) + np.interp(
            np.linspace(0, 1, 201), cell.soc_knots, cell.shift_v[list(cell.temperature_degc).index(degc)]
        )
        assert table[-1] > table[100] > table[0]


def test_resistance_of_a_shipped_cell_grows_in_the_cold_between_the_tested_temperatures_too():
    cell = shipped("a123_26650")
    total = (cell.r0_ohm + cell.r_ohm.sum(axis=0))[:, len(cell.soc_knots) // 2]
    assert np.all(np.diff(total) < 0)


def lab_columns(path: str) -> dict[str, np.ndarray]:
    table = pq.read_table(DATA / path)
    return {name: table[name].to_numpy().astype(float) for name in table.column_names}


@needs_data
def test_a_real_cell_at_25_degrees_is_identified_and_an_unseen_cycle_estimated():
    with (DATA / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = [recipes.entry(row) for row in csv.DictReader(file) if "10hz" not in row["id"]]
    warm = [e for e in rows if e.cell == "lg_hg2" and e.temperature_degc == 25.0]
    recipe = recipes.lg_hg2(warm, lab_columns)
    quick = identify(recipe.runs[:2], recipe.ocv, recipe.about, replace(recipe.settings, evaluations=30))
    assert all(e.rms_v < 0.012 for e in quick.held_out)
    unseen = recipe.runs[2]
    for soc0, soc0_sd in ((1.0, 0.01), (0.7, 0.3)):
        result = soc.estimate(unseen.series, quick.cell, soc0=soc0, soc0_sd=soc0_sd)
        found = score(result.time_s, result.soc, result.sd, unseen.soc)
        assert found.rms < 0.0032
        assert found.coverage == 1.0 and found.half_width < 0.03
