"""Responses of a real InfluxDB 1.6 to good and bad lines, and how the shipper handles them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from collectors.journal.records import Chunk, Column, FieldSpec, Stream
from collectors.line_protocol import encode
from collectors.shipper.config import SinkConfig
from collectors.shipper.cursors import ShipStore
from collectors.shipper.influxdb.client import InfluxClient
from collectors.shipper.influxdb.responses import Outcome, WriteResponse, classify
from collectors.shipper.journal_source import JournalSource
from collectors.shipper.retry import BatchLimit, Delivered, Send, deliver
from collectors.shipper.worker import TYPE_CONFLICT, SinkWorker
from tests.testing.influx import Influx
from tests.testing.memory_sink import TwinJournal

NOW_NS = time.time_ns() // 10**9 * 10**9


class MakesPosts(Protocol):
    """Creates a client of a database, with some settings changed."""

    def __call__(self, database: str, **changes: Any) -> InfluxClient: ...


@pytest.fixture
def post(influx: Influx) -> Iterator[MakesPosts]:
    with ExitStack() as opened:

        def make(database: str, **changes: Any) -> InfluxClient:
            usual = SinkConfig("lab", "influxdb1", influx.url, database, user=influx.writer, password_file="made up")
            return opened.enter_context(InfluxClient(replace(usual, **changes), influx.password))

        yield make


def carry(connection: InfluxClient, lines: list[str]) -> Delivered:
    """Deliver one batch; no delivery of these tests may wait."""
    delivery = deliver(lines, BatchLimit(5000), lambda _low, _high: 0.0)
    answer = None
    while True:
        try:
            step = delivery.send(answer)
        except StopIteration as end:
            done: Delivered = end.value
            return done
        assert isinstance(step, Send), step
        answer = connection.ask(step.lines)


def good(count: int, measurement: str = "battery") -> list[str]:
    return [f"{measurement},device=d value={n}.5 {NOW_NS + n}" for n in range(count)]


@pytest.mark.parametrize("gzip_level", [0, 1, 6])
def test_good_lines_are_acknowledged_with_204_and_stored(influx: Influx, post: MakesPosts, gzip_level: int) -> None:
    database = influx.create_database()
    connection = post(database, gzip_level=gzip_level)
    for _ in range(2):  # the second time they overwrite themselves
        assert connection.ask(good(1000)) == WriteResponse(204)
    assert influx.count(database, "value") == 1000


def test_every_kind_of_value_is_stored_unchanged(influx: Influx, post: MakesPosts) -> None:
    database = influx.create_database()
    texts = ["plain", 'a "quoted" \\ word', "two\nlines", "tab\tand, comma=equals", "é ± 電", ""]
    numbers = [0.1, -0.0, 1e-7, 5e-324, 1.7976931348623157e308, 123456789.12345678]
    stream = Stream(1, "all kinds, of", {"ta,g =": "va, l=ue"}, [
        FieldSpec("number"), FieldSpec("count", "i"), FieldSpec("on", "b"), FieldSpec("te xt,=", "s"),
    ])  # fmt: skip
    columns = [
        Column(np.array(numbers)),
        Column(np.array([2**63 - 1, -(2**63), 0, 1, 2, 3])),
        Column(np.array([0, 1, 0, 1, 0, 1])),
        Column(texts),
    ]
    stamps = NOW_NS + np.arange(6)
    connection = post(database)
    assert connection.ask(encode(Chunk(1, 1, stream, "b", stamps, columns), stamps)) == WriteResponse(204)
    (series,) = influx.query('SELECT number, count, "on", "te xt,=" FROM "all kinds, of" GROUP BY *', database)
    assert series["tags"] == {"ta,g =": "va, l=ue"}
    for row, (stamp, number, count, on, text) in enumerate(series["values"]):
        assert stamp == NOW_NS + row
        assert (number, count, on) == (numbers[row], columns[1].values[row], bool(row % 2))
        assert text == texts[row]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("battery,device=d value=NaN 1", "invalid number"),
        ("battery,device=d value= 1", "missing field value"),
        ("no line at all", "invalid field format"),
        (f"battery,device=d value=1i {NOW_NS + 7}", "field type conflict"),
        (f"battery,device=d value={'1' * 400}x {NOW_NS}", "invalid number"),
    ],
    ids=[
        "not a number",
        "no value",
        "no line",
        "another type",
        "too long a number",
    ],  # not the lines, which hold the time
)
def test_one_bad_line_is_found_and_all_others_are_stored(
    influx: Influx, post: MakesPosts, bad: str, words: str
) -> None:
    database = influx.create_database()
    connection = post(database)
    assert connection.ask(good(1)) == WriteResponse(204)
    batch = good(200)
    batch.insert(120, bad)
    done = carry(connection, batch)
    assert not done.unsorted
    assert [refusal.line for refusal in done.refused] == [bad]
    assert words in done.refused[0].error
    assert influx.count(database, "value") == 200


def test_a_type_conflict_names_the_type_of_the_server(influx: Influx, post: MakesPosts) -> None:
    connection = post(influx.create_database())
    connection.ask(good(1))
    answer = connection.ask([f"battery,device=d value=1i {NOW_NS}"])
    found = TYPE_CONFLICT.search(answer.text)
    assert found
    assert found.groups() == ("value", "battery", "float")


def test_points_older_than_the_policy_are_expired_and_newer_ones_stored(influx: Influx, post: MakesPosts) -> None:
    database = influx.create_database(retention="1d")
    connection = post(database)
    old = [f"battery,device=d value=1.0 {NOW_NS - 10 * 86_400 * 10**9 + n}" for n in range(300)]
    done = carry(connection, old + good(300))
    assert {(refusal.reason, refusal.status) for refusal in done.refused} == {("expired", 400)}
    assert [refusal.line for refusal in done.refused] == old
    assert influx.count(database, "value") == 300


def test_errors_that_need_an_operator_hold_the_batch(influx: Influx, post: MakesPosts) -> None:
    database = influx.create_database()
    influx.query("CREATE DATABASE other")
    cases: list[tuple[dict[str, str], int, Outcome]] = [
        ({"database": "nowhere"}, 404, Outcome.HOLD),
        ({"database": "other"}, 403, Outcome.HOLD),  # there, but not the writer's
        ({"user": "nobody"}, 401, Outcome.HOLD),
        ({"user": "", "password_file": ""}, 401, Outcome.HOLD),
        ({"retention_policy": "nothing"}, 500, Outcome.FAULT),
    ]
    for changes, status, verdict in cases:
        connection = post(**{"database": database, **changes})
        answer = connection.ask(good(1))
        assert (answer.status, classify(answer, 100)) == (status, verdict), answer


def test_a_body_over_the_servers_limit_is_halved_until_it_passes(influx: Influx, post: MakesPosts) -> None:
    database = influx.create_database()
    connection = post(database, gzip_level=0)
    long = "x" * 1_000_000
    batch = [f'notes,device=d text="{long}" {NOW_NS + n}' for n in range(40)]  # 40 MB; the server takes 25
    answer = connection.ask(batch)
    assert classify(answer, 40_000_000) is Outcome.TOO_LARGE
    assert carry(connection, batch) == Delivered()
    assert influx.count(database, "text") == 40


def test_an_absent_or_hanging_server_is_an_unknown_outcome(tmp_path: Path, influx: Influx, post: MakesPosts) -> None:
    database = influx.create_database()
    connection = post(database, answer_s=0.3)
    assert connection.ask(good(1)) == WriteResponse(204)
    influx.freeze()
    try:
        answer = connection.ask(good(1))
    finally:
        influx.thaw()
    assert answer.status is None
    assert classify(answer, 100) is Outcome.UNKNOWN
    assert connection.ask(good(1)) == WriteResponse(204)
    nowhere = post(database, url="http://127.0.0.1:9")
    answer = nowhere.ask(good(1))
    assert (answer.status, answer.sent_whole) == (None, True)
    assert "refused" in answer.text


def test_a_whole_journal_arrives_stamp_by_stamp(influx: Influx, post: MakesPosts, tmp_path: Path) -> None:
    database = influx.create_database()
    store = ShipStore(tmp_path / "ship.db")
    journal = TwinJournal(store.path)
    journal.sync(offset_ns=NOW_NS - 10**12)
    for n in range(500):
        journal.append([n * 10**9, n * 10**9 + 1])
    connection = post(database)
    courier = SinkWorker("lab", store, connection, batch_lines=200)
    courier.add(JournalSource("mppt", journal, store, "lab", courier.types))
    courier.run_once()
    (series,) = influx.query("SELECT value FROM battery", database)
    assert [stamp - NOW_NS + 10**12 for stamp, _ in series["values"]] == [value for _, value in series["values"]]
    assert len(series["values"]) == journal.rows()
    assert not store.dead()
    store.close()
