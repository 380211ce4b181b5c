"""The serial ports of this host, from /sys, /dev and /proc: adapters, stable names, processes that have them open.

A port is a tty with a device behind it; a mainboard UART that the kernel has not found (type 0) does not count. The USB
data are those of the nearest parent with an idVendor. Open ports are found in /proc/*/fd; for other users' processes
only root may read it.
"""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LASTING = ("serial/by-id", "bat", "serial/by-path")
"""Directories of names in /dev that stay the same when an adapter is plugged in again, the best first."""


@dataclass(frozen=True, slots=True)
class User:
    """A process that has a port open."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class Port:
    """One serial port."""

    device: str
    """For example /dev/ttyUSB0; changes with the order of plugging in."""
    names: tuple[str, ...]
    """Stable names, the best first."""
    vendor_id: str
    """USB vendor, four hex digits; empty when it is not on USB."""
    product_id: str
    vendor: str
    product: str
    serial: str
    driver: str
    users: tuple[User, ...]
    is_allowed: bool
    """Whether this user may open it."""
    group: str
    """The group whose members may open it."""

    @property
    def link(self) -> str:
        """Return the port as a configuration's `link`."""
        return f"serial:{self.names[0] if self.names else self.device}"


def ports(dev: Path = Path("/dev"), sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> list[Port]:
    """Return every serial port, by device name."""
    found = sorted(_ttys(sys))
    users = _users(proc, {str(dev / name) for name in found})
    return [_port(name, dev, sys, tuple(users.get(str(dev / name), ()))) for name in found if (dev / name).exists()]


def _ttys(sys: Path) -> Iterator[str]:
    for entry in (sys / "class/tty").glob("*"):
        if (entry / "device").exists() and _read(entry / "type") != "0":
            yield entry.name


def _port(name: str, dev: Path, sys: Path, users: tuple[User, ...]) -> Port:
    device = (sys / "class/tty" / name / "device").resolve()
    usb = next((parent for parent in (device, *device.parents) if (parent / "idVendor").exists()), None)
    facts = {
        key: _read(usb / key) if usb else "" for key in ("idVendor", "idProduct", "manufacturer", "product", "serial")
    }
    path = dev / name
    return Port(
        device=str(path),
        names=tuple(_lasting(dev, path)),
        vendor_id=facts["idVendor"],
        product_id=facts["idProduct"],
        vendor=facts["manufacturer"],
        product=facts["product"],
        serial=facts["serial"],
        driver=(device / "driver").resolve().name if (device / "driver").exists() else "",
        users=users,
        is_allowed=os.access(path, os.R_OK | os.W_OK),
        group=_group(path),
    )


def _lasting(dev: Path, path: Path) -> Iterator[str]:
    for folder in LASTING:
        for link in sorted((dev / folder).glob("*")):
            if link.resolve() == path.resolve():
                yield str(link)


def _group(path: Path) -> str:
    number = path.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _users(proc: Path, devices: set[str]) -> dict[str, list[User]]:
    """Return the processes that have each of these devices open, as far as this user may see them."""
    found: dict[str, list[User]] = {}
    processes = [entry for entry in proc.iterdir() if entry.name.isdigit()] if proc.is_dir() else []
    for process in processes:
        with suppress(OSError):  # the process has ended, or belongs to another user
            opened = {str(link.readlink()) for link in (process / "fd").iterdir()}
            for device in opened & devices:
                command = _read(process / "cmdline").replace("\0", " ").strip() or _read(process / "comm")
                found.setdefault(device, []).append(User(int(process.name), command))
    return found


def _read(path: Path) -> str:
    """Return a small file's text, empty if the file does not exist."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
