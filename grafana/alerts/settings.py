"""Limits, batteries and contact points: the defaults of `settings.toml` with a site's own values over them."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULTS = Path(__file__).with_name("settings.toml")
CONTACT_POINTS = ("mail", "webhook", "ntfy", "mqtt")
NAME = re.compile(r"[A-Za-z0-9_-]+")
EVALUATION_S = {"critical": 30, "warning": 60}
"""How often rules are evaluated."""
LONGEST_HOLD_S = 32_767 * min(EVALUATION_S.values())
"""Grafana stores as how many evaluations an alert is held in 16 bits (its migration of alert_rule)."""


class SettingsError(Exception):
    """A key is unknown or a value is not what it must be; says where and what was expected."""


@dataclass(frozen=True, slots=True)
class Battery:
    """What rules must know of a battery."""

    name: str
    chemistry: str
    cells: int
    capacity_ah: float


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a site may say."""

    database: str
    policy: str
    runbook_base: str
    contact_points: tuple[str, ...]
    batteries: tuple[Battery, ...]
    limits: Mapping[str, Any]
    chemistries: Mapping[str, Mapping[str, Any]]

    def of(self, chemistry: str) -> tuple[Battery, ...]:
        """Return the batteries of this chemistry."""
        return tuple(battery for battery in self.batteries if battery.chemistry == chemistry)


def load(own: Mapping[str, Any] | None = None) -> Settings:
    """Return the defaults with a site's own values over them; `batteries` replaces the example. SettingsError."""
    default = tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))
    own = own or {}
    merged = _over(default | ({"batteries": {}} if "batteries" in own else {}), own, "")
    unknown = set(merged["contact_points"]) - set(CONTACT_POINTS)
    if unknown:
        raise SettingsError(f"contact_points: {sorted(unknown)} unknown; expected some of {', '.join(CONTACT_POINTS)}")
    if unfit := [key for key in ("database", "policy") if not NAME.fullmatch(merged[key])]:
        raise SettingsError(f"{unfit[0]}: expected a name of letters, digits, '-' and '_', got {merged[unfit[0]]!r}")
    hold_s = merged["limits"]["silence_hold_s"]
    if not 0 <= hold_s <= LONGEST_HOLD_S:
        raise SettingsError(f"limits.silence_hold_s: expected 0 to {LONGEST_HOLD_S}, got {hold_s:g}")
    return Settings(
        merged["database"],
        merged["policy"],
        merged["runbook_base"],
        tuple(merged["contact_points"]),
        tuple(_battery(name, given, merged["chemistries"]) for name, given in sorted(merged["batteries"].items())),
        merged["limits"],
        merged["chemistries"],
    )


def _over(default: Mapping[str, Any], own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the default with the own values in place; a value must be of the default's kind."""
    merged = dict(default)
    for key, value in own.items():
        path = f"{where}{key}"
        if where == "batteries.":
            merged[key] = value
        elif key not in default:
            raise SettingsError(f"{path}: unknown key; expected one of {', '.join(sorted(default))}")
        elif isinstance(default[key], Mapping):
            if not isinstance(value, Mapping):
                raise SettingsError(f"{path}: expected a table, got {value!r}")
            merged[key] = _over(default[key], value, f"{path}.")
        else:
            merged[key] = _like(default[key], value, path)
    return merged


def _like(default: object, value: object, path: str) -> object:
    """Return the value when it is of the default's kind: text, number, names, or as many numbers."""
    if isinstance(default, str) and isinstance(value, str):
        return value
    if isinstance(default, int | float) and _is_number(value):
        return value
    if isinstance(default, list) and isinstance(value, list):
        if path == "contact_points" and all(isinstance(item, str) for item in value):
            return value
        if len(value) == len(default) and all(_is_number(item) for item in value):
            return value
    raise SettingsError(f"{path}: expected something like {default!r}, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _battery(name: str, given: object, chemistries: Mapping[str, Any]) -> Battery:
    where = f"batteries.{name}"
    if not NAME.fullmatch(name):
        raise SettingsError(f"{where}: expected a name of letters, digits, '-' and '_'")
    if not isinstance(given, Mapping) or set(given) != {"chemistry", "cells", "capacity_ah"}:
        got = ", ".join(sorted(given)) if isinstance(given, Mapping) else repr(given)
        raise SettingsError(f"{where}: expected chemistry, cells and capacity_ah, got {got}")
    if given["chemistry"] not in tuple(chemistries):
        raise SettingsError(
            f"{where}.chemistry: {given['chemistry']!r} has no limits; expected one of {', '.join(sorted(chemistries))}"
        )
    cells, capacity_ah = given["cells"], given["capacity_ah"]
    is_whole = isinstance(cells, int) and not isinstance(cells, bool)
    if not is_whole or cells < 1 or not _is_number(capacity_ah) or capacity_ah <= 0:
        raise SettingsError(f"{where}: expected cells of at least 1 and a capacity_ah above 0")
    return Battery(name, given["chemistry"], cells, float(capacity_ah))
