"""Configuration: TOML tables to frozen dataclasses. An unknown key is an error; all errors come at once.

One file configures one instrument:

    [collector]
    name = "mppt"                       # tag `device` of every point, folder of the journal
    bench = "bench-1"
    battery = "lfp-1"                   # optional
    kind = "libresolar_mppt"            # `collectors devices` lists them
    link = "serial:/dev/serial/by-id/usb-…"
    period_s = 1.0

    [device]                            # options of the kind: `collectors devices KIND`
    [journal]                           # see collectors.journal
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from collectors import devices, transports
from collectors.device import Device
from collectors.errors import ConfigError

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
TAKEN = ("notes", "shipper")
"""Names of journals that are not an instrument's."""
HOST_STATE = Path("/var/lib/collectors")
"""The state folder of a host that the playbooks set up."""


def load_dataclass(cls: type[T], table: Mapping[str, Any], where: str) -> tuple[T | None, list[str]]:
    """Return an instance of the dataclass made from a TOML table, and every problem found, one line each.

    `where` opens each line, for example "mppt.toml: [device]". Handles str, bool, int, float (an int is taken),
    Path, Literal, unions, nested dataclasses, and lists, tuples and string mappings of all these. A class's
    __post_init__ may raise ValueError("key: what was expected") or ConfigError with several such lines.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    unknown = [_unknown(where, key, known) for key in table if key not in known]
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, spec in known.items():
        if name in table:
            values[name], wrong = _convert(hints[name], table[name], f"{where} {name}")
            problems += wrong
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            problems.append(f"{where} {name}: missing; expected {describe_type(hints[name])}")
    if problems:
        return None, unknown + problems
    try:
        made = cls(**values)
    except ConfigError as error:
        return None, unknown + [f"{where} {line}" for line in error.problems]
    except ValueError as error:
        return None, [*unknown, f"{where} {error}"]
    return (None, unknown) if unknown else (made, [])


def _unknown(where: str, key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known) or 'none'}"
    return f"{where} {key}: unknown key; {hint}"


def _convert(hint: Any, value: Any, where: str) -> tuple[Any, list[str]]:
    """Return the value as the type hint wants it, and the problems."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return value, []
    if origin is Literal:
        ok = value in arguments and type(value) in {type(a) for a in arguments}
        return value, [] if ok else [_expected(where, hint, value)]
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where, hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            return None, [_expected(where, hint, value)]
        return load_dataclass(typing.cast("type[Any]", hint), value, where)
    if origin in (list, tuple, Sequence):
        return _convert_items(origin, arguments, value, where, hint)
    if origin in (dict, Mapping):
        return _convert_mapping(arguments, value, where, hint)
    return _convert_scalar(hint, value, where)


def _convert_union(arguments: Sequence[Any], value: Any, where: str, hint: Any) -> tuple[Any, list[str]]:
    tries = [_convert(a, value, where) for a in arguments if a is not type(None)]
    for converted, problems in tries:
        if not problems:
            return converted, []
    # A table was clearly meant for the dataclass among the choices: its own problems say more than "expected …".
    if isinstance(value, Mapping):
        detailed = [p for (_, p), a in zip(tries, arguments, strict=False) if dataclasses.is_dataclass(a)]
        if detailed:
            return None, min(detailed, key=len)
    return None, [_expected(where, hint, value)] if len(tries) > 1 else tries[0][1]


def _convert_items(origin: Any, arguments: Sequence[Any], value: Any, where: str, hint: Any) -> tuple[Any, list[str]]:
    if not isinstance(value, list):
        return None, [_expected(where, hint, value)]
    fixed = origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis)
    if fixed and len(value) != len(arguments):
        return None, [_expected(where, hint, value)]
    item_hints = arguments if fixed else [arguments[0]] * len(value)
    pairs = [_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(item_hints, value, strict=True))]
    items = [converted for converted, _ in pairs]
    return (items if origin is list else tuple(items)), [p for _, wrong in pairs for p in wrong]


def _convert_mapping(arguments: Sequence[Any], value: Any, where: str, hint: Any) -> tuple[Any, list[str]]:
    if not isinstance(value, Mapping):
        return None, [_expected(where, hint, value)]
    pairs = {k: _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    return {k: v for k, (v, _) in pairs.items()}, [p for _, wrong in pairs.values() for p in wrong]


def _convert_scalar(hint: Any, value: Any, where: str) -> tuple[Any, list[str]]:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), [] if math.isfinite(value) else [_expected(where, hint, value)]
    if hint is Path and isinstance(value, str):
        return Path(value), []
    if hint in (str, bool, int) and type(value) is hint:
        return value, []
    return None, [_expected(where, hint, value)]


_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}


def describe_type(hint: Any) -> str:
    """Return what a type hint expects, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(repr(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(a) for a in arguments if a is not type(None))
    if dataclasses.is_dataclass(hint):
        return f"a table with {', '.join(f.name for f in dataclasses.fields(hint))}"
    if origin in (list, tuple, Sequence):
        return f"a list of {describe_type(arguments[0])}"
    if origin in (dict, Mapping):
        return f"a table of {describe_type(arguments[1])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _expected(where: str, hint: Any, value: Any) -> str:
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}…"
    return f"{where}: expected {describe_type(hint)}, got {shown}"


def default_state_dir() -> Path:
    """Return systemd's $STATE_DIRECTORY, or ./.state where there is none."""
    return Path(os.environ.get("STATE_DIRECTORY", ".state").split(":")[0])


def state_dir_here() -> Path:
    """Return where a person at this host will mean: $STATE_DIRECTORY, ./.state, or what the playbooks set up."""
    if "STATE_DIRECTORY" not in os.environ and not Path(".state").exists() and os.path.lexists(HOST_STATE):
        return HOST_STATE
    return default_state_dir()


@dataclass(frozen=True, slots=True)
class Collector:
    """The [collector] table: which instrument, where, how often."""

    name: str = field(metadata={"help": "unique on this host; tag `device`, and the journal's folder"})
    bench: str = field(metadata={"help": "tag `bench`"})
    kind: str = field(metadata={"help": "a supported instrument, see `collectors devices`"})
    link: str = field(metadata={"help": "for example serial:/dev/serial/by-id/… or tcp:192.0.2.7"})
    battery: str = field(default="", metadata={"help": "tag `battery`: which battery it measures"})
    period_s: float = field(default=1.0, metadata={"help": "seconds between samples (polled instruments)"})
    report_s: float = field(default=10.0, metadata={"help": "seconds between the collector's reports on itself"})
    state_dir: Path = field(
        default_factory=default_state_dir, metadata={"help": "where journals live; default $STATE_DIRECTORY"}
    )

    def __post_init__(self) -> None:
        """Refuse names that cannot be a folder and a tag, and periods that make no sense."""
        problems = [
            f"{key}: expected letters, digits, '.', '_' or '-' (at most 63), got {value!r}"
            for key, value in (("name", self.name), ("bench", self.bench), ("battery", self.battery))
            if not NAME.fullmatch(value) and (value or key != "battery")
        ]
        if self.name in TAKEN:
            problems.append(f"name: {self.name!r} is the name of a journal that every host has; choose another")
        if not 0.001 <= self.period_s <= 86_400:
            problems.append(f"period_s: expected 0.001 to 86400, got {self.period_s}")
        if not 0.1 <= self.report_s <= 3600:
            problems.append(f"report_s: expected 0.1 to 3600, got {self.report_s}")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class Config:
    """One instrument's whole configuration, checked."""

    collector: Collector
    device: Device
    options: Any
    journal: Any

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags that every point of this collector carries."""
        tags = {"bench": self.collector.bench, "device": self.collector.name, "kind": self.device.kind}
        return tags | ({"battery": self.collector.battery} if self.collector.battery else {})


def read_toml(path: Path) -> dict[str, Any]:
    """Return the file's tables; ConfigError naming file and line when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a mark
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error


def load(path: Path) -> Config:
    """Return the checked configuration; ConfigError with every problem, file and key named."""
    from collectors.journal.settings import JournalSettings

    tables = read_toml(path)
    problems = [
        f"{path}: [{key}]: unknown table; there are: collector, device, journal"
        for key in tables
        if key not in ("collector", "device", "journal")
    ]
    wrong = [f"{path}: [{key}]: expected a table" for key, value in tables.items() if not isinstance(value, dict)]
    if wrong:
        raise ConfigError(problems + wrong)
    collector, found = load_dataclass(Collector, tables.get("collector", {}), f"{path}: [collector]")
    problems += found
    journal, found = load_dataclass(JournalSettings, tables.get("journal", {}), f"{path}: [journal]")
    problems += found
    device, options = None, None
    kind = tables.get("collector", {}).get("kind")
    if isinstance(kind, str):
        try:
            device = devices.load(kind)
        except ConfigError as error:
            problems += [f"{path}: [collector] {line}" for line in error.problems]
    if device:
        options, found = load_dataclass(device.options, tables.get("device", {}), f"{path}: [device]")
        problems += found
        link = tables["collector"].get("link")
        if isinstance(link, str):
            problems += [f"{path}: [collector] {line}" for line in transports.check(link, device)]
    if problems or collector is None or device is None:
        raise ConfigError(problems)
    return Config(collector, device, options, journal)
