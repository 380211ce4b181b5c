"""What the vocabulary says, in Grafana's words: units, state names, descriptions and the colours of this project.

Colours are those of Okabe and Ito (Color Universal Design, 2008), told apart with any common colour vision and
legible on light and dark backgrounds. Colour never stands alone: every series has a name, every state a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collectors.signals import VOCABULARY, Signal

BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
GREY = "#8F8F8F"
Json = list[dict[str, Any]]
BY_TURN = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)

UNITS = {
    "V": "volt",
    "A": "amp",
    "W": "watt",
    "°C": "celsius",
    "Ah": "amph",
    "Wh": "watth",
    "s": "s",
    "d": "d",
    "B": "bytes",
    "dBm": "dBm",
    "": "none",
}
"""Unit of the vocabulary to Grafana's unit id."""

AMPERES, AMPERE_HOURS, WATT_HOURS, PER_MILLE = "A", "Ah", "Wh", "‰"
"""Units that Grafana does not scale: numbers that are compared with each other must not change between A and mA."""

RATIOS = {"soc", "soc_lo", "soc_hi", "soc_counted", "soh", "cpu_share", "wifi_quality"}
"""Signals from 0 to 1 that people read in per cent."""


def signal(measurement: str, name: str) -> Signal:
    """Return the vocabulary's row; KeyError naming measurement and signal when there is none."""
    try:
        return VOCABULARY[measurement][name]
    except KeyError:
        raise KeyError(f"{measurement}.{name} is not in collectors/signals.py: add it there or mend the name") from None


def unit(measurement: str, name: str) -> str:
    """Return Grafana's unit id of a signal."""
    return "percentunit" if name in RATIOS else UNITS[signal(measurement, name).unit]


def meaning(measurement: str, name: str) -> str:
    """Return what the signal is, for a panel's description."""
    return f"`{measurement}.{name}`: {signal(measurement, name).meaning or 'see the states below'}."


def states(measurement: str, name: str, colours: Sequence[str] = (GREY, *BY_TURN[1:], BY_TURN[0])) -> Json:
    """Return value mappings that show a state code as its word, in these colours by turn."""
    codes = signal(measurement, name).codes
    if codes is None:
        raise KeyError(f"{measurement}.{name} has no codes in collectors/signals.py")
    words = {
        str(code): {"text": word, "color": colours[turn % len(colours)], "index": turn}
        for turn, (code, word) in enumerate(codes.items())
    }
    return [{"type": "value", "options": words}]


def clock_states() -> Json:
    """Return the mappings of a clock's state, in colours that say whether it is right."""
    return states("collector", "clock_state", (RED, GREEN, SKY))


def flags(measurement: str, name: str) -> Json:
    """Return value mappings of a sum of bits: 0 is none, a single bit its word, anything else the sum to look up."""
    single = states(measurement, name)[0]["options"]
    for word in single.values():
        word["color"] = RED
    several = {"text": "several", "color": RED, "index": len(single) + 1}
    return [
        {"type": "value", "options": {"0": {"text": "none", "color": GREEN, "index": len(single)}} | single},
        {"type": "range", "options": {"from": 1, "to": 2.0**32, "result": several}},
    ]


def steps(*levels: tuple[float | None, str]) -> dict[str, Any]:
    """Return absolute thresholds: (from which value on, colour); the first value is None."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in levels]}
