"""What the benches run on: the roles of `pi.yml` on a booted Pi."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fleet.conftest import Controller, recap
from tests.fleet.hosts import Host, Lab, await_true, shell

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-pi"), pytest.mark.timeout(900)]
PLAYBOOK = "playbooks/pi.yml"
PORTS = [{"name": "load", "path": "platform-1.2"}, {"name": "mppt", "serial": "A1B2"}]


class Card:
    """A Pi, and the variables that it is set up with."""

    def __init__(self, controller: Controller, pi: Host) -> None:
        """Take these."""
        self.controller, self.pi = controller, pi
        key = controller.lab.key.with_suffix(".pub").read_text(encoding="ascii").strip()
        self.variables: dict[str, Any] = {
            "bench_instruments": [],
            "collectors_sinks": [],
            "serial_names_ports": PORTS,
            "access_users": [{"name": "ada", "keys": [key], "sudo": True}],
            "access_rollback_s": 20,
        }

    def write(self, **changes: Any) -> None:
        """Write the inventory, with these variables changed."""
        self.controller.write({"benches": {"card": self.variables | changes}}, "card")

    def play(self, *arguments: str) -> str:
        """Return what the play says."""
        return self.controller.play(PLAYBOOK, *arguments, inventory="card")


@pytest.fixture(scope="module")
def card(lab: Lab, controller: Controller) -> Iterator[Card]:
    """A Pi that was set up from nothing."""
    made = Card(controller, lab.start("card", "trixie"))
    made.write()
    made.play("--check", "--diff")
    made.play()
    yield made
    made.pi.stop()


def test_a_second_run_changes_nothing(card: Card) -> None:
    assert recap(card.play())["card"]["changed"] == 0
    assert recap(card.play("--check", "--diff"))["card"]["changed"] == 0


def test_people_come_in_by_key_alone(card: Card) -> None:
    command = [word.replace("admin@", "ada@") for word in card.pi.ssh("sudo", "id", "-un")]
    assert shell(*command).strip() == "root"
    settings = card.pi.run("sshd -T")
    assert "passwordauthentication no" in settings
    assert "kbdinteractiveauthentication no" in settings


def test_the_firewall_lets_only_ssh_in(card: Card) -> None:
    rules = card.pi.run("nft list table inet battfleet")
    assert "policy drop" in rules
    assert rules.count("tcp dport") == 1
    assert card.pi.run("systemctl is-enabled battfleet-firewall").strip() == "enabled"


def test_a_firewall_that_locks_us_out_goes_back_by_itself(card: Card) -> None:
    before = card.pi.run("nft list table inet battfleet")
    card.pi.run(
        "sed -i 's/tcp dport 22 accept/tcp dport 23 accept/; /established/d' /etc/battfleet/access/firewall.nft"
    )
    began_s = time.monotonic()
    card.pi.try_run("timeout 5 /etc/battfleet/access/access.sh try 8")
    assert card.pi.try_run("true").returncode != 0, "nobody comes in now"
    await_true("the way in", lambda: card.pi.try_run("true").returncode == 0, 60)
    assert time.monotonic() - began_s > 6
    assert card.pi.run("nft list table inet battfleet") == before
    card.play()


def test_what_wears_the_card_or_fails_silently_is_set(card: Card) -> None:
    assert "SystemMaxUse=64M" in card.pi.run("systemd-analyze cat-config systemd/journald.conf")
    assert "RuntimeWatchdogSec=14" in card.pi.run("systemd-analyze cat-config systemd/system.conf")
    updates = card.pi.run("apt-config dump Unattended-Upgrade")
    assert 'Origins-Pattern:: "origin=Debian,codename=${distro_codename}-security,label=Debian-Security"' in updates
    assert updates.count("Origins-Pattern:: ") == 2, "Debian's own list is not beside ours"


def test_the_experiment_lock_holds_updates(card: Card) -> None:
    condition = card.pi.run("systemctl show --value -p ExecCondition apt-daily-upgrade.service")
    assert "/run/battfleet/experiment" in condition


def test_ports_have_names(card: Card) -> None:
    rules = card.pi.run("cat /etc/udev/rules.d/70-battfleet-serial.rules")
    assert 'ENV{ID_PATH}=="platform-1.2", SYMLINK+="bat/load"' in rules
    assert 'ENV{ID_SERIAL_SHORT}=="A1B2", SYMLINK+="bat/mppt"' in rules
    assert card.pi.try_run("udevadm verify /etc/udev/rules.d/70-battfleet-serial.rules").returncode == 0


def test_a_lost_network_is_counted_and_found_again(card: Card) -> None:
    card.pi.run("ip route del default && /usr/local/sbin/network-watch && /usr/local/sbin/network-watch")
    assert card.pi.run("cat /run/battfleet-network-watch") == "2"
    card.pi.run("/usr/local/sbin/network-watch")
    await_true("the route, by reconnecting", lambda: "default" in card.pi.run("ip route"), 10)
    card.pi.run("/usr/local/sbin/network-watch && test ! -e /run/battfleet-network-watch")
