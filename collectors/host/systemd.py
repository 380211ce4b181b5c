"""Notify systemd of this process's state: sd_notify(3); does nothing where no service manager listens."""

from __future__ import annotations

import os
import socket

from collectors.text import one_line


def has_manager() -> bool:
    """Return whether a service manager listens; it also restarts this process."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def notify(state: str) -> None:
    """Send one notification, for example "READY=1", "WATCHDOG=1" or "STATUS=…"; several joined by newlines."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(errors="replace"), address)
        except OSError:
            # The manager is gone or restarting: it will miss a ping and act on that itself; nothing to do here.
            return


def status_line(text: str) -> str:
    """Return the assignment that shows `text`; one line, since the next line would be another assignment."""
    return f"STATUS={one_line(text)}"


def watchdog_interval_s() -> float | None:
    """Return the interval of watchdog notifications in s (half of WatchdogSec), or None without a watchdog."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isdigit() and int(usec) > 0 else None
