"""No command overwrites a file that it reads, by whatever name; its output is complete or absent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from soc.cli import cli
from soc.errors import FileError, OverwriteError
from soc.files import refuse_overwriting, whole_file
from tests.soc.cli.conftest import Called

Call = Callable[..., Called]
Recording = Callable[..., Path]

EXPERIMENTS = """
name = "tests"
chemistry = "NMC"
nominal_ah = 3.0
voltage_min_v = 3.0
voltage_max_v = 4.2
[[ocv]]
recording = "a.csv"
temperature_degc = 25
[[run]]
recording = "a.csv"
temperature_degc = 25
"""

# Each command with each of its options that name a file to write ({out}); a.csv, cell.toml and tests.toml are read.
WRITING = {
    "estimate --out": "estimate {folder}/a.csv --cell {folder}/cell.toml --out {out}",
    "estimate --to": "estimate --follow {folder}/a.csv --cell {folder}/cell.toml --state {folder}/s.json --to {out}",
    "estimate --state": "estimate --follow {folder}/a.csv --cell {folder}/cell.toml --to {folder}/r.csv --state {out}",
    "plot --out": "plot {folder}/a.csv --cell {folder}/cell.toml --out {out}",
    "compare --plot": "compare {folder}/a.csv --cell {folder}/cell.toml --plot {out}",
    "simulate --out": "simulate --cell {folder}/cell.toml --profile {folder}/a.csv --out {out}",
    "identify --out": "identify {folder}/tests.toml --out {out}",
}
FOLDERS = {"estimate --out-dir", "identify --report"}
READ = {"identify": ("a.csv", "tests.toml")}


@pytest.fixture
def folder(recording: Recording, cell_file: Path, tmp_path: Path) -> Path:
    recording("a.csv")
    (tmp_path / "cell.toml").write_text(cell_file.read_text())
    (tmp_path / "tests.toml").write_text(EXPERIMENTS)
    return tmp_path


def test_every_option_that_names_a_file_to_write_is_tried_here() -> None:
    context = click.Context(cli)
    words = {"--out", "--out-dir", "--to", "--state", "--plot", "--report"}
    commands = [c for name in cli.list_commands(context) if (c := cli.get_command(context, name)) is not None]
    options = {f"{c.name} {option}": p for c in commands for p in c.params for option in p.opts}
    paths = {name for name, p in options.items() if isinstance(p.type, click.Path) and isinstance(p, click.Option)}
    assert paths <= {*WRITING, *FOLDERS}
    assert {name for name in options if name.split()[1] in words} == {*WRITING, *FOLDERS}


@pytest.mark.parametrize("how", ["same name", "relative", "symbolic link", "hard link"])
@pytest.mark.parametrize("option", WRITING)
def test_no_command_writes_over_its_inputs(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, option: str, how: str
) -> None:
    monkeypatch.chdir(folder)
    for name in READ.get(option.split()[0], ("a.csv", "cell.toml")):
        path = folder / name
        before = path.read_bytes()
        out = {"same name": path, "relative": Path("x") / ".." / name}.get(how, folder / f"linked-{name}")
        (folder / "x").mkdir(exist_ok=True)
        if how == "symbolic link":
            out.symlink_to(path)
        elif how == "hard link":
            out.hardlink_to(path)
        if option == "estimate --to" and out.suffix != ".csv":
            continue  # no store for it
        done = call(*WRITING[option].format(folder=folder, out=out).split())
        assert path.read_bytes() == before
        assert (done.code, "would overwrite the input" in done.err) in ((2, True), (65, False)), done.err
        assert done.code == 2 or "no store for this" in done.err


def test_a_result_folder_that_holds_a_recording_is_refused(call: Call, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "a.csv").symlink_to(folder / "a.csv")
    before = (folder / "a.csv").read_bytes()
    done = call("estimate", folder / "a.csv", "--cell", folder / "cell.toml", "--out-dir", folder / "out")
    assert done.code == 2 and "would overwrite the input" in done.err
    assert (folder / "a.csv").read_bytes() == before


def test_a_report_does_not_replace_the_experiments(call: Call, folder: Path) -> None:
    (folder / "tests.json").symlink_to(folder / "a.csv")
    done = call("identify", folder / "tests.toml", "--out", folder / "new.toml", "--report", folder)
    assert done.code == 2 and "tests.json: the result would overwrite the input" in done.err


def test_the_default_name_of_an_identified_cell_does_not_replace_the_experiments(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = call("identify", "tests.toml")  # its cell is called `tests`
    assert done.code == 2 and (folder / "tests.toml").read_text() == EXPERIMENTS


def test_the_cell_file_of_a_header_is_not_overwritten(call: Call, recording: Recording, folder: Path) -> None:
    (folder / "cell.csv.toml").write_text((folder / "cell.toml").read_text())
    (folder / "out.csv").symlink_to(folder / "cell.csv.toml")
    place = recording("b.csv", header={"cell": str(folder / "cell.csv.toml")})
    done = call("estimate", place, "--out", folder / "out.csv")
    assert done.code == 2 and "would overwrite the input" in done.err


def test_a_secret_is_not_overwritten(call: Call, folder: Path) -> None:
    (folder / "token").write_text("made up")
    (folder / "r.csv").symlink_to(folder / "token")
    place = f"influx:http://127.0.0.1:1/bat?token_file={folder}/token"
    done = call("estimate", place, "--cell", folder / "cell.toml", "--out", folder / "r.csv")
    assert done.code == 2 and (folder / "token").read_text() == "made up"


def test_standard_output_is_not_appended_to_the_recording(folder: Path) -> None:
    before = (folder / "a.csv").read_bytes()
    command = [sys.executable, "-m", "soc", "estimate", str(folder / "a.csv"), "--cell", str(folder / "cell.toml")]
    with (folder / "a.csv").open("ab") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE)
    assert done.returncode == 2 and b"would overwrite the input" in done.stderr
    assert (folder / "a.csv").read_bytes() == before


# ---- the mechanism --------------------------------------------------------------------------------------------------


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    refuse_overwriting([tmp_path / "a", tmp_path / "b", None], [tmp_path / "c", None])
    with pytest.raises(OverwriteError, match="overwrite each other"):
        refuse_overwriting([tmp_path / "a", tmp_path / "." / "a"], [])


def test_a_result_inside_an_input_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    with pytest.raises(OverwriteError, match="lies in the input folder"):
        refuse_overwriting([tmp_path / "journals" / "t7" / "a.csv"], [tmp_path / "journals"])


def test_devices_are_never_taken_for_one_file() -> None:
    refuse_overwriting(["/dev/null", "/dev/null"], ["/dev/null"])


def test_a_device_is_written_to_and_not_replaced() -> None:
    with whole_file("/dev/null") as file:
        file.write(b"gone")
    assert Path("/dev/null").is_char_device()


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_file(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a", "w") as file:
        file.write("half")
        _ = 1 / 0
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="/dev/full: cannot be written: No space left"), whole_file("/dev/full") as file:
        file.write(b"x")


@pytest.mark.parametrize("name", ["no/a", "a\0b"])
def test_an_impossible_file_name_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match=r"cannot be written"), whole_file(f"{tmp_path}/{name}"):
        pass
