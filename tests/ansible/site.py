"""A lab as its owner provisions it: inventory, vault, plays, and the resulting database."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.ansible.benches import SERIES, Bench
from tests.ansible.controller import Controller, recap
from tests.ansible.hosts import Host
from tests.ansible.modules import load
from tests.ansible.servers import Database, Vault

Groups = Mapping[str, Mapping[str, Mapping[str, Any]]]


class Site:
    """Hosts that are provisioned as a user would do it."""

    def __init__(self, controller: Controller, groups: Groups) -> None:
        """Create a vault and write the inventory: group to host to variables."""
        self.controller, self.groups = controller, groups
        self.vault = Vault(controller.checkout)
        self.write()

    def host(self, name: str) -> Host:
        """Return a booted host."""
        return self.controller.lab.hosts[name]

    def write(self, **changes: Mapping[str, Any]) -> None:
        """Write the inventory, with variables of some hosts changed."""
        self.controller.write(
            {
                group: {host: {**own, **changes.get(host, {})} for host, own in members.items()}
                for group, members in self.groups.items()
            }
        )

    def try_play(self, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Play; return the result whether it fails or not, but fail if it shows a secret."""
        done = self.controller.try_play(playbook, *self.vault.arguments, *arguments)
        assert self.vault.leaked(done.stdout + done.stderr) == []
        return done

    def play(self, playbook: str, *arguments: str) -> str:
        """Return the output of a play; the test fails with the whole output when the play fails."""
        done = self.try_play(playbook, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def changed(self, playbook: str, *arguments: str) -> dict[str, int]:
        """Return host to how many tasks of a play changed something."""
        return {host: counts["changed"] for host, counts in recap(self.play(playbook, *arguments)).items()}

    def password(self, user: str) -> str:
        """Return the password that is derived for a database user."""
        secrets = load("ansible/plugins/filter/fleet_secrets.py")
        generations = yaml.safe_load((self.controller.checkout / "group_vars/all/generations.yml").read_text())
        return str(secrets.user_secret(self.vault.values["vault_seed"], user, generations["fleet_generations"]))

    def as_user(self, user: str) -> Database:
        """Return the database as a bench or Grafana sees it."""
        (server,) = self.groups["servers"]
        return Database(self.host(server), user, self.password(user))

    def as_admin(self) -> Database:
        """Return the database as its administrator sees it."""
        (server,) = self.groups["servers"]
        return Database(self.host(server), "admin", self.vault.values["vault_influxdb_admin_password"])


class WholeSite(Site):
    """A bench, a server and a workstation, and the output of their provisioning."""

    rehearsal = second = ""

    def __init__(self, controller: Controller, bench: Bench, groups: Groups) -> None:
        """See above; `bench` is the host of that name."""
        super().__init__(controller, groups)
        self.bench = bench

    def values(self, name: str) -> dict[int, float]:
        """Return stamp (ns) to value of an instrument's series in the server's database."""
        measurement, field = SERIES[name]
        found = self.as_admin().query(f"SELECT {field} FROM {measurement} WHERE bench='bench' AND device='{name}'")
        return {stamp: value for series in found.get("series", []) for stamp, value in series["values"]}

    def count(self, name: str, since_ns: int = 0, until_ns: int = 2**62, bench: str = "bench") -> int:
        """Return how many of these values the server has between two stamps."""
        measurement, field = SERIES[name]
        where = f"bench='{bench}' AND device='{name}' AND time > {since_ns} AND time < {until_ns}"
        found = self.as_admin().query(f"SELECT count({field}) FROM {measurement} WHERE {where}")
        return int(found["series"][0]["values"][0][1]) if "series" in found else 0
