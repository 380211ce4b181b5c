"""Line protocol: the fast encoder equals the plain one, and encoded lines are read back unchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.journal.records import Chunk, Column, EventRecord, FieldSpec, FloatArray, IntArray, Stream
from collectors.line_protocol import Unencodable, encode, encode_columns, encode_event, encode_plain, series, take
from tests.testing.line_protocol import parse, parse_line

NAME = st.text(st.characters(exclude_categories=["C"], exclude_characters='\\"'), min_size=1, max_size=6).filter(
    lambda name: not name.startswith("#")
)
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
FLOAT = st.one_of(
    st.floats(),
    st.floats(-100, 100).map(lambda x: round(x, 3)),
    st.sampled_from([1e-4, 9.9e-5, 1e-5, 1e15, 1e16, 1e17, -0.0, 5e-324, 3.0, math.nan, -math.inf]),
)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {"f": FLOAT, "i": INT64, "b": st.integers(0, 1), "s": TEXT}


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    rows = draw(st.integers(0, 12))
    names = draw(st.lists(NAME, min_size=0, max_size=4, unique=True))
    fields, columns = [], []
    for name in names:
        kind = draw(st.sampled_from("fffibs"))
        values = draw(st.lists(VALUES[kind], min_size=rows, max_size=rows))
        missing = draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows))
        fields.append(FieldSpec(name, kind))
        columns.append(Column(_array(kind, values), None if missing is None else np.array(missing, bool)))
    tags = draw(st.dictionaries(NAME, st.just("") | NAME, max_size=3))
    stream = Stream(1, draw(NAME), tags, fields)
    return Chunk(1, 1, stream, "boot", np.arange(rows, dtype=np.int64), columns)


def _array(kind: str, values: list[Any]) -> FloatArray | IntArray | Sequence[str]:
    if kind == "s":
        return values
    return np.array(values, np.float64) if kind == "f" else np.array(values, np.int64)


def chunk(*, rows: int = 1, **values: list[float]) -> Chunk:
    columns = [Column(np.array(v)) for v in values.values()]
    fields = [FieldSpec(name) for name in values]
    return Chunk(1, 1, Stream(1, "battery", {"device": "d1"}, fields), "b", np.arange(rows), columns)


@given(chunks(), st.integers(0, 2**62))
@settings(max_examples=300)
def test_both_encoders_give_the_same_bytes(rows: Chunk, start: int) -> None:
    wall = rows.boottime_ns + start
    if len(wall):
        assert encode_columns(rows, wall) == encode_plain(rows, wall)


@given(chunks())
@settings(max_examples=300)
def test_encoded_lines_are_read_back_unchanged(rows: Chunk) -> None:
    wall = rows.boottime_ns + 1_700_000_000_000_000_000
    expected = []
    for row, stamp in enumerate(wall.tolist()):
        fields = {}
        for spec, column in zip(rows.stream.fields, rows.columns, strict=True):
            value = column.values[row]
            present = column.missing is None or not column.missing[row]
            if present and (spec.type != "f" or math.isfinite(float(value))):
                fields[spec.name] = bool(value) if spec.type == "b" else value
        if fields:
            tags = {key: value for key, value in rows.stream.tags.items() if value}
            expected.append((rows.stream.measurement, tags, fields, stamp))
    assert [tuple(point) for point in parse("\n".join(encode(rows, wall)))] == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_floats_are_written_as_repr_writes_them(values: list[float]) -> None:
    lines = encode_columns(chunk(rows=len(values), a=values), np.arange(len(values)))
    assert lines == [f"battery,device=d1 a={value!r} {row}" for row, value in enumerate(values)]


def test_fields_keep_the_streams_order_and_tags_are_sorted() -> None:
    rows = Chunk(
        1,
        1,
        Stream(1, "battery", {"kind": "t7", "bench": "b 1", "cell": ""}, [FieldSpec("z_v"), FieldSpec("a_v")]),
        "b",
        np.array([5]),
        [Column(np.array([3.0])), Column(np.array([1e-7]))],
    )
    assert encode(rows, np.array([17])) == [r"battery,bench=b\ 1,kind=t7 z_v=3.0,a_v=1e-07 17"]


def test_missing_values_leave_out_the_field_and_an_empty_row_is_no_line() -> None:
    rows = chunk(rows=3, a=[1.0, math.nan, math.inf], b=[2.0, 4.0, math.nan])
    for encoder in (encode_plain, encode_columns):
        assert encoder(rows, np.array([1, 2, 3])) == ["battery,device=d1 a=1.0,b=2.0 1", "battery,device=d1 b=4.0 2"]


@pytest.mark.parametrize("name", ["", "back\\slash", 'a"b', "two\nlines", "cr\r"])
def test_a_name_that_line_protocol_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(Unencodable, match="name"):
        series("battery", {"device": "d", "k" + name if name else "": "v"})
    with pytest.raises(Unencodable):
        encode(chunk(rows=1, **{name: [1.0]}), np.array([1]))


def test_a_measurement_that_would_be_a_comment_is_refused() -> None:
    with pytest.raises(Unencodable, match="comment"):
        series("#battery", {})


def test_events_of_one_instant_get_distinct_stamps() -> None:
    first, second = (
        encode_event(EventRecord(n, "boot", 0, "out_of_range", 'a "b"\\'), 1_000_000_777, {}) for n in (41, 42)
    )
    assert parse_line(first) == ("event", {"kind": "out_of_range"}, {"detail": 'a "b"\\'}, 1_000_000_041)
    assert parse_line(second).stamp_ns == 1_000_000_042


def test_taking_rows_keeps_their_values_and_gaps() -> None:
    columns = [
        Column(np.array([1.0, 2.0, 3.0]), np.array([False, True, False])),
        Column(["x", "y", "z"]),
    ]
    rows = Chunk(1, 1, Stream(1, "m", {}, [FieldSpec("a"), FieldSpec("t", "s")]), "b", np.arange(3), columns)
    some = take(rows, np.array([False, True, True]))
    assert encode(some, some.boottime_ns) == ['m t="y" 1', 'm a=3.0,t="z" 2']
