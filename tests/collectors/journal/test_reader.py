"""Readers beside a busy writer: no error, every row exactly once, and charts that agree with the rows."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import JournalError
from collectors.host.clock import FakeClock
from collectors.journal.compact import bins_of, concatenate
from collectors.journal.reader import JournalReader
from collectors.journal.records import Column, RowRange
from collectors.journal.schema import journal_files
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from tests.testing.journal import QUIET, SECOND, Bench, column, read_all, rows

START = 1_700_000_000 * SECOND


def test_an_unwritten_journal_is_empty(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "nobody")
    assert (reader.newest_seq(), reader.boots(), reader.streams(), reader.tail()) == (0, [], [], [])
    assert (reader.after(0).hi, reader.chunks_after(0), reader.events_after(0)) == (0, [], [])
    assert list(reader.range(0, 2**62)) == []
    assert reader.rollups(0, 2**62, 60) == []
    assert dict(reader.tags()) == {}


def test_a_reader_beside_commits_compaction_roll_over_and_sealing_sees_every_row_once(tmp_path: Path) -> None:
    count, done = 3000, threading.Event()
    clock = FakeClock(10 * SECOND, START)
    writer = JournalWriter(tmp_path / "load", {}, QUIET, clock, lambda *_: None)
    failures: list[BaseException] = []
    live: list[float] = []

    def follow() -> None:
        reader, cursor = JournalReader(tmp_path / "load"), 0
        try:
            while True:
                last_round = done.is_set()
                while (batch := reader.after(cursor, 100)).hi > cursor:
                    # A block may begin before the cursor, when its rows were read as hot rows: take what is new.
                    live.extend(v for c in batch.chunks for v in column(c, "voltage_v") if v > max(live, default=0))
                    cursor = batch.hi
                list(reader.range(0, 2**62))
                reader.tail()
                if last_round:
                    assert reader.take_damage() == []
                    return
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=follow)
    thread.start()
    for i in range(count):
        writer.commit(rows({"voltage_v": float(i + 1)}, (11 + i) * SECOND))
        if i % 70 == 69:
            writer.compact()
        if i % 400 == 399:
            writer.roll()
            writer._seal_rest()
    done.set()
    thread.join(60)
    writer.close()
    assert not thread.is_alive()
    assert failures == []
    assert live == [float(i + 1) for i in range(count)]


def test_a_range_that_is_read_while_rows_move_from_hot_to_blocks_has_each_once(bench: Bench) -> None:
    writer = bench.open()
    for _ in range(200):
        bench.write(writer, 1, value=float(bench.clock.boottime_ns() // SECOND))
        writer.compact()
    bench.write(writer, 50, value=500.0)
    spans = bench.reader.range(0, 2**62)
    found = values(next(spans))
    writer.compact()
    writer.roll()
    bench.write(writer, 1, value=9999.0)
    found += [v for span in spans for v in values(span)]
    assert len(found) == len(set(found)) == 250


def values(span: RowRange) -> list[float]:
    return [float(v) for v in span.columns[0].values]


def test_a_deleted_file_is_no_error(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 5)
    writer.roll()
    bench.write(writer, 5, value=6.0)
    spans = bench.reader.range(0, 2**62)
    journal_files(bench.directory)[0].unlink()
    assert [v for span in spans for v in values(span)] == [6.0, 7.0, 8.0, 9.0, 10.0]
    assert bench.values() == [6.0, 7.0, 8.0, 9.0, 10.0]


def test_a_file_that_is_no_database_is_an_error_that_names_the_folder(bench: Bench) -> None:
    bench.directory.mkdir(parents=True)
    (bench.directory / "j-00000001.db").write_bytes(b"x" * 5000)
    with pytest.raises(JournalError, match="load: cannot be read"):
        read_all(bench.reader)


def test_events_come_in_order_beside_the_rows(bench: Bench) -> None:
    from collectors.journal.backlog import EventAt, Work

    writer = bench.open()
    for i in range(5):
        work = rows({"voltage_v": float(i)}, (11 + i) * SECOND)
        writer.commit(Work(work.rows, [EventAt(i, "e", str(i))]))
    assert [e.detail for e in bench.reader.events_after(0)] == ["0", "1", "2", "3", "4"]
    assert [e.detail for e in bench.reader.events_after(4, 2)] == ["2", "3"]
    batch = bench.reader.after(0, 2)
    assert (batch.hi, [c.hi for c in batch.chunks], [e.seq for e in batch.events]) == (3, [1, 3], [2])


def test_roll_ups_agree_with_the_rows(bench: Bench) -> None:
    writer = bench.open(JournalSettings(ballast_mib=0.0, min_free_mib=0.0))
    noise = np.random.default_rng(3)
    truth: list[tuple[int, float]] = []
    for part in range(5):
        for _ in range(80):
            bench.clock.sleep_s(1 + noise.random())
            truth.append((bench.clock.boottime_ns(), round(13 + noise.normal(), 2)))
            writer.commit(rows({"voltage_v": truth[-1][1], "current_a": None}, truth[-1][0]))
        (writer.compact, writer.roll, lambda: None, writer.compact, lambda: None)[part]()
    (found,) = [r for r in bench.reader.rollups(START, START + 10**15, 60) if r.field.name == "voltage_v"]
    bins: dict[int, list[float]] = {}
    for stamp, value in truth:
        bins.setdefault(stamp // (60 * SECOND) * 60 * SECOND + START, []).append(value)
    assert found.wall_ns.tolist() == sorted(bins)
    assert found.count.tolist() == [len(bins[b]) for b in sorted(bins)]
    assert found.least.tolist() == [min(bins[b]) for b in sorted(bins)]
    assert found.greatest.tolist() == [max(bins[b]) for b in sorted(bins)]
    assert found.mean.tolist() == pytest.approx([sum(bins[b]) / len(bins[b]) for b in sorted(bins)], rel=1e-12)
    assert not any(r.field.name == "current_a" for r in bench.reader.rollups(START, START + 10**15, 60))
    (one,) = bench.reader.rollups(START, START + 10**15, 60, field="voltage_v")
    assert (one.wall_ns.tolist(), one.mean.tolist()) == (found.wall_ns.tolist(), found.mean.tolist())
    assert bench.reader.rollups(START, START + 10**15, 60, field="nothing") == []
    hours = bench.reader.rollups(START, START + 10**15, 3600, "battery")
    assert sum(r.count.sum() for r in hours) == len(truth)
    assert bench.reader.rollups(START, START + 10**15, 3600, "solar") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.floats(-1e6, 1e6)), min_size=2, max_size=60), st.data())
def test_merged_bins_of_parts_are_the_bins_of_the_whole(found: list[tuple[int, float]], data: st.DataObject) -> None:
    stamps = np.array([s * SECOND for s, _ in found], dtype=np.int64)
    numbers = np.array([v for _, v in found])
    cut = data.draw(st.integers(1, len(found) - 1))
    whole = bins_of(stamps, [Column(numbers)], 60)
    parts = [bins_of(stamps[a:b], [Column(numbers[a:b])], 60) for a, b in ((0, cut), (cut, len(found)))]
    put = concatenate(parts)
    assert put.start_ns.tolist() == whole.start_ns.tolist()
    assert put.counts.tolist() == whole.counts.tolist()
    assert (put.least.tolist(), put.greatest.tolist()) == (whole.least.tolist(), whole.greatest.tolist())
    assert np.allclose(put.total, whole.total, rtol=1e-9, atol=1e-6)
