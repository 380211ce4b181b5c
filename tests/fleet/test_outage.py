"""The way to the server fails and comes back: live values come first, then everything else; nothing is missing."""

from __future__ import annotations

import os
import time

import pytest

from tests.fleet.benches import SERIES
from tests.fleet.hosts import await_true
from tests.fleet.site import WholeSite

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(1800)]

OUTAGE_S = float(os.environ.get("BATTFLEET_OUTAGE_S", "45"))
SLOW = "32kbit"
"""So slow that catching up takes a while, which can be looked at."""


def test_the_drill_proves_that_an_outage_loses_nothing(site: WholeSite) -> None:
    said = site.play("playbooks/drill.yml", "-e", "drill_minutes=0.2")
    assert "nothing is missing" in said


def test_a_cut_cable_costs_nothing_and_live_values_come_first(site: WholeSite) -> None:
    server = site.host("lab")
    site.bench.pi.cut()
    cut_ns = time.time_ns()
    time.sleep(OUTAGE_S)
    server.slow_down(SLOW)
    site.bench.pi.join()
    joined_ns = time.time_ns()
    try:
        await_true("a live value", lambda: site.count("t7", joined_ns) > 0, 60)
        arrived_with_it = site.count("t7", cut_ns, joined_ns)
    finally:
        server.speed_up()
    site.bench.pi.await_ssh()
    await_true("everything confirmed", lambda: all(s["unsent"]["lab"] < 5 for s in site.bench.status().values()), 120)
    waited = site.count("t7", cut_ns, joined_ns)
    assert waited > OUTAGE_S
    assert arrived_with_it < waited / 2, "what waited came before what is live"
    site.bench.stop()
    for name in SERIES:
        assert site.values(name) == site.bench.values(name)
    site.bench.go_on()
