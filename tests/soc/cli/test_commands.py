"""The commands other than `estimate`, and the properties of all commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from soc.cell import toml_file
from soc.cell.parameters import CellParameters
from soc.cli import cli
from tests.soc.cli.conftest import Array, Called

Call = Callable[..., Called]
Recording = Callable[..., Path]


def commands() -> list[click.Command]:
    context = click.Context(cli)
    found = [cli.get_command(context, name) for name in cli.list_commands(context)]
    return [c for c in found if c is not None]


def test_every_command_explains_itself_with_an_example(call: Call) -> None:
    assert {c.name for c in commands()} == {
        "cells",
        "compare",
        "compile",
        "estimate",
        "identify",
        "plot",
        "score",
        "simulate",
    }
    for command in commands():
        text = call(command.name, "--help").out
        assert re.search(rf"\n  soc {command.name}[ \n]", text), f"{command.name}: no example in its help"


def test_every_option_has_a_help_text() -> None:
    for command in commands():
        silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
        assert not silent, f"{command.name}: {silent}"


def test_help_does_not_import_the_numerics() -> None:
    code = "import sys; from soc.cli import cli; cli.main(['--help'], standalone_mode=False); "
    code += "print(sorted({'numba', 'numpy', 'scipy', 'pyarrow', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_estimating_imports_only_what_it_needs() -> None:
    code = "import sys, soc.estimation.session, soc.stores.csv, soc.cell.library; "
    code += "print(sorted({'scipy.optimize', 'matplotlib', 'pandas', 'filterpy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_command_is_wrong_usage(call: Call) -> None:
    assert call("estimat").code == 2


# ---- cells ----------------------------------------------------------------------------------------------------------


def test_cells_lists_the_shipped_ones_and_shows_one(call: Call, cell_file: Path) -> None:
    listed = call("cells").out
    assert all(name in listed for name in ("a123_26650", "lfp_1ah2", "lg_hg2", "panasonic_18650pf"))
    shown = call("cells", "lg_hg2").out
    assert "lg_hg2@" in shown and "doi:10.17632/cp3473x7xv" in shown
    (own,) = map(json.loads, call("cells", cell_file, "--json").out.splitlines())
    assert own["nominal_ah"] == 3.0 and own["pairs"] == 2


def test_a_wrong_cell_file_is_explained_with_all_its_mistakes(call: Call, cell_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(
        cell_file.read_text().replace("nominal_ah = 3.0", "").replace("[dynamics]", "[dynamics]\nr9_ohm = 1")
    )
    done = call("cells", bad)
    assert done.code == 78 and "nominal_ah: missing" in done.err and "r9_ohm: unknown key" in done.err


# ---- simulate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["rest", "discharge", "charge", "cycle", "pulses", "drive", "solar"])
def test_a_simulated_recording_can_be_estimated_unchanged(
    call: Call, tmp_path: Path, cell_file: Path, profile: str
) -> None:
    out = tmp_path / "made.csv"
    made = call("simulate", "--cell", cell_file, "--profile", profile, "--soc0", 0.6, "--hours", 0.5, "--out", out)
    assert (made.code, made.err) == (0, "")
    (told,) = call("estimate", out, "--out", tmp_path / "result.csv", "--json").told
    last = float(out.read_text().splitlines()[-1].rsplit(",", 1)[1])
    assert told["soc_lo_end"] <= last <= told["soc_hi_end"]


def test_the_same_seed_simulates_the_same(call: Call, cell_file: Path) -> None:
    asked = ("simulate", "--cell", cell_file, "--hours", 0.1, "--noise-v", 0.01, "--noise-a", 0.01)
    assert call(*asked).out == call(*asked).out != call(*asked, "--seed", 1).out


def test_a_current_from_a_file_is_simulated(call: Call, cell_file: Path, tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("time_s,current_a\n0,0\n10,-1\n20,-1\n")
    lines = call("simulate", "--cell", cell_file, "--profile", tmp_path / "load.csv").out.splitlines()
    assert [line.split(",")[1] for line in lines[2:]] == ["0", "-1", "-1"]


def test_a_full_cell_takes_no_charge_and_an_empty_one_gives_none(call: Call, cell_file: Path) -> None:
    full = call("simulate", "--cell", cell_file, "--profile", "charge", "--soc0", 1.0, "--hours", 0.1)
    assert {line.split(",")[1] for line in full.out.splitlines()[2:]} == {"0"}
    empty = call("simulate", "--cell", cell_file, "--profile", "discharge", "--soc0", 0.01)
    assert empty.code == 78 and "already empty" in empty.err


# ---- score, compare, plot -------------------------------------------------------------------------------------------


def test_score_reports_the_quality_of_an_estimate(call: Call, recording: Recording, cell_file: Path) -> None:
    (found,) = map(json.loads, call("score", recording(), "--cell", cell_file, "--json").out.splitlines())
    assert found["rms"] < 0.005 and found["coverage"] == 1.0 and found["half_width"] > found["rms"]
    table = call("score", recording(), "--cell", cell_file).out.splitlines()
    assert "coverage %" in table[0] and len(table) == 2


def test_trials_are_scored_one_by_one(call: Call, recording: Recording, cell_file: Path) -> None:
    rows = [
        json.loads(line)
        for line in call("score", recording(), "--cell", cell_file, "--trials", "--json").out.splitlines()
    ]
    assert len(rows) >= 6 and any(r["recording"].endswith("50 mA offset") for r in rows)


def test_without_a_reference_there_is_no_score(call: Call, recording: Recording, cell_file: Path) -> None:
    done = call("score", recording(soc_ref=None), "--cell", cell_file)
    assert done.code == 65 and "expected a column soc_ref" in done.err


def test_compare_puts_all_filters_side_by_side(
    call: Call, recording: Recording, cell_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    asked = ("compare", recording(), "--cell", cell_file, "--soc0", 0.6, "--soc0-sd", 0.2, "--plot", tmp_path / "c.svg")
    found = {row["filter"]: row for row in map(json.loads, call(*asked, "--json").out.splitlines())}
    assert {"spkf", "ekf", "coulomb"} <= set(found)
    assert found["coulomb"]["rms"] > 0.19 and found["spkf"]["rms"] < 0.02  # counting never corrects a wrong start
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("more", [(), ("--raw",)])
def test_a_plot_is_a_picture(
    call: Call, recording: Recording, cell_file: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    pytest.importorskip("matplotlib")
    assert call("plot", recording(), "--cell", cell_file, "--out", tmp_path / "p.png", *more).code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_another_kind_is_refused(call: Call, recording: Recording, cell_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = call("plot", recording(), "--cell", cell_file, "--out", tmp_path / "p.gif")
    assert done.code == 78 and ".png, .svg, .pdf" in done.err


def test_without_matplotlib_the_message_names_the_package_to_install(recording: Recording, cell_file: Path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; sys.argv[1:1] = ['plot']; from soc.cli import main; main()"
    arguments = [str(recording()), "--cell", str(cell_file), "--out", "p.png"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 78 and "run: scripts/setup soc" in done.stderr


# ---- identify -------------------------------------------------------------------------------------------------------

EXPERIMENTS = """
name = "found"
chemistry = "NMC"
nominal_ah = 3.0
voltage_min_v = 3.0
voltage_max_v = 4.2

[[ocv]]
recording = "slow.csv"
temperature_degc = 25

[[run]]
recording = "first.csv"
temperature_degc = 25

[[run]]
recording = "second.csv"
temperature_degc = 25
"""


def slow_pair(folder: Path, cell: CellParameters) -> None:
    """A C/20 discharge and charge of the cell, with the tester's counter."""
    import numpy as np

    from soc import simulate

    time_s = np.arange(0.0, 40 * 3600.0, 60.0)
    current_a = np.where(time_s < 20 * 3600.0, -0.15, 0.15)
    series, _ = simulate(cell, time_s, current_a, 25.0, 1.0)
    counter = series.charge_ah
    assert counter is not None
    columns = (series.time_s, series.current_a, series.voltage_v, counter)
    lines = [",".join(f"{v:.9g}" for v in row) for row in zip(*columns, strict=True)]
    (folder / "slow.csv").write_text("\n".join(["time_s,current_a,voltage_v,charge_ah", *lines]))


def test_a_simulated_cell_is_identified_and_its_file_estimates(
    call: Call, cell: CellParameters, cell_file: Path, truth: dict[str, Array], recording: Recording, tmp_path: Path
) -> None:
    slow_pair(tmp_path, cell)
    for seed, name in enumerate(("first.csv", "second.csv")):
        call("simulate", "--cell", cell_file, "--hours", 3, "--seed", seed, "--out", tmp_path / name)
    (tmp_path / "tests.toml").write_text(EXPERIMENTS)
    done = call("identify", tmp_path / "tests.toml", "--out", tmp_path / "found.toml", "--report", tmp_path / "report")
    assert done.code == 0 and "mV rms, found without this run" in done.out
    assert toml_file.load(tmp_path / "found.toml").capacity_ah == pytest.approx(3.0, rel=0.01)
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"found.html", "found.json"}
    (told,) = call(
        "estimate", recording(), "--cell", tmp_path / "found.toml", "--soc0", 0.8, "--out", tmp_path / "r.csv", "--json"
    ).told
    assert told["soc_end"] == pytest.approx(truth["soc_ref"][-1], abs=0.02)


def test_all_mistakes_of_an_experiments_file_are_reported_at_once(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tests.toml").write_text('name = "x"\ncolour = 1\nnominal_ah = "3"\n[[ocv]]\ntemperature_degc = 25\n')
    done = call("identify", tmp_path / "tests.toml")
    assert done.code == 78
    for words in ("colour: unknown key", "nominal_ah: expected a number", "chemistry: missing", "[[run]]: expected",
                  "[[ocv]] 1: expected `recording`"):  # fmt: skip
        assert words in done.err


def test_a_run_without_reference_needs_a_start(
    call: Call, cell: CellParameters, recording: Recording, tmp_path: Path
) -> None:
    slow_pair(tmp_path, cell)
    recording("first.csv", soc_ref=None)
    recording("second.csv", soc_ref=None)
    (tmp_path / "tests.toml").write_text(EXPERIMENTS)
    done = call("identify", tmp_path / "tests.toml")
    assert done.code == 65 and "first.csv: no reference" in done.err


# ---- gaps and filters that fail -------------------------------------------------------------------------------------


@pytest.fixture
def with_a_gap(recording: Recording, truth: dict[str, Array]) -> Path:
    """Ten minutes of load out of twenty, then five minutes without samples, with a reference."""
    kept = [k for k in range(1800) if not 900 <= k < 1200]
    return recording("gap.csv", **{name: values[kept] for name, values in truth.items()})


@pytest.mark.parametrize("name", ["spkf", "ekf", "coulomb", "filterpy_ukf"])
def test_a_recording_with_a_gap_is_scored_by_every_filter(
    call: Call, with_a_gap: Path, cell_file: Path, name: str
) -> None:
    if name == "filterpy_ukf":
        pytest.importorskip("filterpy")
    done = call("score", with_a_gap, "--cell", cell_file, "--filter", name, "--json")
    assert done.code == 0 and json.loads(done.out)["rms"] < 0.05


def test_a_filter_that_fails_is_left_out_with_its_reason(
    call: Call, recording: Recording, cell_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from soc.filters import ekf

    def failing(*arguments: object) -> None:
        arguments[6][:] = np.nan  # type: ignore[index]

    monkeypatch.setattr(ekf, "run", failing)
    asked = ("compare", recording(), "--cell", cell_file, "--filter", "ekf")
    done = call(*asked, "--filter", "coulomb", "--json")
    assert done.code == 0 and "ekf left out: filter ekf: no finite estimate from sample 0" in done.err
    assert [row["filter"] for row in map(json.loads, done.out.splitlines())] == ["coulomb"]
    alone = call(*asked)
    assert alone.code == 65 and "no finite estimate" in alone.err and alone.out == ""


def test_one_bad_recording_does_not_prevent_the_scores_of_the_others(
    call: Call, recording: Recording, cell_file: Path
) -> None:
    done = call("score", "absent.csv", recording(), "--cell", cell_file, "--json")
    assert done.code == 74 and "absent.csv: No such file" in done.err and json.loads(done.out)["rms"] < 0.005


@pytest.mark.parametrize("command", ["estimate", "plot", "score", "compare"])
def test_a_pause_of_half_a_day_is_no_error(call: Call, tmp_path: Path, command: str) -> None:
    if command == "plot":
        pytest.importorskip("matplotlib")
    rows = ["0,0,3.9,25,0.8", "1,0,3.9,25,0.8", "43200,-3,3.8,25,0.8", "43201,-3,3.8,25,0.8"]
    place = tmp_path / "pause.csv"
    place.write_text("\n".join(["time_s,current_a,voltage_v,temperature_degc,soc_ref", *rows]) + "\n")
    out = ("--out", tmp_path / ("p.png" if command == "plot" else "r.csv")) if command in ("estimate", "plot") else ()
    done = call(command, place, "--cell", "lg_hg2", "--soc0", 0.8, *out)
    assert done.code == 0, done.err


def test_a_bug_ends_with_a_traceback_and_exit_code_70(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from soc.cell import library

    def broken(*_: object) -> None:
        raise ZeroDivisionError("as a bug would")

    monkeypatch.setattr(library, "names", broken)
    done = call("cells")
    assert done.code == 70 and "Traceback" in done.err and "this is a bug in battfleet" in done.err
