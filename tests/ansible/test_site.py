"""The whole lab by one play, from nothing: a bench, a server and a workstation, each a booted host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ansible.benches import SERIES, Bench
from tests.ansible.controller import recap
from tests.ansible.hosts import Host, Lab, await_true
from tests.ansible.site import WholeSite

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(1800)]

HOSTS = ("bench", "desk", "lab")
NOT_OURS = ("apt-daily-upgrade.service", "fakes.service", "host-keys.service")
"""The package manager, which must be able to do anything, and what belongs to the tests."""
MOST_EXPOSED = 20  # systemd-analyze counts tenths: 2.0
ALLOWED = {"nginx.service": 24}
"""Debian's own: its master must be root to read the key, open logs of others and become another user."""


def test_a_check_mode_run_on_fresh_hosts_succeeds(site: WholeSite) -> None:
    counts = recap(site.rehearsal)
    assert sorted(counts) == sorted(HOSTS)
    assert all((c["failed"], c["unreachable"]) == (0, 0) for c in counts.values())


def test_a_second_run_changes_nothing(site: WholeSite) -> None:
    assert {host: counts["changed"] for host, counts in recap(site.second).items()} == dict.fromkeys(HOSTS, 0)


def test_samples_of_every_instrument_reach_the_server(site: WholeSite) -> None:
    await_true("points of every instrument", lambda: all(site.count(name) > 3 for name in SERIES), 60)


def units(host: Host) -> list[str]:
    """Return the services that the roles write or change: files and drop-in folders in /etc."""
    found = host.run(
        "cd /etc/systemd/system && find . -maxdepth 1 \\( -type f -name '*.service' -o -name '*.service.d' \\)"
    )
    names = {line.removeprefix("./").removesuffix(".d") for line in found.split()}
    return sorted(name.replace("@.", "@mppt.") for name in names if name not in NOT_OURS)


@pytest.mark.parametrize("name", HOSTS)
def test_every_service_is_hardened(site: WholeSite, name: str) -> None:
    host = site.host(name)
    scores = {}
    for unit in units(host):
        told = host.run(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        scores[unit] = round(10 * float(told.split(": ")[1].split()[0]))
    assert {unit: score for unit, score in scores.items() if score > ALLOWED.get(unit, MOST_EXPOSED)} == {}


def test_after_a_reboot_of_the_bench_nothing_is_lost(site: WholeSite) -> None:
    kept = {name: len(site.bench.values(name)) for name in SERIES}
    site.bench.pi.reboot()
    await_true("collecting again", site.bench.collects, 60)
    site.bench.stop()
    for name in SERIES:
        journal = site.bench.values(name)
        assert len(journal) > kept[name]
        assert site.values(name) == journal
    site.bench.go_on()


def test_one_entry_and_one_command_add_a_bench(site: WholeSite, lab: Lab, wheelhouse: Path) -> None:
    bench = Bench(lab.start("annex", "trixie"), wheelhouse)
    bench.start_fakes()
    site.controller.write({**site.groups, "benches": {**site.groups["benches"], "annex": bench.variables}})
    site.play("site.yml", "--limit", "annex,servers", "--diff")
    await_true("its points", lambda: all(site.count(name, bench="annex") > 3 for name in SERIES), 60)
    site.write()
    bench.pi.stop()
