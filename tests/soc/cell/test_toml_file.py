"""A cell file is read back bit for bit, or the wrong key is named; tables follow their interpolation laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soc.cell import tables as layout
from soc.cell.ocv import CELLS, GRID, Ocv, find, increasing, read
from soc.cell.parameters import CellParameters, value_of
from soc.cell.tables import tables
from soc.cell.toml_file import dump, load, parse, save
from soc.errors import CellError


def test_a_cell_reads_back_with_the_same_bits(warm_and_cold_cell, tmp_path):
    path = tmp_path / "cell.toml"
    save(warm_and_cold_cell, path)
    again = load(path)
    assert again.id == warm_and_cold_cell.id
    assert dump(again) == dump(warm_and_cold_cell)
    for key in ("r_ohm", "charge_transfer_a", "ocv0_v", "error_v"):
        assert np.array_equal(value_of(again, key), value_of(warm_and_cold_cell, key))


def test_text_and_uncertainty_read_back(vector_cell):
    text = dump(vector_cell).replace('source = ""', 'source = """\nquote " \\\\ and\ta tab\nline"""')
    text += "\n[uncertainty]\nr0_ohm = [[0.001]]\n"
    again = parse(text)
    assert again.source == 'quote " \\ and\ta tab\nline'
    assert again.sd["r0_ohm"].tolist() == [[0.001]]
    assert dump(parse(dump(again))) == dump(again)


@given(values=st.lists(st.floats(1e-6, 99.0), min_size=1, max_size=1))
@settings(max_examples=30, deadline=None)
def test_any_number_reads_back(vector_cell, values):
    text = dump(vector_cell).replace("r0_ohm = [[0.01]]", f"r0_ohm = [[{values[0]!r}]]")
    assert parse(text).r0_ohm[0, 0] == values[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gamma = [120.0]", "gamma = [-3.0]", r"gamma: -3 is not in 0\.\.10000"),
        ("gamma = [120.0]", "gamma = [nan]", r"gamma: nan is not in"),
        ("gamma = [120.0]", "gamma = [1.0, 2.0]", r"gamma: expected shape \(1,\), got \(2,\)"),
        ("gamma = [120.0]", "gama = [120.0]", r"\[dynamics\] gamma: missing\n.*\[dynamics\] gama: unknown key"),
        ("gamma = [120.0]", 'gamma = ["x"]', r"\[dynamics\] gamma: expected numbers"),
        ("nominal_ah = 2.0", "nominal_ah = true", r"nominal_ah: expected a number, got True"),
        ("nominal_ah = 2.0", "nominal_ah = 2000000.0", r"nominal_ah: 2e\+06 is not in"),
        ("[capacity]", "[capacities]", r"\[capacity\] capacity_ah: missing"),
        ("format = 1", "format = 2", r"format: expected 1"),
        ("voltage_min_v = 2.8", "voltage_min_v = 3.9", r"voltage_min_v: 3.9 is not below voltage_max_v"),
        ("temperature_degc = [25.0]", "temperature_degc = [25.0, 20.0]", r"temperature_degc: .*rising"),
        ("format = 1", "format = = 1", r"not TOML"),
    ],
)
def test_a_wrong_file_names_file_and_key(vector_cell, tmp_path, old, new, message):
    path = tmp_path / "bad.toml"
    text = dump(vector_cell)
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(CellError, match=message) as caught:
        load(path)
    assert all(str(path) in problem for problem in caught.value.problems)


def test_resistances_interpolate_as_log_r_against_one_over_t(warm_and_cold_cell):
    rows = tables(warm_and_cold_cell, 4)
    degc = 10.0
    row = round((degc - rows.lowest_degc) * rows.per_k)
    share = (1 / 263.15 - 1 / (degc + 273.15)) / (1 / 263.15 - 1 / 298.15)
    assert rows.points[row, CELLS, layout.R0] == pytest.approx(
        np.exp(np.log(0.05) * (1 - share) + np.log(0.02) * share)
    )
    linear = (degc + 10) / 35
    assert rows.rows[row, layout.CAPACITY] == pytest.approx(2.8 + 0.2 * linear)
    assert rows.rows[row, layout.TRANSFER] == pytest.approx((1 - linear) / 2)
    assert rows.points[row, 20, layout.R1] == pytest.approx(
        np.exp(np.log(0.05) * (1 - share) + np.log(0.015) * share), rel=0.02
    )  # half-way between two knots of z


def test_cells_that_differ_in_a_bit_differ_in_their_id(vector_cell, linear_cell):
    assert vector_cell.id.startswith("vectors@")
    other = CellParameters.plain("vectors", 2.0, vector_cell.ocv, 0.010001, [(0.015, 20.0)], gamma=120.0)
    assert vector_cell.id != other.id


def test_ocv_is_extrapolated_with_a_bounded_slope():
    steep = Ocv.of_points([0, 0.01, 0.99, 1], [2.0, 3.2, 3.35, 3.6])
    assert steep.voltage(1.02, 25) - steep.voltage(1.0, 25) <= 0.02 * 2.0 + 1e-12
    assert steep.voltage(-0.02, 25) >= steep.voltage(0.0, 25) - 0.02 * 2.0 - 1e-12
    assert np.all(np.diff(steep.voltage(np.linspace(-0.1, 1.1, 500), 25)) > 0)


@given(seed=st.integers(0, 10**6), z=st.floats(-0.05, 1.05))
@settings(max_examples=50, deadline=None)
def test_the_inverse_of_the_ocv_curve_is_exact(seed, z):
    table = 3.0 + np.cumsum(np.random.default_rng(seed).uniform(0.001, 0.02, CELLS + 1))
    assert find(table, read(table, z)) == pytest.approx(z, abs=5e-4)


def test_a_non_monotonic_curve_is_made_increasing():
    table = increasing(3.0 + GRID + 0.02 * np.sin(40 * GRID))
    assert np.all(np.diff(table) > 0)
    assert table == pytest.approx(3.0 + GRID, abs=0.03)
