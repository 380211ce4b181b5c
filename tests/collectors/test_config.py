"""Configuration: all mistakes are reported at once, each with its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from collectors import config
from collectors.cli import cli
from collectors.errors import ConfigError


@dataclass(frozen=True)
class Burden:
    ohm: float
    turns: int = 1

    def __post_init__(self) -> None:
        if self.ohm <= 0:
            raise ValueError(f"ohm: expected more than 0, got {self.ohm}")


@dataclass(frozen=True)
class Options:
    port: str
    mode: Literal["a", "b"] = "a"
    ratio: float = 1.0
    burdens: tuple[Burden, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    scaling: Burden | str | None = None
    flag: bool = False
    pair: tuple[int, int] = (0, 1)


def load(**table: object) -> tuple[Options | None, list[str]]:
    return config.load_dataclass(Options, table, "x.toml: [device]")


def test_tables_become_frozen_values() -> None:
    options, problems = load(
        port="p", mode="b", ratio=2, burdens=[{"ohm": 100}], limits={"a": 1}, scaling={"ohm": 5.0}, pair=[3, 4]
    )
    assert not problems
    assert options == Options("p", "b", 2.0, (Burden(100.0),), {"a": 1.0}, Burden(5.0), False, (3, 4))
    assert isinstance(options.ratio, float)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "x.toml: [device] port: missing; expected text"),
        ({"port": 3}, "x.toml: [device] port: expected text, got 3"),
        ({"port": "p", "raito": 2}, "x.toml: [device] raito: unknown key; did you mean 'ratio'?"),
        ({"port": "p", "mode": "c"}, "x.toml: [device] mode: expected 'a' or 'b', got 'c'"),
        ({"port": "p", "ratio": True}, "x.toml: [device] ratio: expected a number, got True"),
        ({"port": "p", "ratio": float("nan")}, "x.toml: [device] ratio: expected a number, got nan"),
        ({"port": "p", "burdens": [{"ohm": 0}]}, "x.toml: [device] burdens[0] ohm: expected more than 0, got 0.0"),
        ({"port": "p", "burdens": {"ohm": 0}}, "x.toml: [device] burdens: expected a list of a table with ohm, turns"),
        ({"port": "p", "scaling": {"ohms": 1}}, "x.toml: [device] scaling ohms: unknown key; did you mean 'ohm'?"),
        ({"port": "p", "limits": {"a": "x"}}, "x.toml: [device] limits.a: expected a number, got 'x'"),
        ({"port": "p", "flag": 1}, "x.toml: [device] flag: expected true or false, got 1"),
        ({"port": "p", "pair": [1]}, "x.toml: [device] pair: expected a list of a whole number"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_was_expected(table: dict[str, object], says: str) -> None:
    options, problems = load(**table)
    assert options is None
    assert any(p.startswith(says) for p in problems), problems


def test_all_mistakes_are_reported_at_once() -> None:
    _, problems = load(prot="p", mode="c", ratio="x")
    assert len(problems) == 4  # unknown key, missing port, mode, ratio


@given(st.dictionaries(st.sampled_from(["port", "mode", "ratio", "burdens", "scaling", "pair"]), st.from_type(object)))
def test_no_table_makes_anything_but_options_or_problems(table: dict[str, object]) -> None:
    options, problems = load(**table)
    assert (options is None) == bool(problems)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return caught.value.problems


GOOD = """
[collector]
name = "load"
bench = "bench-1"
kind = "ea_el3000a"
link = "serial:/dev/ttyUSB0"
"""


def test_a_good_file_gives_tags_and_defaults(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, GOOD))
    assert loaded.tags == {"bench": "bench-1", "device": "load", "kind": "ea_el3000a"}
    assert loaded.collector.period_s == 1.0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "load"', 'name = "a/b"', "[collector] name: expected letters"),
        ('kind = "ea_el3000a"', 'kind = "ea"', "[collector] kind: no instrument 'ea'; there are:"),
        ("serial:/dev/ttyUSB0", "seriell:x", "[collector] link: expected one of"),
        ("serial:/dev/ttyUSB0", "serial:/dev/ttyUSB0?parity=X", "[collector] link: parity: expected N, E or O"),
        ("serial:/dev/ttyUSB0", "serial:/dev/ttyUSB0?baud=fast", "[collector] link: serial options must be numbers"),
        ("serial:/dev/ttyUSB0", f"serial:/dev/ttyUSB0?baud={'9' * 5000}", "[collector] link: serial options must be"),
        (
            "serial:/dev/ttyUSB0",
            f"tcp:{'a' * 70}.example:1",
            "[collector] link: expected the name or address of a host",
        ),
        ("serial:/dev/ttyUSB0", "tcp:a..b:1", "[collector] link: expected the name or address of a host"),
        ("serial:/dev/ttyUSB0", f"tcp:x:{'9' * 5000}", "[collector] link: port: expected 1 to 65535"),
        ("[collector]", "period_s = 0\n[collector]", "[period_s]: unknown table"),
        ("bench = ", "period_s = 0\nbench = ", "[collector] period_s: expected 0.001 to 86400"),
        ('link = "serial:/dev/ttyUSB0"', "", "[collector] link: missing"),
        ("[collector]", "[collector", "c.toml: "),
    ],
)
def test_a_wrong_file_names_file_and_key(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    assert any(p.startswith(str(path)) and says in p for p in problems_of(path)), problems_of(path)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "none.toml") == [f"{tmp_path}/none.toml: No such file or directory"]


def test_commands_on_a_provisioned_host_find_its_journals_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(config, "HOST_STATE", tmp_path / "host")
    assert config.state_dir_here() == Path(".state")
    (tmp_path / "host").symlink_to("/proc/1/root/only-root-may-look")
    assert config.state_dir_here() == tmp_path / "host"
    assert config.default_state_dir() == Path(".state"), "a collector that is started by hand keeps to its own folder"
    (tmp_path / ".state").mkdir()
    assert config.state_dir_here() == Path(".state")
    monkeypatch.setenv("STATE_DIRECTORY", "/x:/y")
    assert config.state_dir_here() == Path("/x")


MESSY = """
[collector]
name = "a/b"
bench = "b c"
kind = {kind}
link = "serial:/dev/ttyUSB0?baud=fast"
period_s = "1"

[device]
timeout_s = "long"
chanels = 3

[journal]
flush_s = "x"
"""


def heads(problems: list[str], path: Path) -> list[str]:
    """Return which table and key each problem is about."""
    return [problem.removeprefix(f"{path}: ").partition(": ")[0] for problem in problems]


def test_a_wrong_type_hides_no_other_mistake(tmp_path: Path) -> None:
    path = write(tmp_path, MESSY.format(kind='"ea_el3000a"'))
    assert {
        "[collector] name",
        "[collector] bench",
        "[collector] period_s",
        "[collector] link",
        "[device] timeout_s",
        "[device] chanels",
        "[journal] flush_s",
    } == set(heads(problems_of(path), path))


def test_a_missing_key_hides_no_other_mistake(tmp_path: Path) -> None:
    path = write(tmp_path, "[collector]\nname = 5\nreport_s = 0\n")
    assert set(heads(problems_of(path), path)) == {
        f"[collector] {key}" for key in ("name", "bench", "kind", "link", "report_s")
    }


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ('"ea_el3000"', "no instrument 'ea_el3000'; did you mean 'ea_el3000b'? there are:"),
        ('"multimeter"', "no instrument 'multimeter'; there are:"),
        ("3", "expected text, got 3; put it in quotes"),
        ('["ea_el3000a"]', "expected text, got ['ea_el3000a']"),
    ],
)
def test_an_unknown_kind_hides_no_mistake_that_can_be_seen_without_it(tmp_path: Path, kind: str, says: str) -> None:
    path = write(tmp_path, MESSY.format(kind=kind))
    problems = problems_of(path)
    assert {"[collector] kind", "[device] timeout_s", "[device] chanels", "[collector] link"} <= set(
        heads(problems, path)
    )
    assert any(f"[collector] kind: {says}" in problem for problem in problems), problems


def test_a_key_that_some_kind_takes_is_no_mistake_while_the_kind_is_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("ea_el3000a", "multimeter") + "[device]\nretries = 2\nbin_s = 0.1\n")
    assert heads(problems_of(path), path) == ["[collector] kind"]


def test_a_mistake_that_follows_from_another_is_not_reported() -> None:
    _, problems = load(port="p", burdens=[{"ohm": "x"}, {"ohm": 0}])
    assert [problem.partition(": expected")[0] for problem in problems] == [
        "x.toml: [device] burdens[0] ohm",
        "x.toml: [device] burdens[1] ohm",
    ]


def test_an_invalid_table_hides_no_other_mistake(tmp_path: Path) -> None:
    path = write(tmp_path, 'collector = 3\njournal = []\nname = "x"\n[device]\nretries = "x"\n')
    found = heads(problems_of(path), path)
    assert {"[collector]", "[journal]", "[name]", "[device] retries"} <= set(found)


@pytest.mark.parametrize(("name", "content"), [("ship.toml", ""), ("ship.toml", "# later\n"), ("x.toml", "[ship]\n")])
def test_a_shipper_file_is_checked_as_a_shipper_file(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    result = CliRunner().invoke(cli, ["check", str(path)])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 78
    assert f"{path}: [ship] bench: missing" in result.stderr
    assert "[collector]" not in result.stderr
    with pytest.raises(ConfigError, match="collectors ship"):
        config.load(path)


def test_an_empty_file_is_reported_as_empty(tmp_path: Path) -> None:
    assert problems_of(write(tmp_path, "# nothing yet\n")) == [
        f"{tmp_path}/c.toml: empty; expected [collector] and [device], or [ship] and [[sink]] of a shipper"
    ]


def test_a_serial_number_needs_no_quotes_and_unquoted_other_text_is_explained(tmp_path: Path) -> None:
    channel = '[[device.channels]]\ninput = "AIN0"\nsignal = "battery.voltage_v"\n'
    t7 = GOOD.replace("ea_el3000a", "labjack_t7").replace("serial:/dev/ttyUSB0", "tcp:192.0.2.7")
    path = write(tmp_path, f"{t7}[device]\nserial_number = 470012345\n{channel}")
    assert config.load(path).options.serial_number == "470012345"
    mppt = GOOD.replace("ea_el3000a", "libresolar_mppt")
    assert config.load(write(tmp_path, f"{mppt}[device]\ngeneration = 0.5\n")).options.generation == "0.5"
    assert problems_of(write(tmp_path, GOOD.replace('"bench-1"', "1"))) == [
        f"{tmp_path}/c.toml: [collector] bench: expected text, got 1; put it in quotes"
    ]


HOSTILE = {
    "many digits": "period_s = " + "9" * 400,
    "more digits than Python reads": "period_s = " + "9" * 5000,
    "many hexadecimal digits": "period_s = 0x" + "f" * 5000,
    "a whole number of many digits": "[device]\nretries = " + "9" * 400,
    "infinity": "period_s = inf",
    "deep lists": "x = " + "[" * 8000,
    "deep tables": "x = " + "{a=" * 5000,
    "a deep value": "period_s = " + "[" * 200 + "]" * 200,
    "deep keys": "[" + ".".join("a" * 4000) + "]",
    "NUL in a path": 'state_dir = "a\\u0000b"',
    "NUL in a link": 'link = "serial:a\\u0000b"',
    "a host that is none": f'link = "tcp:{"a" * 70}.example"',
    "a long line": "x = [" + "0," * 500_000 + "]",
    "many unknown keys": "\n".join(f"k{i} = 1" for i in range(20_000)),
    "too long": "# comment\n" * 1_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("command", ["check", "once", "run"])
def test_hostile_text_is_a_configuration_error_of_few_lines(tmp_path: Path, command: str, text: str) -> None:
    path = write(tmp_path, f"[collector]\n{text}\n")
    result = CliRunner().invoke(cli, [command, str(path)])
    assert isinstance(result.exception, ConfigError | SystemExit), result.exception
    if isinstance(result.exception, SystemExit):
        assert result.exit_code == 78
        problems = result.stderr.splitlines()
    else:
        problems = result.exception.problems
    assert 1 <= len(problems) <= 40
    assert all(problem.startswith(str(path)) and len(problem) < 600 for problem in problems), problems


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_value_of_any_key_is_taken_or_refused(value: object) -> None:
    for key in ("port", "mode", "ratio", "burdens", "limits", "scaling", "flag", "pair"):
        options, problems = config.load_dataclass(Options, {"port": "p", key: value}, "x")
        assert (options is None) == bool(problems)
