"""Compares the database with the journals, and a replay's journals with its recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from collectors.bench.influx import Influx
from collectors.bench.reconciliation import EARLY_NS, Journal, JournalSeries, SeriesKey
from collectors.bench.replay import LEAD_IN, Replay
from collectors.bench.sensors import Instrument
from collectors.fakes.serve import SentLog
from collectors.journal.records import IntArray

T7_STEP = 150e-6
"""Noise in V of a T7's reading behind a divider of 4: 37 µV times 4."""
MOST_AT_ONCE = 20
"""Maximum number of messages that may wait when a collector reads for the first time."""
LATEST_NS = 1_000_000_000
"""Maximum time that a message may wait until it is read."""


@dataclass(frozen=True, slots=True)
class DatabaseComparison:
    """Comparison of the database with the journals; values that differ in any bit are different."""

    rows: int
    values: int
    missing: int
    """Rows of the journals that the database does not have."""
    different: int
    """Values that differ, or that only one of the two has."""
    extra: int
    """Rows of the database that no journal has."""

    @property
    def is_same(self) -> bool:
        """Return whether both hold exactly the same rows, and at least one."""
        return self.rows > 0 and not (self.missing or self.different or self.extra)


def compare_database(journals: Sequence[Journal], boot_id: str, database: Influx, name: str) -> DatabaseComparison:
    """Compare the database's content with the journals'."""
    total = np.zeros(5, np.int64)
    for journal in journals:
        kept = {key: wall_rows(journal, series, boot_id) for key, series in journal.series.items()}
        for measurement in {key[0] for key in kept}:
            mine = {key: rows for key, rows in kept.items() if key[0] == measurement}
            stamps = [stamp for rows in mine.values() for stamp in rows]
            if stamps:
                span_ns = min(stamps), max(stamps)
                theirs = database.rows(name, measurement, journal.reader.collector, span_ns)
                total += _compare(mine, theirs)
    return DatabaseComparison(*total.tolist())


def wall_rows(journal: Journal, series: JournalSeries, boot_id: str) -> dict[int, dict[str, Any]]:
    """Return wall time to values of all rows with a value; rows whose wall time is not known are omitted."""
    stamps_ns, known = journal.reader.to_wall(boot_id, np.array(series.boottime_ns, np.int64))
    names = list(series.fields)
    rows = zip(stamps_ns.tolist(), known.tolist(), *series.fields.values(), strict=True)
    found = {s: {n: v for n, v in zip(names, values, strict=True) if v is not None} for s, ok, *values in rows if ok}
    return {stamp: values for stamp, values in found.items() if values}


def _compare(mine: Mapping[SeriesKey, Any], theirs: Mapping[SeriesKey, Any]) -> Any:
    rows = values = missing = different = extra = 0
    for key in mine.keys() | theirs.keys():
        kept, given = mine.get(key, {}), theirs.get(key, {})
        rows += len(kept)
        values += sum(map(len, kept.values()))
        missing += len(kept.keys() - given.keys())
        extra += len(given.keys() - kept.keys())
        for stamp in kept.keys() & given.keys():
            names = kept[stamp].keys() | given[stamp].keys()
            different += sum(kept[stamp].get(n) != given[stamp].get(n) for n in names)
    return np.array([rows, values, missing, different, extra])


@dataclass(frozen=True, slots=True)
class ReplayCheck:
    """Comparison of one instrument's recorded values with its journal, row by row. The numbers count values."""

    values: int
    """Values in the rows of the recording that were served."""
    equal: int
    """Values found in the journal at their own row, within half of the instrument's step."""
    missing: int
    different: int
    """Values in the journal at a row where the recording has another value."""
    invented: int
    """Values in the journal at a row where the recording has none."""
    latest_s: float
    """Maximum deviation of a sample's time from its second of the recording at the set speed, in real seconds."""


def check_replay(
    replay: Replay, name: str, instrument: Instrument, sent: SentLog, journal: Journal, talks: bool, rows: int
) -> ReplayCheck:
    """Compare an instrument's journal with the first `rows` rows of the recording, which were served.

    The fake's log states to which row each message belongs. A sample of a polled instrument came with the last message
    before its time stamp. An instrument that publishes may have several messages waiting when the collector reads; they
    are in the order of the instrument's own clock, and a few alignments of the first sample are possible. The alignment
    with the most equal values is taken. A wrong one cannot pass, because values then differ wherever the recording
    changes.
    """
    stamps = journal.stamps()
    alignments = _in_order(sent, _by_own_clock(journal, stamps)) if talks else [_last_before(sent, stamps)]
    tries = [_check(replay, name, instrument, journal, marks, rows) for marks in alignments]
    tries = tries or [_check(replay, name, instrument, journal, {}, rows)]
    return max(tries, key=lambda check: (check.equal, -check.different - check.invented))


def _last_before(sent: SentLog, stamps: IntArray) -> dict[int, int]:
    """Return the row of every time stamp, from the last message before it."""
    at = np.searchsorted(np.array(sent.boottime_ns, np.int64), stamps + EARLY_NS, side="right") - 1
    marks = np.array([*sent.marks, LEAD_IN], np.int64)  # with no message before it, at = -1: the lead-in
    return dict(zip(stamps.tolist(), marks[at].tolist(), strict=True))


def _by_own_clock(journal: Journal, stamps: IntArray) -> IntArray:
    """Return the time stamps in the order of the charger's uptime, which every message contains.

    A collector that is delayed right after a read stamps it late, possibly later than the next one.
    """
    uptime = journal.course("charger", "uptime_s")
    if not np.array_equal(uptime.boottime_ns, stamps):
        return stamps
    return stamps[np.argsort(uptime.values, kind="stable")]


def _in_order(sent: SentLog, stamps: IntArray) -> Iterator[dict[int, int]]:
    """Yield every time stamp's row, for each message that the first sample may have come from."""
    sent_ns = np.array(sent.boottime_ns, np.int64)
    marks = np.array([*sent.marks, LEAD_IN], np.int64)
    latest = int(np.searchsorted(sent_ns, stamps[:1] + EARLY_NS, side="right").sum()) - 1
    for first in range(latest, max(latest - MOST_AT_ONCE, -1), -1):
        at, places = first, []
        for stamp in stamps.tolist():
            while at < len(sent_ns) and sent_ns[at] < stamp - LATEST_NS:  # too late to be read: lost
                at += 1
            places.append(at)
            at = min(at + 1, len(sent_ns))
        yield dict(zip(stamps.tolist(), marks[places].tolist(), strict=True))


def _check(
    replay: Replay, name: str, instrument: Instrument, journal: Journal, marks: Mapping[int, int], rows: int
) -> ReplayCheck:
    served = replay.recording.rows[:rows]
    expected = {(i, key): value for i, row in enumerate(served) for key, value in row.get(name, {}).items()}
    found: set[tuple[int, str]] = set()
    different = invented = 0
    for key in replay.recording.keys(name):
        course = journal.course(*key.split("."))
        for stamp, value in zip(course.boottime_ns.tolist(), course.values.tolist(), strict=True):
            place = marks[stamp], key
            if place[0] == LEAD_IN or rows <= place[0] < len(replay.recording.rows):
                continue  # before the recording, or in a row that had not ended when the run did
            if place not in expected:
                invented += 1
            elif abs(value - expected[place]) > tolerance(instrument, key):
                different += 1
            else:
                found.add(place)
    return ReplayCheck(
        values=len(expected),
        equal=len(found),
        missing=len(expected) - len(found),
        different=different,
        invented=invented,
        latest_s=_latest_s(replay, marks),
    )


def tolerance(instrument: Instrument, key: str) -> float:
    """Return half of the instrument's step of a quantity, plus a margin for rounding."""
    sensor = instrument.sensors.get(key)
    step = sensor.resolution if sensor and sensor.resolution else 2 * T7_STEP
    return step / 2 * (1 + 1e-6)


def _latest_s(replay: Replay, marks: Mapping[int, int]) -> float:
    """Return the maximum deviation of a sample's time from its second at the set speed, in real seconds."""
    latest = 0.0
    for stamp, row in marks.items():
        if 0 <= row < len(replay.began_ns):
            at_s = (stamp - replay.began_ns[0]) / 1e9
            latest = max(latest, row / replay.speed - at_s, at_s - (row + 1) / replay.speed)
    return latest
