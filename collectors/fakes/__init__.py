"""Fakes that speak the instruments' own bytes: for tests, demo, notebooks and trying a configuration.

One module per kind, of the same name as in `collectors.devices`, with a constant FAKE of the form below. A fake is
pure: it is fed with bytes and with time, and gives bytes; `collectors.fakes.serve` puts it on a pseudo-terminal or a
TCP port, `collectors.fakes.faults` makes it misbehave. What it measures is a `World`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from collectors.errors import ConfigError

World = Callable[[float], Mapping[str, float | None]]
"""Time in s (the server's own, starting at 0) to what is true then at this instrument's terminals.

Keys are "<measurement>.<signal>" of the vocabulary, for example "battery.current_a" (positive charges) or
"solar.power_w"; the fake turns signs to the device's own. None: the instrument is to give no value (silence, no
publication, its own "no value"), as a gap in a recording."""


class Out(NamedTuple):
    """Bytes a fake sends on one of its channels, no earlier than `at_s`."""

    data: bytes
    at_s: float = 0.0
    channel: str = ""


class Fake(Protocol):
    """One instrument as seen from the wire."""

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        """Take what the collector sent; return the answers."""
        ...

    def tick(self, now_s: float) -> Sequence[Out]:
        """Return what the device says unasked by now (publications, stream packets)."""
        ...

    def next_tick_s(self) -> float | None:
        """Return when `tick` has something next; None: never unasked."""
        ...

    def connected(self, now_s: float, channel: str = "") -> None:
        """Tell it that a collector opened the line."""
        ...


@dataclass(frozen=True, slots=True)
class FakeKind:
    """What a fakes module offers."""

    kind: str
    options: type[Any]
    """A frozen dataclass: model, serial number, firmware generation, habits; every field has a default."""
    make: Callable[[World, Any], Fake]
    channels: Mapping[str, int] | None = None
    """None: a serial device, served on a pty. Else channel name to its usual TCP port, "" first."""
    period_s: float = 1.0
    """How often the real one speaks or is usually asked."""


def load(kind: str) -> FakeKind:
    """Return the FAKE of the module named `kind`; ConfigError when there is none."""
    from collectors.devices import KINDS

    if kind not in KINDS:
        raise ConfigError(f"no fake {kind!r}; there are: {', '.join(KINDS)}")
    fake: FakeKind = import_module(f"{__name__}.{kind}").FAKE
    return fake
