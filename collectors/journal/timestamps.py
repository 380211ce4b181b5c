"""Points in time as text for people: parsing and formatting. Wall time is ns since 1970; no clock is read here."""

from __future__ import annotations

import re
from datetime import UTC, datetime

NS = 10**9
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
EXPECTED = "expected now, an age such as -2h (s, m, h, d, w), or a time such as 2026-05-28 or 2026-05-28T10:00:00+02:00"


def parse(text: str, now_ns: int) -> int:
    """Return wall time in ns. Without a zone it is UTC. ValueError states what was expected."""
    if text == "now":
        return now_ns
    age = re.fullmatch(r"-(\d+(?:\.\d+)?)([smhdw])", text)
    if age:
        return now_ns - round(float(age[1]) * UNITS_S[age[2]] * NS)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r}: {EXPECTED}") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    whole = int(found.replace(microsecond=0).timestamp())
    return whole * NS + found.microsecond * 1000


def iso(wall_ns: int, digits: int = 9) -> str:
    """Return the time in UTC as ISO 8601, with `digits` digits of the second."""
    whole, rest = divmod(wall_ns, NS)
    text = datetime.fromtimestamp(whole, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}"[: len(text) + 1 + digits] + "Z" if digits else f"{text}Z"
