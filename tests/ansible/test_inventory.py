"""Wrong inventories: each mistake is rejected by name before any host is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.modules import ROOT, load

SCRIPT = ROOT / "ansible/roles/inventory_check/files/check_benches.py"
MPPT = {"name": "mppt", "kind": "libresolar_mppt", "link": "serial:/dev/ttyUSB0"}
LOAD = {"name": "load", "kind": "ea_el3000a", "link": "serial:/dev/ttyUSB1"}
T7 = {
    "name": "t7",
    "kind": "labjack_t7",
    "link": "tcp:192.0.2.17",
    "device": {"channels": [{"input": "AIN0", "signal": "battery.voltage_v"}]},
}
CAN = {"name": "can0", "bitrate": 500_000, "oscillator": 16_000_000, "interrupt": 25}
SINK = {"name": "lab", "dialect": "influxdb1", "url": "https://192.0.2.10", "database": "bat"}


def without(item: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in item.items() if k != key}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    # the mistake: (the host's variables, a part of the message)
    "no list": ({}, "bench_instruments: missing; write it in inventory/host_vars/"),
    "not a list": ({"bench_instruments": MPPT}, "bench_instruments: expected a list of instruments, got dict"),
    "not a table": ({"bench_instruments": ["mppt"]}, "bench_instruments[1]: expected keys such as name"),
    "no name": ({"bench_instruments": [without(MPPT, "name")]}, "[1] [collector] name: missing"),
    "no kind": ({"bench_instruments": [without(MPPT, "kind")]}, "[1] 'mppt' [collector] kind: missing"),
    "no link": ({"bench_instruments": [LOAD, without(MPPT, "link")]}, "[2] 'mppt' [collector] link: missing"),
    "unknown kind": ({"bench_instruments": [MPPT | {"kind": "libresolar"}]}, "no instrument 'libresolar'"),
    "unknown link": ({"bench_instruments": [MPPT | {"link": "usb:1"}]}, "link"),
    "link of another kind": ({"bench_instruments": [T7 | {"link": "serial:/dev/ttyUSB0"}]}, "link"),
    "mistyped key": ({"bench_instruments": [MPPT | {"perod_s": 1}]}, "perod_s: unknown key; did you mean 'period_s'?"),
    "mistyped option": ({"bench_instruments": [LOAD | {"device": {"pauses": 1}}]}, "[device] pauses: unknown key"),
    "mistyped journal key": ({"bench_instruments": [LOAD | {"journal": {"rol_mib": 1}}]}, "[journal] rol_mib: unknown"),
    "text for a number": ({"bench_instruments": [MPPT | {"period_s": "fast"}]}, "period_s: expected a number"),
    "impossible period": ({"bench_instruments": [MPPT | {"period_s": 0}]}, "period_s: expected 0.001 to 86400"),
    "key without value": ({"bench_instruments": [MPPT | {"battery": None}]}, "battery: has no value"),
    "name with a slash": ({"bench_instruments": [MPPT | {"name": "a/b"}]}, "name: expected letters, digits"),
    "name of another journal": ({"bench_instruments": [MPPT | {"name": "notes"}]}, "is the name of a journal"),
    "name used twice": ({"bench_instruments": [MPPT, LOAD | {"name": "mppt"}]}, "name: also used by"),
    "link used twice": ({"bench_instruments": [MPPT, LOAD | {"link": MPPT["link"]}]}, "used by 2 instruments"),
    "unnamed port": ({"bench_instruments": [MPPT | {"link": "serial:/dev/bat/x"}]}, "no 'x' in serial_names_ports"),
    "bench in an instrument": ({"bench_instruments": [MPPT | {"bench": "b"}]}, "bench: is the same for the"),
    "no channels": ({"bench_instruments": [without(T7, "device")]}, "[device] channels: missing"),
    "options as a list": ({"bench_instruments": [LOAD | {"device": ["pause_s"]}]}, "device: expected a table"),
    "sink of no kind": (
        {"bench_instruments": [MPPT], "collectors_sinks": [SINK | {"dialect": "influxdb9"}]},
        "collectors_sinks [[sink]] lab dialect: expected 'influxdb1' or 'influxdb2'",
    ),
    "sink without its secret": (
        {"bench_instruments": [MPPT], "collectors_sinks": [SINK | {"user": "u", "password_file": "lab"}]},
        "secret file collectors_secrets/lab: No such file",
    ),
    "CAN as a table": ({"bench_instruments": [], "can_interfaces": CAN}, "can_interfaces: expected a list of"),
    "CAN without its rate": ({"bench_instruments": [], "can_interfaces": [without(CAN, "bitrate")]}, "got None"),
    "CAN rate as text": (
        {"bench_instruments": [], "can_interfaces": [CAN | {"bitrate": "500k"}]},
        "can_interfaces[1] bitrate: expected 10000 to 1000000, got '500k'",
    ),
    "CAN crystal in MHz": (
        {"bench_instruments": [], "can_interfaces": [CAN | {"oscillator": 16}]},
        "oscillator: expected 1000000 to 40000000, got 16",
    ),
    "CAN crystal without its pin": (
        {"bench_instruments": [], "can_interfaces": [without(CAN, "interrupt")]}, "interrupt: expected 0 to 27"
    ),
    "CAN under another name": (
        {"bench_instruments": [], "can_interfaces": [CAN | {"name": "can2"}]}, "name: expected can0 or can1, got 'can2'"
    ),
    "CAN mistyped": (
        {"bench_instruments": [], "can_interfaces": [CAN | {"bit_rate": 1}]}, "bit_rate: unknown key; there are: name"
    ),
    "CAN pin used twice": (
        {"bench_instruments": [], "can_interfaces": [CAN, CAN | {"name": "can1"}]}, "interrupt 25 is used 2 times"
    ),
    "Bluetooth perhaps": (
        {"bench_instruments": [], "bluetooth_enabled": "maybe"}, "bluetooth_enabled: expected true or false"
    ),
    "country in words": (
        {"bench_instruments": [], "network_watch_country": "Germany"}, "network_watch_country: expected two letters"
    ),
    "bench named twice": ({"bench_instruments": [MPPT], "collectors_bench": "other"}, "is used by 2 hosts"),
}  # fmt: skip
RIGHT = {
    "bench_instruments": [MPPT, LOAD, T7],
    "collectors_sinks": [SINK],
    "collectors_bench": "other",
    "can_interfaces": [CAN, {"name": "can7", "bitrate": 125_000}],
    "bluetooth_enabled": True,
    "network_watch_country": "DE",
}


def host_named(title: str) -> str:
    return title.replace(" ", "-")


def check(benches: dict[str, dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Return the messages of the check for these hosts' variables."""
    module = load("ansible/plugins/filter/battfleet.py")
    facts = {host: module.bench_facts({"collectors_bench": host} | variables) for host, variables in benches.items()}
    return subprocess.run(
        [sys.executable, SCRIPT], input=json.dumps(facts), capture_output=True, text=True, check=False
    )


def test_a_right_inventory_passes() -> None:
    done = check({"bench-1": RIGHT})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("title", WRONG)
def test_each_mistake_is_named_with_host_and_key(title: str) -> None:
    variables, words = WRONG[title]
    done = check({host_named(title): variables, "right": RIGHT})
    assert done.returncode == 78, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if words in line and host_named(title) in line], lines
    assert all(host_named(title) in line for line in lines), "nothing is said against the host that is right"


def inventory_of(folder: Path, benches: dict[str, dict[str, Any]]) -> Path:
    """Write an inventory with these benches, at addresses without a host."""
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    hosts = {host: {"ansible_host": "192.0.2.1"} | variables for host, variables in benches.items()}
    path = folder / "hosts.yml"
    path.write_text(json.dumps({"benches": {"hosts": hosts}}), encoding="utf-8")
    return path


def play(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook as a user does, in the checkout."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/collectors.yml", "playbooks/pi.yml"])
def test_all_mistakes_of_all_hosts_are_reported_at_once_and_no_host_is_changed(tmp_path: Path, playbook: str) -> None:
    benches = {host_named(title): variables for title, (variables, _) in WRONG.items()}
    done = play(f"ansible/{playbook}", "-i", str(inventory_of(tmp_path, benches | {"right": RIGHT})))
    assert done.returncode != 0
    assert done.stdout.count("PLAY [") == 1, "the first play is the only one"
    assert "192.0.2.1" not in done.stdout + done.stderr, "no host was called"
    missing = [title for title in WRONG if host_named(title) not in done.stdout]
    assert not missing


def test_a_limit_does_not_bypass_the_check(tmp_path: Path) -> None:
    benches: dict[str, dict[str, Any]] = {"right": RIGHT, "wrong": {"bench_instruments": [MPPT | {"kind": "none"}]}}
    done = play("ansible/playbooks/collectors.yml", "-i", str(inventory_of(tmp_path, benches)), "--limit", "right")
    assert done.returncode != 0
    assert "no instrument 'none'" in done.stdout
    assert done.stdout.count("PLAY [") == 1


def test_top_level_group_vars_are_found() -> None:
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "--host", "bench-2"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)["collectors_instruments"] == "{{ bench_instruments }}"
