"""Select the signals of a recording in a store of tagged measurements: the parameters that such places share.

device, bench, battery, cell       tags that select the series
measurement                        `battery` unless given
current_a, voltage_v,              source of a signal, if another: [MEASUREMENT.]FIELD[@DEVICE],
temperature_degc                   for example voltage_v=load.voltage_v@el3000
voltage_age_s, temperature_age_s   greatest age of a value that is joined to a current (2 s, 600 s)
from, to                           -2h, -1d, 2026-11-21T08:00:00Z or seconds since 1970; default: no limit
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from soc.stores._errors import StoreError

TAGS = ("bench", "device", "battery", "cell")
SIGNALS = ("current_a", "voltage_v", "temperature_degc")
AGES = {"voltage_age_s": 2.0, "temperature_age_s": 600.0}
WORDS = ("measurement", *TAGS, *SIGNALS, *AGES, "from", "to")
LATEST_S = 9.2e9  # on either side of 1970
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
SIGNAL = re.compile(r"(?:(?P<measurement>[^.@]+)\.)?(?P<field>[^.@]+)(?:@(?P<device>.+))?")


@dataclass(frozen=True)
class Group:
    """The series of one measurement with these tags (sorted pairs)."""

    measurement: str
    tags: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return ",".join([self.measurement, *(f"{key}={value}" for key, value in self.tags)])


@dataclass(frozen=True)
class Selection:
    """The signals to read: column → (group, field); `place` is the text that was parsed."""

    place: str
    signals: Mapping[str, tuple[Group, str]]
    ages_s: Mapping[str, float]
    tags: Mapping[str, str]
    since_s: float | None
    until_s: float | None


def select(given: Mapping[str, str], place: str) -> Selection:
    """Return the selection of these parameters. Raises `StoreError` naming the wrong one."""
    tags = {name: given[name] for name in TAGS if name in given}
    return Selection(
        place=place,
        signals={name: _signal(name, given, tags, place) for name in SIGNALS},
        ages_s={name: _seconds(given.get(name, default), name, place) for name, default in AGES.items()},
        tags=tags,
        since_s=instant(given["from"], place) if "from" in given else None,
        until_s=instant(given["to"], place) if "to" in given else None,
    )


def refuse_unknown(given: Mapping[str, str], known: tuple[str, ...], place: str) -> None:
    """Raise `StoreError` naming the unknown parameters."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise StoreError(f"{place}: {', '.join(unknown)}: no such parameter; there are {', '.join(known)}")


def _signal(name: str, given: Mapping[str, str], tags: Mapping[str, str], place: str) -> tuple[Group, str]:
    match = SIGNAL.fullmatch(given.get(name, name))
    if match is None:
        raise StoreError(f"{place}: {name}={given[name]}: expected [MEASUREMENT.]FIELD[@DEVICE]")
    own = {"device": match["device"]} if match["device"] else {}
    measurement = match["measurement"] or given.get("measurement", "battery")
    return Group(measurement, tuple(sorted({**tags, **own}.items()))), match["field"]


def _seconds(value: str | float, name: str, place: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LATEST_S:
        raise StoreError(f"{place}: {name}: expected a number of seconds, got {str(value)[:40]!r}")
    return seconds


def instant(word: str, place: str) -> float:
    """Return the seconds since 1970 of `-2h`, `now`, an ISO 8601 time (UTC without a zone) or a number.

    Raises `StoreError` for anything else, and for a time outside the range of nanoseconds in 64 bits.
    """
    found = _instant(word, place)
    if not abs(found) <= LATEST_S:
        raise StoreError(f"{place}: {word[:40]!r} is no time between 1678 and 2261")
    return found


def _instant(word: str, place: str) -> float:
    relative = re.fullmatch(r"-(\d+(?:\.\d+)?)([smhdw])", word)
    if relative:
        return time.time() - float(relative[1]) * UNITS_S[relative[2]]
    if word == "now":
        return time.time()
    try:
        return float(word)
    except ValueError:
        return _iso(word, place)


def _iso(word: str, place: str) -> float:
    try:
        moment = datetime.fromisoformat(word)
    except ValueError as error:
        raise StoreError(f"{place}: {word[:40]!r} is no time; expected -2h, 2026-11-21T08:00:00Z or seconds") from error
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except OverflowError:
        return math.inf
