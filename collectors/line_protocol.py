r"""Rows to InfluxDB line protocol. Pure and deterministic: the same rows always give the same bytes.

    measurement,tag=a,tag=b field=1.5,count=3i,on=t,text="x" 1700000000000000000

    order    tags by name, fields as the stream lists them, stamp in ns
    numbers  floats as `repr` writes them (shortest that reads back equal), integers with `i`, booleans t or f
    text     in double quotes, `"` and `\` escaped by `\`; line breaks stay inside the quotes
    missing  None, NaN and infinity: the field is omitted; a row without fields gives no line; an empty tag is omitted
    escapes  `,` and space in measurements; `,`, `=` and space in tags and field names

Two encoders give equal bytes: `encode_plain`, row by row and easy to verify, and `encode_columns`, which formats
whole columns at once (by a JSON encoder that reads numpy arrays) and joins them by one template for each set of
present fields. A line is returned without its line break.

Source: InfluxDB line protocol reference, and tests of what a 1.6.7 server accepts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import orjson

from collectors.errors import CollectorError
from collectors.journal.records import Chunk, Column, EventRecord, FieldSpec, IntArray, event_stamp_ns

FEW_ROWS = 8
"""Number of rows below which setting up the columns costs more than it saves."""

BoolArray = npt.NDArray[np.bool_]

LEAST_PLAIN, LEAST_EXPONENT = 1e-4, 1e16
"""`repr` and the JSON encoder format a float alike from LEAST_PLAIN up to LEAST_EXPONENT, and zero."""


class Unencodable(CollectorError):
    """A measurement, tag or field name that line protocol cannot represent."""


def encode(chunk: Chunk, wall_ns: IntArray) -> list[str]:
    """Return one line for each row that has a value, in order, with the time stamps `wall_ns`."""
    return encode_plain(chunk, wall_ns) if len(wall_ns) < FEW_ROWS else encode_columns(chunk, wall_ns)


def encode_columns(chunk: Chunk, wall_ns: IntArray) -> list[str]:
    """Return the lines of one row or more, column by column."""
    stream = chunk.stream
    head = series(stream.measurement, stream.tags)
    keys = field_keys(stream.fields)
    texts = [_column_text(s, c) for s, c in zip(stream.fields, chunk.columns, strict=True)]
    stamps = _json_text(wall_ns)
    patterns, rows_of = _patterns([present for _, present in texts], len(wall_ns))
    if len(patterns) == 1:
        chosen = [(key, text) for key, (text, _), on in zip(keys, texts, patterns[0], strict=True) if on]
        return _join(head, chosen, stamps)
    lines = [""] * len(wall_ns)
    for pattern, rows in zip(patterns, rows_of, strict=True):
        chosen = [
            (key, [text[row] for row in rows]) for key, (text, _), on in zip(keys, texts, pattern, strict=True) if on
        ]
        for row, line in zip(rows, _join(head, chosen, [stamps[row] for row in rows]), strict=False):
            lines[row] = line
    return [line for line in lines if line]


def encode_plain(chunk: Chunk, wall_ns: IntArray) -> list[str]:
    """Return the lines row by row; the reference for `encode_columns` in the tests."""
    stream = chunk.stream
    head = series(stream.measurement, stream.tags)
    keys = field_keys(stream.fields)
    lines = []
    for row, stamp in enumerate(wall_ns.tolist()):
        pairs = [
            f"{key}={text}"
            for key, spec, column in zip(keys, stream.fields, chunk.columns, strict=True)
            if (text := _value_text(spec.type, column, row)) is not None
        ]
        if pairs:
            lines.append(f"{head} {','.join(pairs)} {stamp}")
    return lines


def encode_event(event: EventRecord, wall_ns: int, tags: Mapping[str, str]) -> str:
    """Return the line of one event: measurement `event`, tag `kind`, text field `detail`."""
    stamp = event_stamp_ns(event, wall_ns)
    return f"{series('event', {**tags, **event.tags, 'kind': event.kind})} detail={quote(event.detail)} {stamp}"


@lru_cache(maxsize=1024)
def _series(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    pairs = [f",{_name(key, ',= ')}={_name(value, ',= ')}" for key, value in tags if value]
    return _name(measurement, ", ") + "".join(pairs)


def series(measurement: str, tags: Mapping[str, str]) -> str:
    """Return measurement and tags as a line starts with them; Unencodable if they cannot be represented."""
    if measurement.startswith("#"):
        raise Unencodable(f"measurement {measurement!r}: a line that starts with '#' is a comment")
    return _series(measurement, tuple(sorted(tags.items())))


def field_keys(fields: Sequence[FieldSpec]) -> list[str]:
    """Return the escaped names of the fields; Unencodable if one cannot be represented."""
    return [_name(spec.name, ",= ") for spec in fields]


def quote(text: str) -> str:
    """Return a text field's value, quotes included."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _name(name: str, special: str) -> str:
    """Return the escaped name. Servers disagree on backslashes and quotes in names, so these are not allowed."""
    if not name or re.search(r'[\x00-\x1f\\"]', name):
        raise Unencodable(f"name {name!r}: expected text without control characters, backslashes and double quotes")
    return re.sub(f"([{special}])", r"\\\1", name)


def _value_text(kind: str, column: Column, row: int) -> str | None:
    if column.missing is not None and column.missing[row]:
        return None
    value = column.values[row]
    if kind == "s":
        return quote(str(value))
    if kind == "b":
        return "t" if value else "f"
    if kind == "i":
        return f"{int(value)}i"
    return repr(float(value)) if math.isfinite(float(value)) else None


def _column_text(spec: FieldSpec, column: Column) -> tuple[list[str], BoolArray | None]:
    """Return the text of every value, and which rows have one (None: all)."""
    present = None if column.missing is None else ~column.missing
    if spec.type == "s":
        return [quote(str(value)) for value in column.values], present
    values = np.asarray(column.values)
    if spec.type == "b":
        return np.where(values.astype(bool), "t", "f").tolist(), present
    if spec.type == "i":
        return [f"{text}i" for text in _json_text(values.astype(np.int64))], present
    texts = _json_text(values)
    size = np.abs(values)
    alike = ((size >= LEAST_PLAIN) & (size < LEAST_EXPONENT)) | (values == 0.0)  # False for NaN and infinity
    if alike.all():
        return texts, present
    for row in np.flatnonzero(~alike).tolist():
        texts[row] = repr(float(values[row]))
    finite = np.isfinite(values)
    return texts, finite if present is None else present & finite


def _json_text(values: npt.NDArray[np.float64] | IntArray) -> list[str]:
    """Return the numbers' text by one call for all; NaN and infinity become "null"."""
    dumped = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return dumped[1:-1].decode("ascii").split(",")


def _patterns(present: Sequence[BoolArray | None], rows: int) -> tuple[list[tuple[bool, ...]], list[list[int]]]:
    """Return the sets of fields that occur together, and the rows of each."""
    if all(column is None or column.all() for column in present):
        return [(True,) * len(present)], [list(range(rows))]
    table = np.array([np.ones(rows, bool) if column is None else column for column in present]).T
    distinct, which = np.unique(table, axis=0, return_inverse=True)
    which = which.reshape(-1)
    return [tuple(row) for row in distinct.tolist()], [
        np.flatnonzero(which == number).tolist() for number in range(len(distinct))
    ]


@lru_cache(maxsize=256)
def _template(head: str, keys: tuple[str, ...]) -> Callable[[tuple[str, ...]], str]:
    """Return a function that formats the texts of one row as its line."""
    pairs = ",".join(f"{key.replace('%', '%%')}=%s" for key in keys)
    return f"{head.replace('%', '%%')} {pairs} %s".__mod__


def _join(head: str, columns: Sequence[tuple[str, list[str]]], stamps: list[str]) -> list[str]:
    """Return the lines of rows that all have the same fields; none when they have no field."""
    if not columns:
        return []
    template = _template(head, tuple(key for key, _ in columns))
    return list(map(template, zip(*(text for _, text in columns), stamps, strict=True)))


def take(chunk: Chunk, rows: BoolArray) -> Chunk:
    """Return the chunk with only the chosen rows."""
    if rows.all():
        return chunk
    indexes = np.flatnonzero(rows)
    columns = [
        Column(
            column.values[indexes]
            if isinstance(column.values, np.ndarray)
            else [column.values[i] for i in indexes.tolist()],
            None if column.missing is None else column.missing[indexes],
        )
        for column in chunk.columns
    ]
    return Chunk(chunk.lo, chunk.hi, chunk.stream, chunk.boot_id, chunk.boottime_ns[indexes], columns)
