"""The codec is exact for every input, compact for the usual one, and rejects data of another format."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from collectors.journal.codec import Undecodable, decode_block, decode_hot, encode_block, encode_hot
from collectors.journal.records import Column, IntArray

BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
AWKWARD = st.sampled_from([-0.0, 0.0, 5e-324, -5e-324, 2.0**31, -(2.0**31), 2147483.647, 1e300, np.inf, np.nan])
DECIMALS = st.integers(-(2**33), 2**33).flatmap(lambda i: st.sampled_from([i / 10.0**k for k in range(11)]))
PARTS = st.integers(-30_000, 30_000).map(lambda i: i * 60.0 / 25_600)


@st.composite
def rows(draw: st.DrawFn) -> tuple[IntArray, list[Column]]:
    n = draw(st.integers(1, 40))
    unit = draw(st.sampled_from([1, 1000]))
    steps = draw(st.lists(st.integers(1, draw(st.sampled_from([3, 2**20, 2**55]))), min_size=n, max_size=n))
    stamps = np.cumsum(np.array(steps, dtype=np.int64)) * unit
    columns = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from([BITS, AWKWARD, DECIMALS, PARTS, st.floats()]))
        values = np.array(draw(st.lists(kind, min_size=n, max_size=n)), dtype=np.float64)
        missing = draw(st.none() | npst.arrays(np.bool_, n))
        columns.append(Column(values, missing))
    return stamps, columns


def same(found: tuple[IntArray, list[Column]], stamps: IntArray, columns: list[Column]) -> None:
    assert found[0].tolist() == stamps.tolist()
    assert len(found[1]) == len(columns)
    for got, put in zip(found[1], columns, strict=True):
        gaps = np.zeros(len(stamps), np.bool_) if put.missing is None else put.missing
        assert (np.zeros(len(stamps), np.bool_) if got.missing is None else got.missing).tolist() == gaps.tolist()
        bits_put, bits_got = np.asarray(put.values).view(np.uint64), np.asarray(got.values).view(np.uint64)
        assert bits_got[~gaps].tolist() == bits_put[~gaps].tolist()
        assert np.isnan(np.asarray(got.values)[gaps]).all()


@settings(max_examples=300, deadline=None)
@given(rows())
def test_a_block_decodes_to_the_same_bits(case: tuple[IntArray, list[Column]]) -> None:
    stamps, columns = case
    same(decode_block(encode_block(stamps, columns), 1, len(stamps), len(columns)), stamps, columns)


@settings(max_examples=150, deadline=None)
@given(rows())
def test_a_hot_payload_decodes_to_the_same_bits(case: tuple[IntArray, list[Column]]) -> None:
    stamps, columns = case
    payload = encode_hot(stamps, columns)
    same(decode_hot(payload, int(stamps[0]), len(stamps), len(columns)), stamps, columns)


@settings(max_examples=150, deadline=None)
@given(rows(), st.data())
def test_foreign_data_are_rejected_or_decoded_without_a_crash(
    case: tuple[IntArray, list[Column]], data: st.DataObject
) -> None:
    stamps, columns = case
    whole = encode_block(stamps, columns)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(Undecodable):
        decode_block(cut, 1, len(stamps), len(columns))
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for payload in (bytes(flipped), data.draw(st.binary(max_size=60))):
        with suppress(Undecodable):
            decode_block(payload, 1, len(stamps), len(columns))
        with suppress(Undecodable):
            decode_hot(payload, 0, len(stamps), len(columns))


def test_a_wrong_row_count_field_count_or_codec_is_refused() -> None:
    stamps, columns = np.arange(10, dtype=np.int64), [Column(np.arange(10.0))]
    block, hot = encode_block(stamps, columns), encode_hot(stamps, columns)
    for n, fields in ((9, 1), (11, 1), (10, 2), (10, 0)):
        with pytest.raises(Undecodable, match="expected"):
            decode_block(block, 1, n, fields)
        with pytest.raises(Undecodable, match="expected"):
            decode_hot(hot, 0, n, fields)
    with pytest.raises(Undecodable, match="codec 2, expected 1"):
        decode_block(block, 2, 10, 1)


def test_quantised_values_cost_about_a_byte() -> None:
    noise = np.random.default_rng(1)
    stamps = np.cumsum(np.full(3600, 1_000_000_000) + noise.normal(0, 50e3, 3600).astype(np.int64))
    columns = [Column(np.round(13.2 + 0.01 * noise.normal(size=3600), 2)) for _ in range(10)]
    assert len(encode_block(stamps, columns)) / 36_000 < 1.0


def test_counts_of_a_nominal_value_cost_about_as_little() -> None:
    noise = np.random.default_rng(1)
    stamps = np.arange(3600, dtype=np.int64) * 1_000_000_000
    column = Column(np.round(noise.normal(1000, 3, 3600)) * 60.0 / 25_600)
    assert len(encode_block(stamps, [column])) / 3600 < 1.0
