"""The collectors' role on a booted Pi: deployments, permissions and recovery of the services."""

from __future__ import annotations

import re

import pytest

from tests.ansible.benches import INSTRUMENTS, NAMES
from tests.ansible.hosts import await_true
from tests.ansible.site import WholeSite
from tests.testing.line_protocol import parse

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(1800)]

PLAYBOOK = "playbooks/collectors.yml"


def deployment(site: WholeSite) -> str:
    """Return which deployment is the current one."""
    return site.bench.pi.run("readlink /opt/battfleet/current")


def test_only_the_changed_collector_is_restarted_and_one_variable_rolls_back(site: WholeSite) -> None:
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


def test_systemd_accepts_every_setting_of_the_units(site: WholeSite) -> None:
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
    """Return the deployment events of the bench's notes."""
    said = site.bench.pi.run("collectors export notes --format lp --measurement event --state /var/lib/collectors")
    return [str(point.fields["detail"]) for point in parse(said) if point.tags["kind"] == "deploy"]


def test_a_deployment_without_samples_is_rolled_back(site: WholeSite) -> None:
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


def test_a_manual_note_reaches_the_server_and_belongs_to_the_collectors(site: WholeSite) -> None:
    pi = site.bench.pi
    pi.run("collectors note calibration 'zeroed the clamp' --device t7")
    owners = pi.run("stat -c %U:%G /var/lib/collectors /var/lib/collectors/notes /var/lib/collectors/notes/*").split()
    assert set(owners) == {"battfleet-collect:battfleet"}
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


def test_no_collector_reaches_the_shipper(site: WholeSite) -> None:
    """Each collector's user, with its groups, against the shipper's process: secrets, memory, environment, signals."""
    pi = site.bench.pi
    ship = pi.run("systemctl show --value -p MainPID collectors-ship").strip()
    secret = f"/proc/{ship}/root/run/credentials/collectors-ship.service/lab-password"
    assert pi.run(f"cat {secret}") == site.password("bench"), "this is where it is"
    for name in NAMES:
        main = pi.run(f"systemctl show --value -p MainPID collector@{name}").strip()
        user, group = (pi.run(f"awk '/^{key}:/ {{ print $2 }}' /proc/{main}/status").strip() for key in ("Uid", "Gid"))
        groups = ",".join(pi.run(f"awk '/^Groups:/ {{ $1 = \"\"; print }}' /proc/{main}/status").split())
        become = f"setpriv --reuid={user} --regid={group} --groups={groups} --no-new-privs --bounding-set=-all"
        for attack in (
            f"cat {secret}",
            f"cat /proc/{ship}/environ",
            f"head -c 1 /proc/{ship}/mem",
            f"ls /proc/{ship}/root/",
            f"ls /proc/{ship}/fd/",
            f"kill -0 {ship}",
            "cat /etc/battfleet/secrets/lab-password",
            "sh -c '>>/var/lib/collectors/ship.db'",
        ):
            done = pi.try_run(f"{become} {attack}")
            assert done.returncode != 0 and done.stdout == "", f"{name}: {attack}"
    assert pi.run(f"stat -c %U /proc/{ship}").strip() == "battfleet-ship"


def test_the_shipper_reads_journals_and_changes_none(site: WholeSite) -> None:
    pi = site.bench.pi
    become = "setpriv --reuid=battfleet-ship --regid=battfleet --clear-groups --no-new-privs"
    for attack in ("sh -c '>>/var/lib/collectors/mppt/lock'", "mv /var/lib/collectors/mppt /var/lib/collectors/x"):
        assert pi.try_run(f"{become} {attack}").returncode != 0, attack
    said = pi.run("journalctl --boot --output cat --no-pager -u collectors-ship")
    assert not [line for line in said.splitlines() if "ermission denied" in line or "readonly" in line]


def test_a_host_of_an_older_version_keeps_its_journals(site: WholeSite) -> None:
    """Until version 0.1 the folder belonged to a dynamic user: /var/lib/private/collectors, and a link to it."""
    pi, state = site.bench.pi, "/var/lib/collectors"
    before = site.bench.values("mppt")
    pi.run("systemctl stop 'collector@*' collectors-ship")
    pi.run(f"mkdir -p -m 0700 /var/lib/private && mv {state} /var/lib/private/ && ln -s private/collectors {state}")
    pi.run("chown -R 61000:61000 /var/lib/private/collectors && chmod 0750 /var/lib/private/collectors")
    site.play(PLAYBOOK)
    assert pi.run(f"stat -c '%a %U %G %F' {state}").strip() == "1770 battfleet-collect battfleet directory"
    assert pi.run(f"stat -c %U {state}/ship.db").strip() == "battfleet-ship"
    after = site.bench.values("mppt")
    assert {stamp: after.get(stamp) for stamp in before} == before
    await_true("collecting again", site.bench.collects, 20)
    await_true("sent", lambda: all(row["unsent"]["lab"] < 5 for row in site.bench.status().values()), 60)


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
