"""Every example of every help text, of README and of the pages runs, or a reason for not running it is listed here.

An example that neither runs nor has a reason fails. All examples must name existing commands and options. Only the
project's commands and harmless ones are run, in a copy of the sandbox.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing import examples, sandbox
from tests.testing.examples import Example
from tests.testing.influx import INFLUXD, MISSING

EXAMPLES = [*examples.of_help(), *examples.of_pages()]
LINES = [example for example in EXAMPLES if not example.is_inline]

NOT_HERE = {
    r"ansible-(playbook|vault) ": "changes hosts: tests/ansible runs the playbooks on booted hosts",
    r"battfleet-backup |influx -host|install -d|tar -xf|systemctl ": "on the server: tests/ansible restores a backup",
    r"(ssh|scp|ssh-keygen) ": "needs another host",
    r"sudo (tar|mkdir|cp|sed|env) ": "moves a card's journals on a bench as root",
    r"git |for group in|done$|cp group_vars|\$\{EDITOR": "edits this checkout",
    r"scripts/|\. \.venv": "sets up this checkout: tests/test_setup.py",
    r"soc estimate --follow \S+ …$": "shows that there is more to say; the whole line is in `soc estimate --help`",
}
"""What cannot run here, and why."""

SUBSTITUTES = [
    (r"\bsudo ", "", "the folders are the user's own"),
    (r"/etc/battfleet/", "etc/battfleet/", "in the sandbox"),
    (r"/var/lib/(collectors|battfleet)\b", ".state", "in the sandbox"),
    (r"/var/lib/soc/", "soc-state/", "in the sandbox"),
    (r"/tmp/ttyLOAD", "ttyLOAD", "in the sandbox"),
    (r"http://localhost:8086", "{url}", "the sandbox's database"),
    (r"--for 60\b", "--for 4", "shorter"),
    (r"--hours (3|72)\b", "--hours 0.3", "shorter"),
    (r"tcp:1502", "tcp:0", "a free port"),
    (r"\| influx write .*", "| cat >points.lp", "the vendor's client is not a package of Debian"),
    (r"--boot 3f0c91 mppt", "--boot 3f0c91 mppt --state unknown", "shipping would wait for such a boot"),
    (r"soc score \*\.csv", "soc score drive*.csv", "the folder holds other files, too"),
]
"""What is another thing here than where somebody types the example."""

EXIT_CODES = {
    r"collectors status": {0, 69},  # as documented: no collector runs in the sandbox
}
"""Exit codes besides 0 that are right."""

NOT_THERE_YET = {r"collectors init": "mppt.toml", r"collectors sink init": "ship.toml"}
"""Files that an example makes."""

SERVICES = r"collectors (run|fake|ship(?!.*--(once|verify))|tail --follow)|soc estimate --follow"
"""What runs until it is stopped: it must still run after SERVICE_S, without an error."""
SERVICE_S = 5.0
PATIENCE_S = 240.0


def reason(example: Example) -> str | None:
    """Return why an example cannot run here, or None."""
    return next((why for pattern, why in NOT_HERE.items() if re.match(pattern, example.text)), None)


HARMLESS = {"collectors", "soc", "echo", "eval", "jq", "influx"}
"""The programs that an example may run here; `influx` is replaced. Whatever else needs a reason not to be run."""


def programs(text: str) -> set[str]:
    """Return the programs that a line runs, behind sudo."""
    words = [[word for word in words if word != "sudo"] for words in examples.parts(text)]
    return {each[0] for each in words if each}


RUN = list(dict.fromkeys(e.text for e in LINES if reason(e) is None and programs(e.text) <= HARMLESS))


def test_the_examples_are_found() -> None:
    assert len(examples.of_help()) > 70 and len(examples.of_pages()) > 90
    assert len(RUN) > 60


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_names_existing_commands_and_options(example: Example) -> None:
    found = [problem for words in examples.parts(example.text) for problem in examples.problems(words)]
    assert not found


@pytest.mark.parametrize("example", [e for e in LINES if reason(e) is None], ids=str)
def test_an_example_without_a_reason_not_to_be_run_is_harmless(example: Example) -> None:
    assert programs(example.text) <= HARMLESS, "add a reason to NOT_HERE"


def test_every_reason_is_needed() -> None:
    unused = [pattern for pattern in NOT_HERE if not any(re.match(pattern, e.text) for e in LINES)]
    assert not unused
    assert not [pattern for pattern, _, _ in SUBSTITUTES if not any(re.search(pattern, e.text) for e in LINES)]


@pytest.mark.parametrize(
    "wrong", ["collectors tial", "collectors tail --rowz 3", "soc cells | soc estimat a.csv", "scripts/nothing"]
)
def test_a_wrong_example_is_found(wrong: str) -> None:
    assert [problem for words in examples.parts(wrong) for problem in examples.problems(words)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    if INFLUXD is None:
        pytest.skip(MISSING)
    with sandbox.prepared(tmp_path_factory.mktemp("examples")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.xdist_group("examples")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("text", RUN)
def test_an_example_runs_with_the_documented_result(text: str, files: sandbox.Sandbox, tmp_path: Path) -> None:
    if "jq" in text and shutil.which("jq") is None:
        pytest.skip("needs jq")
    files.copy_to(tmp_path)
    for pattern, name in NOT_THERE_YET.items():
        if re.search(pattern, text):
            (tmp_path / name).unlink()
    command = text
    for pattern, replacement, _ in SUBSTITUTES:
        command = re.sub(pattern, replacement.format(url=files.url), command)
    is_service = re.search(SERVICES, command) is not None
    process = subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=tmp_path,
        env=sandbox.environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    if not is_service:
        process.stdin.write(b"y\n")
        process.stdin.close()
        process.stdin = None
    try:
        out, err = process.communicate(timeout=SERVICE_S if is_service else PATIENCE_S)
        has_ended = True
    except subprocess.TimeoutExpired:
        has_ended = False
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    said = f"{command}\nexit {process.returncode}\n{out.decode()[-2000:]}\n{err.decode()[-4000:]}"
    assert "Traceback" not in said and "error" not in err.decode().lower(), said
    if is_service:
        assert not has_ended, said
    else:
        right = next((codes for pattern, codes in EXIT_CODES.items() if re.search(pattern, command)), {0})
        assert has_ended and process.returncode in right, said


YAML = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in examples.pages()
    for number, block in enumerate(re.findall(r"```ya?ml\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
]


@pytest.mark.parametrize("block", YAML)
def test_yaml_in_a_page_is_yaml(block: str) -> None:
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(block) is not None


TOML = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in examples.pages()
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
]


@pytest.mark.parametrize("block", TOML)
def test_a_configuration_in_a_page_can_be_read(block: str, tmp_path: Path) -> None:
    """Those of instruments and shippers pass `collectors check`; others are TOML."""
    import tomllib

    from collectors.cli.check import problems_of

    tables = tomllib.loads(block)
    path = tmp_path / "a.toml"
    path.write_text(block)
    if "collector" in tables:
        assert problems_of(path) == []
