"""Signals of several instruments on one time base: no interpolation, no value from the future."""

from __future__ import annotations

import bisect

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from soc.stores._join import newest, ns, seconds

times = st.lists(st.integers(0, 1000), max_size=30, unique=True).map(sorted)


@given(times, times, st.integers(0, 200))
@settings(max_examples=60)
def test_a_joined_value_is_the_newest_known_and_not_too_old(known: list[int], at: list[int], age: int) -> None:
    values = np.array(known, dtype=float) * 10
    found = newest(np.array(known, dtype=np.int64), values, np.array(at, dtype=np.int64), age)
    for moment, value in zip(at, found, strict=True):
        k = bisect.bisect_right(known, moment) - 1
        if k < 0 or moment - known[k] > age:
            assert np.isnan(value)
        else:
            assert value == known[k] * 10


@given(st.integers(0, 2_000_000_000_000_000))
@settings(max_examples=60)
def test_a_time_to_the_microsecond_survives_as_seconds(microseconds: int) -> None:
    whole = np.array([microseconds * 1000], dtype=np.int64)
    assert ns(float(seconds(whole)[0])) == microseconds * 1000
