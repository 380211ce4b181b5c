"""The controller of a play: a copy of the checkout, an inventory, ansible-playbook."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.ansible import hosts
from tests.ansible.hosts import Lab
from tests.ansible.modules import ROOT

PARTS = (
    "ansible", "ansible.cfg", "collectors", "grafana", "group_vars", "inventory", "LICENSE", "pyproject.toml",
    "README.md", "requirements.txt", "scripts",
)  # fmt: skip
"""What a controller needs of the checkout. Tests play from a copy, so that nobody's editing changes a second run."""
NOWHERE = "192.0.2.1"
"""Where a host is that is only in the inventory: an address of RFC 5737, at which nobody answers."""


class Controller:
    """A copy of the checkout from which a lab is provisioned."""

    def __init__(self, checkout: Path, lab: Lab) -> None:
        """Copy the checkout to this empty folder."""
        self.checkout, self.lab = checkout, lab
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, checkout / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, checkout / part)

    def write(self, groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Write the inventory: group to host to variables, with the checkout's own group_vars."""
        reach = {"ansible_user": hosts.USER, "ansible_ssh_common_args": " ".join(self.lab.ssh_options)}
        inventory = {
            group: {"hosts": {host: self._address(host) | reach | dict(own) for host, own in members.items()}}
            for group, members in groups.items()
        }
        (self.checkout / "inventory/hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")

    def _address(self, host: str) -> dict[str, Any]:
        booted = self.lab.hosts.get(host)
        return {"ansible_host": booted.address if booted else NOWHERE}

    def try_play(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook in the copy; return its result whether it fails or not."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), f"ansible/{playbook}", *arguments]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=self.checkout
        )


def recap(output: str) -> dict[str, dict[str, int]]:
    """Return host to the counters of a play's recap: ok, changed, failed, …"""
    lines = output.partition("PLAY RECAP")[2].splitlines()[1:]
    rows = [line.split(":", 1) for line in lines if ":" in line]
    return {host.strip(): {k: int(v) for k, v in (pair.split("=") for pair in counts.split())} for host, counts in rows}
