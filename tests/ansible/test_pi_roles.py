"""Files that the Pi's roles write, rendered without a host and checked by the programs that read them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader

from collectors.host.clock import STA_UNSYNC, SYNCHRONISED, UNSYNCHRONISED, SystemClock
from tests.ansible.modules import ROOT
from tests.ansible.test_roles import read

ROLES = ROOT / "ansible/roles"
NETWORKD = Path("/lib/systemd/systemd-networkd")
HAT = {"name": "can0", "bitrate": 500_000, "oscillator": 16_000_000, "interrupt": 25}
USB = {"name": "can7", "bitrate": 125_000}


def render(template: str, **variables: Any) -> str:
    """Return the file that a role writes with its defaults and these variables."""
    path = ROLES / template
    defaults = read(path.parents[1] / "defaults/main.yml") or {}
    environment = Environment(loader=FileSystemLoader(path.parent), trim_blocks=True, autoescape=False)
    return environment.get_template(path.name).render(defaults | {"ansible_managed": ""} | variables)


def test_the_firmware_configuration_names_each_hat_whatever_section_precedes() -> None:
    assert render("can/templates/config.txt.j2", can_hats=[HAT]).splitlines() == [
        "[all]",
        "dtparam=spi=on",
        "dtoverlay=mcp2515-can0,oscillator=16000000,interrupt=25",
    ]


@pytest.mark.skipif(
    os.geteuid() != 0 or not NETWORKD.exists() or not shutil.which("unshare"),
    reason="needs root and systemd-networkd, which reads its files in a network of its own",
)
@pytest.mark.parametrize("extra", ["", "Bitrate=1\n"], ids=["as written", "with a mistake"])
def test_networkd_accepts_every_setting_of_an_interface(tmp_path: Path, extra: str) -> None:
    tmp_path.chmod(0o755)  # it reads files as its own user
    for item in (HAT, USB):
        text = render("can/templates/can.network.j2", item=item) + extra
        assert f"BitRate={item['bitrate']}" in text
        (tmp_path / f"60-battfleet-{item['name']}.network").write_text(text, encoding="ascii")
    script = (
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd /etc/systemd/network && "
        f"mount --bind {tmp_path} /etc/systemd/network && SYSTEMD_LOG_TARGET=console timeout 3 {NETWORKD}"
    )
    command = ["unshare", "--net", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "Enumeration completed" in said, said
    assert ("60-battfleet-can" in said) == bool(extra), said


def test_the_boot_does_not_wait_for_a_bus() -> None:
    assert "RequiredForOnline=no" in render("can/templates/can.network.j2", item=HAT)


def test_only_a_bench_with_can_may_open_can_sockets() -> None:
    unit = "collectors/templates/collector@.service.j2"
    families = [
        next(line for line in text.splitlines() if line.startswith("RestrictAddressFamilies="))
        for text in (render(unit), render(unit, collectors_address_families=["AF_CAN"]))
    ]
    assert families[0].split() == ["RestrictAddressFamilies=AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]
    assert families[1].split() == [*families[0].split(), "AF_CAN"]


def of_bench(name: str, **variables: Any) -> str:
    """Return Ansible's value of a variable of the example inventory's first bench."""
    command = [str(Path(sys.executable).with_name("ansible")), "bench-1", "-m", "ansible.builtin.debug"]
    arguments = ["-a", f"var={name}", "-e", json.dumps(variables)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.parametrize("interfaces", [[], [USB]], ids=["no CAN", "CAN"])
def test_the_list_of_interfaces_is_all_that_a_bench_configures(interfaces: list[dict[str, Any]]) -> None:
    assert ("AF_CAN" in of_bench("collectors_address_families", can_interfaces=interfaces)) == bool(interfaces)


def test_the_network_watch_of_a_bench_checks_the_server_too() -> None:
    assert "lab-server.lab.example" in of_bench("network_watch_hosts")


@pytest.mark.parametrize("unit", ["collector@.service.j2", "collectors-ship.service.j2"])
def test_collectors_may_read_the_kernels_clock_status(unit: str) -> None:
    """The C library calls clock_adjtime; a call that the filter blocks always means "not synchronised"."""
    lines = render(f"collectors/templates/{unit}").splitlines()
    filters = [line.partition("=")[2] for line in lines if line.startswith("SystemCallFilter=")]
    assert filters == ["@system-service", "~@privileged @resources", "adjtimex clock_adjtime clock_adjtime64"]


def test_chrony_sets_the_kernels_clock_status_and_collectors_read_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without `rtcsync` chrony never clears STA_UNSYNC, and no sample would be shipped."""
    settings = [line for line in render("clock/templates/battfleet.conf.j2").splitlines() if not line.startswith("#")]
    assert [line for line in settings if line] == ["rtcsync"]
    clock = SystemClock(tmp_path / "no-timesyncd")
    for status, state in ((STA_UNSYNC, UNSYNCHRONISED), (0, SYNCHRONISED)):
        monkeypatch.setattr(clock, "_libc", Kernel(status))
        assert clock.look().state == state


class Kernel:
    """A libc whose adjtimex returns this status."""

    def __init__(self, status: int) -> None:
        """Take the status."""
        self.status = status

    def adjtimex(self, timex: Any) -> int:
        """Fill in the struct."""
        timex._obj.status = self.status  # the object that `byref` points at
        return 0


CONNECT_AS = """
import os, pwd, socket, sys
server = socket.create_server(("127.0.0.1", 8088))
os.setgroups([])
os.setuid(pwd.getpwnam(sys.argv[1]).pw_uid)
try:
    socket.socket().connect(("127.0.0.1", 8088))
    print("connected")
except ConnectionRefusedError:
    print("refused")
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nft", "ip"))),
    reason="needs root, nft, and a network of its own",
)
@pytest.mark.parametrize(
    ("users", "user", "said"),
    [(["root"], "root", "connected"), (["root"], "daemon", "refused"), (None, "daemon", "connected")],
)
def test_a_port_on_loopback_can_be_limited_to_some_users(
    tmp_path: Path, users: list[str] | None, user: str, said: str
) -> None:
    rows = [{"port": 8088, "users": users}] if users else []
    rules, program = tmp_path / "firewall.nft", tmp_path / "connect.py"
    rules.write_text(render("access/templates/firewall.nft.j2", access_local_ports=rows), encoding="ascii")
    program.write_text(CONNECT_AS, encoding="ascii")
    script = f"set -e; ip link set lo up; nft -f {rules}; exec timeout 20 python3 {program} {user}"
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == said, done.stderr
