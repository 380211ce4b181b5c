"""The collectors' role on a booted Pi: from nothing to samples, and through everything that goes wrong."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.benches import INSTRUMENTS, NAMES, SERIES, Bench
from tests.fleet.conftest import Controller, InfluxOnHost, recap
from tests.fleet.hosts import Host, Lab, await_true

pytestmark = [
    pytest.mark.slow,
    pytest.mark.hosts,
    pytest.mark.xdist_group("fleet-collectors"),
    pytest.mark.timeout(900),
]
PLAYBOOK = "playbooks/collectors.yml"
SECRET = secrets.token_urlsafe(24)


class Deployed(Bench):
    """A bench, who deploys to it, and the server that its points go to."""

    def __init__(self, controller: Controller, pi: Host, database: InfluxOnHost, wheelhouse: Path) -> None:
        """Take these; `write` and `controller.play` deploy."""
        super().__init__(pi, wheelhouse)
        self.controller, self.database = controller, database
        sink = {"name": "lab", "dialect": "influxdb1", "url": database.url, "database": "bat"}
        self.variables |= {
            "collectors_sinks": [sink | {"user": "bench-1", "password_file": "lab"}],
            "collectors_secrets": {"lab": SECRET},
        }

    def write(self, **changes: Any) -> None:
        """Write the inventory, with these variables changed."""
        self.controller.write({"benches": {"pi": self.variables | changes}})

    def has_points_of_all(self) -> bool:
        """Return whether the database has points of every instrument."""
        return all(self.database.count(*series, name) > 3 for name, series in SERIES.items())


@pytest.fixture(scope="module")
def bench(lab: Lab, controller: Controller, wheelhouse: Path) -> Iterator[Deployed]:
    """A bench, collecting, from nothing."""
    server = lab.start("server", "bookworm")
    database = InfluxOnHost(server)
    pi = lab.start("pi", "trixie")
    made = Deployed(controller, pi, database, wheelhouse)
    made.write()
    fresh = controller.play(PLAYBOOK, "--check", "--diff")
    assert SECRET not in fresh
    made.start_fakes()
    first = controller.play(PLAYBOOK, "--diff")
    assert SECRET not in first
    yield made
    server.stop()
    pi.stop()


def test_from_nothing_every_instrument_collects_and_its_points_arrive(bench: Deployed) -> None:
    assert bench.collects()
    await_true("points of every instrument", bench.has_points_of_all, 30)


def test_a_second_run_changes_nothing(bench: Deployed) -> None:
    before = bench.started()
    assert recap(bench.controller.play(PLAYBOOK))["pi"]["changed"] == 0
    assert recap(bench.controller.play(PLAYBOOK, "--check", "--diff"))["pi"]["changed"] == 0
    assert bench.started() == before


def test_only_what_changed_is_restarted(bench: Deployed) -> None:
    before = bench.started()
    bench.write(bench_instruments=[INSTRUMENTS[0], INSTRUMENTS[1] | {"period_s": 2.0}, INSTRUMENTS[2]])
    bench.controller.play(PLAYBOOK)
    after = bench.started()
    assert [name for name in NAMES if after[name] != before[name]] == ["load"]


def test_one_variable_goes_back_to_what_was_before(bench: Deployed) -> None:
    bench.write(bench_instruments=INSTRUMENTS)
    bench.controller.play(PLAYBOOK)
    now = bench.pi.run("readlink /opt/battfleet/current")
    bench.controller.play(PLAYBOOK, "-e", "collectors_rollback=true")
    assert bench.pi.run("readlink /opt/battfleet/current") != now
    assert "period_s = 2.0" in bench.pi.run("cat /etc/battfleet/collectors/load.toml")
    bench.controller.play(PLAYBOOK)
    assert bench.pi.run("readlink /opt/battfleet/current") == now


def test_a_deployment_without_samples_is_taken_back(bench: Deployed) -> None:
    now = bench.pi.run("readlink /opt/battfleet/current")
    wrong = INSTRUMENTS[2] | {"link": "tcp:127.0.0.1:9"}
    bench.write(bench_instruments=[*INSTRUMENTS[:2], wrong], collectors_sample_timeout_s=5)
    done = bench.controller.try_play(PLAYBOOK)
    bench.write()
    assert done.returncode != 0
    assert "t7: no sample within 5 s" in done.stdout
    assert "Went back to" in done.stdout
    assert bench.pi.run("readlink /opt/battfleet/current") == now
    await_true("collecting again", bench.collects, 20)


def test_secrets_are_roots_alone(bench: Deployed) -> None:
    assert bench.pi.run("stat -c '%a %U' /etc/battfleet/secrets/lab").split() == ["600", "root"]
    assert bench.pi.try_run("systemctl cat collectors-ship; systemctl show collectors-ship").stdout.find(SECRET) == -1
    main = bench.pi.run("systemctl show --value -p MainPID collector@mppt").strip()
    seen = bench.pi.try_run(f"nsenter -t {main} -m -- find /run/credentials /etc/battfleet/secrets -type f")
    assert seen.stdout.strip() == "", "a collector sees no secret"


def test_a_pulled_cable_costs_only_the_time_it_was_out(bench: Deployed) -> None:
    bench.pi.run("echo 3 >/run/unplug-mppt")
    await_true("link_down", lambda: "link_down" in (bench.status()["mppt"]["state"] or ""), 10)
    await_true("link_up again", lambda: "link_up" in (bench.status()["mppt"]["state"] or ""), 20)
    await_true("collecting again", bench.collects, 20)
    assert bench.restarts("mppt") == 0


def test_a_collector_that_hangs_is_restarted(bench: Deployed) -> None:
    bench.pi.run("mkdir -p /run/systemd/system/collector@load.service.d")
    bench.pi.run("printf '[Service]\\nWatchdogSec=3\\n' >/run/systemd/system/collector@load.service.d/quick.conf")
    bench.pi.run("systemctl daemon-reload && systemctl restart collector@load")
    before = bench.restarts("load")
    bench.pi.run("kill -STOP $(systemctl show --value -p MainPID collector@load)")
    await_true("a restart by the watchdog", lambda: bench.restarts("load") > before, 30)
    bench.pi.run("rm -r /run/systemd/system/collector@load.service.d && systemctl daemon-reload")
    bench.pi.run("systemctl restart collector@load")
    await_true("collecting again", bench.collects, 20)


def test_after_a_reboot_it_collects_again_and_nothing_is_lost(bench: Deployed) -> None:
    kept = {name: row["newest_seq"] for name, row in bench.status().items()}
    bench.pi.reboot()
    await_true("collecting again", bench.collects, 60)
    assert all(row["newest_seq"] > kept[name] for name, row in bench.status().items())


def test_the_drill_proves_that_an_outage_loses_nothing(bench: Deployed) -> None:
    said = bench.controller.play("playbooks/drill.yml", "-e", "drill_minutes=0.2")
    assert "nothing is missing" in said


def test_after_a_pulled_network_cable_the_server_has_what_the_journal_has(bench: Deployed) -> None:
    bench.pi.cut()
    time.sleep(10)
    bench.pi.join()
    bench.pi.await_ssh()
    # Stopped, so that both sides stand still; `--once` ends when everything is confirmed.
    bench.pi.run("systemctl stop 'collector@*'")
    await_true("everything confirmed", lambda: all(s["unsent"]["lab"] == 0 for s in bench.status().values()), 60)
    for name, (measurement, field) in SERIES.items():
        assert bench.database.count(measurement, field, name) == bench.kept(name, measurement, field) > 20
    bench.pi.run("systemctl start 'collector@load' 'collector@mppt' 'collector@t7'")
