"""Quantity and unit according to a column's own name: for hints about missing columns, and for doubts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

OTHER_UNITS: Mapping[str, Mapping[str, str]] = {
    "time_s": {"ms": "*0.001", "msec": "*0.001", "us": "*1e-6", "µs": "*1e-6", "ns": "*1e-9", "min": "*60",
               "minutes": "*60", "h": "*3600", "hr": "*3600", "hours": "*3600", "milliseconds": "*0.001"},
    "current_a": {"ma": "*0.001", "ua": "*1e-6", "µa": "*1e-6", "ka": "*1000"},
    "voltage_v": {"mv": "*0.001", "uv": "*1e-6", "kv": "*1000"},
    "temperature_degc": {"K": "-273.15", "kelvin": "-273.15", "F": "*0.555556-17.7778", "degf": "*0.555556-17.7778",
                         "°f": "*0.555556-17.7778"},
    "charge_ah": {"mah": "*0.001", "as": "*0.000277778"},
    "charged_ah": {"mah": "*0.001", "as": "*0.000277778"},
    "discharged_ah": {"mah": "*0.001", "as": "*0.000277778"},
    "soc_ref": {"%": "*0.01", "pct": "*0.01", "percent": "*0.01"},
}  # fmt: skip
"""Column of `soc` → unit in a name (single letters as they are, others in lower case) → formula to convert it."""

OUR_UNITS = {"s", "sec", "seconds", "a", "amps", "amp", "v", "volts", "volt", "degc", "°c", "c", "celsius", "ah"}

KNOWN_AS: Mapping[str, Sequence[str]] = {
    "time_s": ("time", "t", "timestamp", "datetime", "date", "testtime", "elapsedtime", "elapsed", "zeit", "sec"),
    "current_a": ("current", "i", "amps", "ampere", "ibat", "ibatt", "batterycurrent", "strom", "iactual"),
    "voltage_v": ("voltage", "u", "v", "volts", "ubat", "vbat", "batteryvoltage", "spannung", "uactual"),
    "temperature_degc": ("temperature", "temp", "celltemperature", "temperatur", "tcell", "tbat"),
    "charge_ah": ("charge", "ah", "capacity"),
    "soc_ref": ("soc", "stateofcharge"),
}
"""Column of `soc` → its names elsewhere, in lower case, letters and digits only, without a unit."""

LEAST_LIKENESS = 0.75


def formula_for(ours: str, theirs: str) -> str:
    """Return the formula that converts a column of this name, as far as the name states a unit."""
    return theirs + OTHER_UNITS.get(ours, {}).get(_unit(theirs), "")


def other_unit(ours: str, theirs: str) -> str | None:
    """Return the unit in the name, if it is another one."""
    unit = _unit(theirs)
    return unit if unit in OTHER_UNITS.get(ours, {}) else None


def best_match(ours: str, available: Sequence[str]) -> str | None:
    """Return the column that is most likely meant, or None if none is likely."""
    likely = [(likeness, name) for name in available if (likeness := _likeness(ours, name)) >= LEAST_LIKENESS]
    return max(likely, key=lambda pair: pair[0])[1] if likely else None


def _likeness(ours: str, theirs: str) -> float:
    """Return the similarity of two names, from 0 for different ones to 1 for equal ones except for the unit."""
    words = KNOWN_AS.get(ours, ())
    plain = re.sub(r"[^a-z0-9]", "", _without_unit(theirs).lower())
    if plain in words or re.sub(r"[^a-z0-9]", "", theirs.lower()) in words:
        return 1.0
    if any(len(word) > 3 and word in plain for word in words):
        return 0.9
    return SequenceMatcher(None, ours, theirs.lower()).ratio()


def _parts(name: str) -> tuple[str, str]:
    """Return the name before its last part, and that part without brackets: `I_mA`, `Strom [mA]`, `U/mV`."""
    match = re.fullmatch(r"(.*?)[\s_./\[(]+([A-Za-zµ°%]+)[\])]?", name.strip()[:200])
    return (match[1], match[2]) if match else (name, "")


def _unit(name: str) -> str:
    unit = _parts(name)[1]
    return unit if len(unit) == 1 else unit.lower()


def _without_unit(name: str) -> str:
    before, unit = _parts(name)
    is_unit = unit.lower() in OUR_UNITS or any(_unit(name) in units for units in OTHER_UNITS.values())
    return before if is_unit else name
