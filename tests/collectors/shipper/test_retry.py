"""Delivery of one batch to scripted servers: every response is handled as specified, and no batch is dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.shipper.influxdb.responses import FEW_LINES_BYTES, LARGE_BODY_BYTES, Outcome, WriteResponse, classify
from collectors.shipper.retry import (
    HOLD_S,
    MOST_REQUESTS,
    SLOW_S,
    BatchLimit,
    Delivered,
    Send,
    Wait,
    backoff_s,
    deliver,
)
from tests.collectors.shipper.influxdb.responses import recorded

STORED, REFUSED = WriteResponse(204), WriteResponse(400, '{"error":"unable to parse"}')
EXPIRED = WriteResponse(400, '{"error":"partial write: points beyond retention policy dropped=1"}')


def lines(count: int) -> list[str]:
    return [f"m,d=x v={n}.0 {n}" for n in range(count)]


@dataclass
class Played:
    """The course of a batch's delivery."""

    result: Delivered | None = None
    sent: list[Sequence[str]] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)


def play(
    batch: Sequence[str],
    server: Callable[[Sequence[str]], WriteResponse],
    *,
    limit: BatchLimit | None = None,
    known_good: str | None = None,
    steps: int = 100_000,
) -> Played:
    """Run a delivery against a server; waits pass at once."""
    played = Played()
    delivery = deliver(batch, limit or BatchLimit(5000), lambda _low, high: high, known_good)
    answer: WriteResponse | None = None
    for _ in range(steps):
        try:
            step = delivery.send(answer)
        except StopIteration as end:
            played.result = end.value
            break
        answer = None
        if isinstance(step, Send):
            played.sent.append(step.lines)
            answer = server(step.lines)
        else:
            played.waits.append(step)
    return played


class Picky:
    """Stores good lines, as a 1.x server does also when it responds 400."""

    def __init__(self, bad: set[str], old: int = 0) -> None:
        self.bad, self.old, self.stored = bad, old, set[str]()

    def __call__(self, batch: Sequence[str]) -> WriteResponse:
        old = {line for line in batch if int(line.split()[-1]) < self.old}
        self.stored |= set(batch) - self.bad - old
        if self.bad & set(batch):
            return REFUSED
        return EXPIRED if old else STORED


@pytest.mark.parametrize(
    ("answer", "size", "verdict"),
    [
        (WriteResponse(204), 10, Outcome.STORED),
        (WriteResponse(200, "<html>log in"), 10, Outcome.HOLD),
        (WriteResponse(302), 10, Outcome.HOLD),
        (REFUSED, 10, Outcome.REFUSED),
        (WriteResponse(400, "<html>Bad Request"), 10, Outcome.HOLD),
        (WriteResponse(422), 10, Outcome.HOLD),
        (EXPIRED, 10, Outcome.EXPIRED),
        (WriteResponse(401), 10, Outcome.HOLD),
        (WriteResponse(403), 10, Outcome.HOLD),
        (WriteResponse(404, "database not found"), 10, Outcome.HOLD),
        (WriteResponse(405), 10, Outcome.HOLD),
        (WriteResponse(413), 10, Outcome.TOO_LARGE),
        (WriteResponse(None, "reset", sent_whole=False), 1_000_000, Outcome.TOO_LARGE),
        (WriteResponse(None, "reset", sent_whole=False), 1_000, Outcome.UNKNOWN),
        (WriteResponse(None, "timed out"), 1_000_000, Outcome.UNKNOWN),
        (WriteResponse(408), 10, Outcome.UNKNOWN),
        (WriteResponse(429), 10, Outcome.BUSY),
        (WriteResponse(503), 10, Outcome.BUSY),
        (WriteResponse(500, "retention policy not found"), 10, Outcome.FAULT),
        (WriteResponse(502), 10, Outcome.FAULT),
        (WriteResponse(504), 10, Outcome.FAULT),
        (WriteResponse(507), 10, Outcome.FAULT),
    ],
)
def test_every_response_is_classified(answer: WriteResponse, size: int, verdict: Outcome) -> None:
    assert classify(answer, size) is verdict


@given(st.integers(1, 120), st.data())
@settings(max_examples=60, deadline=None)
def test_exactly_the_bad_lines_are_refused_and_all_others_stored(count: int, data: st.DataObject) -> None:
    batch = lines(count)
    bad = data.draw(st.sets(st.sampled_from(batch), max_size=6))
    server = Picky(bad, old=data.draw(st.integers(0, count)))
    result = play(batch, server).result
    assert result is not None
    assert not result.unsorted
    refused = [refusal.line for refusal in result.refused]
    assert len(refused) == len(set(refused))
    expired = {line for line in batch if int(line.split()[-1]) < server.old}
    assert set(refused) == bad | expired
    assert server.stored == set(batch) - bad - expired


def test_four_bad_lines_of_5000_are_found_in_about_a_hundred_requests() -> None:
    batch = lines(5000)
    server = Picky({batch[n] for n in (3, 1700, 1701, 4999)})
    played = play(batch, server)
    assert played.result is not None
    assert {refusal.line for refusal in played.result.refused} == server.bad
    assert len(played.sent) < 100


def test_an_expired_backlog_costs_a_dozen_requests_not_thousands() -> None:
    server = Picky(set(), old=4000)
    played = play(lines(5000), server)
    assert played.result is not None
    assert [refusal.reason for refusal in played.result.refused] == ["expired"] * 4000
    assert len(played.sent) < 20


def test_lines_not_isolated_within_200_requests_are_returned_and_none_is_lost() -> None:
    batch = lines(5000)
    server = Picky(set(batch[::3]))
    played = play(batch, server)
    assert played.result is not None
    assert len(played.sent) < 3 * MOST_REQUESTS
    refused = {refusal.line for refusal in played.result.refused}
    assert refused <= server.bad
    assert set(batch) == server.stored | refused | set(played.result.unsorted)
    assert played.result.unsorted


@pytest.mark.parametrize("status", [401, 403, 404, 200])
def test_a_wrong_token_or_bucket_holds_the_batch_without_limit(status: int) -> None:
    played = play(lines(3), lambda _: WriteResponse(status), steps=1000)
    assert played.result is None
    assert set(map(tuple, played.sent)) == {tuple(lines(3))}
    assert {(wait.seconds, wait.state) for wait in played.waits} == {(HOLD_S, "hold")}


@pytest.mark.parametrize("answer", [WriteResponse(None, "timed out"), WriteResponse(503), WriteResponse(429)])
def test_no_number_of_retries_ever_drops_or_changes_a_batch(answer: WriteResponse) -> None:
    played = play(lines(3), lambda _: answer, steps=1000)
    assert played.result is None
    assert set(map(tuple, played.sent)) == {tuple(lines(3))}


def test_the_wait_that_the_server_requests_is_kept() -> None:
    answers = iter([WriteResponse(503, retry_after_s=7.0), WriteResponse(429, retry_after_s=1e9), STORED])
    assert [wait.seconds for wait in play(lines(1), lambda _: next(answers)).waits] == [7.0, 600.0]


def test_waits_double_up_to_a_minute_with_full_jitter() -> None:
    assert [backoff_s(n, lambda _low, high: high) for n in (1, 2, 3, 8, 1000)] == [0.5, 1.0, 2.0, 60.0, 60.0]
    assert backoff_s(5, lambda low, _high: low) == 0.0


def test_too_large_is_halved_and_the_limit_comes_back_slowly() -> None:
    limit = BatchLimit(5000)
    played = play(lines(1000), lambda batch: WriteResponse(413) if len(batch) > 300 else STORED, limit=limit)
    assert played.result == Delivered()
    assert [len(batch) for batch in played.sent] == [1000, 500, 250, 250, 500, 250, 250]
    assert limit.lines == 5000 // 8
    for _ in range(20):
        limit.shrink()
    assert limit.lines == 100
    limit.stored(SLOW_S)
    assert limit.lines == 200


def expired_as(server: str) -> list[WriteResponse]:
    """Return the responses to points that are too old, of every server whose responses are recorded."""
    return [WriteResponse(r.status, r.body) for r in recorded() if r.verdict is Outcome.EXPIRED and server in r.server]


@pytest.mark.parametrize("old", [6000, 5999, 1])
@pytest.mark.parametrize("server", ["1.6.7", "1.8", "2.0", "2.1", "2.7.12"])
def test_old_lines_cost_a_dozen_requests_with_the_messages_of_every_server(server: str, old: int) -> None:
    batch = lines(6000)
    stored: set[str] = set()
    (words, *_) = expired_as(server)

    def answer(sent: Sequence[str]) -> WriteResponse:
        late = {line for line in sent if int(line.split()[-1]) < old}
        stored.update(set(sent) - late)
        return words if late else STORED

    played = play(batch, answer)
    assert played.result is not None
    assert [refusal.reason for refusal in played.result.refused] == ["expired"] * old
    assert stored == set(batch[old:])
    assert len(played.sent) < 20
    assert not played.waits


def test_a_server_without_disk_space_holds_the_batch_and_no_line_is_rejected() -> None:
    """A single line may still fit where a batch does not: that does not make the batch invalid."""
    full = WriteResponse(500, '{"error":"engine: error writing WAL entry: write x.wal: no space left on device"}')
    played = play(lines(50), lambda batch: STORED if len(batch) == 1 else full, known_good=lines(1)[0], steps=500)
    assert played.result is None
    assert {wait.state for wait in played.waits} == {"hold"}


def test_without_a_known_good_line_single_lines_of_the_batch_show_whether_the_server_works() -> None:
    batch = lines(9)
    bad = batch[-1]
    played = play(batch, lambda sent: WriteResponse(500, '{"error":"panic"}') if bad in sent else STORED)
    assert played.result is not None
    assert [refusal.line for refusal in played.result.refused] == [bad]


def test_a_known_good_line_that_has_become_too_old_does_not_hold_a_batch() -> None:
    batch = lines(9)
    old = "m,d=x v=0.0 -5"

    def answer(sent: Sequence[str]) -> WriteResponse:
        return EXPIRED if old in sent else WriteResponse(500, '{"error":"panic"}') if batch[3] in sent else STORED

    played = play(batch, answer, known_good=old)
    assert played.result is not None
    assert [refusal.line for refusal in played.result.refused] == [batch[3]]


def test_a_timeout_indicates_size_only_for_a_batch_of_some_size() -> None:
    late = WriteResponse(None, "timed out", timed_out=True)
    assert classify(late, FEW_LINES_BYTES + 1) is Outcome.SLOW
    assert classify(late, FEW_LINES_BYTES) is Outcome.UNKNOWN
    assert classify(late._replace(sent_whole=False), LARGE_BODY_BYTES + 1) is Outcome.TOO_LARGE
    assert classify(WriteResponse(None, "reset"), FEW_LINES_BYTES + 1) is Outcome.UNKNOWN


def test_a_batch_that_times_out_is_halved_until_it_passes_and_no_line_is_rejected() -> None:
    limit = BatchLimit(5000)
    late = WriteResponse(None, "timed out", timed_out=True)
    batch = [f"battery,device=mppt voltage_v=12.{n:04} {n}" for n in range(1000)]
    played = play(batch, lambda sent: late if len(sent) > 300 else STORED, limit=limit)
    assert played.result == Delivered()
    assert [len(sent) for sent in played.sent] == [1000, 500, 250, 250, 500, 250, 250]
    assert {wait.state for wait in played.waits} == {"retry"}
    assert limit.lines == 5000 // 8


def test_a_single_line_that_times_out_is_retried_without_limit() -> None:
    long = f'event detail="{"x" * 9000}" 1'
    played = play([long], lambda _: WriteResponse(None, "timed out", timed_out=True), steps=50)
    assert played.result is None
    assert set(map(tuple, played.sent)) == {(long,)}


def test_a_batch_that_was_stored_slowly_makes_the_next_ones_smaller() -> None:
    limit = BatchLimit(5000)
    limit.stored(SLOW_S + 1)
    assert limit.lines == 2500
    limit.stored(SLOW_S)
    assert limit.lines == 2600


def test_one_line_that_alone_is_too_large_is_refused() -> None:
    played = play(lines(1), lambda _: WriteResponse(413, "too large"))
    assert played.result is not None
    assert [(r.status, r.reason) for r in played.result.refused] == [(413, "too_large")]


def test_a_batch_that_makes_a_healthy_server_fail_is_bisected() -> None:
    batch = lines(64)
    poison = batch[21]
    played = play(batch, lambda sent: WriteResponse(500, "panic") if poison in sent else STORED, known_good="m v=1 1")
    assert played.result is not None
    assert [(r.line, r.status, r.reason) for r in played.result.refused] == [(poison, 500, "fault")]


def test_a_failing_server_is_waited_for_and_the_batch_stays_whole() -> None:
    played = play(lines(64), lambda _: WriteResponse(500, "retention policy not found"), steps=200)
    assert played.result is None
    assert {len(sent) for sent in played.sent} == {64, 1}
    assert played.waits[-1].state == "hold"
