"""The reconciliation finds every lost sample and excuses those that a fault or an opening link took."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.bench.reconciliation import CUT_OFF_NS, OPENING_NS, Journal, JournalSeries, gaps, reconcile
from collectors.fakes.serve import SentLog
from collectors.journal.reader import JournalReader
from collectors.journal.records import Chunk, Column, EventRecord, FieldSpec, IntArray, Stream

SECOND = 10**9
FOR_EVER = 10**18
NONE = np.empty(0, np.int64)


def log(*sent_s: float, harmed: tuple[float, ...] = (), connected_s: float = 0.0) -> SentLog:
    made = SentLog()
    made.connected_ns.append(round(connected_s * SECOND))
    for at_s in sent_s:
        made.boottime_ns.append(round(at_s * SECOND))
        made.harmed.append(at_s in harmed)
        made.marks.append(0)
    return made


def stamps(*at_s: float) -> IntArray:
    return np.array([round(t * SECOND) for t in at_s], np.int64)


UP = stamps(0.5)


def test_a_complete_journal_has_no_loss() -> None:
    found = reconcile(log(1, 2, 3), stamps(1.01, 2.01, 3.2), UP, FOR_EVER)
    assert (found.sent, found.kept, found.lost, found.opening, found.harmed) == (3, 3, 0, 0, 0)


@given(st.sets(st.integers(0, 19)))
@settings(max_examples=50)
def test_every_missing_sample_is_counted(missing: set[int]) -> None:
    kept = [1 + i + 0.01 for i in range(20) if i not in missing]
    found = reconcile(log(*range(1, 21)), stamps(*kept), UP, FOR_EVER)
    assert (found.kept, found.lost) == (20 - len(missing), len(missing))


def test_an_empty_journal_has_lost_every_sample() -> None:
    assert reconcile(log(6, 7, 8), NONE, NONE, FOR_EVER).lost == 3


def test_a_sample_changed_by_a_fault_is_not_counted_as_lost() -> None:
    found = reconcile(log(1, 2, 3, 4, harmed=(2, 3)), stamps(1, 4), UP, FOR_EVER)
    assert (found.harmed, found.kept, found.lost) == (2, 2, 0)


def test_a_stored_sample_changed_by_a_fault_does_not_offset_a_lost_one() -> None:
    found = reconcile(log(1, 2, 3, 4, harmed=(2,)), stamps(1, 2.0, 4), UP, FOR_EVER)
    assert (found.kept, found.lost) == (2, 1)


def test_an_opening_excuses_losses_until_the_link_is_up_and_for_a_limited_time() -> None:
    found = reconcile(log(0.1, 0.4, 1, 2), stamps(1, 2), UP, FOR_EVER)
    assert (found.opening, found.kept, found.lost) == (2, 2, 0)
    never_up = reconcile(log(1, 2, 2 + OPENING_NS / SECOND), NONE, NONE, FOR_EVER)
    assert (never_up.opening, never_up.lost) == (2, 1)


def test_samples_sent_right_before_the_link_was_lost_are_excused() -> None:
    sent = log(1, 2, 3)
    sent.gone_ns.append(round(3 * SECOND + CUT_OFF_NS / 2))
    found = reconcile(sent, stamps(1, 2), UP, FOR_EVER)
    assert (found.harmed, found.kept, found.lost) == (1, 2, 0)


def test_samples_sent_after_the_end_are_not_counted() -> None:
    assert reconcile(log(1, 2, 3), stamps(1, 2), UP, round(2.5 * SECOND)).sent == 2


def test_rows_stored_after_the_end_do_not_offset_lost_ones() -> None:
    found = reconcile(log(1, 2, 3, 4), stamps(1, 3, 4), UP, round(2.5 * SECOND))
    assert (found.sent, found.kept, found.lost) == (2, 1, 1)


def test_a_row_that_was_read_late_still_matches_its_sample() -> None:
    found = reconcile(log(1, 2, 3, 4), stamps(1, 3.01, 3.02, 4), UP, FOR_EVER)
    assert (found.kept, found.lost) == (4, 0)


def event(at_s: float, kind: str) -> EventRecord:
    return EventRecord(1, "boot", round(at_s * SECOND), kind, "")


def test_gaps_have_the_cause_that_events_report() -> None:
    journal = Journal(cast("JournalReader", None), 0)
    journal.events += [event(4.5, "link_down"), event(6, "link_up")]
    [first, second] = gaps(stamps(1, 2, 3, 4, 7, 8, 18), journal.causes(), 1.0, "nobody knows")
    assert (first.seconds, first.cause) == (3.0, "link_down")
    assert (second.seconds, second.cause) == (10.0, "nobody knows")


def chunk(at: list[int], **fields: list[float | None]) -> Chunk:
    columns = [
        Column(np.array([v or 0.0 for v in values]), np.array([v is None for v in values]))
        for values in fields.values()
    ]
    stream = Stream(1, "battery", {}, [FieldSpec(name) for name in fields])
    return Chunk(1, 1, stream, "boot", np.array(at, np.int64), columns)


def test_a_series_takes_each_row_once_and_fields_that_come_later() -> None:
    series = JournalSeries()
    assert series.add(chunk([1, 2, 3], a=[1.0, None, 3.0]), since_ns=2) == 2
    assert series.add(chunk([2, 3, 4], a=[None, 3.0, 4.0]), since_ns=2) == 1
    assert series.add(chunk([5], b=[5.0]), since_ns=2) == 1
    assert series.boottime_ns == [2, 3, 4, 5]
    assert series.fields == {"a": [None, 3.0, 4.0, None], "b": [None, None, None, 5.0]}
    assert series.course("a").values == pytest.approx([3.0, 4.0])
    series.forget_before(4)
    assert (series.boottime_ns, series.fields["b"]) == ([4, 5], [None, 5.0])
