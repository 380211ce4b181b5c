"""Replays a recording: every second of it is served until each instrument that has a value there has sent it.

    recording   CSV: a header, then rows of Unix milliseconds and one column per quantity; a byte-order mark is skipped,
                rows may be out of order, an empty cell is a second without a value
    row         one second of the recording, counted from its first
    advance     to the next row when it is due by wall time × speed *and* every instrument with a value in this row has
                sent it; if one has not within PATIENCE_S, a stall is recorded and the replay continues
    late        the time by which an advance came after it was due; it is made up for as soon as the instruments allow

Otherwise a polled instrument whose collector asks late would lose rows, and the bench itself would cause the loss.
Sampling the same row twice is harmless. The log (`Replay.began_ns` per row, `SentLog.marks` per message) is sufficient
to assign every stored sample to its second.
"""

from __future__ import annotations

import csv
import math
import re
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from collectors.errors import ConfigError
from collectors.fakes import World

PATIENCE_S = 5.0
MOST_PROBLEMS = 10
ROW_MS = 1000
MOST_DIGITS = 15
"""Maximum number of digits of a time stamp: more are beyond the year 30 000."""
MOST_VALUE = 1e6
"""Upper limit of a value: no instrument of a bench measures more, in any unit."""
LONGEST_NAME = 1000
"""Maximum length of a column's name: matching patterns against longer names could take very long."""
LEAD_IN = -1
"""The row before the first: every instrument sends its own first values while collectors identify instruments."""


class Target(NamedTuple):
    """The instrument and quantity of a column."""

    instrument: str
    key: str
    """Key of the true value, for example "battery.current_a"."""


COLUMNS: Sequence[tuple[str, Target]] = (
    (r"Bat_voltage .*\b47\d{7}\b", Target("t7", "battery.voltage_v")),
    (r"Bat_current .*\b47\d{7}\b", Target("t7", "battery.current_a")),
    (r"Bat_A .*mppt", Target("mppt", "battery.current_a")),
    (r"Bat_V .*mppt", Target("mppt", "battery.voltage_v")),
    (r"Bat_V .*EA-EL", Target("load", "load.voltage_v")),
)
"""Headers of the bench's exporter: charger by its type, T7 by its serial number (47…), load by its manufacturer."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Rows of one second each; missing values have no entry."""

    start_ms: int
    rows: Sequence[Mapping[str, Mapping[str, float]]]
    """For each second: instrument to key to value."""

    def keys(self, instrument: str) -> frozenset[str]:
        """Return the keys of all quantities that the recording has of this instrument."""
        return frozenset(key for row in self.rows for key in row.get(instrument, ()))

    def first(self, instrument: str) -> Mapping[str, float]:
        """Return the instrument's first values; ConfigError when it has none."""
        for row in self.rows:
            if instrument in row:
                return row[instrument]
        raise ConfigError(f"recording: no value of {instrument!r} in any row; check the header and --map")


def parse_map(text: str) -> tuple[str, Target]:
    """Return (pattern, target) of "PATTERN=INSTRUMENT:KEY"; ConfigError when it has another form."""
    pattern, equals, target = text.rpartition("=")
    instrument, colon, key = target.partition(":")
    if not (pattern and equals and colon and instrument and "." in key):
        raise ConfigError(
            f"map {text!r}: expected HEADER_PATTERN=INSTRUMENT:KEY, for example Bat_A=mppt:battery.current_a"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"map {text!r}: not a regular expression: {error}") from error
    return pattern, Target(instrument, key)


def read(path: Path, columns: Sequence[tuple[str, Target]] = COLUMNS) -> Recording:
    """Return the recording in a CSV file; ConfigError names file, line and column of invalid content."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            targets = _targets(path, next(reader, []), columns)
            return _rows(path, targets, ((reader.line_num, cells) for cells in reader if cells))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: not a CSV file in UTF-8: {error}") from error
    except ValueError as error:  # a path that contains NUL
        raise ConfigError(f"{str(path)!r}: {error}") from error


class _Column(NamedTuple):
    at: int
    name: str
    target: Target


def _targets(path: Path, header: Sequence[str], columns: Sequence[tuple[str, Target]]) -> tuple[int, list[_Column]]:
    """Return the number of columns and those that belong to an instrument; ConfigError when none does."""
    long = [at for at, name in enumerate(header, start=1) if len(name) > LONGEST_NAME]
    if long:
        raise ConfigError(f"{path}:1: column {long[0]}: a name of more than {LONGEST_NAME} characters")
    found = [
        _Column(at, name, target)
        for at, name in enumerate(header)
        for pattern, target in columns
        if at and re.search(pattern, name)
    ]
    for column in found:
        rivals = [c.name for c in found if c.at != column.at and c.target == column.target]
        rivals += [str(c.target) for c in found if c.at == column.at and c.target != column.target]
        if rivals:
            raise ConfigError(f"{path}:1: column {column.name!r} and {rivals[0]!r} claim the same place; use --map")
    if not found:
        names = ", ".join(repr(name) for name in header[1:MOST_PROBLEMS]) or "none"
        names += f" and {len(header) - MOST_PROBLEMS} more" if len(header) > MOST_PROBLEMS else ""
        raise ConfigError(f"{path}:1: no column belongs to an instrument; columns: {names}; name them with --map")
    return len(header), found


def _rows(path: Path, header: tuple[int, list[_Column]], lines: Iterable[tuple[int, Sequence[str]]]) -> Recording:
    width, columns = header
    problems: list[str] = []
    seconds: dict[int, dict[str, dict[str, float]]] = {}
    first_line: dict[int, int] = {}
    for line, cells in lines:
        where = f"{path}:{line}"
        if len(cells) != width:
            problems.append(f"{where}: expected {width} cells, got {len(cells)}")
            continue
        stamp_ms = _stamp_ms(cells[0])
        if stamp_ms is None:
            problems.append(
                f"{where}: column 'Time': expected whole seconds in Unix milliseconds, got {_shown(cells[0])}"
            )
        elif stamp_ms in seconds:
            problems.append(f"{where}: the same second as line {first_line[stamp_ms]}: {stamp_ms}")
        else:
            seconds[stamp_ms], wrong = _values(cells, columns)
            problems += [f"{where}: {text}" for text in wrong]
            first_line[stamp_ms] = line
    if problems:
        more = [f"{path}: and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise ConfigError(problems[:MOST_PROBLEMS] + more)
    if not any(seconds.values()):
        raise ConfigError(f"{path}: no values in it")
    start_ms, end_ms = min(seconds), max(seconds)
    if end_ms - start_ms > 31 * 86_400_000:
        raise ConfigError(f"{path}: spans more than a month: is a stamp wrong? {start_ms} to {end_ms}")
    return Recording(start_ms, [seconds.get(ms, {}) for ms in range(start_ms, end_ms + 1, ROW_MS)])


def _stamp_ms(cell: str) -> int | None:
    is_number = cell.isascii() and cell.isdigit() and len(cell) <= MOST_DIGITS
    return int(cell) if is_number and not int(cell) % ROW_MS else None


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:39]}…")


def _values(cells: Sequence[str], columns: Iterable[_Column]) -> tuple[dict[str, dict[str, float]], list[str]]:
    values: dict[str, dict[str, float]] = {}
    problems = []
    for at, name, (instrument, key) in columns:
        if not cells[at]:
            continue
        try:
            value = float(cells[at])
        except ValueError:
            value = math.nan
        if abs(value) < MOST_VALUE:
            values.setdefault(instrument, {})[key] = value
        else:
            problems.append(f"column {name!r}: expected a number or nothing, got {_shown(cells[at])}")
    return values, problems


class Stall(NamedTuple):
    """A row that some instruments did not send in time."""

    row: int
    instruments: tuple[str, ...]


class Replay:
    """The clock of a replay, and the true values of its current row."""

    def __init__(self, recording: Recording, speed: float, instruments: Sequence[str]) -> None:
        """`speed`: seconds of the recording per second."""
        self.recording = recording
        self.speed = speed
        self.row = LEAD_IN
        self.began_ns = array("q")
        """CLOCK_BOOTTIME in ns at which each row began, followed by that of the end."""
        self.stalls: list[Stall] = []
        self.latest_s = 0.0
        """Maximum lateness of an advance."""
        self._start_s: float | None = None
        self._lead_in = {name: recording.first(name) for name in instruments}
        self._keys = {name: recording.keys(name) for name in instruments}
        self._pending: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Return whether the last row has been served."""
        return self.row >= len(self.recording.rows)

    def world(self, instrument: str) -> World:
        """Return a function for this instrument's values of the current row, None where the recording has none."""

        def see(time_s: float) -> Mapping[str, float | None]:
            del time_s  # the current row determines the values
            values = self._row_of(instrument)
            return {key: values.get(key) for key in self._keys[instrument]}

        return see

    def _row_of(self, instrument: str) -> Mapping[str, float]:
        if self.row == LEAD_IN:
            return self._lead_in[instrument]
        return {} if self.is_over else self.recording.rows[self.row].get(instrument, {})

    def begin(self, at_s: float) -> None:
        """End the lead-in at this time of the server's clock, in s."""
        self._start_s = at_s

    def delivered(self, instrument: str, row: int) -> None:
        """Record that an instrument has sent its values of a row."""
        if row == self.row:
            self._pending.discard(instrument)

    def advance(self, now_s: float) -> float:
        """Advance to the row that is due if all instruments have sent the current one; return the next call's time."""
        if self._start_s is None:
            return math.inf
        while not self.is_over:
            due_s = self._start_s + (self.row + 1) / self.speed
            if now_s < due_s:
                return due_s
            if self._pending:
                give_up_s = max(due_s, self._row_began_s) + PATIENCE_S
                if now_s < give_up_s:
                    return give_up_s
                self.stalls.append(Stall(self.row, tuple(sorted(self._pending))))
            self.latest_s = max(self.latest_s, now_s - due_s)
            self._enter(self.row + 1, now_s)
        return math.inf

    def served(self, until_ns: int) -> int:
        """Return the number of rows that had ended at this CLOCK_BOOTTIME."""
        return max(0, bisect_right(self.began_ns, until_ns) - 1)

    def _enter(self, row: int, now_s: float) -> None:
        self.row = row
        self._row_began_s = now_s
        self.began_ns.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        self._pending = set() if self.is_over else self._lead_in.keys() & self.recording.rows[row].keys()
