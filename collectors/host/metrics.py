"""Metrics of this process and its host from the kernel: resident memory in bytes, Wi-Fi signal and link quality."""

from __future__ import annotations

import resource
from pathlib import Path

WIRELESS = Path("/proc/self/net/wireless")
"""Same content as /proc/net/wireless; also available to a service with ProcSubset=pid."""
MOST_LINK_DBM, MOST_LINK = 70.0, 100.0
"""The kernel's maximum link quality: 70 where it knows the signal in dBm (above −40), else 100 (net/wireless)."""


def resident_bytes() -> float:
    """Return the process's resident memory now, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - read at every report: keep it cheap
        return float(statm.read().split()[1]) * resource.getpagesize()


def wifi() -> dict[str, float]:
    """Return the signal and link quality of this host's wireless interface, by signal name; empty if there is none."""
    try:
        return parse_wireless(WIRELESS.read_text(encoding="ascii", errors="replace"))
    except OSError:  # a kernel without Wi-Fi, or a network that this process may not see
        return {}


def parse_wireless(text: str) -> dict[str, float]:
    """Return signal (where the driver states it in dBm) and link quality (0 to 1) of the first connected interface.

    The text has two header lines, then "wlan0: 0000   54.  -56.  -256  …": status, link, level, noise. A dot marks a
    number that was updated. An interface that is not connected has zeros.
    """
    for line in text.splitlines()[2:]:
        numbers = line.partition(":")[2].split()[1:3]
        try:
            link, level = (float(number.rstrip(".")) for number in numbers)
        except ValueError:
            continue
        if level < 0:
            return {"wifi_signal_dbm": level, "wifi_quality": min(1.0, max(0.0, link / MOST_LINK_DBM))}
        if link > 0:
            return {"wifi_quality": min(1.0, link / MOST_LINK)}
    return {}
