"""What a module in `collectors.devices` offers: a constant DEVICE of type `Device`, which is discovered.

A device module is pure: bytes and field tables, without ports, clocks, logging, or imports of other devices.
Adding one means new files only: `devices/<kind>.py`, `fakes/<kind>.py`, `tests/frames/<kind>/*.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from collectors.protocols.dialogue import Dialogue
from collectors.reading import Event, Identity, Reading

Output = Reading | Event


class Driver(Protocol):
    """The dialogues of one connection with one instrument. Made anew after every reconnect."""

    def open(self) -> Dialogue[Identity]:
        """Identify the instrument, and write the settings that the configuration requires.

        Raises WrongDevice when another device responds, NoReply when none does.
        """
        ...

    def poll(self) -> Dialogue[list[Output]]:
        """Return the result of one poll cycle: one grid slot of a polled device, else the next unasked message(s)."""
        ...

    def close(self) -> Dialogue[None]:
        """Restore what `open` changed for the session (for example publications that it switched on)."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """The settings of a serial line; links that are not serial ignore them."""

    baud: int = 9600
    bits: int = 8
    parity: str = "N"
    stop: float = 1


@dataclass(frozen=True, slots=True)
class Device:
    """The description of one kind of instrument, for the rest of the program."""

    kind: str
    """The module's name; tag `kind` of every point."""
    title: str
    """Vendor and model, for people."""
    links: tuple[str, ...]
    """Schemes of `collectors.transports` that reach it, the usual one first, for example ("serial", "tcp")."""
    options: type[Any]
    """A frozen dataclass: the [device] table of the configuration. Field docs are in `metadata["help"]`.

    Its __post_init__ may raise ValueError("key: what was expected") for values outside the device's limits.
    """
    driver: Callable[[Any], Driver]
    """Creates a Driver from an instance of `options`."""
    signals: Mapping[str, Sequence[str]]
    """The signals of each measurement that it can provide: for the device table, checks and dashboards."""
    decode: Callable[[Iterable[bytes]], Iterable[Mapping[str, Any]]]
    """For `collectors decode KIND`: accepts chunks of a capture, yields one JSON-able object per frame or error."""
    check: Callable[[Any, str], list[str]] = lambda _options, _link: []
    """Return the problems of these options on this link (its string), one line "key: …" each; opens nothing."""
    line: Line = field(default_factory=Line)
    channels: Mapping[str, int] = field(default_factory=dict)
    """Default port of each channel of a tcp link; "" is the main one."""
    paced_by: str = "grid"
    """"grid": polled once per period. "device": it sends unasked; `poll` waits for its next message.

    Where that depends on the instrument, the driver has an attribute of this name, which applies after `open`."""
    silence_s: float | None = None
    """Time in s without a valid frame after which the link is reopened. None: 5 periods."""
    checked: bool = True
    """Whether frames carry a checksum, so that a flipped bit can never become a reading."""
    text: bool = False
    """Whether a capture is text lines (decode reads lines) rather than hex."""
    examples: Sequence[tuple[str, str]] = ()
    """Description and [device] table in TOML, for the device table. Each can be loaded."""
    notes: str = ""
    """What a user must know, one or two sentences; goes into the device table."""
