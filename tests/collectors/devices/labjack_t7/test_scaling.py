"""Volts to the measured quantity, and back; formulas and limits of docs/protocols/labjack_t7.md, section 7."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.config import load_dataclass
from collectors.devices.labjack_t7.scaling import Divider, Hall, Polynomial, Scaling


@pytest.mark.parametrize(
    ("hall", "volts", "amps"),
    [
        (Hall(burden_ohm=100), 2.0, 20.0),
        (Hall(burden_ohm=100), -0.4998, -4.998),
        (Hall(burden_ohm=75, turns=5), 1.125, 3.0),
        (Hall(burden_ohm=100, direction=-1), 2.0, -20.0),
        (Hall(burden_ohm=100, offset_a=0.2), 2.0, 19.8),
    ],
)
def test_amperes_of_a_hall_sensor(hall: Hall, volts: float, amps: float) -> None:
    assert Scaling(hall=hall).apply(volts) == pytest.approx(amps)


def test_volts_before_a_divider_and_what_the_input_sees() -> None:
    divider = Divider(r1_ohm=3000, r2_ohm=1000)
    assert Scaling(divider=divider).apply(3.3) == pytest.approx(13.2)
    assert divider.source_ohm == pytest.approx(750.0)


def test_without_steps_the_volts_stay_what_they_are() -> None:
    assert Scaling().apply(1.25) == 1.25


def test_the_polynomial_comes_last_and_works_on_arrays() -> None:
    scaling = Scaling(divider=Divider(1000, 1000), polynomial=Polynomial((1.0, 2.0, 3.0)))
    assert scaling.apply(np.array([0.0, 0.5, np.nan])) == pytest.approx([1.0, 6.0, np.nan], nan_ok=True)


@given(
    st.floats(-10, 10),
    st.floats(0, 1e5),
    st.floats(1, 1e5),
    st.floats(10, 160),
    st.integers(1, 20),
    st.floats(-1, 1),
    st.sampled_from([1, -1]),
    st.floats(0.5, 2),
)
def test_inverting_gives_the_volts_again(
    volts: float, r1: float, r2: float, burden: float, turns: int, offset: float, direction: Any, slope: float
) -> None:
    scaling = Scaling(Divider(r1, r2), Hall(burden, 1000, turns, offset, direction), Polynomial((0.1, slope)))
    assert scaling.invert(scaling.apply(volts)) == pytest.approx(volts, rel=1e-6, abs=1e-6)


def test_a_curve_cannot_be_inverted() -> None:
    with pytest.raises(ValueError, match="degree 1"):
        Scaling(polynomial=Polynomial((0, 1, 2))).invert(1.0)


@pytest.mark.parametrize(
    ("burden_ohm", "supply_v", "warning"),
    [
        (100, 15, None),
        (40, 15, "overheats"),
        (170, 15, "clips before 50 A"),
        (10, 12, None),
        (160, 12, "10 to 100"),
        (100, 24, "no burden limits known"),
    ],
)
def test_a_burden_outside_the_sensors_limits_is_a_warning(
    burden_ohm: float, supply_v: float, warning: str | None
) -> None:
    found = Scaling(hall=Hall(burden_ohm, supply_v=supply_v)).warnings(settling_us=0)
    assert [warning in text for text in found if warning] == ([True] if warning else [])
    assert bool(found) == bool(warning)


def test_a_high_source_resistance_needs_settling_time() -> None:
    scaling = Scaling(divider=Divider(30_000, 10_000))
    (warning,) = scaling.warnings(settling_us=0)
    assert "7500 ohm" in warning
    assert "settling_us to 90" in warning
    assert scaling.warnings(settling_us=90) == []


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"divider": {"r1_ohm": 1, "r2_ohm": 0}}, "r1_ohm, r2_ohm"),
        ({"hall": {"burden_ohm": 0}}, "burden_ohm"),
        ({"hall": {"burden_ohm": 100, "direction": 2}}, "direction"),
        ({"polynomial": {"coefficients": [1.0]}}, "at least c0 and c1"),
        ({"calibrated_on": "May"}, "YYYY-MM-DD"),
    ],
)
def test_an_invalid_scaling_is_rejected_by_key(table: dict[str, Any], problem: str) -> None:
    scaling, problems = load_dataclass(Scaling, table, "scaling")
    assert scaling is None
    assert problem in problems[0]


LIMITED = [
    (Scaling(hall=Hall(burden_ohm=100, range_a=70)), 6.99, 7.01, "±70 A"),
    (Scaling(hall=Hall(burden_ohm=100, turns=10, range_a=70)), 6.99, 7.01, "±7 A"),
    (Scaling(hall=Hall(burden_ohm=100, direction=-1, offset_a=5.0, range_a=70)), 6.99, 7.01, "±70 A"),
    (Scaling(divider=Divider(4.0, 1.0, limit_v=3.5)), 3.49, 3.5, "ends at 3.5 V"),
    (Scaling(polynomial=Polynomial((-50.0, 100.0)), range=(-40.0, 125.0)), 1.74, 1.76, "expected -40 to 125"),
    (Scaling(Divider(1.0, 1.0), Hall(burden_ohm=100, range_a=70)), 3.49, 3.51, "±70 A"),
]


@pytest.mark.parametrize(("scaling", "good_v", "bad_v", "says"), LIMITED)
def test_beyond_what_a_sensor_can_measure_there_is_no_value(
    scaling: Scaling, good_v: float, bad_v: float, says: str
) -> None:
    assert scaling.problem(good_v) is None
    problem = scaling.problem(bad_v)
    assert problem is not None
    assert says in problem
    assert f"{bad_v:g} V" in problem
    volts = np.array([good_v, bad_v])
    assert [list(mask) for mask, _ in scaling.outside(volts)] == [[False, True]]


@pytest.mark.parametrize("volts", [-9.0, -0.5, 0.0, 9.0])
def test_without_limits_every_value_is_taken(volts: float) -> None:
    assert Scaling(Divider(1, 1), Hall(100), Polynomial((0.0, 1.0))).problem(volts) is None


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"hall": {"burden_ohm": 100, "range_a": 0}}, "range_a: expected more than 0"),
        ({"divider": {"r1_ohm": 1, "r2_ohm": 1, "limit_v": -1}}, "limit_v: expected more than 0"),
        ({"range": [3, 3]}, "range: expected the least value, then a greater one"),
        ({"range": [3]}, "range: expected a list of a number, 2 of them"),
    ],
)
def test_an_invalid_limit_is_rejected(table: dict[str, Any], says: str) -> None:
    scaling, problems = load_dataclass(Scaling, table, "scaling")
    assert scaling is None
    assert any(says in problem for problem in problems), problems
