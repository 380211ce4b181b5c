"""Values that a database has lost are found exactly and sent again; values it need not have are not missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from collectors.cli.ship import COMMAND
from collectors.errors import ConfigError
from collectors.host.clock import FakeClock, FileClock, write_clock_file
from collectors.journal.backlog import EventAt, Row, Work
from collectors.journal.committer import Committer
from collectors.journal.row_mapping import canonical
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from collectors.reading import Event
from collectors.shipper import config as ship_config
from collectors.shipper import service
from collectors.shipper.cursors import ShipStore, Verified
from collectors.shipper.influxdb.client import InfluxClient
from collectors.shipper.influxdb.query import NotReadable, QueryClient, QueryFailed, _seconds
from collectors.shipper.verification import AT_ONCE_NS, MINUTE_NS, Range, TimeBins, joined, parse_range, parts
from tests.testing.influx import Influx

SECOND = 10**9
ROWS = 3 * 3600
"""One a second: three hours before now."""


@dataclass
class Host:
    """A host whose journal is shipped to a real server."""

    folder: Path
    influx: Influx
    database: str
    now_ns: int

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "ship.toml"

    def configure(self, reader: str) -> None:
        self.config.write_text(f"""
            [ship]
            bench = "b"
            state_dir = "{self.state}"
            [[sink]]
            name = "lab"
            dialect = "influxdb1"
            url = "{self.influx.url}"
            database = "{self.database}"
            user = "writer"
            password_file = "password"
            {reader}
        """)

    def write(self, name: str = "mppt") -> None:
        """Write rows with a hole in one field and with awkward numbers, and events."""
        end_ns = 10**6 * SECOND
        clock = FakeClock(boottime_ns=end_ns, offset_ns=self.now_ns - 10**6 * SECOND)
        settings = JournalSettings(ballast_mib=0.0)
        writer = JournalWriter(self.state / name, {"bench": "b", "device": name}, settings, clock, lambda *_: None)
        rows = []
        for number in range(ROWS):
            current_a = None if number % 5 else -number * 1e-9
            values: dict[str, Any] = {"voltage_v": 13.0 + number / 7, "current_a": current_a}
            rows.append(Row(end_ns - (ROWS - number) * SECOND, values))
        tags = canonical({"bench": "b", "device": name})
        events = [EventAt(end_ns - n * 1000 * SECOND, "link_up", f"number {n}", "") for n in (3, 2, 1)]
        writer.commit(Work({("battery", tags): rows}, events))
        writer.close()

    def ship(self) -> None:
        service.run(ship_config.load(self.config), once=True)

    def verify(self, *options: str) -> Result:
        return CliRunner().invoke(COMMAND, [str(self.config), "--verify", "4h", *options])

    def facts(self, *options: str) -> dict[str, Any]:
        done = self.verify("--json", *options)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        found: dict[str, Any] = json.loads(done.stdout)
        return found | {"exit": done.exit_code}

    def lose(self, before_s: int, after_s: int, measurement: str = "battery") -> None:
        """Let the server lose points between so many seconds before now."""
        first, last = self.now_ns - before_s * SECOND, self.now_ns - after_s * SECOND
        self.influx.query(f'DELETE FROM "{measurement}" WHERE time >= {first} AND time < {last}', self.database)

    def count(self, name: str) -> int:
        return self.influx.count(self.database, name, "battery")


@pytest.fixture
def host(influx: Influx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    told = tmp_path / "clock.json"
    write_clock_file(told, state=1)
    monkeypatch.setenv("COLLECTORS_CLOCK", str(told))
    look = FileClock(told).look()
    (tmp_path / "state").mkdir()
    (tmp_path / "password").write_text(influx.password)
    host = Host(tmp_path, influx, influx.create_database(), look.boottime_ns + look.offset_ns)
    host.configure(f'read_user = "{influx.admin}"\nread_password_file = "password"')
    host.write()
    host.ship()
    return host


def test_a_complete_database_is_reported_as_complete(host: Host) -> None:
    found = host.facts()
    assert (found["exit"], found["values"], found["missing"], found["different"]) == (0, ROWS + ROWS // 5 + 3, 0, 0)
    assert host.verify().stdout.endswith("nothing is missing\n")


def test_exactly_what_the_server_lost_is_sent_again(host: Host) -> None:
    host.lose(6000, 4321)
    host.lose(1500, 500, "event")
    before = host.facts("--no-resend")
    rows = range(ROWS - 6000, ROWS - 4321)
    assert (before["exit"], before["resent"]) == (76, 0)
    assert before["missing"] == before["still_missing"] == len(rows) + sum(n % 5 == 0 for n in rows) + 1
    found = host.facts()
    assert (found["exit"], found["missing"], found["resent"]) == (0, before["missing"], before["missing"])
    assert found["still_missing"] == 0
    assert (host.count("voltage_v"), host.count("current_a")) == (ROWS, ROWS // 5)
    assert host.facts()["missing"] == 0
    with ShipStore(host.state / "ship.db") as store:
        assert [row.missing for row in store.verified_after(0)] == [before["missing"], before["missing"], 0]


def test_a_value_of_another_writer_is_reported_and_not_overwritten(host: Host) -> None:
    (series,) = host.influx.query("SELECT voltage_v FROM battery ORDER BY time DESC LIMIT 1", host.database)
    stamp = series["values"][0][0]
    sink = ship_config.load(host.config).sinks[0]
    with InfluxClient(sink, host.influx.password) as post:
        assert post.ask([f"battery,bench=b,device=mppt voltage_v=1.5 {stamp}"]).status == 204
        assert post.ask([f"battery,bench=b,device=mppt voltage_v=1.5 {stamp - SECOND // 2}"]).status == 204
    found = host.facts()
    assert (found["exit"], found["missing"], found["different"]) == (76, 0, 1)
    assert "somebody else" in host.verify().stdout


def test_dead_letters_are_counted_and_not_sent_again(host: Host) -> None:
    """Lines that the server rejects permanently are not missing; `collectors dead` lists them."""
    host.influx.query("DROP MEASUREMENT battery", host.database)
    host.influx.query("CREATE DATABASE other")
    sink = ship_config.load(host.config).sinks[0]
    with InfluxClient(sink, host.influx.password) as post:
        assert post.ask([f"battery,bench=b,device=mppt voltage_v=1i {host.now_ns - 7000 * SECOND}"]).status == 204
    first = host.facts()
    assert first["exit"] == 76
    assert first["refused_lines"] > 0
    second = host.facts("--no-resend")
    assert second["dead_letters"] > 0
    assert second["missing"] < first["missing"]


def test_rows_that_are_not_confirmed_are_not_missing(host: Host) -> None:
    host.write("load")
    found = host.facts()
    assert found["missing"] == 0
    assert found["unshipped_commits"]["load"] > 0


def test_rows_beyond_the_servers_retention_are_not_queried(host: Host) -> None:
    host.influx.query(f'ALTER RETENTION POLICY "autogen" ON "{host.database}" DURATION 2h SHARD DURATION 1h')
    host.lose(3 * 3600, 5400)
    found = host.facts()
    assert (found["missing"], found["refused_lines"]) == (0, 0)
    assert found["values"] < ROWS


def test_without_the_right_to_read_the_missing_right_is_named(host: Host) -> None:
    host.configure("")
    done = host.verify()
    assert done.exit_code == 69
    assert "GRANT READ" in done.stderr
    assert "read_password_file" in done.stderr


def test_an_unreadable_journal_does_not_delay_the_others(host: Host) -> None:
    (host.state / "load").mkdir()
    (host.state / "load" / "j-00000001.db").write_bytes(b"no database" * 100)
    found = host.facts()
    assert found["exit"] == 74
    assert list(found["unreadable"]) == ["load"]
    assert found["values"] > ROWS


NOW_NS = 1_780_000_000 * SECOND


@pytest.mark.parametrize(
    ("words", "begins_s_ago", "ends_s_ago"),
    [("24h", 86_400, 0), ("7d", 604_800, 0), ("-2d..-1d", 172_800, 86_400), ("-1h..", 3600, 0), ("-1h..now", 3600, 0)],
)
def test_a_range_is_an_age_or_two_times(words: str, begins_s_ago: int, ends_s_ago: int) -> None:
    assert parse_range(words, NOW_NS) == (NOW_NS - begins_s_ago * SECOND, NOW_NS - ends_s_ago * SECOND)


@pytest.mark.parametrize("words", ["", "yesterday", "-24h", "..", "now..-1h", "2026-05-28..2026-05-27", "24", "..-1h"])
def test_an_invalid_range_names_what_was_expected(words: str) -> None:
    with pytest.raises(ConfigError, match="--verify"):
        parse_range(words, NOW_NS)


@given(st.integers(0, 10**15), st.integers(1, 10**14), st.integers(10**12, 10**14))
def test_parts_cover_a_range_once(start_ns: int, length_ns: int, width_ns: int) -> None:
    found = list(parts(Range(start_ns, start_ns + length_ns), width_ns))
    assert found[0].start_ns == start_ns
    assert found[-1].end_ns == start_ns + length_ns
    assert all(one.end_ns == other.start_ns for one, other in pairwise(found))
    assert all(part.start_ns // width_ns == (part.end_ns - 1) // width_ns for part in found)


@given(st.sets(st.integers(0, 200), max_size=60))
def test_neighbours_are_joined_and_nothing_is_lost(minutes: set[int]) -> None:
    found = list(joined([Range(n * MINUTE_NS, (n + 1) * MINUTE_NS) for n in sorted(minutes)]))
    covered = [n for run in found for n in range(run.start_ns // MINUTE_NS, run.end_ns // MINUTE_NS)]
    assert covered == sorted(minutes)
    assert all(run.end_ns - run.start_ns <= AT_ONCE_NS for run in found)


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50), st.randoms(use_true_random=False))
def test_the_order_in_which_a_server_adds_up_is_no_difference(numbers: list[float], shuffler: Any) -> None:
    def bins(values: list[float]) -> TimeBins:
        made = TimeBins.empty(1)
        for value in values:
            made.add(np.zeros(1, np.int64), np.array([value]))
        return made

    other = list(numbers)
    shuffler.shuffle(other)
    assert not bins(numbers).differs(bins(other)).any()
    assert bins(numbers).differs(bins(numbers[1:])).all()


def test_durations_are_read_as_both_generations_write_them() -> None:
    assert [_seconds(words) for words in ("0s", "168h0m0s", "1h30m0s", "forever")] == [0, 604_800, 5400, 0]


NO_RIGHT = '{"results":[{"statement_id":0,"error":"database not found: bat"}]}'
"""What 2.7.12 responds to a token that may write and not read, with status 200."""


def cloud(tmp_path: Path, keys: str = "") -> ship_config.ShipConfig:
    """Return a configuration with one sink of 2.x."""
    for name in ("token", "read-token"):
        (tmp_path / name).write_text(name)
    path = tmp_path / "ship.toml"
    path.write_text(
        f'[ship]\nbench = "b"\nstate_dir = "{tmp_path}"\n[[sink]]\nname = "cloud"\ndialect = "influxdb2"\n'
        f'url = "http://127.0.0.1:9"\norg = "lab"\nbucket = "bat/raw"\ntoken_file = "token"\n{keys}\n'
    )
    return ship_config.load(path)


def test_a_token_of_2x_that_may_not_read_is_told_from_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = cloud(tmp_path)
    client = QueryClient(loaded, loaded.sinks[0])
    monkeypatch.setattr(client, "_post", lambda _statement: (200, NO_RIGHT))
    with pytest.raises(NotReadable, match="read_token_file"):
        client.keeps_s()
    cut = '{"results":[{"series":[{"columns":[],"partial":true}]}]}'
    monkeypatch.setattr(client, "_post", lambda _statement: (200, cut))
    with pytest.raises(QueryFailed, match="max-row-limit"):
        client.keeps_s()
    monkeypatch.setattr(client, "_post", lambda _statement: (502, "<html>Bad Gateway"))
    with pytest.raises(QueryFailed, match="502"):
        client.keeps_s()


def test_the_read_token_and_the_buckets_database_are_used(tmp_path: Path) -> None:
    loaded = cloud(tmp_path, 'read_token_file = "read-token"')
    client = QueryClient(loaded, loaded.sinks[0])
    assert client._headers == {"Authorization": "Token read-token"}
    assert (client.database, client.policy) == ("bat", "raw")


def test_values_that_a_comparison_found_missing_become_an_event(tmp_path: Path) -> None:
    """The comparison is another process; the shipper reports its result in its own journal."""
    shipper = service.Service(cloud(tmp_path), FakeClock(), lambda _: None)
    told: list[Event] = []
    committer = cast("Committer", SimpleNamespace(put=told.append))
    for missing in (0, 7):
        shipper.store.note_verified(Verified(0, "cloud", NOW_NS, NOW_NS - SECOND, NOW_NS, 100, missing, missing, 0))
    for _ in range(2):
        shipper._tell_verified(committer)
    shipper.close()
    assert [event.kind for event in told] == ["points_missing"]
    assert "7 of 100 acknowledged values were missing, 7 sent again" in told[0].detail
