"""The network watchdog: its measures after how many minutes, and the measures it must not take."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.ansible.modules import load

SETTINGS = {"reconnect_after": 3, "restart_after": 6, "reboot_after": 30}


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("ansible/roles/network_watch/files/network_watch.py")
    for name in ("SETTINGS", "MINUTES", "LAST_REBOOT"):
        monkeypatch.setattr(module, name, tmp_path / name)
    return module


def test_it_escalates_and_repeats_measures(watch: ModuleType) -> None:
    done = {minutes: watch.step(minutes, SETTINGS, True) for minutes in range(1, 32)}
    assert {minutes: action for minutes, action in done.items() if action} == {
        3: "reconnect", 6: "restart", 11: "restart", 16: "restart", 21: "restart", 26: "restart", 30: "reboot",
        31: "reboot",
    }  # fmt: skip


def test_without_permission_to_reboot_it_continues_with_other_measures(watch: ModuleType) -> None:
    assert [watch.step(minutes, SETTINGS, False) for minutes in range(30, 36)] == ["", "restart", "", "", "", ""]
    assert watch.step(1000, SETTINGS | {"reboot_after": 0}, True) != "reboot"


def test_an_experiment_and_a_recent_reboot_forbid_a_reboot(watch: ModuleType, tmp_path: Path) -> None:
    lock, hour_s = tmp_path / "experiment", 3600.0
    assert watch.may_reboot(lock, 1e9)
    lock.touch()
    assert not watch.may_reboot(lock, 1e9)
    lock.unlink()
    watch.LAST_REBOOT.touch()
    os.utime(watch.LAST_REBOOT, (1e9, 1e9))
    assert not watch.may_reboot(lock, 1e9 + 5 * hour_s)
    assert watch.may_reboot(lock, 1e9 + 7 * hour_s)
    assert watch.may_reboot(lock, 1e9 - 7 * hour_s), "a clock that was set back does not forbid it"


@pytest.mark.parametrize(
    ("routes", "answering", "is_there"),
    [
        ([{"gateway": "192.0.2.1"}], {"192.0.2.1"}, True),
        ([{"gateway": "192.0.2.1"}], {"server.example"}, True),
        ([], {"server.example"}, True),
        ([{"gateway": "192.0.2.1"}, {"dev": "wwan0"}], set(), False),
        ([], set(), False),
    ],
    ids=["gateway", "a gateway that does not answer pings", "no route", "nobody", "nothing"],
)
def test_the_network_is_up_when_the_gateway_or_the_server_responds(
    watch: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    routes: list[dict[str, str]],
    answering: set[str],
    is_there: bool,
) -> None:
    monkeypatch.setattr(watch, "default_routes", lambda: routes)
    monkeypatch.setattr(watch, "answers", lambda address: address in answering)
    assert watch.is_connected(["server.example"]) == is_there


FAKE_NMCLI = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in *device) echo wlan0:wifi:disconnected; echo lo:loopback:unmanaged;; esac
"""


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("reconnect", ["device connect wlan0"]),
        ("restart", ["radio wifi off", "radio wifi on", "device connect wlan0"]),
    ],
)
def test_actions_call_networkmanager(
    watch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, said: list[str]
) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "nmcli").write_text(FAKE_NMCLI, encoding="ascii")
    (tmp_path / "ip").write_text("#!/bin/sh\n", encoding="ascii")
    for name in ("nmcli", "ip"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setattr(watch.time, "sleep", lambda _s: None)
    getattr(watch, action)()
    lines = [line for line in calls.read_text(encoding="ascii").splitlines() if not line.startswith("-t")]
    assert lines == said
