"""The connection to the server fails and returns: live values arrive first, then all others; none is missing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.parse

import pytest

from collectors.shipper.retry import LONGEST_BACKOFF_S
from tests.ansible.benches import SERIES
from tests.ansible.hosts import await_true
from tests.ansible.site import WholeSite

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(1800)]

OUTAGE_S = float(os.environ.get("BATTFLEET_OUTAGE_S", "90"))
"""A backlog is what more than 60 commits of a second each wait for; what is less goes in one piece, in order."""
SLOW = "32kbit"
"""So slow that catching up takes a while, which can be looked at."""
LIVE_S = 5.0
LOOK = """
import json, sys, time, urllib.request
login, query, seconds, live_s = json.load(sys.stdin)
same, before = 0, 0
for _ in range(int(seconds * 5)):
    asked = urllib.request.Request("http://127.0.0.1:8086/query", query.encode(), {"Authorization": login})
    newest, waited = json.load(urllib.request.urlopen(asked))["results"]
    age_s = time.time() - newest["series"][0]["values"][0][0] / 1e9
    there = waited["series"][0]["values"][0][1] if "series" in waited else 0
    print(json.dumps([age_s, there]))
    same, before = same + 1 if there == before else 0, there
    if there and same > 40 and age_s < live_s:
        break
    time.sleep(0.2)
"""
"""Prints, again and again, how old the newest value is and how many of the outage are there; until all are."""


class Watch:
    """Polls the database on the server itself, so that a slow cable does not slow the polling."""

    def __init__(self, site: WholeSite, cut_ns: int, joined_ns: int, seconds: float) -> None:
        """Start polling."""
        series = "FROM battery WHERE bench='bench' AND device='t7'"
        span = f"time > {cut_ns} AND time < {joined_ns}"
        statements = f"SELECT last(current_a) {series}; SELECT count(current_a) {series} AND {span}"
        query = urllib.parse.urlencode({"db": "bat", "epoch": "ns", "q": statements})
        command = site.host("lab").ssh("python3", "-c", shlex.quote(LOOK))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([site.as_admin().login, query, seconds, LIVE_S]))
        self._process.stdin.close()

    def seen(self) -> list[tuple[float, int]]:
        """Return age of the newest value (s) and number of stored values of the outage, poll by poll."""
        with self._process:
            assert self._process.stdout is not None
            looks = [json.loads(line) for line in self._process.stdout]
        return [(age_s, waited) for age_s, waited in looks]


def test_the_drill_proves_that_an_outage_loses_nothing(site: WholeSite) -> None:
    said = site.play("playbooks/drill.yml", "-e", "drill_minutes=0.2")
    assert "nothing is missing" in said


def test_a_cut_cable_loses_nothing_and_live_values_arrive_first(site: WholeSite) -> None:
    server, bench = site.host("lab"), site.bench
    bench.pi.cut()
    cut_ns = time.time_ns()
    time.sleep(OUTAGE_S)
    joined_ns = time.time_ns()
    watch = Watch(site, cut_ns, joined_ns, LONGEST_BACKOFF_S + 60)
    time.sleep(2)  # it logs in over the fast cable
    server.slow_down(SLOW)
    bench.pi.join()
    looks = watch.seen()
    server.speed_up()
    bench.pi.await_ssh()
    await_true(
        "all but the newest confirmed", lambda: max(s["unsent"]["lab"] for s in bench.status().values()) < 10, 120
    )
    waited = site.count("t7", cut_ns, joined_ns)
    assert waited > OUTAGE_S
    live = [there for age_s, there in looks if age_s < LIVE_S]
    assert live and live[0] < waited / 2, f"live values came when {live[:1]} of {waited} older ones were there"
    bench.stop()
    for name in SERIES:
        assert site.values(name) == bench.values(name)
    bench.go_on()
