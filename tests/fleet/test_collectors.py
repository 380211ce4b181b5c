"""The collectors' role on a booted Pi: what a deployment does, and what the services stand."""

from __future__ import annotations

import re

import pytest

from tests.fleet.benches import INSTRUMENTS, NAMES
from tests.fleet.hosts import await_true
from tests.fleet.site import WholeSite
from tests.line_protocol import parse

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(1800)]

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
    assert set(site.changed(PLAYBOOK).values()) == {0}


def test_systemd_takes_every_word_of_the_units(site: WholeSite) -> None:
    pi = site.bench.pi
    shown = pi.run("systemctl show -p SystemCallFilter collector@mppt collectors-ship")
    assert shown.count("clock_adjtime") >= 2, "asking for the clock"
    assert pi.run("systemctl show --value -p PrivateDevices collectors-ship").strip() == "yes"
    said = pi.run("journalctl --boot --output cat --no-pager _PID=1")
    wrong = [
        line
        for line in said.splitlines()
        if ".service:" in line and re.search("Failed to parse|Unknown|ignoring", line)
    ]
    assert wrong == []


def notes(site: WholeSite) -> list[str]:
    """Return what the bench's notes say of deployments."""
    said = site.bench.pi.run("collectors export notes --format lp --measurement event --state /var/lib/collectors")
    return [str(point.fields["detail"]) for point in parse(said) if point.tags["kind"] == "deploy"]


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
    assert "restarted load, mppt, t7" in notes(site)[0]
    assert "went back to" in notes(site)[-1]


def test_a_person_s_note_reaches_the_server_and_belongs_to_the_collectors(site: WholeSite) -> None:
    pi = site.bench.pi
    pi.run("collectors note calibration 'zeroed the clamp' --device t7")
    owners = pi.run("stat -c %u /var/lib/private/collectors /var/lib/private/collectors/notes/*").split()
    assert len(set(owners)) == 1
    asked = "SELECT detail FROM event WHERE bench='bench' AND kind='calibration' AND device='t7'"
    await_true("the note", lambda: "zeroed the clamp" in str(site.as_admin().query(asked)), 30)


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
