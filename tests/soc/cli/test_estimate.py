"""`soc estimate`: one result per recording, and a clear message for every bad recording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.soc.cli.conftest import Array, Called

Call = Callable[..., Called]
Recording = Callable[..., Path]


def rows(path: Path) -> Array:
    """The results as an array [row, column]."""
    assert path.read_text().startswith("time_s,soc,soc_lo,soc_hi\n")
    return np.atleast_2d(np.genfromtxt(path, delimiter=",", skip_header=1))


def test_each_recording_gets_a_result_of_its_name(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array], tmp_path: Path
) -> None:
    a, b = recording("a.csv"), recording("b.csv")
    done = call("estimate", a, b, "--cell", cell_file, "--soc0", 0.8, "--out-dir", tmp_path / "out")
    assert (done.code, done.out, done.err) == (0, "", "")
    for name in ("a.csv", "b.csv"):
        found = rows(tmp_path / "out" / name)
        assert found[:, 0].tolist() == truth["time_s"].tolist()
        assert np.abs(found[-900:, 1] - truth["soc_ref"][-900:]).max() < 0.01
        assert (found[:, 2] < found[:, 1]).all() and (found[:, 1] < found[:, 3]).all()


def test_a_parquet_recording_gives_the_same_as_csv(
    call: Call, recording: Recording, cell_file: Path, tmp_path: Path
) -> None:
    source = recording("a.csv")
    table = pa.Table.from_pydict(dict(zip(*_read(source), strict=True)))
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=100)
    call("estimate", source, "--cell", cell_file, "--out", tmp_path / "ra.csv")
    call("estimate", tmp_path / "b.parquet", "--cell", cell_file, "--out", tmp_path / "rb.csv")
    assert (tmp_path / "ra.csv").read_text() == (tmp_path / "rb.csv").read_text()


def _read(path: Path) -> tuple[list[str], list[Array]]:
    names = path.read_text().split("\n", 1)[0].split(",")
    return names, list(np.genfromtxt(path, delimiter=",", skip_header=1).T)


def test_one_result_goes_to_standard_output(call: Call, recording: Recording, cell_file: Path) -> None:
    done = call("estimate", recording(), "--cell", cell_file)
    assert done.out.startswith("time_s,soc,soc_lo,soc_hi\n0.0,") and done.out.count("\n") == 1801


def test_the_header_supplies_what_the_command_line_omits(call: Call, recording: Recording, cell_file: Path) -> None:
    header = {"cell": str(cell_file), "soc0": 0.3, "soc0_sd": 0.001, "temperature_degc": 25}
    place = recording(header=header, temperature_degc=None)
    assert call("estimate", place).out.splitlines()[1].startswith("0.0,0.300000,")
    assert call("estimate", place, "--soc0", 0.7).out.splitlines()[1].startswith("0.0,0.700000,")


def test_all_signals_on_request(call: Call, recording: Recording, cell_file: Path) -> None:
    lines = call("estimate", recording(), "--cell", cell_file, "--soc0", 0.8, "--all").out.splitlines()
    names = lines[0].split(",")
    last = dict(zip(names, map(float, lines[-1].split(",")), strict=True))
    assert set(names) > {"soc_counted", "innovation_v", "innovation_bound_v", "current_offset_a", "ocv_v"}
    assert abs(last["soc_counted"] - last["soc"]) < 0.01 and 3.0 < last["ocv_v"] < 4.2


@pytest.mark.parametrize("name", ["spkf", "ekf", "coulomb", "filterpy_ukf"])
def test_every_filter_follows_the_true_state_of_charge_from_a_known_start(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array], name: str, tmp_path: Path
) -> None:
    if name == "filterpy_ukf":
        pytest.importorskip("filterpy")
    done = call(
        "estimate", recording(), "--cell", cell_file, "--soc0", 0.8, "--filter", name, "--out", tmp_path / "r.csv"
    )
    assert done.code == 0
    assert abs(rows(tmp_path / "r.csv")[-1, 1] - truth["soc_ref"][-1]) < 0.01


def test_options_reach_the_filter(call: Call, recording: Recording, cell_file: Path) -> None:
    plain = call("estimate", recording(), "--cell", cell_file).out
    assert call("estimate", recording(), "--cell", cell_file, "--option", "error_scale=30").out != plain
    assert call("estimate", recording(), "--cell", cell_file, "--option", "bias_state=off").out != plain


def test_a_pack_is_estimated_as_its_average_cell(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array]
) -> None:
    one = call("estimate", recording(), "--cell", cell_file).out
    pack = recording("pack.csv", voltage_v=4 * truth["voltage_v"], current_a=2 * truth["current_a"])
    done = call("estimate", pack, "--cell", cell_file, "--series", 4, "--parallel", 2)
    np.testing.assert_allclose(
        np.genfromtxt(done.out.splitlines()[1:], delimiter=","), np.genfromtxt(one.splitlines()[1:], delimiter=","),
        atol=2e-6,
    )  # fmt: skip


def test_other_names_units_and_signs_are_mapped(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array]
) -> None:
    plain = call("estimate", recording(), "--cell", cell_file).out
    place = recording("other.csv", current_a=None, I_mA=-1e3 * truth["current_a"])
    assert call("estimate", place, "--cell", cell_file, "--map", "current_a=-I_mA*0.001").out == plain


def test_health_and_identity_are_reported_as_json(
    call: Call, recording: Recording, cell_file: Path, tmp_path: Path
) -> None:
    done = call("estimate", recording(), "--cell", cell_file, "--out", tmp_path / "r.csv", "--json")
    (told,) = done.told
    assert told["model"].startswith("toy@") and told["version"].startswith("spkf-")
    assert told["rows"] == told["used"] == told["health"]["samples"] == 1800 and told["warnings"] == []


# ---- bad recordings -------------------------------------------------------------------------------------------------


def with_nan(values: Array, *at: int) -> Array:
    changed = values.copy()
    changed[list(at)] = np.nan
    return changed


BAD: dict[str, tuple[Callable[[dict[str, Array]], dict[str, Any]], str]] = {
    "shuffled": (lambda t: {"time_s": np.random.default_rng(1).permutation(t["time_s"])}, "sort the rows by time_s"),
    "no voltage": (lambda t: {"voltage_v": None}, "no column voltage_v"),
    "millivolts": (lambda t: {"voltage_v": 1e3 * t["voltage_v"]}, "no cell voltage: mV"),
    "kilovolts": (lambda t: {"voltage_v": 1e-3 * t["voltage_v"]}, "kilovolts"),
    "milliamperes": (lambda t: {"current_a": 1e3 * t["current_a"]}, "milliamperes (--map current_a=…*0.001)"),
    "milliseconds": (lambda t: {"time_s": 1e3 * t["time_s"]}, "milliseconds (--map time_s=…*0.001)"),
    "a pack's voltage": (lambda t: {"voltage_v": 2 * t["voltage_v"]}, "or a pack (--series N)?"),
    "kelvin": (lambda t: {"temperature_degc": t["temperature_degc"] + 273.15}, "kelvin"),
    "no temperature": (lambda t: {"temperature_degc": None}, "give --temperature-degc"),
    "an empty temperature": (lambda t: {"temperature_degc": np.nan * t["time_s"]}, "has no value"),
    "many missing": (lambda t: {"voltage_v": with_nan(t["voltage_v"], *range(100, 400))}, "300 with a missing value"),
    "too short": (lambda t: {name: values[:1] for name, values in t.items()}, "an estimate needs at least 2"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_recording_is_explained_and_leaves_no_result(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array], tmp_path: Path, kind: str
) -> None:
    change, words = BAD[kind]
    place = recording("bad.csv", **change(truth))
    done = call("estimate", place, "--cell", cell_file, "--out-dir", tmp_path / "out")
    assert done.code == 65
    assert words in done.err and str(place) in done.err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bad_recording_does_not_stop_the_others(
    call: Call, recording: Recording, cell_file: Path, tmp_path: Path
) -> None:
    good, bad = recording("good.csv"), recording("bad.csv", voltage_v=None)
    done = call("estimate", bad, "absent.csv", good, "--cell", cell_file, "--out-dir", tmp_path / "out")
    assert done.code == 65
    assert "bad.csv: no column voltage_v" in done.err and "absent.csv: No such file" in done.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.csv"]


def test_a_few_unusable_rows_are_left_out_and_counted(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array]
) -> None:
    time_s = truth["time_s"].copy()
    time_s[500], time_s[900] = time_s[499], 0.0  # a repeated stamp, and a clock set back for one sample
    place = recording(
        time_s=time_s, voltage_v=with_nan(truth["voltage_v"], 3, 4), current_a=with_nan(truth["current_a"], 9)
    )
    done = call("estimate", place, "--cell", cell_file)
    assert done.code == 0 and "left out of 1800 rows: 3 with a missing value, 2 whose time does not rise" in done.err
    times = [float(line.split(",")[0]) for line in done.out.splitlines()[1:]]
    assert len(times) == 1795 and times == sorted(set(times))


def test_a_wrong_sign_is_shown_with_its_evidence(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array]
) -> None:
    done = call("estimate", recording(current_a=-truth["current_a"]), "--cell", cell_file)
    assert done.code == 0 and "wrong sign: voltage falls when current_a rises" in done.err and "mΩ" in done.err


def test_rows_before_the_first_temperature_are_left_out(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array]
) -> None:
    place = recording(temperature_degc=with_nan(truth["temperature_degc"], *range(10)))
    late = call("estimate", place, "--cell", cell_file)
    assert late.out.splitlines()[1].startswith("10.0,")
    given = call("estimate", place, "--cell", cell_file, "--temperature-degc", 25)
    assert given.out.splitlines()[1].startswith("0.0,")


def test_a_temperature_that_stops_is_held_and_counted(
    call: Call, recording: Recording, cell_file: Path, truth: dict[str, Array], tmp_path: Path
) -> None:
    place = recording(temperature_degc=with_nan(truth["temperature_degc"], *range(600, 1800)))
    (told,) = call("estimate", place, "--cell", cell_file, "--out", tmp_path / "r.csv", "--json").told
    assert told["health"]["held_temperature"] == 1200 and told["health"]["lost_temperature"] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("nominal_ah = 3.0", "nominal_ah = -3.0"), "nominal_ah: -3 is not in"),
        (("chemistry", "chemestry"), "chemistry: missing"),
        (("format = 1", "format = 9"), "format: expected 1"),
        (("[dynamics]", "[dynamics"), "not TOML"),
    ],
)
def test_a_bad_cell_file_is_explained(
    call: Call, recording: Recording, cell_file: Path, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(cell_file.read_text().replace(*change))
    done = call("estimate", recording(), "--cell", bad)
    assert done.code == 78 and words in done.err and "bad.toml" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 78, "Give --cell"),
        (("--cell", "nobody"), 78, "no cell 'nobody': expected"),
        (("--cell", "lg_hg2", "--option", "no_such=1"), 78, "no such option: no_such"),
        (("--cell", "lg_hg2", "--option", "error_scale"), 78, "expected NAME=NUMBER"),
        (("--cell", "lg_hg2", "--option", "error_scale=-1"), 78, "error_scale"),
        (("--cell", "lg_hg2", "--soc0", "80"), 78, "expected 0..1"),
        (("--cell", "lg_hg2", "--filter", "magic"), 2, "magic"),
        (("--cell", "lg_hg2", "--map", "amps=I"), 65, "amps=I"),
    ],
)
def test_a_wrong_command_line_is_explained(
    call: Call, recording: Recording, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = call("estimate", recording(), *arguments)
    assert done.code == code and words in done.err


def test_results_never_overwrite_recordings_or_each_other(call: Call, recording: Recording, tmp_path: Path) -> None:
    place = recording("a.csv")
    (tmp_path / "b").mkdir()
    twin = recording("b/a.csv")
    assert "would overwrite the input" in call("estimate", place, "--out-dir", tmp_path).err
    assert "overwrite each other" in call("estimate", place, twin, "--out-dir", tmp_path / "o").err
    assert "several recordings need --out-dir" in call("estimate", place, twin).err
    assert "not both" in call("estimate", place, "--out", "x.csv", "--out-dir", "o").err
