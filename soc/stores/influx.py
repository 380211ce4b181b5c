"""InfluxDB 1.x and 2.x by InfluxQL: samples out, measurement `soc` in. How a place is written: `_influx_place`.

One time base: every sample of the current is a row. To it is joined the newest voltage that is not younger than the
sample and at most 2 s old, and the newest temperature of at most 10 min. Nothing is interpolated; a row without a
voltage is a row with a missing value. Rows are read in windows of six hours; empty stretches are skipped.

What is written: `soc` with the fields of `_results.SIGNALS` and the text fields `model` and `version`, tagged as the
place says, stamped to the microsecond. Writing the same again overwrites.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from soc.stores import Recording
from soc.stores._columns import Columns, Rules
from soc.stores._errors import StoreDown, StoreError
from soc.stores._influx_http import Server
from soc.stores._influx_place import SIGNALS, TAGS, Place, Signal, parse
from soc.stores._results import Results

Array = NDArray[np.float64]
Times = NDArray[np.int64]  # ns since 1970

WINDOW_NS = 6 * 3600 * 10**9
SECOND_NS = 10**9
BATCH_LINES = 5000
PAUSES_S = (1.0, 2.0, 4.0)  # between attempts at a batch
GROUP = ", ".join(f'"{tag}"' for tag in TAGS)


def read(place: str, rules: Rules, since_s: float | None = None, until_s: float | None = None) -> Recording:
    """The samples at a place, later than `since_s` and not later than `until_s`."""
    where = parse(place)
    sources = rules.resolve(("time_s", *SIGNALS), place)
    since = max((s for s in (where.since_s, since_s) if s is not None), default=None)
    until = min(s for s in (where.until_s, until_s, time.time()) if s is not None)
    chunks = _chunks(where, since, until)
    return Recording(place, ({ours: s.of(raw[s.column]) for ours, s in sources.items()} for raw in chunks))


def _chunks(where: Place, since_s: float | None, until_s: float) -> Iterator[Columns]:
    """The joined columns, window by window."""
    server = Server(where)
    until = _ns(until_s)
    after = None if since_s is None else _ns(since_s)
    try:
        while (first := _first(server, where, after, until)) is not None:
            end = min(first + WINDOW_NS, until)
            yield _window(server, where, first - 1, end)
            after = end
    finally:
        server.close()


def _first(server: Server, where: Place, after: int | None, until: int) -> int | None:
    """When the next sample of the current was taken, or None."""
    times, _ = _rows(server, where, where.signals["current_a"], after, until, "LIMIT 1")
    return int(times[0]) if len(times) else None


def _window(server: Server, where: Place, after: int, until: int) -> Columns:
    """The columns of the samples after one time and not after another, ns."""
    times, current = _rows(server, where, where.signals["current_a"], after, until)
    columns = {"time_s": times / SECOND_NS, "current_a": current}
    for name, age_s in (("voltage_v", "voltage_age_s"), ("temperature_degc", "temperature_age_s")):
        age = _ns(where.ages_s[age_s])
        known, values = _rows(server, where, where.signals[name], after - age, until)
        columns[name] = newest(known, values, times, age)
    return columns


def newest(known: Times, values: Array, at: Times, age: int) -> Array:
    """For each time the last value known then, NaN where it is older than `age`; all times in ns."""
    if len(known) == 0:
        return np.full(len(at), np.nan)
    k = np.searchsorted(known, at, side="right") - 1
    fresh = (k >= 0) & (at - known[np.maximum(k, 0)] <= age)
    return np.where(fresh, values[np.maximum(k, 0)], np.nan)


def _rows(
    server: Server, where: Place, signal: Signal, after: int | None, until: int, tail: str = ""
) -> tuple[Times, Array]:
    """Times and values of one signal. Raises `StoreError` if the tags given leave a choice of series."""
    conditions = [f"{_name(tag)} = {_text(value)}" for tag, value in signal.tags.items()]
    conditions += [f"time <= {until}", *([f"time > {after}"] if after is not None else [])]
    source = ".".join(_name(part) for part in (where.rp, signal.measurement) if part)
    statement = f"SELECT {_name(signal.field)} FROM {source} WHERE {' AND '.join(conditions)} GROUP BY {GROUP} {tail}"  # noqa: S608 - quoted
    times, values, found = list[int](), list[float](), set[tuple[str, ...]]()
    for series in server.query(statement):
        found.add(tuple(f"{tag}={value}" for tag, value in series.get("tags", {}).items() if value))
        if len(found) > 1:
            choice = "; ".join(", ".join(tags) or "no tags" for tags in sorted(found))
            raise StoreError(
                f"{where.text}: {signal.measurement}.{signal.field} is several series ({choice}, …): "
                "say which, for example device=t7"
            )
        for moment, value in series["values"]:
            times.append(moment)
            values.append(value)
    return np.array(times, dtype=np.int64), np.array(values, dtype=np.float64)


def _ns(seconds: float) -> int:
    return round(seconds * 1e6) * 1000


def _name(word: str) -> str:
    """A quoted identifier of InfluxQL."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(word: str) -> str:
    """A quoted text of InfluxQL."""
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Writer:
    """Writes results as measurement `soc`; all signals, whatever `columns` says about files."""

    def __init__(self, place: str, tags: Mapping[str, str], columns: Sequence[str]) -> None:  # noqa: ARG002
        where = parse(place)
        self._server = Server(where)
        self._tags = {**where.tags, **tags}

    def __enter__(self) -> Self:
        """Nothing to begin: the connection opens with the first lines."""
        return self

    def write(self, results: Results) -> None:
        """Store all points, in batches, each tried four times. Raises `StoreDown`, `StoreError`."""
        lines = list(encode(results, self._tags))
        for k in range(0, len(lines), BATCH_LINES):
            self._store(lines[k : k + BATCH_LINES])

    def _store(self, lines: Sequence[str]) -> None:
        for pause_s in PAUSES_S:
            try:
                return self._server.write(lines)
            except StoreDown:
                time.sleep(pause_s)
        return self._server.write(lines)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the connection back."""
        self._server.close()


def encode(results: Results, tags: Mapping[str, str]) -> Iterator[str]:
    """One line for each time that has a value, in order; a signal without value there is left out."""
    head = "soc" + "".join(f",{_escaped(key)}={_escaped(value)}" for key, value in sorted(tags.items()) if value)
    tail = f'model="{_quoted(results.model)}",version="{_quoted(results.version)}"'
    names = sorted(results.signals)
    columns = [results.signals[name].tolist() for name in names]
    for moment, *values in zip(results.time_s.tolist(), *columns, strict=True):
        present = [f"{n}={v!r}" for n, v in zip(names, values, strict=True) if np.isfinite(v)]
        if present:
            yield f"{head} {','.join(present)},{tail} {_ns(moment)}"


def _escaped(word: str) -> str:
    """A tag's name or value in line protocol."""
    return re.sub(r"([,= ])", r"\\\1", word)


def _quoted(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')
