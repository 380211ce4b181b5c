"""Booted hosts and what they need, once for the session; only the tests marked `slow` use them."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import hosts
from tests.fleet.hosts import CACHE, Host, Lab

ROOT = Path(__file__).parents[2]
PARTS = (
    "ansible", "ansible.cfg", "collectors", "grafana", "group_vars", "inventory", "LICENSE", "pyproject.toml",
    "README.md", "requirements.txt", "scripts",
)  # fmt: skip
"""What a controller needs of the checkout. Tests play from a copy, so that nobody's editing changes a second run."""


@dataclass(frozen=True)
class Controller:
    """Whoever plays: a copy of the checkout, an inventory, ssh."""

    checkout: Path
    lab: Lab

    def write(self, groups: Mapping[str, Mapping[str, Mapping[str, Any]]], name: str = "hosts") -> Path:
        """Write an inventory: group to host to variables, with the checkout's own group_vars."""
        folder = self.checkout / "inventory"
        reach = {
            "ansible_user": hosts.USER,
            "ansible_ssh_common_args": " ".join(self.lab.ssh_options),
        }
        inventory = {
            group: {
                "hosts": {
                    host: {"ansible_host": self.lab.hosts[host].address} | reach | dict(variables)
                    for host, variables in members.items()
                }
            }
            for group, members in groups.items()
        }
        path = folder / f"{name}.yml"
        path.write_text(json.dumps(inventory), encoding="utf-8")
        return path

    def try_play(self, playbook: str, *arguments: str, inventory: str = "hosts") -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook in the copy, whatever comes of it."""
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")), "-i", f"inventory/{inventory}.yml",
            f"ansible/{playbook}", *arguments,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.checkout)

    def play(self, playbook: str, *arguments: str, inventory: str = "hosts") -> str:
        """Return what ansible-playbook says; the test fails with all of it when the play fails."""
        done = self.try_play(playbook, *arguments, inventory=inventory)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def recap(output: str) -> dict[str, dict[str, int]]:
    """Return host to what the last lines of a play count: ok, changed, failed, …"""
    lines = output.partition("PLAY RECAP")[2].splitlines()[1:]
    rows = [line.split(":", 1) for line in lines if ":" in line]
    return {host.strip(): {k: int(v) for k, v in (pair.split("=") for pair in counts.split())} for host, counts in rows}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A bridge for hosts."""
    if reason := hosts.why_not():
        pytest.skip(reason)
    with Lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def controller(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """A copy of the checkout that does not change under a test; a vault put into it is that module's alone."""
    checkout = tmp_path_factory.mktemp("controller")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, checkout / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, checkout / part)
    return Controller(checkout, lab)


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """A folder with every wheel of the lock for Debian 13's Python: hosts of a lab without internet install from it."""
    folder = CACHE / f"wheels-{sha256((ROOT / 'requirements.txt').read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        command = [sys.executable, str(ROOT / "scripts/wheelhouse.py"), str(draft), "--machine", platform.machine()]
        subprocess.run(command, check=True)
        draft.rename(folder)
    return folder


class InfluxOnHost:
    """Debian's InfluxDB 1.6 on a host, as bare as its package makes it: no users, no TLS."""

    def __init__(self, host: Host) -> None:
        """Install and start it."""
        self.url = f"http://{host.address}:8086"
        host.run("apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq influxdb >/dev/null 2>&1")
        host.run("systemctl restart influxdb")
        hosts.await_true("InfluxDB", self._answers, 30)
        self.query("CREATE DATABASE bat")

    def _answers(self) -> bool:
        try:
            self.query("SHOW DATABASES")
        except OSError:
            return False
        return True

    def query(self, text: str) -> Any:
        """Return the decoded answer to an InfluxQL statement."""
        body = urllib.parse.urlencode({"q": text, "db": "bat", "epoch": "ns"}).encode()
        with urllib.request.urlopen(f"{self.url}/query", body, timeout=10) as answer:
            return json.load(answer)["results"][0]

    def count(self, measurement: str, field: str, device: str) -> int:
        """Return how many values of a field a device has."""
        rows = self.query(f"""SELECT count("{field}") FROM "{measurement}" WHERE "device" = '{device}'""")
        return rows["series"][0]["values"][0][1] if "series" in rows else 0
