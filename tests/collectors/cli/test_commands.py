"""Commands that need no running collector: messages, exit codes, completeness."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from collectors import devices
from collectors.cli import cli
from collectors.errors import CollectorError

ROOT = Path(__file__).parents[3]
CONFIG = """
[collector]
name = "load"
bench = "bench-1"
kind = "ea_el3000a"
link = "serial:/dev/tty-not-there"
"""


def call(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin)


def commands() -> list[click.Command]:
    context = click.Context(cli)
    found = [cli.get_command(context, name) for name in cli.list_commands(context)]
    return [c for c in found if c is not None]


def test_every_command_explains_itself_with_an_example() -> None:
    names = {c.name for c in commands()}
    assert {"run", "once", "check", "devices", "decode"} <= names
    for command in commands():
        assert command.help, command.name
        text = call(command.name, "--help").output
        assert "collectors " in text.split("\n", 3)[-1], f"{command.name}: no example in its help"


def test_every_option_has_a_help_text() -> None:
    for command in commands():
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            silent = [p.name for p in leaf.params if isinstance(p, click.Option) and not p.help]
            assert not silent, f"{command.name} {leaf.name}: {silent}"


def test_an_unknown_command_is_wrong_usage() -> None:
    assert call("colect").exit_code == 2


def test_devices_lists_every_kind_and_its_options() -> None:
    for kind in devices.KINDS:
        assert kind in call("devices").output
        assert "[device] options" in call("devices", kind).output
    assert {d["kind"] for d in json.loads(call("devices", "--json").output)} == set(devices.KINDS)


def test_every_device_option_has_a_help_text() -> None:
    for device in json.loads(call("devices", "--json").output):
        assert [o["name"] for o in device["options"] if not o["help"]] == [], device["kind"]


def test_an_unknown_kind_is_a_configuration_error_that_lists_the_kinds() -> None:
    with pytest.raises(CollectorError, match="there are: ea_el3000a"):
        CliRunner().invoke(cli, ["devices", "toaster"], catch_exceptions=False)


def test_check_passes_a_good_file_and_names_every_mistake_of_a_bad_one(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(CONFIG)
    bad.write_text(CONFIG.replace("name", "nam").replace('kind = "ea_el3000a"', 'kind = "x"'))
    result = call("check", good)
    assert (result.exit_code, result.output) == (0, f"{good}: ok\n")
    result = call("check", good, bad)
    assert result.exit_code == 78
    assert f"{bad}: [collector] nam: unknown key; did you mean 'name'?" in result.stderr
    assert f"{bad}: [collector] name: missing" in result.stderr
    assert f"{bad}: [collector] kind: no instrument 'x'" in result.stderr
    assert json.loads(call("check", good, "--json").output) == {str(good): []}


def test_check_finds_one_name_used_twice(tmp_path: Path) -> None:
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(CONFIG)
    result = call("check", tmp_path / "a.toml", tmp_path / "b.toml")
    assert result.exit_code == 78
    assert f"also used by {tmp_path}/a.toml" in result.stderr


def test_decode_reads_a_capture_and_names_what_is_wrong() -> None:
    good = "85 01 47 08 40 0A 00 13 CD 01 FF"
    result = call("decode", "ea_el3000a", stdin=f"# captured\n{good}\n")
    assert result.exit_code == 0
    assert json.loads(result.output.splitlines()[0])
    result = call("decode", "ea_el3000a", stdin=good.replace("01 FF", "01 FE"))
    assert result.exit_code == 76
    assert "error" in result.output


def test_decode_names_the_line_that_is_not_hex() -> None:
    with pytest.raises(CollectorError, match=r"line 2: not hex"):
        CliRunner().invoke(cli, ["decode", "ea_el3000a"], input="85 01\nxyz\n", catch_exceptions=False)


def test_once_with_an_absent_port_reports_it(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(CONFIG)
    with pytest.raises(CollectorError, match="no such port") as caught:
        CliRunner().invoke(cli, ["once", str(path)], catch_exceptions=False)
    assert caught.value.exit_code == 69
