"""The collectors' role on a booted Pi: what a deployment does, and what the services stand."""

from __future__ import annotations

import pytest

from tests.fleet.benches import INSTRUMENTS, NAMES
from tests.fleet.hosts import await_true
from tests.fleet.site import WholeSite

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(900)]

PLAYBOOK = "playbooks/collectors.yml"


def deployment(site: WholeSite) -> str:
    """Return which deployment is the current one."""
    return site.bench.pi.run("readlink /opt/battfleet/current")


def test_only_what_changed_is_restarted_and_one_variable_goes_back(site: WholeSite) -> None:
    started, first = site.bench.started(), deployment(site)
    slower = [INSTRUMENTS[0], INSTRUMENTS[1] | {"period_s": 2.0}, INSTRUMENTS[2]]
    site.write(bench={"bench_instruments": slower})
    site.play(PLAYBOOK)
    after, second = site.bench.started(), deployment(site)
    assert [name for name in NAMES if after[name] != started[name]] == ["load"]
    assert second != first
    site.write()
    site.play(PLAYBOOK, "-e", "collectors_rollback=true")
    assert deployment(site) == first
    assert "period_s = 2.0" not in site.bench.pi.run("cat /etc/battfleet/collectors/load.toml")
    assert site.changed(PLAYBOOK) == {"bench": 0}


def test_a_deployment_without_samples_is_taken_back(site: WholeSite) -> None:
    now = deployment(site)
    wrong = INSTRUMENTS[2] | {"link": "tcp:127.0.0.1:9"}
    site.write(bench={"bench_instruments": [*INSTRUMENTS[:2], wrong], "collectors_sample_timeout_s": 5})
    done = site.try_play(PLAYBOOK)
    site.write()
    assert done.returncode != 0
    assert "t7: no sample within 5 s" in done.stdout
    assert "Went back to" in done.stdout
    assert deployment(site) == now
    await_true("collecting again", site.bench.collects, 20)


def test_secrets_are_roots_alone(site: WholeSite) -> None:
    pi = site.bench.pi
    assert pi.run("stat -c '%a %U' /etc/battfleet/secrets/lab-password").split() == ["600", "root"]
    shown = pi.run("systemctl cat collectors-ship; systemctl show collectors-ship; ps axww -o args")
    assert site.password("bench") not in shown
    main = pi.run("systemctl show --value -p MainPID collector@mppt").strip()
    seen = pi.try_run(f"nsenter -t {main} -m -- find /run/credentials /etc/battfleet/secrets -type f")
    assert seen.stdout.strip() == "", "a collector sees no secret"


def test_a_pulled_cable_costs_only_the_time_it_was_out(site: WholeSite) -> None:
    bench = site.bench
    restarts = bench.restarts("mppt")
    bench.pi.run("echo 3 >/run/unplug-mppt")
    await_true("link_down", lambda: "link_down" in (bench.status()["mppt"]["state"] or ""), 10)
    await_true("link_up again", lambda: "link_up" in (bench.status()["mppt"]["state"] or ""), 20)
    await_true("collecting again", bench.collects, 20)
    assert bench.restarts("mppt") == restarts


def test_a_collector_that_hangs_is_restarted(site: WholeSite) -> None:
    bench = site.bench
    bench.pi.run("mkdir -p /run/systemd/system/collector@load.service.d")
    bench.pi.run("printf '[Service]\\nWatchdogSec=3\\n' >/run/systemd/system/collector@load.service.d/quick.conf")
    bench.pi.run("systemctl daemon-reload && systemctl restart collector@load")
    before = bench.restarts("load")
    bench.pi.run("kill -STOP $(systemctl show --value -p MainPID collector@load)")
    await_true("a restart by the watchdog", lambda: bench.restarts("load") > before, 30)
    bench.pi.run("rm -r /run/systemd/system/collector@load.service.d && systemctl daemon-reload")
    bench.pi.run("systemctl restart collector@load")
    await_true("collecting again", bench.collects, 20)
