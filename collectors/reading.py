"""Readings and events of an instrument, and its identity.

All text in them can be stored, sent and displayed, whatever the instrument sent: see `collectors.text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from collectors.text import one_line

Value = float | None
"""A number in the signal's unit, or None where the device itself reports that it has no value."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Values of one measurement, all of the same instant, under the vocabulary's names, units and signs."""

    measurement: str
    """A key of `signals.VOCABULARY`, for example "battery"."""
    boottime_ns: int
    """CLOCK_BOOTTIME in ns at which the values were measured."""
    values: Mapping[str, Value]
    """Signal name to number. A missing value is None or left out; never NaN, never a substitute."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Only what distinguishes parts of one instrument, for example {"cell": "3"}; bench and device are added later."""

    def __post_init__(self) -> None:
        """Clean the tags' text."""
        if self.tags:
            object.__setattr__(self, "tags", _fit(self.tags))


@dataclass(frozen=True, slots=True)
class Event:
    """An occurrence that is not a number: a device lost or back, a rejected frame, a gap and its cause."""

    kind: str
    """A short stable name in snake_case, for example "link_down", "out_of_range", "stream_gap"."""
    detail: str
    """One line of text that names the object concerned."""
    boottime_ns: int | None = None
    """When it happened; None: now."""

    def __post_init__(self) -> None:
        """Reduce the text to one line and clean it."""
        object.__setattr__(self, "detail", one_line(self.detail))


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of the instrument that responds on a link."""

    model: str
    serial: str = ""
    firmware: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)
    """Further facts for `collectors status`, for example nominal values or the protocol's generation."""

    def __post_init__(self) -> None:
        """Clean all text."""
        for name in ("model", "serial", "firmware"):
            object.__setattr__(self, name, one_line(getattr(self, name)))
        object.__setattr__(self, "detail", _fit(self.detail))


def _fit(texts: Mapping[str, str]) -> dict[str, str]:
    return {one_line(key): one_line(text) for key, text in texts.items()}
