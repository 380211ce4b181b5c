"""Charge and energy in and out, against areas computed by hand, with gaps, restarts and any split of the samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.reading import Reading, Value
from collectors.throughput import ROW_S, Integrator, areas

S = 1_000_000_000
GAP_S = 5.0
Sample = tuple[float, float | None]
"""Time in s and current in A."""


def rows_of(samples: Sequence[Sample], voltage_v: float | None = 10.0, gap_s: float = GAP_S) -> list[Reading]:
    integrator = Integrator(gap_s)
    rows: list[Reading] = []
    for at_s, current_a in samples:
        values = {"current_a": current_a, "voltage_v": voltage_v}
        rows += integrator.add(Reading("battery", round(at_s * S), values))
    return rows + list(integrator.flush())


def total(rows: Sequence[Reading], name: str) -> float:
    return math.fsum(row.values.get(name) or 0.0 for row in rows)


def totals_as(rows: Sequence[Reading]) -> tuple[float, float]:
    """Charge in and out in ampere-seconds."""
    return 3600 * total(rows, "charge_in_ah"), 3600 * total(rows, "charge_out_ah")


@pytest.mark.parametrize(
    ("before", "after", "seconds", "above", "below"),
    [
        (2.0, 4.0, 10.0, 30.0, 0.0),
        (-2.0, -4.0, 10.0, 0.0, 30.0),
        (3.0, -1.0, 4.0, 4.5, 0.5),  # crosses zero after 3 s: triangles 3·3/2 and 1·1/2
        (-1.0, 3.0, 4.0, 4.5, 0.5),
        (0.0, -2.0, 5.0, 0.0, 5.0),
        (0.0, 0.0, 5.0, 0.0, 0.0),
    ],
)
def test_a_line_is_divided_where_it_crosses_zero(
    before: float, after: float, seconds: float, above: float, below: float
) -> None:
    assert areas(before, after, seconds) == pytest.approx((above, below))


def test_an_alternating_current_is_not_cancelled() -> None:
    """+6 A and −4 A by turns of 10 s for 10 min: the minutes' means are +1 A, so they would show 600 As in, 0 out.

    By hand: a turn of ten seconds has nine at its level and one in which the current swings over by 10 A, crossing zero
    after 0.6 s or 0.4 s. So 30 turns of +6 A give 30·9·6 As, and 59 swings 6·0.6/2 As more; out 30·9·4 and 59·4·0.4/2.
    """
    samples = [(float(s), 6.0 if s // 10 % 2 == 0 else -4.0) for s in range(600)]
    inward, outward = totals_as(rows_of(samples))
    assert inward == pytest.approx(30 * 9 * 6 + 59 * 1.8)
    assert outward == pytest.approx(30 * 9 * 4 + 59 * 0.8)
    assert total(rows_of(samples), "energy_in_wh") == pytest.approx(10 * inward / 3600)


def test_a_gap_adds_nothing() -> None:
    """2 A for 10 s, no samples for a minute, 2 A for 10 s: 40 As, not 160."""
    before, after = [(float(s), 2.0) for s in range(11)], [(float(s), 2.0) for s in range(71, 82)]
    rows = rows_of([*before, *after])
    assert totals_as(rows) == pytest.approx((40.0, 0.0))
    assert [row.boottime_ns for row in rows] == [10 * S, 81 * S], "what came before the gap is stamped before it"


def test_a_pause_as_long_as_the_limit_is_no_gap() -> None:
    assert totals_as(rows_of([(0.0, 2.0), (5.0, 2.0)]))[0] == pytest.approx(10.0)
    assert rows_of([(0.0, 2.0), (5.001, 2.0)]) == []


def test_a_missing_current_is_bridged_like_any_missing_sample() -> None:
    assert totals_as(rows_of([(0.0, 2.0), (1.0, None), (2.0, 4.0)])) == pytest.approx((6.0, 0.0))


def test_rows_are_written_every_quarter_of_a_minute() -> None:
    rows = rows_of([(float(s), 1.0) for s in range(61)])
    assert [row.boottime_ns // S for row in rows] == [15, 30, 45, 60]
    assert all(row.values["charge_in_ah"] == pytest.approx(ROW_S / 3600) for row in rows)
    assert all(row.values["charge_out_ah"] == 0.0 for row in rows)


def test_a_battery_without_voltage_has_no_energy() -> None:
    rows = rows_of([(float(s), 1.0) for s in range(31)], voltage_v=None)
    assert {name for row in rows for name in row.values} == {"charge_in_ah", "charge_out_ah"}


def test_stated_power_serves_where_there_is_no_voltage() -> None:
    integrator = Integrator(GAP_S)
    values: dict[str, Value] = {"current_a": -1.0, "power_w": -36.0}
    for at_s in (0, 1):
        assert not list(integrator.add(Reading("battery", at_s * S, values)))
    (row,) = integrator.flush()
    assert row.values["energy_out_wh"] == pytest.approx(36 / 3600)


def test_batteries_of_one_instrument_are_kept_apart() -> None:
    integrator = Integrator(GAP_S)
    for at_s in (0, 1):
        for part, current_a in (("1", 3600.0), ("2", -7200.0)):
            list(integrator.add(Reading("battery", at_s * S, {"current_a": current_a}, {"part": part})))
    found = {row.tags["part"]: row.values for row in integrator.flush()}
    assert found["1"] == {"charge_in_ah": 1.0, "charge_out_ah": 0.0}
    assert found["2"] == {"charge_in_ah": 0.0, "charge_out_ah": 2.0}


def test_only_batteries_are_integrated() -> None:
    integrator = Integrator(GAP_S)
    for at_s in range(100):
        assert not list(integrator.add(Reading("solar", at_s * S, {"current_a": 1.0, "voltage_v": 18.0})))
    assert not list(integrator.flush())


currents = st.lists(st.floats(-50, 50), min_size=2, max_size=80)


@given(currents)
def test_in_minus_out_is_the_whole_area(values: list[float]) -> None:
    inward, outward = totals_as(rows_of([(float(s), a) for s, a in enumerate(values)]))
    whole = math.fsum((a + b) / 2 for a, b in itertools.pairwise(values))
    assert inward >= 0 and outward >= 0
    assert inward - outward == pytest.approx(whole, abs=1e-9)
    assert inward + outward >= abs(whole) - 1e-9


@given(currents, st.data())
def test_rows_add_up_however_often_they_are_written(values: list[float], data: st.DataObject) -> None:
    """A session that ends and continues within the limit changes when rows are written, and no sum."""
    cuts = data.draw(st.sets(st.integers(0, len(values) - 1)))
    integrator, rows = Integrator(GAP_S), list[Reading]()
    for second, current_a in enumerate(values):
        rows += integrator.add(Reading("battery", second * S, {"current_a": current_a}))
        rows += integrator.flush() if second in cuts else ()
    rows += integrator.flush()
    stamps = [row.boottime_ns for row in rows]
    assert stamps == sorted(set(stamps))
    whole = rows_of([(float(s), a) for s, a in enumerate(values)])
    assert totals_as(rows) == pytest.approx(totals_as(whole), abs=1e-9)
