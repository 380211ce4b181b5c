"""Setting up a checkout: the message for a missing library, and a second set-up that changes nothing."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

import collectors.libraries
import soc.libraries

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

CONFIG = """\
[collector]
name = "mppt"
bench = "b"
kind = "libresolar_mppt"
link = "serial:/dev/null"
"""


@pytest.mark.parametrize(
    ("extras", "known"),
    [
        (("collectors", "setup", "parquet"), collectors.libraries.LIBRARIES),
        (("soc", "notebooks"), soc.libraries.LIBRARIES),
    ],
)
def test_every_library_of_the_extras_is_listed_as_one_that_can_be_missing(
    extras: tuple[str, ...], known: Mapping[str, object]
) -> None:
    names = {re.match(r"[\w.-]+", need)[0] for extra in extras for need in EXTRAS[extra]}  # type: ignore[index]
    not_imported = {"battfleet", "click", "ipykernel", "nbclient"}  # without click, no command can print anything
    owners = importlib.metadata.packages_distributions()
    found = {name for module in known for name in owners.get(module, ())}
    assert names - not_imported <= found


def run_without(module: str, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where importing the module fails as if it were not installed."""
    program, *arguments = shlex.split(command)
    code = f"import sys; sys.modules[{module!r}] = None; from {program}.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "command", "part"),
    [
        ("numba", "soc estimate a.csv --cell lg_hg2", "soc"),
        ("pyarrow", "soc estimate a.csv --cell lg_hg2", "soc"),
        ("scipy", "soc identify experiments.toml", "soc"),
        ("matplotlib", "soc plot a.csv --cell lg_hg2 --out a.png", "soc"),
        ("filterpy", "soc estimate a.csv --cell lg_hg2 --filter filterpy_ukf --soc0 0.5", "dev"),
        ("numpy", "soc cells", "soc"),
        ("numpy", "collectors tail", "bench"),
        ("zstandard", "collectors run mppt.toml", "bench"),
        ("serial", "collectors once mppt.toml", "bench"),
        ("orjson", "collectors export mppt", "bench"),
        ("rich", "collectors bench --influx none --for 1", "bench"),
    ],
)
def test_a_missing_library_is_named_with_the_setup_that_installs_it(
    module: str, command: str, part: str, tmp_path: Path
) -> None:
    (tmp_path / "mppt.toml").write_text(CONFIG)
    (tmp_path / "a.csv").write_text(
        "time_s,current_a,voltage_v,temperature_degc\n" + "".join(f"{t},-1.0,3.7,25\n" for t in range(20))
    )
    (tmp_path / "experiments.toml").write_text("")
    done = run_without(module, command, tmp_path)
    assert done.returncode == 78, done.stderr
    assert f"run: scripts/setup {part}" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_import_error_within_the_project_is_a_bug_with_a_traceback(tmp_path: Path) -> None:
    done = run_without("collectors.journal.reader", "collectors tail", tmp_path)
    assert done.returncode == 70 and "Traceback" in done.stderr


def test_messages_and_pages_name_scripts_setup_and_no_pip() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    sources = [path for folder in ("collectors", "soc", "ansible") for path in (ROOT / folder).rglob("*.py")]
    wrong = [path for path in [*pages, *sources] if re.search(r"pip install.{0,3}battfleet\[", path.read_text())]
    assert not wrong


def shell(text: str) -> subprocess.CompletedProcess[str]:
    """Run lines of POSIX sh with the functions of scripts/venv.sh."""
    lines = f'set -eu\nroot={shlex.quote(str(ROOT))}\n. "$root/scripts/venv.sh"\n{text}'
    return subprocess.run(["sh", "-c", lines], capture_output=True, text=True)


def test_a_virtual_environment_that_has_the_extras_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    folder = shlex.quote(str(tmp_path))
    stamp = f'_version=$("$(find_python)" -c "import sys; print(sys.version)"); for e in soc build; do ' \
            f'stamp_of $e >{folder}/stamp-$e; done; '  # fmt: skip
    done = shell(f'{stamp} ensure_venv {folder} "soc build"')
    assert (done.returncode, done.stderr) == (0, "")


def test_a_python_that_was_updated_with_its_venv_package_is_not_set_up_again(tmp_path: Path) -> None:
    python, version = tmp_path / "python", tmp_path / "version"
    version.write_text("3.11.2 old\n")
    python.write_text(
        f'#!/bin/sh\ncase $* in -c*) cat {shlex.quote(str(version))} ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    python.chmod(0o755)
    folder = shlex.quote(str(tmp_path / "venv"))
    done = shell(
        f"find_python() {{ echo {shlex.quote(str(python))}; }}\n"
        "pip_install() { :; }\n"
        f"make_venv() {{ echo 3.11.2 new >{shlex.quote(str(version))}; mkdir -p $1/bin; ln -s $2 $1/bin/python; }}\n"
        f'ensure_venv {folder} "soc build"; echo second >&2; ensure_venv {folder} "soc build"'
    )
    assert done.returncode == 0 and done.stderr.count("setting up") == 1
    assert done.stderr.endswith("second\n")


def test_a_user_without_rights_to_install_packages_gets_only_the_command_to_run() -> None:
    done = shell("as_root() { return 1; }\ninstall_packages git python3-venv || echo code $?")
    assert done.stdout == "code 69\n"
    assert done.stderr == (
        "please run this once, as root or with sudo, then start again: apt-get install git python3-venv\n"
    )


def test_an_extra_that_contains_others_stands_for_them() -> None:
    command = [sys.executable, ROOT / "scripts" / "locked.py", "--extras", "notebooks", "fleet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["collectors", "fleet", "notebooks", "soc"]


def test_progress_ends_with_the_exit_code_of_pip_and_repeats_its_errors() -> None:
    done = shell("printf '%s\\n' 'Collecting a==1' 'ERROR: no hash' 'exit 3' | show_progress 2 || echo code $?")
    assert done.stdout == "code 3\n" and "ERROR: no hash" in done.stderr


def test_an_unknown_part_is_refused_with_the_parts_there_are() -> None:
    done = subprocess.run([ROOT / "scripts" / "setup", "benches"], capture_output=True, text=True)
    assert done.returncode == 2 and "bench, soc, fleet, all or dev" in done.stderr
