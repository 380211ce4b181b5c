"""Configuration files with every key commented, made from the dataclasses that read them.

    lines, blanks = table(Collector, "collector", {"name": "mppt", "kind": "libresolar_mppt"})

A given key is set. A key with a default becomes a comment that shows it. A required key that was not given is a blank,
marked FILL IN: set to "" if it is text, else a comment. The help text comes from `metadata["help"]`.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from collectors.config import describe_type

WIDTH = 110
FILL_IN = "FILL IN"


def table(
    cls: type[Any], name: str, given: Mapping[str, Any], leave_out: Collection[str] = (), required: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the lines of the TOML table `[name]` for this dataclass, and its blanks as "[name] key".

    `name` has its own brackets, "[sink]", for an array of tables. Keys in `leave_out` do not appear; those in
    `required` are blanks although they have a default.
    """
    lines, blanks = [f"[{name}]"], []
    arrays: list[tuple[str, type[Any], Sequence[Mapping[str, Any]]]] = []
    for spec, hint in _fields(cls):
        if spec.name in leave_out:
            continue
        item = _item_class(hint)
        if item and (_is_required(spec) or spec.name in given):
            arrays.append((spec.name, item, given.get(spec.name, [{}])))
            continue
        found, missing = _key(spec, hint, spec.name, given, is_shown=True, is_required=spec.name in required)
        lines += found
        blanks += [f"[{name}] {key}" for key in missing]
    lines += [f"{key} = {value(given[key])}" for key in given if key not in {spec.name for spec, _ in _fields(cls)}]
    for key, item, entries in arrays:
        for entry in entries:
            found, missing = table(item, f"[{name}.{key}]", entry)
            lines += ["", *found]
            blanks += missing
    return lines, blanks


def _fields(cls: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return [(spec, hints[spec.name]) for spec in dataclasses.fields(cls) if spec.init]


def _is_required(spec: dataclasses.Field[Any]) -> bool:
    return spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING


def _item_class(hint: Any) -> type[Any] | None:
    """Return the dataclass if the hint is a list of one, else None."""
    arguments = typing.get_args(hint)
    is_list = typing.get_origin(hint) in (list, tuple, Sequence)
    return _dataclass(arguments[0]) if is_list and arguments else None


def _table_class(hint: Any) -> type[Any] | None:
    """Return the dataclass if the hint is one, alone or as an alternative to None, else None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for a in typing.get_args(hint) if (found := _dataclass(a))), None)
    return _dataclass(hint)


def _dataclass(hint: Any) -> type[Any] | None:
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _key(
    spec: dataclasses.Field[Any],
    hint: Any,
    path: str,
    given: Mapping[str, Any],
    *,
    is_shown: bool,
    is_required: bool = False,
) -> tuple[list[str], list[str]]:
    """Return the lines of one key and its blanks. `is_shown`: a blank here must be filled in."""
    inner = _table_class(hint)
    if inner:
        return _inner(inner, path, given.get(spec.name), is_shown=is_shown and _is_required(spec))
    lines = [f"# {line}" for line in wrap(_help(spec, hint), WIDTH)]
    if spec.name in given:
        return [*lines, f"{path} = {value(given[spec.name])}"], []
    if not is_required and not _is_required(spec):
        default = spec.default_factory() if spec.default_factory is not dataclasses.MISSING else spec.default
        return [*lines, f"# {path} =" if default is None else f"# {path} = {value(default)}"], []
    if not is_shown:
        return [*lines, f"# {path} ="], []
    return [*lines, f'{path} = ""  # {FILL_IN}' if hint is str else f"# {path} =  # {FILL_IN}"], [path]


def _inner(
    cls: type[Any], path: str, given: Mapping[str, Any] | None, *, is_shown: bool
) -> tuple[list[str], list[str]]:
    """Return the keys of a nested table, dotted. None of them is a blank unless the table exists."""
    lines, blanks = [], []
    for spec, hint in _fields(cls):
        found, missing = _key(spec, hint, f"{path}.{spec.name}", given or {}, is_shown=is_shown or given is not None)
        lines += found
        blanks += missing
    return lines, blanks


def _help(spec: dataclasses.Field[Any], hint: Any) -> str:
    """Return what the key means, and its type if the default does not show it."""
    text = spec.metadata.get("help", "")
    is_plain = hint in (str, Path) or (hint in (bool, int, float) and not _is_required(spec))
    return text if text and is_plain else f"{text} ({describe_type(hint)})".strip()


def value(found: Any) -> str:
    """Return a plain value as TOML text."""
    if isinstance(found, Mapping):
        return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in found.items()) + " }"
    if isinstance(found, list | tuple):
        return "[" + ", ".join(map(value, found)) + "]"
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, str | Path):
        return json.dumps(str(found), ensure_ascii=False)
    return repr(found)
