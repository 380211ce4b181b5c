"""Configuration: every mistake is named with its key, and all come at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import config
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


def test_all_mistakes_come_at_once() -> None:
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


def test_people_at_a_host_that_was_set_up_need_not_say_where_its_journals_are(
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
