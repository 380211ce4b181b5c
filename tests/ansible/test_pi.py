"""The benches' hosts: the roles of `pi.yml` on a booted Pi."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.ansible.hosts import await_true, shell
from tests.ansible.site import WholeSite

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(1800)]
PLAYBOOK = "playbooks/pi.yml"
BEHIND_THE_GATE = {"bench_instruments": [], "tunnel_gate": "lab", "tunnel_port": 2209}


def test_ssh_accepts_keys_only(site: WholeSite) -> None:
    command = [word.replace("admin@", "ada@") for word in site.bench.pi.ssh("sudo", "id", "-un")]
    assert shell(*command).strip() == "root"
    settings = site.bench.pi.run("sshd -T")
    assert "passwordauthentication no" in settings
    assert "kbdinteractiveauthentication no" in settings


def test_the_firewall_accepts_only_ssh(site: WholeSite) -> None:
    rules = site.bench.pi.run("nft list table inet battfleet")
    assert "policy drop" in rules
    assert rules.count("tcp dport") == 1
    assert site.bench.pi.run("systemctl is-enabled battfleet-firewall").strip() == "enabled"


def test_a_firewall_that_blocks_ssh_is_reverted_automatically(site: WholeSite) -> None:
    before = site.bench.pi.run("nft list table inet battfleet")
    site.bench.pi.run(
        "sed -i 's/tcp dport 22 accept/tcp dport 23 accept/; /established/d' /etc/battfleet/access/firewall.nft"
    )
    began_s = time.monotonic()
    site.bench.pi.try_run("timeout 5 /etc/battfleet/access/access.sh try 8")
    assert site.bench.pi.try_run("true").returncode != 0, "nobody comes in now"
    await_true("the way in", lambda: site.bench.pi.try_run("true").returncode == 0, 60)
    assert time.monotonic() - began_s > 6
    assert site.bench.pi.run("nft list table inet battfleet") == before
    site.play(PLAYBOOK)


def test_settings_against_card_wear_and_silent_failures_are_set(site: WholeSite) -> None:
    assert "SystemMaxUse=64M" in site.bench.pi.run("systemd-analyze cat-config systemd/journald.conf")
    assert "RuntimeWatchdogSec=14" in site.bench.pi.run("systemd-analyze cat-config systemd/system.conf")
    updates = site.bench.pi.run("apt-config dump Unattended-Upgrade")
    assert 'Origins-Pattern:: "origin=Debian,codename=${distro_codename}-security,label=Debian-Security"' in updates
    assert updates.count("Origins-Pattern:: ") == 2, "Debian's own list is not beside ours"


def test_the_experiment_lock_holds_updates(site: WholeSite) -> None:
    condition = site.bench.pi.run("systemctl show --value -p ExecCondition apt-daily-upgrade.service")
    assert "/run/battfleet/experiment" in condition


def test_serial_ports_have_persistent_names(site: WholeSite) -> None:
    rules = site.bench.pi.run("cat /etc/udev/rules.d/70-battfleet-serial.rules")
    assert 'ENV{ID_PATH}=="platform-1.2", SYMLINK+="bat/load"' in rules
    assert 'ENV{ID_SERIAL_SHORT}=="A1B2", SYMLINK+="bat/mppt"' in rules
    assert site.bench.pi.try_run("udevadm verify /etc/udev/rules.d/70-battfleet-serial.rules").returncode == 0


def test_minutes_without_network_are_counted_and_the_route_is_restored(site: WholeSite) -> None:
    pi, server = site.bench.pi, site.host("lab").address
    look = "systemctl start network-watch"
    pi.run("systemctl stop network-watch.timer")
    pi.run(f"ip route del default && ip route add unreachable {server} && {look} && {look}")
    assert pi.run("cat /run/battfleet-network-watch/minutes") == "2"
    pi.run(look)
    await_true("the route, by reconnecting", lambda: "default" in pi.run("ip route"), 10)
    pi.try_run(f"ip route del unreachable {server}")
    pi.run(f"{look} && test ! -e /run/battfleet-network-watch/minutes")
    pi.run("systemctl start network-watch.timer")


def test_a_bench_behind_a_router_is_reached_through_its_tunnel(site: WholeSite) -> None:
    gate, pi = site.host("lab"), site.bench.pi
    probe = "import socket; print(socket.create_connection(('localhost', 2201), 5).recv(4))"
    await_true("the tunnel", lambda: "SSH-" in gate.try_run(f'python3 -c "{probe}"').stdout, 40)
    key = pi.root / "etc/battfleet/tunnel/key"
    asked = ["ssh", *site.controller.lab.ssh_options, "-i", str(key), f"tunnel@{gate.address}", "id"]
    assert (
        subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).returncode != 0
    ), "its key opens no shell"
    assert "127.0.0.1:2201" in gate.run("ss -ltnH")
    beyond = ["ssh", *site.controller.lab.ssh_options, "-i", str(key), "-W", "127.0.0.1:22", f"tunnel@{gate.address}"]
    refused = subprocess.run(beyond, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "stdio forwarding failed" in refused.stderr and "SSH-" not in refused.stdout
    line = gate.run("cat /etc/ssh/battfleet-gate.keys")
    assert line.count("\n") == 1 and line.strip().endswith(" bench")


def test_the_gate_matches_host_names_literally_and_removes_deleted_benches(site: WholeSite) -> None:
    gate, keys = site.host("lab"), "/etc/ssh/battfleet-gate.keys"
    own = gate.run(f"cat {keys}")
    other, gone = own.replace(" bench\n", " benchXold\n"), own.replace(" bench\n", " gone\n")
    gate.run(f"cat >>{keys}", other + gone)
    site.controller.write({**site.groups, "benches": {**site.groups["benches"], "benchXold": BEHIND_THE_GATE}})
    site.play(PLAYBOOK, "--limit", "bench", "--tags", "tunnel_configure")
    assert gate.run(f"cat {keys}") == own + other
    assert "PermitListen localhost:2201 localhost:2209" in gate.run("cat /etc/ssh/sshd_config.d/10-battfleet-gate.conf")
    site.write()
    site.play(PLAYBOOK, "--limit", "bench", "--tags", "tunnel_configure")
    assert gate.run(f"cat {keys}") == own


def test_ssh_rejects_keys_that_users_added_themselves_or_that_were_removed(site: WholeSite) -> None:
    pi = site.bench.pi
    enter = [word.replace("admin@", "ada@") for word in pi.ssh("true")]
    pi.run("mkdir -p -m 0700 /home/ada/.ssh && cp /etc/ssh/authorized_keys.d/ada /home/ada/.ssh/authorized_keys")
    pi.run("chown -R ada: /home/ada/.ssh && touch /etc/ssh/authorized_keys.d/left-behind")
    site.write(bench={"access_users": []})
    only = ("--limit", "bench", "--tags", "access_install,access_configure,access_run")
    site.play(PLAYBOOK, *only)
    assert subprocess.run(enter, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 255
    assert pi.run("ls -A /etc/ssh/authorized_keys.d") == ""
    assert "ada" not in pi.run("cat /etc/sudoers.d/battfleet")
    site.write()
    site.play(PLAYBOOK, *only)
    assert subprocess.run(enter, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    pi.run("rm -r /home/ada/.ssh")
    assert subprocess.run(enter, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def test_sudo_can_be_limited_to_some_commands(site: WholeSite) -> None:
    pi = site.bench.pi
    (key,) = pi.run("cat /etc/ssh/authorized_keys.d/ada | grep -v '^#'").splitlines()
    narrow = {
        "name": "ada",
        "keys": [key],
        "sudo": True,
        "commands": ["/usr/bin/id -un", "/usr/bin/systemctl status *"],
    }
    site.write(bench={"access_users": [narrow]})
    only = ("--limit", "bench", "--tags", "access_configure")
    site.play(PLAYBOOK, *only)
    command = [word.replace("admin@", "ada@") for word in pi.ssh("sudo", "-n")]
    assert shell(*command, "id", "-un").strip() == "root"
    assert (
        subprocess.run([*command, "cat", "/etc/shadow"], stdin=subprocess.DEVNULL, capture_output=True).returncode != 0
    )
    site.write()
    site.play(PLAYBOOK, *only)


def test_can_and_bluetooth_are_switched_on_and_off_for_a_bench(site: WholeSite) -> None:
    pi = site.bench.pi
    pi.run("mkdir -p /boot/firmware && printf '[pi5]\\nfoo=1\\n' >/boot/firmware/config.txt")
    hat = {"name": "can0", "bitrate": 500000, "oscillator": 16000000, "interrupt": 25}
    site.write(bench={"can_interfaces": [hat], "bluetooth_enabled": True})
    only = (
        "--limit",
        "bench",
        "--tags",
        "can_install,can_configure,can_run,bluetooth_install,bluetooth_configure,bluetooth_run",
    )
    assert "reboot needed" in site.play(PLAYBOOK, *only)
    block = "[all]\ndtparam=spi=on\ndtoverlay=mcp2515-can0,oscillator=16000000,interrupt=25\n"
    assert block in pi.run("cat /boot/firmware/config.txt")
    assert pi.run("systemctl is-enabled bluetooth systemd-networkd").split() == ["enabled"] * 2
    assert site.changed(PLAYBOOK, *only) == {"bench": 0}
    site.write()
    site.play(PLAYBOOK, *only)
    assert pi.run("cat /boot/firmware/config.txt") == "[pi5]\nfoo=1\n"
    assert "battfleet-can0" not in pi.run("ls /etc/systemd/network")
    pi.run("rm -r /boot/firmware")
