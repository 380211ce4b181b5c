"""Is it the same? The database against the journals, and a replay against its recording."""

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
"""A T7's own uncertainty of a voltage behind a divider of 4: noise of 37 µV times 4."""
MOST_AT_ONCE = 20
"""Messages that a collector may find waiting when it looks for the first time."""
LATEST_NS = 1_000_000_000
"""The longest that a message may wait until it is read."""


@dataclass(frozen=True, slots=True)
class DatabaseComparison:
    """What the database gives back of what the journals hold; values are equal to the last bit, or different."""

    rows: int
    values: int
    missing: int
    """Rows of the journal that the database does not have."""
    different: int
    """Values that are not the same, or that only one of both has."""
    extra: int
    """Rows of the database that no journal has."""

    @property
    def is_same(self) -> bool:
        """Return whether both hold exactly the same, and something."""
        return self.rows > 0 and not (self.missing or self.different or self.extra)


def compare_database(journals: Sequence[Journal], boot_id: str, database: Influx, name: str) -> DatabaseComparison:
    """Return how the database's content compares with the journals'."""
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
    """Return wall time to values of the rows that hold any; rows whose time is not known are left out."""
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
    """One instrument's recorded values against what the journal holds, row by row."""

    values: int
    """In the rows of the recording that were served."""
    equal: int
    """Found in the journal at their own row, within half of the instrument's step."""
    missing: int
    different: int
    """In the journal at a row where the recording has another value."""
    invented: int
    """In the journal at a row where the recording has none."""
    latest_s: float
    """The most that a sample's time is off its second of the recording at the declared speed, in real seconds."""


def check_replay(
    replay: Replay, name: str, instrument: Instrument, sent: SentLog, journal: Journal, talks: bool, rows: int
) -> ReplayCheck:
    """Return how an instrument's journal compares with the first `rows` rows of the recording, which were served.

    The fake's log says to which row each message belongs. A sample of an instrument that is asked came with the last
    message before its stamp. One that talks by itself may have several messages waiting when the collector looks;
    they are in the order of its own clock, and with which of them the first sample came is known only to a few: it is
    the one for which most values are right. A wrong one cannot pass, because then values differ wherever the recording
    moves.
    """
    stamps = journal.stamps()
    alignments = _in_order(sent, _by_own_clock(journal, stamps)) if talks else [_last_before(sent, stamps)]
    tries = [_check(replay, name, instrument, journal, marks, rows) for marks in alignments]
    tries = tries or [_check(replay, name, instrument, journal, {}, rows)]
    return max(tries, key=lambda check: (check.equal, -check.different - check.invented))


def _last_before(sent: SentLog, stamps: IntArray) -> dict[int, int]:
    """Return every stamp's row, by the last message before it."""
    at = np.searchsorted(np.array(sent.boottime_ns, np.int64), stamps + EARLY_NS, side="right") - 1
    marks = np.array([*sent.marks, LEAD_IN], np.int64)  # with no message before it, at = -1: the lead-in
    return dict(zip(stamps.tolist(), marks[at].tolist(), strict=True))


def _by_own_clock(journal: Journal, stamps: IntArray) -> IntArray:
    """Return the stamps in the order of the charger's uptime, which every message carries.

    A collector that is held up right after a read stamps that read late, and the next one perhaps before it.
    """
    uptime = journal.course("charger", "uptime_s")
    if not np.array_equal(uptime.boottime_ns, stamps):
        return stamps
    return stamps[np.argsort(uptime.values, kind="stable")]


def _in_order(sent: SentLog, stamps: IntArray) -> Iterator[dict[int, int]]:
    """Give, for each message that can have been the first sample's, every stamp's row."""
    sent_ns = np.array(sent.boottime_ns, np.int64)
    marks = np.array([*sent.marks, LEAD_IN], np.int64)
    latest = int(np.searchsorted(sent_ns, stamps[:1] + EARLY_NS, side="right").sum()) - 1
    for first in range(latest, max(latest - MOST_AT_ONCE, -1), -1):
        at, places = first, []
        for stamp in stamps.tolist():
            while at < len(sent_ns) and sent_ns[at] < stamp - LATEST_NS:  # nobody can have read it so late: lost
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
    """Return half of the instrument's step of a quantity, and a little for arithmetic."""
    sensor = instrument.sensors.get(key)
    step = sensor.resolution if sensor and sensor.resolution else 2 * T7_STEP
    return step / 2 * (1 + 1e-6)


def _latest_s(replay: Replay, marks: Mapping[int, int]) -> float:
    """Return by how much a sample's time is off its second of the recording at the declared speed, in real seconds."""
    latest = 0.0
    for stamp, row in marks.items():
        if 0 <= row < len(replay.began_ns):
            at_s = (stamp - replay.began_ns[0]) / 1e9
            latest = max(latest, row / replay.speed - at_s, at_s - (row + 1) / replay.speed)
    return latest
