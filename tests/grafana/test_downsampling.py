"""Downsampling against a real InfluxDB 1.6: installed once, numerically right, and applied to late data."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import tests.testing.influx
from collectors.signals import VOCABULARY
from grafana.downsampling import (
    AGGREGATES,
    FOR_EVER_S,
    H1,
    M1,
    MEASUREMENTS,
    RAW,
    REDUCED,
    choices,
    influxdb1,
    influxdb2,
    policy,
)
from grafana.downsampling.__main__ import main
from grafana.downsampling.backfill import backfill, late
from grafana.downsampling.install import install
from grafana.downsampling.server import Refused, Server
from tests.ansible.modules import load
from tests.grafana import seed
from tests.testing.influx import Influx

HOUR_S = 3600
START_S = seed.END_S - 6 * HOUR_S
TAGS = "bench=b,battery=lfp-1,device=x"


@pytest.fixture
def server(influx: Influx) -> Server:
    return Server(influx.url, influx.create_database(), influx.admin, influx.password)


def points(from_s: int, to_s: int, step_s: int = 10) -> list[str]:
    stamps = range(from_s, to_s, step_s)
    return [seed.line("battery", TAGS, {"voltage_v": float(s % 100), "current_a": 1.0}, s) for s in stamps]


def test_a_second_install_changes_nothing(server: Server) -> None:
    first = install(server)
    queries = sum(len(influxdb1.aggregates(measurement)) for measurement in MEASUREMENTS)
    assert len(first) == len(REDUCED) * (len(AGGREGATES) + queries) + 1
    assert install(server) == []


def test_a_changed_query_is_recreated(server: Server) -> None:
    install(server)
    name = "m1_mean_battery"
    server.query(f'DROP CONTINUOUS QUERY "{name}" ON "{server.database}"')
    other = f'SELECT mean("voltage_v") INTO "{server.database}"."m1_mean"."battery" FROM "battery" GROUP BY time(1m)'
    server.query(f'CREATE CONTINUOUS QUERY "{name}" ON "{server.database}" BEGIN {other} END')
    assert install(server) == [f"continuous query {name}"]
    assert install(server) == []


def test_sums_are_right_and_keep_the_vocabularys_names(server: Server, influx: Influx) -> None:
    install(server)
    seed.write(influx, server.database, points(START_S, START_S + HOUR_S))
    backfill(server, START_S, START_S + HOUR_S)
    for grain, step_s in ((M1, 60), (H1, 3600)):
        stamps = range(START_S, START_S + HOUR_S, 10)
        first = [float(s % 100) for s in stamps if s < START_S + step_s]
        wanted = {"mean": sum(first) / len(first), "min": min(first), "max": max(first), "count": len(first)}
        for aggregate in influxdb1.aggregates("battery"):
            (series,) = server.query(f'SELECT "voltage_v" FROM "{policy(grain, aggregate)}"."battery" GROUP BY *')
            assert series["values"][0] == [START_S, pytest.approx(wanted[aggregate])]
            assert series["tags"] == {"bench": "b", "battery": "lfp-1", "device": "x"}
            assert len(series["values"]) == HOUR_S // step_s


def test_only_values_that_arrive_hours_late_are_recomputed(server: Server, influx: Influx) -> None:
    install(server)
    end_s = START_S + 4 * HOUR_S
    seed.write(influx, server.database, [*points(START_S, START_S + HOUR_S), *points(START_S + 3 * HOUR_S, end_s)])
    assert backfill(server, START_S, end_s)
    assert list(late(server, START_S, end_s)) == []
    seed.write(influx, server.database, points(START_S + HOUR_S, START_S + 3 * HOUR_S))
    gap = (START_S + HOUR_S, START_S + 3 * HOUR_S)
    assert {(s.grain.name, s.measurement, s.from_s, s.to_s) for s in backfill(server, START_S, end_s)} == {
        ("m1", "battery", *gap),
        ("h1", "battery", *gap),
    }
    assert list(late(server, START_S, end_s)) == []
    (series,) = server.query('SELECT count("voltage_v") FROM "m1_mean"."battery"')
    assert series["values"][0][1] == 4 * 60


@pytest.mark.slow
def test_the_server_runs_the_continuous_queries_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next full minute: the only test that waits for a clock."""
    off, on = "[continuous_queries]\nenabled = false", '[continuous_queries]\nenabled = true\nrun-interval = "1s"'
    assert off in tests.testing.influx.CONFIG
    monkeypatch.setattr(tests.testing.influx, "CONFIG", tests.testing.influx.CONFIG.replace(off, on))
    if tests.testing.influx.INFLUXD is None:
        pytest.skip(tests.testing.influx.MISSING)
    with tests.testing.influx.running(tmp_path / "influxdb") as influx:
        server = Server(influx.url, influx.create_database(), influx.admin, influx.password)
        install(server)
        minute_s = int(time.time()) // 60 * 60
        seed.write(influx, server.database, points(minute_s - 300, minute_s))
        deadline_s = time.monotonic() + 200
        wanted = [[at_s, 6] for at_s in range(minute_s - 300, minute_s, 60)]
        found: list[list[int]] = []
        while found != wanted and time.monotonic() < deadline_s:
            time.sleep(0.5)
            series = server.query('SELECT "voltage_v" FROM "m1_count"."battery"')
            found = series[0]["values"] if series else []
        assert found == wanted


def test_the_running_hour_is_left_to_the_continuous_queries(server: Server, influx: Influx) -> None:
    install(server)
    seed.write(influx, server.database, points(START_S, START_S + HOUR_S // 2))
    assert list(late(server, START_S, START_S + HOUR_S // 2)) == []


def test_the_command_installs_and_backfills(
    server: Server, influx: Influx, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{influx.password}\n")
    where = ["--url", influx.url, "--database", server.database, "--user", influx.admin, "--password-file", str(secret)]
    assert main(["install", *where]) == 0
    assert "made continuous query m1_mean_battery" in capsys.readouterr().out
    hour_s = int(time.time()) // HOUR_S * HOUR_S - 2 * HOUR_S
    seed.write(influx, server.database, points(hour_s, hour_s + HOUR_S))
    assert main(["backfill", *where, "--since", "6h"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^m1 battery: .* computed again$", shown, re.MULTILINE)
    assert influx.password not in shown


def test_a_server_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "--url", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_a_rejection_carries_the_servers_message(influx: Influx) -> None:
    with pytest.raises(Refused, match="authorization failed"):
        Server(influx.url, "db1", influx.admin, "wrong").query("SHOW DATABASES")


def test_every_range_has_exactly_one_resolution() -> None:
    grains = (RAW, *REDUCED)
    assert grains[0].from_s == 0 and grains[-1].to_s == FOR_EVER_S
    assert [one.to_s for one in grains[:-1]] == [one.from_s for one in grains[1:]]


def test_tasks_for_2x_cover_every_policy_live_and_late() -> None:
    tasks = influxdb2.tasks("bat", "raw")
    assert {name.partition("-")[0] for name in tasks} == set(influxdb1.policies("bat"))
    assert len(tasks) == len(AGGREGATES) * len(REDUCED) * len(influxdb2.RUNS)
    for text in tasks.values():
        assert "date.truncate" in text, "a task that begins within a window would overwrite it with a part of it"


def test_tasks_for_2x_read_numbers_only() -> None:
    """Numeric fields of the vocabulary, as the continuous queries do; text fields are in no regular expression."""
    every = [signal for signals in VOCABULARY.values() for signal in signals.values()]
    for name, text in influxdb2.tasks("bat", "raw").items():
        (fields,) = re.findall(r"r\._field =~ /\^\((.*)\)\$/", text)
        is_sum = name.partition("-")[0].endswith("_sum")
        assert set(fields.split("|")) == {signal.name for signal in every if signal.is_increment or not is_sum}
        assert not {"model", "version", "detail"} & set(fields.split("|"))


def test_tasks_of_2x_write_to_the_buckets_that_the_role_creates() -> None:
    made = {each["name"]: each["keep"] for each in influxdb2.policies()}
    assert made.keys() == influxdb1.policies("bat").keys()
    assert (made["m1_mean"], made["h1_mean"]) == ("104w", "forever")


def test_the_roles_module_reads_the_choice_of_resolutions_from_a_servers_response(server: Server) -> None:
    """The response has the form of 1.6, which 2.x keeps on /query: the module must recognise its own points in it."""
    module = load("ansible/roles/influxdb/library/influxdb2.py")
    install(server)
    answer = {"results": [{"series": server.query(f'SELECT * FROM "{policy(H1, "mean")}"."grain"')}]}
    found, wanted = module.rows(answer), module.points("\n".join(choices(server.default_policy())))
    assert len(found) == len(wanted) == 3
    assert all(point in found for point in wanted)


def test_sums_are_kept_of_increments_only(server: Server, influx: Influx) -> None:
    """Amounts of an hour: 240 rows of a quarter of a minute, +2 mAh and −1 mAh in turns of 10 min, with a gap."""
    install(server)
    stamps = [s for s in range(START_S, START_S + HOUR_S, 15) if not START_S + 600 <= s < START_S + 900]
    lines = []
    for at_s in stamps:
        is_in = at_s // 600 % 2 == START_S // 600 % 2
        values = {"charge_in_ah": 0.002 if is_in else 0.0, "charge_out_ah": 0.0 if is_in else 0.001}
        lines.append(seed.line("throughput", TAGS, values, at_s))
    seed.write(influx, server.database, [*lines, *points(START_S, START_S + HOUR_S)])
    backfill(server, START_S, START_S + HOUR_S)
    inward, outward = (sum(600 // 15 for _ in range(3)), sum((600 // 15, 300 // 15, 600 // 15)))
    for grain in REDUCED:
        (series,) = server.query(
            f'SELECT sum("charge_in_ah"), sum("charge_out_ah") FROM "{policy(grain, "sum")}"."throughput"'
        )
        assert series["values"][0][1:] == [pytest.approx(0.002 * inward), pytest.approx(0.001 * outward)]
        assert server.query(f'SELECT * FROM "{policy(grain, "sum")}"."battery"') == []
    assert list(late(server, START_S, START_S + HOUR_S)) == []
