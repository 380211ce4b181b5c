"""Written configurations are complete when every value is given, have named blanks otherwise, and replace no file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collectors import config, devices
from collectors.cli import cli
from collectors.cli.check import problems_of
from tests.collectors.shipper.influxdb.test_detect import RECORDED_2, serving
from tests.testing.influx import Influx

LINKS = {"serial": "serial:/dev/serial/by-id/x", "tcp": "tcp:192.0.2.7"}
CHANNELS = "channels=[{input='AIN0', signal='battery.voltage_v', scaling={divider={r1_ohm=3000, r2_ohm=1000}}}]"
REQUIRED = {"labjack_t7": ("--option", CHANNELS)}
"""What a kind needs besides a link."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code if not isinstance(result.exception, Exception) else str(result.exception)) == code
    return result


@pytest.mark.parametrize("kind", devices.KINDS)
def test_with_everything_given_the_file_is_complete(kind: str) -> None:
    link = LINKS[devices.load(kind).links[0]]
    said = call("init", kind, "--link", link, "--bench", "bench-1", "--name", "a", *REQUIRED.get(kind, ())).output
    assert problems_of(Path("a.toml")) == [] and "fill in" not in said
    loaded = config.load(Path("a.toml"))
    assert (loaded.collector.name, loaded.collector.link, loaded.device.kind) == ("a", link, kind)


@pytest.mark.parametrize("kind", devices.KINDS)
def test_every_default_that_is_shown_is_the_default(kind: str) -> None:
    call("init", kind, "--link", LINKS[devices.load(kind).links[0]], "--bench", "b", *REQUIRED.get(kind, ()))
    path = Path(f"{kind}.toml")
    before = config.load(path)
    lines = path.read_text().splitlines()
    wanted = [line for line in lines if re.match(r"# [\w.]+ = .", line) and not line.startswith("# scaling.hall")]
    assert len(wanted) > 15
    path.write_text("\n".join(line[2:] if line in wanted else line for line in lines))
    assert config.load(path) == before


@pytest.mark.parametrize("kind", devices.KINDS)
def test_blanks_are_named_and_nothing_else_is_missing(kind: str) -> None:
    said = call("init", kind, "--bench", "bench-1").output
    blanks = re.findall(r"fill in: \[+([\w.]+)\]+ (\w+)", said)
    problems = problems_of(Path(f"{kind}.toml"))
    assert ("collector", "link") in blanks
    assert len(problems) == len(blanks)
    for _, key in blanks:
        assert any(f"{key}:" in problem for problem in problems)
    filled = Path(f"{kind}.toml").read_text()
    values = {"link": LINKS[devices.load(kind).links[0]], "input": "AIN3", "signal": "battery.current_a"}
    for _, key in blanks:
        filled = filled.replace(f'{key} = ""  # FILL IN', f'{key} = "{values[key]}"')
    Path(f"{kind}.toml").write_text(filled)
    assert problems_of(Path(f"{kind}.toml")) == []


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    Path("mppt.toml").write_text("mine")
    result = CliRunner().invoke(cli, ["init", "libresolar_mppt", "--name", "mppt"])
    assert "mppt.toml: is there already" in str(result.exception)
    assert Path("mppt.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--option", "generation=9"], "generation: expected"),
        (["--option", "generatoin=0.5"], "did you mean 'generation'?"),
        (["--option", "generation"], "expected KEY=VALUE"),
        (["--link", "tcp"], "link: expected one of"),
        (["--name", "a/b"], "name: expected letters"),
        (["--output", "no/such/folder/a.toml"], "no such folder"),
    ],
)
def test_what_is_given_is_checked_before_anything_is_written(arguments: list[str], says: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["init", "libresolar_mppt", *arguments])
    assert says in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_standard_output_is_a_file_like_any_other() -> None:
    Path("a.toml").write_text(call("init", "ea_el3000a", "--link", "tcp:h:5", "--bench", "b", "-o", "-").output)
    assert problems_of(Path("a.toml")) == []


def test_a_2_needs_an_organisation_and_its_token() -> None:
    with serving(RECORDED_2) as url:
        said = call("sink", "init", url, "--bench", "bench-1").output
        assert "fill in: [[sink]] org" in said and [p for p in problems_of(Path("ship.toml")) if "org: missing" in p]
        call("sink", "init", url, "--bench", "bench-1", "--org", "lab", "-o", "b.toml")
    Path("lab-token").write_text("x")
    Path("lab-token").chmod(0o600)
    assert problems_of(Path("b.toml")) == []


def test_a_1_with_users_gets_a_user_and_the_name_of_a_password_file(influx: Influx) -> None:
    call("sink", "init", influx.url, "--bench", "bench-1")
    text = Path("ship.toml").read_text()
    assert 'dialect = "influxdb1"' in text and 'user = "bench-1"' in text and 'password_file = "lab-password"' in text
    assert "org" not in text.replace("organisation", "")


def test_a_server_that_does_not_respond_needs_a_dialect(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["sink", "init", "http://127.0.0.1:1"])
    assert "--dialect" in str(result.exception) and not list(tmp_path.iterdir())
    call("sink", "init", "http://127.0.0.1:1", "--dialect", "influxdb1", "--bench", "b")
    assert problems_of(Path("ship.toml")) == []
    assert "is there already" in str(
        CliRunner().invoke(cli, ["sink", "init", "http://127.0.0.1:1", "--dialect", "influxdb1"]).exception
    )


def test_ports_are_listed_as_json_lines() -> None:
    for line in call("ports", "--json").output.splitlines():
        assert json.loads(line)["link"].startswith("serial:/dev/")
