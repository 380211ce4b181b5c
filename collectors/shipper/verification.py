"""Compares the journals with a database over a range of time, and sends again the values that the database has lost.

    input      every row and event that the sink has confirmed and the journals still hold, wall time [start, end)
    compared   per series, field and hour: count, minimum, maximum and sum. Where these differ: per minute; where those
               differ: value by value. Texts, booleans and events: value by value
    omitted    rows that are not confirmed yet (the newest chunk of each stream, some minutes), rows older than the
               database's retention, dead letters, fields that have another type in the database
    missing    sent again, only the fields that are missing; then queried once more
    different  only reported: another program or person wrote that value, perhaps on purpose

Sums are compared with a tolerance for the rounding of their number of terms; minimum, maximum and single values are
compared exactly. Extra points in the database are not an error: another program may write the same series, and the
journal's retention may be shorter than the database's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from collectors import line_protocol
from collectors.errors import ClockUnknown, ConfigError, JournalError, LinkDown, SinkHeld
from collectors.host.clock import SYNCHRONISED, ClockReading
from collectors.journal import timestamps
from collectors.journal.history import ChunkPart
from collectors.journal.reader import JournalReader
from collectors.journal.records import Column, EventRecord, FieldSpec, IntArray, Stream, event_stamp_ns
from collectors.journal.timeline import Timeline
from collectors.shipper.config import ShipConfig, SinkConfig
from collectors.shipper.cursors import (
    UNSORTED,
    Cursors,
    ShipStore,
    StoreDamaged,
    StoreUnavailable,
    Verified,
    open_existing,
)
from collectors.shipper.influxdb.client import InfluxClient
from collectors.shipper.influxdb.query import QueryClient, Rows, quoted, text
from collectors.shipper.journal_source import collectors_of, set_manually
from collectors.shipper.retry import BatchLimit, Refusal, Wait, deliver

NS = 10**9
DAY_NS, HOUR_NS, MINUTE_NS = 86_400 * NS, 3600 * NS, 60 * NS
AT_ONCE_NS = 10 * MINUTE_NS
"""Longest range that is compared value by value at once; it bounds memory for a stream of 1000 rows/s."""
HORIZON_MARGIN_NS = HOUR_NS
"""Rows that the database's retention is about to delete are not compared."""
RESEND_S = 600.0
"""Resending is given up when the database accepts no rows for this long."""
NUMBERS = ("f", "i")
FUNCTIONS = ("count", "min", "max", "sum")
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
SeriesKey = tuple[str, tuple[tuple[str, str], ...]]
"""Measurement and sorted tags, without empty ones."""
Say = Callable[[str], None]


class Range(NamedTuple):
    """Wall time [start_ns, end_ns) since 1970."""

    start_ns: int
    end_ns: int


def parse_range(words: str, now_ns: int) -> Range:
    """Return the range of "24h", "7d", "FROM..TO" or "FROM.."; ConfigError states what was expected."""
    start, dots, end = words.partition("..")
    try:
        found = Range(timestamps.parse(start if dots else f"-{words}", now_ns), timestamps.parse(end or "now", now_ns))
    except ValueError as error:
        raise ConfigError(
            f"--verify {words}: expected an age such as 24h or 7d, or FROM..TO with times or ages such as -2d: {error}"
        ) from error
    if found.start_ns >= found.end_ns:
        raise ConfigError(f"--verify {words}: begins at or after its end")
    return found._replace(end_ns=min(found.end_ns, now_ns))


def clock_now(look: ClockReading) -> int:
    """Return wall time in ns; ClockUnknown while no time service controls the clock."""
    if look.state != SYNCHRONISED:
        raise ClockUnknown("--verify: no time service has set this host's clock; see `collectors clock`")
    return look.boottime_ns + look.offset_ns


@dataclass(slots=True)
class Tally:
    """Result for one field of one series. All numbers but the times count values."""

    values: int = 0
    missing: int = 0
    still_missing: int = 0
    different: int = 0
    dead_letters: int = 0
    first_ns: int | None = None
    """Time of the first missing value; `last_ns`: of the last one."""
    last_ns: int | None = None

    def note_missing(self, stamps_ns: IntArray) -> None:
        """Count values with these time stamps as missing."""
        if len(stamps_ns):
            self.missing += len(stamps_ns)
            first, last = int(stamps_ns.min()), int(stamps_ns.max())
            self.first_ns = first if self.first_ns is None else min(self.first_ns, first)
            self.last_ns = last if self.last_ns is None else max(self.last_ns, last)


@dataclass(slots=True)
class VerificationReport:
    """Result of the verification of one sink."""

    sink: str
    range: Range
    """The range that was compared: it begins at the database's retention limit if that is later than requested."""
    series: dict[tuple[str, SeriesKey, str], Tally] = field(default_factory=dict)
    """Collector, series and field."""
    resent: int = 0
    """Values that were sent again and stored."""
    refused: int = 0
    """Lines that the database rejected; they are dead letters, except those that are too old."""
    unshipped: dict[str, int] = field(default_factory=dict)
    """Collector to number of commits that are not confirmed yet; they are not compared."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Collector to the reason why its journal could not be read completely."""

    def tally(self, collector: str, key: SeriesKey, name: str) -> Tally:
        """Return the tally of a field, creating it if necessary."""
        return self.series.setdefault((collector, key, name), Tally())

    def total(self, what: str) -> int:
        """Return a count over all series."""
        return sum(getattr(tally, what) for tally in self.series.values())

    @property
    def is_whole(self) -> bool:
        """Return whether the database now has every value, and none differs."""
        return not (self.total("still_missing") or self.total("different"))

    def facts(self) -> dict[str, Any]:
        """Return the report as plain data; series without a finding are omitted."""
        return {
            "sink": self.sink,
            "from": timestamps.iso(self.range.start_ns, 3),
            "to": timestamps.iso(self.range.end_ns, 3),
            **{n: self.total(n) for n in ("values", "missing", "still_missing", "different", "dead_letters")},
            "resent": self.resent,
            "refused_lines": self.refused,
            "unshipped_commits": self.unshipped,
            "unreadable": self.unreadable,
            "series": [
                {
                    "collector": collector, "measurement": measurement, "tags": dict(tags), "field": name,
                    "values": tally.values, "missing": tally.missing, "still_missing": tally.still_missing,
                    "different": tally.different, "dead_letters": tally.dead_letters,
                    "first": None if tally.first_ns is None else timestamps.iso(tally.first_ns, 3),
                    "last": None if tally.last_ns is None else timestamps.iso(tally.last_ns, 3),
                }
                for (collector, (measurement, tags), name), tally in self.series.items()
                if tally.missing or tally.different or tally.dead_letters
            ],
        }  # fmt: skip


@dataclass(slots=True)
class TimeBins:
    """Count, minimum, maximum, sum and sum of absolute values of one field in each bin. Shape (bins,)."""

    count: IntArray
    least: FloatArray
    greatest: FloatArray
    total: FloatArray
    size: FloatArray

    @classmethod
    def empty(cls, bins: int) -> TimeBins:
        """Return bins without values."""
        return cls(
            np.zeros(bins, np.int64), np.full(bins, np.inf), np.full(bins, -np.inf), np.zeros(bins), np.zeros(bins)
        )

    def add(self, at: IntArray, values: FloatArray) -> None:
        """Add values to the bins with these indices."""
        bins = len(self.count)
        self.count += np.bincount(at, minlength=bins)
        np.minimum.at(self.least, at, values)
        np.maximum.at(self.greatest, at, values)
        self.total += np.bincount(at, values, bins)
        self.size += np.bincount(at, np.abs(values), bins)

    def differs(self, other: TimeBins) -> BoolArray:
        """Return the mask of bins whose values cannot be the same; sums may differ by rounding."""
        slack = 4 * np.finfo(np.float64).eps * (self.count + 1) * (self.size + 1e-300)
        with np.errstate(invalid="ignore"):  # a sum may be infinite
            sums = ~(np.abs(self.total - other.total) <= slack)
        same = (self.count == other.count) & (self.least == other.least) & (self.greatest == other.greatest) & ~sums
        differing: BoolArray = (self.count > 0) & ~same
        return differing


class ComparedValue(NamedTuple):
    """An event as a row: the text that the series' field `detail` must have at one time."""

    key: SeriesKey
    wall_ns: int
    detail: str
    line: str
    seq: int


class MissingLines(NamedTuple):
    """Lines to send again."""

    collector: str
    seq: int
    lines: list[str]
    values: int


def key_of(measurement: str, tags: Mapping[str, str]) -> SeriesKey:
    """Return the series' key, which is the same for journal and database."""
    return measurement, tuple(sorted((name, value) for name, value in tags.items() if value))


def values_of(spec: FieldSpec, column: Column) -> tuple[Any, BoolArray]:
    """Return a column's values and the mask of rows that have one; the other rows are in no line."""
    present = np.ones(len(column.values), bool) if column.missing is None else ~column.missing
    if spec.type == "f":
        values = np.asarray(column.values, np.float64)
        return values, present & np.isfinite(values)
    return np.asarray(column.values, object if spec.type == "s" else None), present


class Verification:
    """The comparison of one sink with all journals of a host."""

    def __init__(
        self, config: ShipConfig, sink: SinkConfig, store: ShipStore, client: QueryClient, post: InfluxClient, say: Say,
        *, resend: bool = True, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """`say` takes lines about the progress. With `resend` false nothing is sent."""
        self._config = config
        self._sink = sink
        self._store = store
        self._client = client
        self._post = post
        self._say = say
        self._resend = resend
        self._sleep = sleep
        self._limit = BatchLimit(sink.batch_lines)
        self._types = store.types(sink.name)

    def run(self, wanted: Range, now_ns: int) -> VerificationReport:
        """Compare, resend, and return the report; a summary is also written to ship.db.

        Raises LinkDown, NotReadable, QueryFailed, SinkHeld; StoreDamaged and StoreUnavailable of ship.db.
        """
        keeps_s = self._client.keeps_s()
        if keeps_s is not None:
            oldest_ns = now_ns - keeps_s * NS + HORIZON_MARGIN_NS
            wanted = Range(min(max(wanted.start_ns, oldest_ns), wanted.end_ns), wanted.end_ns)
        report = VerificationReport(self._sink.name, wanted)
        marks = self._store.marks(self._sink.name)
        for name in collectors_of(self._config.ship.state_dir):
            try:
                self._journal(report, name, marks.get(name, Cursors()).confirmed)
            except (StoreDamaged, StoreUnavailable):
                raise
            except JournalError as error:
                report.unreadable[name] = str(error)
        self._store.note_verified(
            Verified(
                0, self._sink.name, now_ns, *wanted, report.total("values"), report.total("missing"), report.resent,
                report.total("different"),
            )
        )  # fmt: skip
        return report

    def _journal(self, report: VerificationReport, name: str, upto: int) -> None:
        """Compare the rows and events of one journal up to a sequence number."""
        reader = JournalReader(self._config.ship.state_dir / name)
        if unshipped := reader.commits_between(upto):
            report.unshipped[name] = unshipped
        for part in parts(report.range, DAY_NS):
            self._say(
                f"{self._sink.name}: {name}: {timestamps.iso(part.start_ns, 0)} to {timestamps.iso(part.end_ns, 0)}"
            )
            self._part(report, reader, upto, part)
        self._events(report, reader, upto, report.range)

    # Rows -----------------------------------------------------------------------------------------------------------

    def _part(self, report: VerificationReport, reader: JournalReader, upto: int, part: Range) -> None:
        """Compare up to a day: per hour, then differing hours per minute, then differing minutes value by value."""
        mine, counted = self._bins(reader, upto, part, HOUR_NS)
        for (key, name), count in counted.items():
            report.tally(reader.collector, key, name).values += count
        for measurement in sorted({key[0] for key, _ in mine}):
            for hour in self._differing(measurement, mine, part, HOUR_NS):
                fine, _ = self._bins(reader, upto, hour, MINUTE_NS, measurement)
                minutes = list(self._differing(measurement, fine, hour, MINUTE_NS))
                for run in joined(minutes):
                    self._exactly(report, reader, upto, measurement, run)

    def _cuts(
        self, reader: JournalReader, upto: int, part: Range, measurement: str | None = None
    ) -> Iterator[ChunkPart]:
        """Yield the part's confirmed rows of one measurement, or of all measurements."""
        for cut in reader.cuts(*part, upto):
            if measurement in (None, cut.chunk.stream.measurement):
                yield cut

    def _fields(self, stream: Stream, columns: Sequence[Column]) -> Iterator[tuple[FieldSpec, Column]]:
        """Yield the fields that have the same type in sink and journal; values of other fields are dead letters."""
        for spec, column in zip(stream.fields, columns, strict=True):
            if self._types.get((stream.measurement, spec.name), spec.type) == spec.type:
                yield spec, column

    def _bins(
        self, reader: JournalReader, upto: int, part: Range, width_ns: int, measurement: str | None = None
    ) -> tuple[dict[tuple[SeriesKey, FieldSpec], TimeBins], dict[tuple[SeriesKey, str], int]]:
        """Return the journal's values of the part in bins of this width, and the number of values of each field."""
        first = part.start_ns // width_ns
        bins = -(-part.end_ns // width_ns) - first
        found: dict[tuple[SeriesKey, FieldSpec], TimeBins] = {}
        counted: dict[tuple[SeriesKey, str], int] = {}
        for cut in self._cuts(reader, upto, part, measurement):
            stream = cut.chunk.stream
            key = key_of(stream.measurement, stream.tags)
            at = cut.wall_ns // width_ns - first
            for spec, column in self._fields(stream, cut.chunk.columns):
                values, present = values_of(spec, column)
                if not present.any():
                    continue
                counted[key, spec.name] = counted.get((key, spec.name), 0) + int(present.sum())
                numbers = values[present].astype(np.float64) if spec.type in NUMBERS else np.zeros(int(present.sum()))
                found.setdefault((key, spec), TimeBins.empty(bins)).add(at[present], numbers)
        return found, counted

    def _differing(
        self, measurement: str, mine: Mapping[tuple[SeriesKey, FieldSpec], TimeBins], part: Range, width_ns: int
    ) -> Iterator[Range]:
        """Yield the bins in which any field of the measurement differs from the database, in order."""
        mine = {place: bins for place, bins in mine.items() if place[0][0] == measurement}
        if not mine:
            return
        first = part.start_ns // width_ns
        bins = len(next(iter(mine.values())).count)
        specs = list({spec: None for _, spec in mine})
        functions = [
            (spec, f)
            for spec in specs
            for f in (("count", "min", "max", "sum") if spec.type in NUMBERS else ("count",))
        ]
        columns = ", ".join(f"{function}({quoted(spec.name)})" for spec, function in functions)
        found = self._client.select(
            columns, measurement, self._where(part, mine), f"time({width_ns // NS}s), * fill(none)"
        )
        theirs: dict[tuple[SeriesKey, FieldSpec], TimeBins] = {}
        for rows in found:
            for row in rows.values:
                at = int(row[0]) // width_ns - first
                for (spec, function), value in zip(functions, row[1:], strict=True):
                    if value is None or not 0 <= at < bins:
                        continue
                    one = theirs.setdefault((key_of(measurement, rows.tags), spec), TimeBins.empty(bins))
                    target = {"count": one.count, "min": one.least, "max": one.greatest, "sum": one.total}[function]
                    target[at] = value
        differs = np.zeros(bins, bool)
        for place, ours in mine.items():
            other = theirs.get(place, TimeBins.empty(bins))
            if place[1].type in NUMBERS:
                differs |= ours.differs(other)
            else:
                differs |= ours.count > 0
        for index in np.flatnonzero(differs).tolist():
            start_ns = (first + index) * width_ns
            yield Range(max(start_ns, part.start_ns), min(start_ns + width_ns, part.end_ns))

    def _where(self, part: Range, places: Iterable[tuple[SeriesKey, Any]]) -> str:
        """Return the condition for the part's time and for the tags that all of these series have in common."""
        tags = [dict(key[1]) for key, _ in places]
        common = [(n, v) for n, v in tags[0].items() if all(other.get(n) == v for other in tags)]
        terms = [f"time >= {part.start_ns}", f"time < {part.end_ns}"]
        return " AND ".join([*terms, *(f"{quoted(name)} = {text(value)}" for name, value in common)])

    def _exactly(
        self, report: VerificationReport, reader: JournalReader, upto: int, measurement: str, run: Range
    ) -> None:
        """Compare value by value, send missing values again, and query whether they are stored then."""
        cuts = list(self._cuts(reader, upto, run, measurement))
        gaps = self._gaps(cuts, self._stored(measurement, cuts, run))
        lost: list[MissingLines] = []
        masks: list[list[BoolArray]] = []
        for cut, (missing, different) in zip(cuts, gaps, strict=True):
            missing = self._without_dead(report, reader.collector, cut, missing)
            masks.append(missing)
            key = key_of(measurement, cut.chunk.stream.tags)
            for spec, gone, other in zip(cut.chunk.stream.fields, missing, different, strict=True):
                tally = report.tally(reader.collector, key, spec.name)
                tally.note_missing(cut.wall_ns[gone])
                tally.different += int(other.sum())
            lost += self._lines(reader.collector, cut, missing)
        if not lost:
            return
        if self._resend:
            self._send(report, lost)
            gaps = self._gaps(cuts, self._stored(measurement, cuts, run))
        for cut, was, (missing, _) in zip(cuts, masks, gaps, strict=True):
            key = key_of(measurement, cut.chunk.stream.tags)
            for spec, before, gone in zip(cut.chunk.stream.fields, was, missing, strict=True):
                report.tally(reader.collector, key, spec.name).still_missing += int((before & gone).sum())

    def _stored(
        self, measurement: str, cuts: Sequence[ChunkPart], run: Range
    ) -> dict[tuple[SeriesKey, str], dict[int, Any]]:
        """Return the database's values of these rows' fields: series and field to time to value."""
        keys = {(key_of(measurement, cut.chunk.stream.tags), 0): None for cut in cuts}
        names = list({spec.name: None for cut in cuts for spec, _ in self._fields(cut.chunk.stream, cut.chunk.columns)})
        if not names:
            return {}
        found = self._client.select(", ".join(map(quoted, names)), measurement, self._where(run, keys), "*")
        return by_field(measurement, names, found)

    def _gaps(
        self, cuts: Sequence[ChunkPart], stored: Mapping[tuple[SeriesKey, str], Mapping[int, Any]]
    ) -> list[tuple[list[BoolArray], list[BoolArray]]]:
        """Return for each cut, field by field, the masks of rows whose value is missing and whose value differs.

        Two rows with the same time stamp overwrite each other: the value of either is correct.
        """
        found = []
        doubtful: list[tuple[BoolArray, int, tuple[SeriesKey, str], int]] = []
        for cut in cuts:
            stream = cut.chunk.stream
            key = key_of(stream.measurement, stream.tags)
            known = {spec.name for spec, _ in self._fields(stream, cut.chunk.columns)}
            missing, different = [], []
            for spec, column in zip(stream.fields, cut.chunk.columns, strict=True):
                gone, other = np.zeros(len(cut.wall_ns), bool), np.zeros(len(cut.wall_ns), bool)
                values, present = values_of(spec, column)
                there = stored.get((key, spec.name), {})
                for row in np.flatnonzero(present).tolist() if spec.name in known else ():
                    stamp = int(cut.wall_ns[row])
                    if stamp not in there:
                        gone[row] = True
                    elif there[stamp] != values[row]:
                        other[row] = True
                        doubtful.append((other, row, (key, spec.name), stamp))
                missing.append(gone)
                different.append(other)
            found.append((missing, different))
        if doubtful:
            mine = self._all_values(cuts, {(place, stamp) for _, _, place, stamp in doubtful})
            for mask, row, place, stamp in doubtful:
                mask[row] = stored[place][stamp] not in mine[place, stamp]
        return found

    def _all_values(
        self, cuts: Sequence[ChunkPart], wanted: set[tuple[tuple[SeriesKey, str], int]]
    ) -> dict[tuple[tuple[SeriesKey, str], int], set[Any]]:
        """Return all values that the journal has for these fields and times."""
        found: dict[tuple[tuple[SeriesKey, str], int], set[Any]] = {place: set() for place in wanted}
        for cut in cuts:
            stream = cut.chunk.stream
            key = key_of(stream.measurement, stream.tags)
            for spec, column in zip(stream.fields, cut.chunk.columns, strict=True):
                values, present = values_of(spec, column)
                for row in np.flatnonzero(present).tolist():
                    if (place := ((key, spec.name), int(cut.wall_ns[row]))) in found:
                        found[place].add(values[row] if spec.type == "s" else values[row].item())
        return found

    def _without_dead(
        self, report: VerificationReport, collector: str, cut: ChunkPart, missing: Sequence[BoolArray]
    ) -> list[BoolArray]:
        """Return the masks of missing values without dead letters; dead letters are counted in the report."""
        rows = np.flatnonzero(np.any(missing, axis=0)) if missing else np.zeros(0, np.int64)
        if not len(rows):
            return list(missing)
        dead = np.zeros(len(cut.wall_ns), bool)
        chosen = np.zeros(len(cut.wall_ns), bool)
        chosen[rows] = True
        dead[rows] = self._store.are_dead(self._sink.name, whole_lines(cut, rows))
        key = key_of(cut.chunk.stream.measurement, cut.chunk.stream.tags)
        for spec, gone in zip(cut.chunk.stream.fields, missing, strict=True):
            if count := int((gone & dead).sum()):
                report.tally(collector, key, spec.name).dead_letters += count
        return [gone & ~dead for gone in missing]

    def _lines(self, collector: str, cut: ChunkPart, missing: Sequence[BoolArray]) -> list[MissingLines]:
        """Return lines with the missing values only."""
        rows = np.any(missing, axis=0) if missing else np.zeros(len(cut.wall_ns), bool)
        if not rows.any():
            return []
        columns = [Column(column.values, ~gone) for column, gone in zip(cut.chunk.columns, missing, strict=True)]
        chunk = replace(cut.chunk, columns=columns)
        found = []
        for chosen, form in ((rows & ~cut.by_person, chunk), (rows & cut.by_person, set_manually(chunk))):
            if chosen.any():
                found += line_protocol.encode(line_protocol.take(form, chosen), cut.wall_ns[chosen])
        return [MissingLines(collector, cut.chunk.hi, found, int(sum(gone.sum() for gone in missing)))]

    # Events ---------------------------------------------------------------------------------------------------------

    def _events(self, report: VerificationReport, reader: JournalReader, upto: int, wanted: Range) -> None:
        """Compare the events one by one; there are few."""
        by_day: dict[int, list[ComparedValue]] = {}
        for item in events_of(reader, upto, wanted):
            by_day.setdefault(item.wall_ns // DAY_NS, []).append(item)
        for day, items in by_day.items():
            self._day_of_events(report, reader.collector, items, Range(day * DAY_NS, (day + 1) * DAY_NS))

    def _day_of_events(
        self, report: VerificationReport, collector: str, items: Sequence[ComparedValue], part: Range
    ) -> None:
        stored = self._stored_events(items, part)
        lost = []
        for item in items:
            tally = report.tally(collector, item.key, "detail")
            tally.values += 1
            if item.wall_ns in stored.get(item.key, {}):
                tally.different += stored[item.key][item.wall_ns] != item.detail
            elif self._store.are_dead(self._sink.name, [item.line])[0]:
                tally.dead_letters += 1
            else:
                tally.note_missing(np.array([item.wall_ns], np.int64))
                lost.append(item)
        if lost and self._resend:
            self._send(report, [MissingLines(collector, lost[-1].seq, [item.line for item in lost], len(lost))])
            stored = self._stored_events(items, part)
        for item in lost:
            is_there = item.wall_ns in stored.get(item.key, {})
            report.tally(collector, item.key, "detail").still_missing += not is_there

    def _stored_events(self, items: Sequence[ComparedValue], part: Range) -> dict[SeriesKey, dict[int, Any]]:
        where = self._where(part, [(item.key, 0) for item in items])
        found = self._client.select(quoted("detail"), "event", where, "*")
        return {key: there for (key, _), there in by_field("event", ["detail"], found).items()}

    # Sending again --------------------------------------------------------------------------------------------------

    def _send(self, report: VerificationReport, lost: Sequence[MissingLines]) -> None:
        """Send the lines; SinkHeld or LinkDown when the database does not accept them."""
        for missing in lost:
            refused_values = 0
            for start in range(0, len(missing.lines), self._limit.lines):
                batch = missing.lines[start : start + self._limit.lines]
                refused = self._deliver(batch)
                report.refused += len(refused)
                kept = [refusal for refusal in refused if refusal.reason != "expired"]
                self._store.add_dead(self._sink.name, missing.collector, missing.seq, kept)
                refused_values += sum(fields_in(refusal.line) for refusal in refused)
            report.resent += max(0, missing.values - refused_values)

    def _deliver(self, batch: list[str]) -> list[Refusal]:
        """Deliver the batch; return the lines that were rejected or left unsorted."""
        delivery = deliver(batch, self._limit, random.uniform, self._store.known_good(self._sink.name))
        answer = None
        end_s = time.monotonic() + RESEND_S
        while True:
            try:
                step = delivery.send(answer)
            except StopIteration as end:
                done = end.value
                return [*done.refused, *(Refusal(line, None, UNSORTED, "") for line in done.unsorted)]
            if not isinstance(step, Wait):
                answer = self._post.ask(step.lines)
                continue
            answer = None
            words = f"sink {self._sink.name}: {step.why}; what is missing was not sent again"
            if step.state == "hold":
                raise SinkHeld(words)
            if time.monotonic() + step.seconds > end_s:
                raise LinkDown(words)
            self._sleep(step.seconds)


def parts(whole: Range, width_ns: int) -> Iterator[Range]:
    """Yield the range, split at multiples of the width."""
    start_ns = whole.start_ns
    while start_ns < whole.end_ns:
        end_ns = min((start_ns // width_ns + 1) * width_ns, whole.end_ns)
        yield Range(start_ns, end_ns)
        start_ns = end_ns


def joined(ranges: Sequence[Range]) -> Iterator[Range]:
    """Yield the ranges with adjacent ones joined, none longer than AT_ONCE_NS."""
    current: Range | None = None
    for one in ranges:
        if current and one.start_ns == current.end_ns and one.end_ns - current.start_ns <= AT_ONCE_NS:
            current = Range(current.start_ns, one.end_ns)
            continue
        if current:
            yield current
        current = one
    if current:
        yield current


def by_field(
    measurement: str, names: Sequence[str], found: Sequence[Rows]
) -> dict[tuple[SeriesKey, str], dict[int, Any]]:
    """Return a query's result as series and field to time to value, without nulls."""
    stored: dict[tuple[SeriesKey, str], dict[int, Any]] = {}
    for rows in found:
        key = key_of(measurement, rows.tags)
        for index, name in enumerate(names, 1):
            stored[key, name] = {int(row[0]): row[index] for row in rows.values if row[index] is not None}
    return stored


def whole_lines(cut: ChunkPart, rows: IntArray) -> list[str]:
    """Return the lines with which these rows were sent, one per row."""
    found = []
    for row in rows.tolist():
        chosen = np.zeros(len(cut.wall_ns), bool)
        chosen[row] = True
        form = set_manually(cut.chunk) if cut.by_person[row] else cut.chunk
        found += line_protocol.encode(line_protocol.take(form, chosen), cut.wall_ns[chosen])
    return found


def fields_in(line: str) -> int:
    """Return the number of fields of a line; 1 for a line with text, because a text may contain commas."""
    return 1 if '"' in line else line.rsplit(" ", 2)[1].count(",") + 1


def events_of(reader: JournalReader, upto: int, wanted: Range) -> Iterator[ComparedValue]:
    """Yield the confirmed events of the range whose wall time is known."""
    after, tags = 0, reader.tags()
    timelines: dict[str, Timeline] = {}
    while events := reader.events_after(after):
        after = events[-1].seq
        for event in events:
            if event.seq > upto:
                return
            if event.boot_id not in timelines:
                timelines[event.boot_id] = reader.timeline(event.boot_id)
            wall_ns, known = timelines[event.boot_id].to_wall(np.array([event.boottime_ns], np.int64))
            if known[0] and wanted.start_ns <= (stamp_ns := event_stamp_ns(event, int(wall_ns[0]))) < wanted.end_ns:
                yield _item(event, int(wall_ns[0]), stamp_ns, tags)


def _item(event: EventRecord, wall_ns: int, stamp_ns: int, tags: Mapping[str, str]) -> ComparedValue:
    key = key_of("event", {**tags, **event.tags, "kind": event.kind})
    return ComparedValue(key, stamp_ns, event.detail, line_protocol.encode_event(event, wall_ns, tags), event.seq)


def verify(
    config: ShipConfig, sink: SinkConfig, wanted: Range, now_ns: int, say: Say, *, resend: bool
) -> VerificationReport:
    """Verify one sink. Raises ConfigError for secrets, and the errors of `Verification.run`."""
    secret_name = sink.password_file or sink.token_file
    with (
        open_existing(config.ship.state_dir / "ship.db") as store,
        QueryClient(config, sink) as client,
        InfluxClient(sink, config.secret(secret_name) if secret_name else "") as post,
    ):
        return Verification(config, sink, store, client, post, say, resend=resend).run(wanted, now_ns)
