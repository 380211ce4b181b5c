"""`collectors fake` serves the named instrument and rejects by name what it cannot serve."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collectors import devices

COMMAND = [sys.executable, "-m", "collectors"]


@contextmanager
def fake(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Give the running command and the link that it printed."""
    process = subprocess.Popen([*COMMAND, "fake", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        found = re.fullmatch(r'link = "(.*)"\n', process.stdout.readline())
        assert found
        yield process, found[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 0


CHANNELS = '[[device.channels]]\ninput = "AIN0"\nsignal = "battery.voltage_v"\n'


def config(folder: Path, kind: str, link: str) -> Path:
    path = folder / f"{kind}.toml"
    table = f'[collector]\nname = "x"\nbench = "b"\nkind = "{kind}"\nlink = "{link}"\nstate_dir = "{folder}/state"\n'
    path.write_text(table + (CHANNELS if kind == "labjack_t7" else ""))
    return path


@pytest.mark.parametrize("kind", devices.KINDS)
def test_every_kind_is_served_and_read_by_its_collector(tmp_path: Path, kind: str) -> None:
    port = [] if kind == "labjack_t7" else ["--port", str(tmp_path / "tty")]
    with fake(kind, *port) as (_, link):
        command = [*COMMAND, "once", "--json", str(config(tmp_path, kind, link))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "voltage_v" in done.stdout
    assert json.loads(done.stdout.splitlines()[0])


def test_faults_are_taken_from_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "tty"
    with fake("ea_el3000a", "--port", str(path)) as (process, _):
        assert path.is_symlink()
        assert process.stdin
        process.stdin.write("unplug 60\n")
        process.stdin.flush()
        for _ in range(500):
            if not path.is_symlink():
                break
            signal.sigtimedwait([], 0.01)
        assert not path.is_symlink()


def test_when_it_ends_its_port_is_gone(tmp_path: Path) -> None:
    with fake("ea_el3000a", "--port", str(tmp_path / "tty")):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["labjack_t7", "--port", "here"], "reached over tcp", 78),
        (["labjack_t7", "--port", "tcp:http"], "tcp:PORT", 78),
        (["ea_el3000a", "--port", "/absent/tty"], "no such folder: /absent", 78),
        (["ea_el3000a", "--port", "/dev/null"], "something is there already", 78),
        (["ea_el3000a", "--option", "nominal_v=big"], "nominal_v: expected a number", 78),
        (["ea_el3000a", "--option", "modell=x"], "did you mean 'model'", 78),
        (["ea_el3000a", "--option", "model"], "KEY=VALUE", 78),
        (["ea_el3000a", "--fault", "melt@1"], "melt", 78),
        (["toaster"], "toaster", 2),
    ],
)
def test_what_cannot_be_served_is_named(arguments: list[str], says: str, code: int) -> None:
    done = subprocess.run([*COMMAND, "fake", *arguments], capture_output=True, text=True, timeout=30)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert says in done.stderr


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("generation=0.5", "generation", "0.5"),
        ("serial=0012", "serial", "0012"),
        ("serial=1234567890", "serial", "1234567890"),
        ("firmware=1.10", "firmware", "1.10"),
        ('serial="quoted"', "serial", "quoted"),
        ("model=" + "9" * 5000, "model", "9" * 5000),
        ("model=" + "[" * 5000, "model", "[" * 5000),
        ("uptime_s=12", "uptime_s", 12),
        ("debug_text=false", "debug_text", False),
    ],
)
def test_an_option_that_is_text_needs_no_quotes(text: str, key: str, value: object) -> None:
    from collectors.cli.fake import _options
    from collectors.fakes.libresolar_mppt import FakeMpptOptions

    made = _options(FakeMpptOptions, (text,), "fake")
    assert getattr(made, key) == value
    assert type(getattr(made, key)) is type(value)
