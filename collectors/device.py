"""What a module in `collectors.devices` offers: a constant DEVICE of this form, found by looking.

A device module is pure: bytes and field tables, no port, no clock, no log, no other device.
Adding one is new files only: `devices/<kind>.py`, `fakes/<kind>.py`, `tests/frames/<kind>/*.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from collectors.protocols.dialogue import Dialogue
from collectors.reading import Event, Identity, Reading

Output = Reading | Event


class Driver(Protocol):
    """One connection's conversation with one instrument. Made anew after every reconnect."""

    def open(self) -> Dialogue[Identity]:
        """Find out who answers, and write the settings that the configuration asks for.

        Raises WrongDevice when something else answers, NoReply when nothing does.
        """
        ...

    def poll(self) -> Dialogue[list[Output]]:
        """Return what one turn brings: one grid slot of a polled device, the next message(s) of a talking one."""
        ...

    def close(self) -> Dialogue[None]:
        """Put back what `open` changed for the session (for example publications that it switched on)."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """How a serial line is set; links that are not serial ignore it."""

    baud: int = 9600
    bits: int = 8
    parity: str = "N"
    stop: float = 1


@dataclass(frozen=True, slots=True)
class Device:
    """Everything the rest of the program knows about one kind of instrument."""

    kind: str
    """The module's name; tag `kind` of every point."""
    title: str
    """Vendor and model, for people."""
    links: tuple[str, ...]
    """Schemes of `collectors.transports` that reach it, the usual one first, for example ("serial", "tcp")."""
    options: type[Any]
    """A frozen dataclass: the [device] table of the configuration. Field docs are in `metadata["help"]`.

    Its __post_init__ may raise ValueError("key: what was expected") for values out of the device's limits.
    """
    driver: Callable[[Any], Driver]
    """Makes a Driver from an instance of `options`."""
    signals: Mapping[str, Sequence[str]]
    """Which signals of which measurement it can give: for the device table, checks and dashboards."""
    decode: Callable[[Iterable[bytes]], Iterable[Mapping[str, Any]]]
    """For `collectors decode KIND`: takes chunks of a capture, gives one JSON-able object per frame or error."""
    check: Callable[[Any, str], list[str]] = lambda _options, _link: []
    """What is wrong with these options on this link (its string), one line "key: …" each; nothing is opened."""
    line: Line = field(default_factory=Line)
    channels: Mapping[str, int] = field(default_factory=dict)
    """Default port of each channel of a tcp link; "" is the main one."""
    paced_by: str = "grid"
    """"grid": polled once per period. "device": it talks by itself; `poll` waits for its next message.

    Where that depends on the instrument, the driver has an attribute of this name, which wins once `open` is done."""
    silence_s: float | None = None
    """No good frame for this long: reopen the link. None: 5 periods."""
    checked: bool = True
    """Whether frames carry a checksum, so that a flipped bit can never become a reading."""
    text: bool = False
    """Whether a capture is text lines (decode reads lines) rather than hex."""
    examples: Sequence[tuple[str, str]] = ()
    """What it is, and the [device] table for it in TOML; for the device table. Each can be loaded."""
    notes: str = ""
    """What a user must know, one or two sentences; goes into the device table."""
