#!/usr/bin/env python3
"""Look whether the network is there; if it has been away for long, do something about it. Run once a minute.

    away for      reconnect_after   restart_after           reboot_after
    then          reconnect         interface off and on    reboot

in minutes, from /etc/battfleet/network-watch.json. It reboots at most every six hours, and never while an experiment
holds the lock; then it goes on with the gentler means. Standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/battfleet/network-watch.json")
MINUTES = Path("/run/battfleet-network-watch/minutes")
"""How many looks in a row found no network."""
LAST_REBOOT = Path("/var/lib/battfleet-network-watch/last-reboot")
REBOOT_PAUSE_S = 6 * 3600.0
REPEAT_MINUTES = 5
"""What did not help is tried again so often."""


def step(minutes: int, settings: Mapping[str, Any], may_reboot: bool) -> str:
    """Return what to do after so many minutes without a network: "", "reconnect", "restart" or "reboot"."""
    if settings["reboot_after"] and minutes >= settings["reboot_after"] and may_reboot:
        return "reboot"
    if minutes >= settings["restart_after"]:
        return "restart" if (minutes - settings["restart_after"]) % REPEAT_MINUTES == 0 else ""
    return "reconnect" if minutes == settings["reconnect_after"] else ""


def words(*command: str) -> str:
    """Return what a command prints; nothing when it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def default_routes() -> list[dict[str, Any]]:
    """Return the default routes as `ip` tells them."""
    routes: list[dict[str, Any]] = json.loads(words("ip", "-json", "route", "show", "default") or "[]")
    return routes


def answers(address: str) -> bool:
    """Return whether this address answers a ping within 3 s."""
    return subprocess.run(["ping", "-c1", "-W3", address], capture_output=True, check=False).returncode == 0


def is_connected(hosts: Sequence[str]) -> bool:
    """Return whether a gateway or one of these hosts answers."""
    gateways = [route["gateway"] for route in default_routes() if "gateway" in route]
    return any(answers(address) for address in [*gateways, *hosts])


def managed() -> list[str]:
    """Return the interfaces that NetworkManager looks after; none where it does not run."""
    rows = [line.split(":") for line in words("nmcli", "-t", "-f", "DEVICE,TYPE,STATE", "device").splitlines()]
    return [row[0] for row in rows if row[1] in ("wifi", "ethernet") and row[2] not in ("unmanaged", "unavailable")]


def physical() -> list[str]:
    """Return the interfaces that are hardware, or a container's stand-in for it."""
    links = json.loads(words("ip", "-json", "link", "show") or "[]")
    return [link["ifname"] for link in links if link.get("link_type") == "ether"]


def reconnect() -> None:
    """Have the interfaces connect anew."""
    for name in managed():
        words("nmcli", "device", "connect", name)
    if not managed():
        for name in physical():
            words("networkctl", "reconfigure", name)


def restart() -> None:
    """Switch radio and interfaces off and on."""
    if managed():
        words("nmcli", "radio", "wifi", "off")
        time.sleep(2)
        words("nmcli", "radio", "wifi", "on")
    for name in managed() or physical():
        words("ip", "link", "set", name, "down")
        words("ip", "link", "set", name, "up")
    reconnect()


def may_reboot(lock: Path, now_s: float) -> bool:
    """Return whether no experiment runs and the last reboot of ours is long ago."""
    last_s = LAST_REBOOT.stat().st_mtime if LAST_REBOOT.exists() else 0.0
    return not lock.exists() and not 0 <= now_s - last_s < REBOOT_PAUSE_S


def main() -> None:
    """Look once."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    if is_connected(settings["hosts"]):
        MINUTES.unlink(missing_ok=True)
        return
    minutes = int(MINUTES.read_text(encoding="ascii")) + 1 if MINUTES.exists() else 1
    MINUTES.parent.mkdir(exist_ok=True)
    MINUTES.write_text(str(minutes), encoding="ascii")
    action = step(minutes, settings, may_reboot(Path(settings["experiment_lock"]), time.time()))
    print(f"no network for {minutes} min{': ' if action else ''}{action}", file=sys.stderr)
    if action == "reboot":
        LAST_REBOOT.parent.mkdir(exist_ok=True)
        LAST_REBOOT.touch()
        words("systemctl", "reboot")
    elif action:
        {"reconnect": reconnect, "restart": restart}[action]()


if __name__ == "__main__":
    main()
