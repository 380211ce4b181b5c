"""Links: byte connections to instruments, independent of the device. One module per scheme, found automatically.

One string describes a link, `<scheme>:<where>[?key=value&…]`:

    serial:/dev/serial/by-id/usb-FTDI_…-port0      serial:/dev/ttyUSB0?baud=9600&parity=O
    tcp:192.0.2.7:502                               ljm:USB:470012345
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl

from collectors.device import Device
from collectors.errors import ConfigError

SCHEMES: list[str] = sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


class Arrived(NamedTuple):
    """The result of one read."""

    data: bytes
    """b"" when nothing arrived in time."""
    boottime_ns: int
    """CLOCK_BOOTTIME right after the read returned."""


class Link(Protocol):
    """An open connection to one instrument. Every method raises LinkDown once the connection is lost."""

    byte_time_s: float
    """Time of one byte on the wire; 0 where it does not apply."""

    def read(self, timeout_s: float, channel: str = "", linger_s: float = 0.0) -> Arrived:
        """Return the bytes that arrive within `timeout_s`, as soon as there are any (then collect for `linger_s`)."""
        ...

    def write(self, data: bytes, channel: str = "") -> None:
        """Send all bytes."""
        ...

    def flush(self) -> None:
        """Drop the bytes that arrived on the main channel and were not read."""
        ...

    def close(self) -> None:
        """Close the port. Safe to call twice."""
        ...


class Address(NamedTuple):
    """A parsed link string."""

    scheme: str
    where: str
    options: Mapping[str, str]


def parse(link: str) -> Address:
    """Parse a link string; ConfigError when it is invalid or its scheme is unknown."""
    scheme, colon, rest = link.partition(":")
    where, _, query = rest.partition("?")
    if not colon or scheme not in SCHEMES or not where:
        raise ConfigError(f"link: expected one of {', '.join(s + ':…' for s in SCHEMES)}, got {link!r}")
    return Address(scheme, where, dict(parse_qsl(query, keep_blank_values=True)))


def check(link: str, device: Device) -> list[str]:
    """Return the problems of this link for this device, one line each, without opening it."""
    try:
        address = parse(link)
    except ConfigError as error:
        return error.problems
    if address.scheme not in device.links:
        return [f"link: a {device.kind} is reached by {' or '.join(device.links)}, not by {address.scheme!r}"]
    problems: list[str] = import_module(f"{__name__}.{address.scheme}").check(address, device)
    return problems


def open_link(link: str, device: Device) -> Link:
    """Open the link; LinkDown (LinkBusy) when that fails now, ConfigError when it can never succeed."""
    address = parse(link)
    opened: Link = import_module(f"{__name__}.{address.scheme}").open_link(address, device)
    return opened
