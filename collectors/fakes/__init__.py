"""Fake instruments at the level of bytes: for tests, demo, notebooks and trying a configuration.

One module per kind, with the same name as in `collectors.devices` and a constant FAKE of the form below. A fake
performs no I/O: it receives bytes and the time, and returns bytes. `collectors.fakes.serve` connects it to a
pseudo-terminal or a TCP port; `collectors.fakes.faults` injects faults. A `World` supplies the values that it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from collectors.errors import ConfigError

World = Callable[[float], Mapping[str, float | None]]
"""Function from time in s (the server's time, starting at 0) to the true values at this instrument's terminals.

Keys are "<measurement>.<signal>" of the vocabulary, for example "battery.current_a" (positive charges) or
"solar.power_w"; the fake converts signs to the device's own. None: the instrument gives no value (silence, no
publication, its own "no value"), as in a gap of a recording."""


class Out(NamedTuple):
    """Bytes a fake sends on one of its channels, no earlier than `at_s`."""

    data: bytes
    at_s: float = 0.0
    channel: str = ""


class Fake(Protocol):
    """One instrument at the level of bytes."""

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        """Process what the collector sent; return the responses."""
        ...

    def tick(self, now_s: float) -> Sequence[Out]:
        """Return what the device has sent unasked until now (publications, stream packets)."""
        ...

    def next_tick_s(self) -> float | None:
        """Return when `tick` next has something to send; None: never."""
        ...

    def connected(self, now_s: float, channel: str = "") -> None:
        """Note that a collector opened the line."""
        ...


@dataclass(frozen=True, slots=True)
class FakeKind:
    """What a module of `collectors.fakes` offers."""

    kind: str
    options: type[Any]
    """A frozen dataclass: model, serial number, firmware generation, behaviour; every field has a default."""
    make: Callable[[World, Any], Fake]
    channels: Mapping[str, int] | None = None
    """None: a serial device, served on a pseudo-terminal. Else channel name to its usual TCP port, "" first."""
    period_s: float = 1.0
    """Usual time in s between two publications or requests of the real instrument."""


def load(kind: str) -> FakeKind:
    """Return the FAKE of the module named `kind`. Raise ConfigError if there is none."""
    from collectors.devices import KINDS

    if kind not in KINDS:
        raise ConfigError(f"no fake {kind!r}; there are: {', '.join(KINDS)}")
    fake: FakeKind = import_module(f"{__name__}.{kind}").FAKE
    return fake
