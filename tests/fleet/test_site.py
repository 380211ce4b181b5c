"""The whole lab by one play, from nothing: a bench, a server and a workstation, each a booted host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.benches import SERIES, Bench
from tests.fleet.conftest import Controller, recap
from tests.fleet.hosts import Lab, await_true
from tests.fleet.servers import Database, Vault, vendor_repository

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(900)]


class Site:
    """Three hosts, provisioned."""

    def __init__(self, lab: Lab, controller: Controller, wheelhouse: Path) -> None:
        """Boot the hosts and write the inventory; `play` provisions."""
        self.controller, self.vault = controller, Vault(controller.checkout)
        server, self.bench = lab.start("lab", "bookworm"), Bench(lab.start("bench", "trixie"), wheelhouse)
        lab.start("desk", "bookworm")
        repository = vendor_repository(server.root / "srv/vendor", "file:/srv/vendor")
        self.admin = Database(server, "admin", self.vault.values["vault_influxdb_admin_password"])
        controller.write(
            {
                "benches": {"bench": self.bench.variables},
                "servers": {"lab": {"vendor_apt_repositories": [repository], "grafana_version": "13.0.1"}},
                "workstations": {"desk": {"workstation_build_packages": []}},
            },
            "site",
        )

    def play(self, *arguments: str) -> dict[str, dict[str, int]]:
        """Return what the play of the whole lab did on each host; it must not tell a secret."""
        said = self.controller.play("site.yml", *self.vault.arguments, "--diff", *arguments, inventory="site")
        assert self.vault.leaked(said) == []
        return recap(said)

    def count(self, name: str) -> int:
        """Return how many values of an instrument the server has."""
        measurement, field = SERIES[name]
        rows = self.admin.query(f"SELECT count({field}) FROM {measurement} WHERE device='{name}'")
        return int(rows["series"][0]["values"][0][1]) if "series" in rows else 0


@pytest.fixture(scope="module")
def site(lab: Lab, controller: Controller, wheelhouse: Path) -> Iterator[Site]:
    """A lab, provisioned from nothing."""
    made = Site(lab, controller, wheelhouse)
    made.bench.start_fakes()
    made.play()
    yield made
    for name in ("lab", "bench", "desk"):
        lab.hosts[name].stop()


def test_samples_of_every_instrument_reach_the_server(site: Site) -> None:
    await_true("points of every instrument", lambda: all(site.count(name) > 3 for name in SERIES), 60)


def test_a_second_run_changes_nothing(site: Site) -> None:
    changed = {host: counts["changed"] for host, counts in site.play().items()}
    assert changed == {"bench": 0, "lab": 0, "desk": 0}


def test_after_a_reboot_of_the_bench_the_server_has_what_the_journal_has(site: Site) -> None:
    pi = site.bench.pi
    pi.reboot()
    await_true("collecting again", site.bench.collects, 60)
    pi.run("systemctl stop 'collector@*'")
    await_true("all confirmed", lambda: all(s["unsent"]["lab"] == 0 for s in site.bench.status().values()), 60)
    for name, series in SERIES.items():
        assert site.count(name) == site.bench.kept(name, *series) > 20
