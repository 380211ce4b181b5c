"""Configuration: TOML tables to frozen dataclasses. An unknown key is an error; all errors are reported at once.

One file configures one instrument:

    [collector]
    name = "mppt"                       # tag `device` of every point, directory of the journal
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
import os
import re
import reprlib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from collectors import devices, transports
from collectors.device import Device
from collectors.errors import ConfigError

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
TAKEN = ("notes", "shipper")
"""Journal names that are reserved: they are not those of an instrument."""
MOST_NUMBER = 1e18
"""Configured numbers must be below this in absolute value; others are mistakes and would break computations."""
MOST_BYTES, MOST_LINE = 262_144, 16_384
"""Maximum size of a configuration file in bytes. A parser's time may grow with the square of a line's length."""
MOST_UNKNOWN = 20
"""Maximum number of unknown keys of a table that are listed."""
LONGEST_KEY = 64
"""No close match is searched for a key longer than this."""
HOST_STATE = Path("/var/lib/collectors")
"""The state directory of a host that the playbooks set up."""


def load_dataclass(cls: type[T], table: Mapping[str, Any], where: str) -> tuple[T | None, list[str]]:
    """Return an instance of the dataclass made from a TOML table, and every problem found, one line each.

    `where` starts each line, for example "mppt.toml: [device]". Handles str, bool, int, float (an int is accepted),
    Path, Literal, unions, nested dataclasses, and lists, tuples and string mappings of all these. A class's
    __post_init__ may raise ValueError("key: what was expected") or ConfigError with several such lines. It is called
    even when some keys could not be converted, with stand-ins for these, so that no mistake hides another.

    Field metadata "number_is_text": a whole number is accepted as its digits (a serial number without quotes).
    """
    made, problems = _load(cls, table, where)
    return (None if problems else made), problems


def _load(cls: type[T], table: Mapping[str, Any], where: str) -> tuple[T | None, list[str]]:
    """Return an instance, also one made with stand-ins for wrong values where that is possible, and the problems."""
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    unknown = _unknown_keys(where, table, known)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, spec in known.items():
        has_default = spec.default is not dataclasses.MISSING or spec.default_factory is not dataclasses.MISSING
        if name in table:
            value = table[name]
            if spec.metadata.get("number_is_text") and type(value) is int and abs(value) < MOST_NUMBER:
                value = str(value)
            converted, wrong = _convert(hints[name], value, f"{where} {name}")
            problems += wrong
            if not (wrong and converted is _NOTHING):
                values[name] = converted
        elif not has_default:
            problems.append(f"{where} {name}: missing; expected {describe_type(hints[name])}")
        if name not in values and not has_default:
            values[name] = _stand_in(hints[name])
    if _NOTHING in values.values():
        return None, unknown + problems
    try:
        return cls(**values), unknown + problems
    except ConfigError as error:
        found = error.problems
    except ValueError as error:
        found = [str(error)]
    wrong_paths = [p.removeprefix(where).partition(":")[0].strip() for p in problems]
    return None, unknown + problems + [f"{where} {line}" for line in found if not _follows(line, wrong_paths)]


def _follows(line: str, wrong_paths: Sequence[str]) -> bool:
    """Return whether a problem may only follow from a known one: it names a key that is wrong already."""
    words = set(re.findall(r"\w+", line))
    return any(line.startswith(path) or re.findall(r"\w+", path)[-1:][0] in words for path in wrong_paths if path)


_NOTHING = object()
"""Marks a value that cannot be made."""


def _stand_in(hint: Any) -> Any:
    """Return a value of the type, for checking the others; _NOTHING where there is no obvious one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return None if type(None) in arguments else _stand_in(arguments[0])
    if origin in (tuple, list, Sequence):
        return ()
    if origin in (dict, Mapping):
        return {}
    return {str: "", bool: False, int: 1, float: 1.0, Path: Path()}.get(hint, _NOTHING)


def _unknown_keys(where: str, table: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Return a line for each unknown key; beyond MOST_UNKNOWN one line for the rest."""
    keys = [key for key in table if key not in known]
    lines = [_unknown(where, key, known) for key in keys[:MOST_UNKNOWN]]
    left = len(keys) - len(lines)
    return lines + ([f"{where}: {left} more unknown keys"] if left else [])


def _unknown(where: str, key: str, known: Mapping[str, Any]) -> str:
    return f"{where} {_cut_short(key)}: unknown key; {_hint(key, known)}"


def _hint(key: str, known: Iterable[str]) -> str:
    """Return the key that may have been meant, or the known keys."""
    close = difflib.get_close_matches(key, known, n=1) if len(key) <= LONGEST_KEY else []
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known) or 'none'}"


def _convert(hint: Any, value: Any, where: str) -> tuple[Any, list[str]]:
    """Return the value as the type hint requires it, and the problems.

    With problems the value is a stand-in for checking others, or _NOTHING.
    """
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return value, []
    if origin is Literal:
        return _convert_literal(hint, arguments, value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where, hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            return _NOTHING, [_expected(where, hint, value)]
        made, problems = _load(typing.cast("type[Any]", hint), value, where)
        return (_NOTHING if made is None else made), problems
    if origin in (list, tuple, Sequence):
        return _convert_items(origin, arguments, value, where, hint)
    if origin in (dict, Mapping):
        return _convert_mapping(arguments, value, where, hint)
    return _convert_scalar(hint, value, where)


def is_valid(hint: Any, value: Any) -> bool:
    """Return whether a value is accepted for this type."""
    return not _convert(hint, value, "")[1]


def _convert_literal(hint: Any, arguments: Sequence[Any], value: Any, where: str) -> tuple[Any, list[str]]:
    """Return the value if it is one of the choices; a number is accepted as the text that it is written as."""
    if type(value) in (int, float) and abs(value) < MOST_NUMBER and repr(value) in arguments:
        return repr(value), []
    is_one = isinstance(value, str | int | float) and value in arguments and type(value) in {type(a) for a in arguments}
    return (value, []) if is_one else (_NOTHING, [_expected(where, hint, value)])


def _convert_union(arguments: Sequence[Any], value: Any, where: str, hint: Any) -> tuple[Any, list[str]]:
    tries = [_convert(a, value, where) for a in arguments if a is not type(None)]
    for converted, problems in tries:
        if not problems:
            return converted, []
    # A table can only be meant for the dataclass among the choices: its own problems say more than "expected …".
    if isinstance(value, Mapping):
        detailed = [p for (_, p), a in zip(tries, arguments, strict=False) if dataclasses.is_dataclass(a)]
        if detailed:
            return _NOTHING, min(detailed, key=len)
    return _NOTHING, [_expected(where, hint, value)] if len(tries) > 1 else tries[0][1]


def _convert_items(origin: Any, arguments: Sequence[Any], value: Any, where: str, hint: Any) -> tuple[Any, list[str]]:
    if not isinstance(value, list):
        return _NOTHING, [_expected(where, hint, value)]
    fixed = origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis)
    if fixed and len(value) != len(arguments):
        return _NOTHING, [_expected(where, hint, value)]
    item_hints = arguments if fixed else [arguments[0]] * len(value)
    pairs = [_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(item_hints, value, strict=True))]
    problems = [p for _, wrong in pairs for p in wrong]
    items = [converted for converted, _ in pairs]
    if _NOTHING in items:
        return _NOTHING, problems
    return (items if origin is list else tuple(items)), problems


def _convert_mapping(arguments: Sequence[Any], value: Any, where: str, hint: Any) -> tuple[Any, list[str]]:
    if not isinstance(value, Mapping):
        return _NOTHING, [_expected(where, hint, value)]
    pairs = {k: _convert(arguments[1], v, f"{where}.{_cut_short(k)}") for k, v in value.items()}
    problems = [p for _, wrong in pairs.values() for p in wrong]
    return {k: v for k, (v, _) in pairs.items()} if not problems else _NOTHING, problems


def _convert_scalar(hint: Any, value: Any, where: str) -> tuple[Any, list[str]]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not abs(value) < MOST_NUMBER:  # NaN is rejected too
        return _NOTHING, [_expected(where, hint, value)]
    if hint is float and is_number:
        return float(value), []
    if isinstance(value, str) and hint in (str, Path) and "\0" in value:
        return _NOTHING, [f"{where}: expected {describe_type(hint)} without NUL characters, got {_shown(value)}"]
    if hint is Path and isinstance(value, str):
        return Path(value), []
    if hint in (str, bool, int) and type(value) is hint:
        return value, []
    quotes = "; put it in quotes" if hint is str and is_number else ""
    return _NOTHING, [_expected(where, hint, value) + quotes]


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
        fixed = f", {len(arguments)} of them" if origin is tuple and arguments[-1] is not Ellipsis else ""
        return f"a list of {describe_type(arguments[0])}{fixed}"
    if origin in (dict, Mapping):
        return f"a table of {describe_type(arguments[1])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _expected(where: str, hint: Any, value: Any) -> str:
    return f"{where}: expected {describe_type(hint)}, got {_shown(value)}"


class _Repr(reprlib.Repr):
    """Formats values of any size and depth in little time and space."""

    def repr_int(self, value: int, level: int) -> str:
        """Return the number, or its length: Python refuses to format one of more than 4300 digits."""
        del level
        return repr(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = 60
_REPR.maxlevel = 3


def _shown(value: Any) -> str:
    return _cut_short(_REPR.repr(value))


def _cut_short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def default_state_dir() -> Path:
    """Return systemd's $STATE_DIRECTORY, or ./.state if it is not set."""
    return Path(os.environ.get("STATE_DIRECTORY", ".state").split(":")[0])


def state_dir_here() -> Path:
    """Return the state directory for a user at this host: $STATE_DIRECTORY, ./.state, or that of the playbooks."""
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
        default_factory=default_state_dir,
        metadata={"help": "where journals live", "default": "$STATE_DIRECTORY, else .state"},
    )

    def __post_init__(self) -> None:
        """Reject names that cannot be a directory and a tag, and periods out of range."""
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
    """One instrument's complete configuration, checked."""

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
    """Return the file's tables; ConfigError naming file and line when it cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(f"{path}: longer than {MOST_BYTES} bytes, so it is no configuration")
        for number, line in enumerate(content.split(b"\n"), start=1):
            if len(line) > MOST_LINE:
                raise ConfigError(f"{path}: line {number}: longer than {MOST_LINE} bytes, so it is no configuration")
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors write a byte order mark
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: lists or tables nested too deep") from error
    except ValueError as error:  # TOMLDecodeError; a number with very many digits; a path with NUL in it
        raise ConfigError(f"{_cut_short(str(path))!r}: {error}" if "\0" in str(path) else f"{path}: {error}") from error


TABLES = ("collector", "device", "journal")
SHIPPER_TABLES = ("ship", "sink")


def is_of_shipper(tables: Mapping[str, Any], path: Path) -> bool:
    """Return whether these are a shipper's tables; a file with no table that decides it is classified by its name."""
    if tables.keys() & set(SHIPPER_TABLES):
        return True
    return path.stem == "ship" and not tables.keys() & set(TABLES)


def load(path: Path) -> Config:
    """Return the checked configuration; ConfigError with every problem, naming file and key."""
    from collectors.journal.settings import JournalSettings

    tables = read_toml(path)
    if is_of_shipper(tables, path) and not tables.keys() & set(TABLES):
        raise ConfigError(f"{path}: the configuration of a shipper, for `collectors ship`; expected an instrument's")
    if not tables:
        raise ConfigError(f"{path}: empty; expected [collector] and [device], or [ship] and [[sink]] of a shipper")
    problems = [
        f"{path}: [{_cut_short(key)}]: unknown table; {_hint(key, TABLES)}" for key in tables if key not in TABLES
    ]
    problems += [f"{path}: [{key}]: expected a table" for key in TABLES if not isinstance(tables.get(key, {}), Mapping)]
    general, special, of_journal = (t if isinstance(t := tables.get(key, {}), Mapping) else {} for key in TABLES)
    collector, found = load_dataclass(Collector, general, f"{path}: [collector]")
    problems += found
    journal, found = load_dataclass(JournalSettings, of_journal, f"{path}: [journal]")
    problems += found
    device, options = None, None
    kind, link = general.get("kind"), general.get("link")
    if kind in devices.KINDS:
        device = devices.load(kind)
        options, found = load_dataclass(device.options, special, f"{path}: [device]")
        problems += found
        if isinstance(link, str):
            problems += [f"{path}: [collector] {line}" for line in transports.check(link, device)]
            if options is not None:
                problems += [f"{path}: [device] {line}" for line in device.check(options, link)]
    else:
        problems += _without_kind(path, kind, special, link)
    if problems or collector is None or device is None:
        raise ConfigError(problems)
    return Config(collector, device, options, journal)


def _without_kind(path: Path, kind: Any, special: Mapping[str, Any], link: Any) -> list[str]:
    """Return the problems that can be found while the kind of instrument is not known.

    If the kind is close to a known one, that one is assumed; else a key of [device] is wrong when no kind accepts it.
    """
    problems = []
    close: list[str] = []
    if isinstance(kind, str):
        close = difflib.get_close_matches(kind, devices.KINDS, n=1) if len(kind) <= LONGEST_KEY else []
        meant = f"did you mean {close[0]!r}? " if close else ""
        problems.append(
            f"{path}: [collector] kind: no instrument {_shown(kind)}; {meant}there are: {', '.join(devices.KINDS)}"
        )
    known = [devices.load(name) for name in close or devices.KINDS]
    if close:
        problems += load_dataclass(known[0].options, special, f"{path}: [device]")[1]
    else:
        problems += _wrong_for_all([device.options for device in known], special, f"{path}: [device]")
    if isinstance(link, str):
        tries = [transports.check(link, device) for device in known]
        least = min(tries, key=len)
        problems += [f"{path}: [collector] {line}" for line in least]
    return problems


def _wrong_for_all(classes: Sequence[type[Any]], table: Mapping[str, Any], where: str) -> list[str]:
    """Return a line for each key that no class knows, or that every class which knows it rejects."""
    hints = [typing.get_type_hints(cls) for cls in classes]
    known = {name: None for of_one in hints for name in of_one}
    problems = _unknown_keys(where, table, known)
    for key in (key for key in known if key in table):
        tries = [_convert(of_one[key], table[key], f"{where} {key}")[1] for of_one in hints if key in of_one]
        fewest: list[str] = min(tries, key=len)
        problems += fewest
    return problems
