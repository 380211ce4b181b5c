"""InfluxDB 1.x and 2.x by InfluxQL: reads samples, writes the measurement `soc`. `_influx_place` parses places.

Instruments are joined as in `_join`, in windows of six hours; empty stretches are skipped.

Written is `soc` with the fields of `_results.SIGNALS`, the text fields `model` and `version` and, with the last point
of a piece, the text field `warning`: contradictions of the model there, or empty. Points have the tags of the place
and times to the microsecond. Writing the same points again overwrites them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from soc.stores import Recording
from soc.stores._columns import Rules
from soc.stores._errors import StoreDown, StoreError
from soc.stores._influx_http import InfluxConnection
from soc.stores._influx_place import InfluxPlace, parse, secret_files
from soc.stores._join import Signal, joined, ns
from soc.stores._results import Results
from soc.stores._select import SIGNALS, TAGS, Group

Array = NDArray[np.float64]

HOUR_NS = 3600 * 10**9
BATCH_LINES = 5000
PAUSES_S = (1.0, 2.0, 4.0)  # between attempts to write a batch
GROUP_BY = ", ".join(f'"{tag}"' for tag in TAGS)


def read(place: str, rules: Rules, since_s: float | None = None, until_s: float | None = None) -> Recording:
    """Return the samples at a place, later than `since_s` and not later than `until_s`."""
    where = parse(place)
    sources = rules.resolve(("time_s", *SIGNALS), place)
    chunks = joined(Database(where), where.selection, since_s, until_s)
    return Recording(place, ({ours: s.of(raw[s.column]) for ours, s in sources.items()} for raw in chunks))


def local_files(place: str) -> Sequence[Path]:
    """Return the files of secrets and certificates. Raises `StoreError`."""
    return secret_files(place)


class Database:
    """The database as a source of signals."""

    window_ns = 6 * HOUR_NS

    def __init__(self, where: InfluxPlace) -> None:
        self._where = where
        self._server = InfluxConnection(where)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def first(self, group: Group, field: str, after: int | None, until: int) -> int | None:
        """Return the time of the field's first value, or None."""
        rows = self._rows(group, (field,), after, until, "LIMIT 1")
        return int(rows[0][0]) if rows else None

    def fetch(self, group: Group, fields: Sequence[str], after: int, until: int) -> Mapping[str, Signal]:
        """Return times and values of each field where it has one."""
        rows = self._rows(group, fields, after, until)
        try:
            times = np.array([row[0] for row in rows], dtype=np.int64)
            table = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), len(fields))
        except (TypeError, ValueError, OverflowError, IndexError, KeyError) as error:
            place = self._where.selection.place
            raise StoreError(f"{place}: {group}: {', '.join(fields)}: expected numbers at times: {error}") from error
        known = np.isfinite(table)
        return {field: (times[known[:, k]], table[known[:, k], k]) for k, field in enumerate(fields)}

    def _rows(
        self, group: Group, fields: Sequence[str], after: int | None, until: int, tail: str = ""
    ) -> list[Sequence[Any]]:
        """Return rows of time and values. Raises `StoreError` if the tags match more than one series."""
        rows, found = list[Sequence[Any]](), set[str]()
        for series in self._server.query(self._statement(group, fields, after, until, tail)):
            tags = series.get("tags", {})
            found.add(", ".join(f"{tag}={value}" for tag, value in tags.items() if value) or "no tags")
            if len(found) > 1:
                raise StoreError(
                    f"{self._where.selection.place}: {group} is several series ({'; '.join(sorted(found))}, …): "
                    "say which, for example device=t7"
                )
            rows += series["values"]
        return rows

    def _statement(self, group: Group, fields: Sequence[str], after: int | None, until: int, tail: str) -> str:
        conditions = [f"{_name(tag)} = {_text(value)}" for tag, value in group.tags]
        conditions += [f"time <= {until}", *([f"time > {after}"] if after is not None else [])]
        source = ".".join(_name(part) for part in (self._where.rp, group.measurement) if part)
        wanted, where = ", ".join(map(_name, fields)), " AND ".join(conditions)
        return f"SELECT {wanted} FROM {source} WHERE {where} GROUP BY {GROUP_BY} {tail}".strip()  # noqa: S608 - quoted


def _name(word: str) -> str:
    """Return a quoted identifier of InfluxQL."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(word: str) -> str:
    """Return a quoted string of InfluxQL."""
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Writer:
    """Writes results as measurement `soc`, with all signals, whatever `columns` selects for files."""

    def __init__(self, place: str, tags: Mapping[str, str], columns: Sequence[str]) -> None:  # noqa: ARG002
        where = parse(place)
        self._server = InfluxConnection(where)
        self._tags = {**where.selection.tags, **tags}

    def __enter__(self) -> Self:
        """Return self; the connection opens with the first lines."""
        return self

    def write(self, results: Results) -> None:
        """Write all points in batches, each with up to four attempts. Raises `StoreDown`, `StoreError`."""
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
        """Close the connection."""
        self._server.close()


def encode(results: Results, tags: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each time that has a value, in order; a signal without a value there is left out."""
    head = "soc" + "".join(f",{_escaped(key)}={_escaped(value)}" for key, value in sorted(tags.items()) if value)
    tail = f'model="{_quoted(results.model)}",version="{_quoted(results.version)}"'
    names = sorted(results.signals)
    columns = [results.signals[name].tolist() for name in names]
    warning = f',warning="{_quoted("; ".join(results.warnings))}"'  # empty: no contradiction any more
    last = len(results.time_s) - 1
    for k, (moment, *values) in enumerate(zip(results.time_s.tolist(), *columns, strict=True)):
        present = [f"{n}={v!r}" for n, v in zip(names, values, strict=True) if np.isfinite(v)]
        if present:
            yield f"{head} {','.join(present)},{tail}{warning if k == last else ''} {ns(moment)}"


def _escaped(word: str) -> str:
    """Escape a tag's name or value for line protocol."""
    return re.sub(r"([,= ])", r"\\\1", word)


def _quoted(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')
