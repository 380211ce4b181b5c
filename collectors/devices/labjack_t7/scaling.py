"""Convert the voltage at an input's terminals to the measured quantity: divider, then hall sensor, then polynomial.

Each step is optional, and the order is fixed. The first two describe how the wiring turns the quantity into volts; the
polynomial corrects the result against a more accurate instrument. All functions take a number or a numpy array.

    divider      volts = input x (r1 + r2) / r2                       r1 towards the battery
    hall         amps  = direction x volts x ratio / (burden x turns) - offset
    polynomial   value = c0 + c1 x + c2 x^2 + …

A value outside a sensor's range is missing: an LA 55-P ends at ±70 A (`range_a`), the buffer of an LJTick-Divider gives
at most 3.5 V (`limit_v`), another sensor has a range of its own (`range`). Near the end of its range a sensor still
gives a plausible but wrong number. So beyond these limits the value is missing and an event states the reason. Values
are never clipped.

Facts: docs/protocols/labjack_t7.md §7, from the LEM LA 55-TP data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", float, npt.NDArray[np.float64])

Mask = bool | npt.NDArray[np.bool_]
"""Result for a number, or element by element for an array."""

MOST_SOURCE_OHM = 1000.0
"""Above this source resistance a multiplexed input needs time to settle (T7: bias current 20 nA)."""
SETTLING_US_PER_OHM = 0.012
"""Settling time per ohm of source that we assume: 12 time constants (17 bits) with 1 nF of cable and input."""
BURDENS_OHM = {12.0: (10.0, 100.0), 15.0: (50.0, 160.0)}
"""LA 55 at 50 A and 70 degC: supply in V (±) to minimum and maximum burden in ohm."""


@dataclass(frozen=True, slots=True)
class Divider:
    """Two resistors; the input measures the voltage across r2."""

    r1_ohm: float = field(metadata={"help": "from the measured point to the input"})
    r2_ohm: float = field(metadata={"help": "from the input to ground"})
    limit_v: float | None = field(
        default=None,
        metadata={"help": "volts that its output cannot exceed, 3.5 of an LJTick-Divider; there and beyond: no value"},
    )

    def __post_init__(self) -> None:
        """Reject resistors and limits that are impossible."""
        if self.limit_v is not None and self.limit_v <= 0:
            raise ValueError(f"limit_v: expected more than 0, got {self.limit_v}")
        if self.r1_ohm < 0 or self.r2_ohm <= 0:
            raise ValueError(f"r1_ohm, r2_ohm: expected at least 0 and more than 0, got {self.r1_ohm}, {self.r2_ohm}")

    @property
    def source_ohm(self) -> float:
        """Return the source resistance in ohm at the input."""
        return self.r1_ohm * self.r2_ohm / (self.r1_ohm + self.r2_ohm)

    @property
    def gain(self) -> float:
        """Return volts at the measured point per volt at the input."""
        return (self.r1_ohm + self.r2_ohm) / self.r2_ohm


@dataclass(frozen=True, slots=True)
class Hall:
    """A closed-loop hall sensor with current output, measured across a burden resistor."""

    burden_ohm: float = field(metadata={"help": "the resistor across which the input measures"})
    ratio: float = field(default=1000.0, metadata={"help": "primary amperes per output ampere at one turn"})
    turns: int = field(default=1, metadata={"help": "how often the conductor passes through the sensor"})
    offset_a: float = field(default=0.0, metadata={"help": "what it shows at no current; is taken off"})
    direction: Literal[1, -1] = field(
        default=1, metadata={"help": "1: the arrow on the housing points the way of a charging current; else -1"}
    )
    range_a: float | None = field(
        default=None,
        metadata={"help": "± amperes that it can measure at one turn, 70 of an LA 55-P; beyond: no value and an event"},
    )
    supply_v: float = field(default=15.0, metadata={"help": "± supply of the sensor, for the check of the burden"})

    def __post_init__(self) -> None:
        """Reject a zero divisor and an invalid range."""
        if self.range_a is not None and self.range_a <= 0:
            raise ValueError(f"range_a: expected more than 0, got {self.range_a}")
        if self.burden_ohm <= 0 or self.ratio <= 0 or self.turns < 1:
            got = f"{self.burden_ohm}, {self.ratio}, {self.turns}"
            raise ValueError(f"burden_ohm, ratio, turns: expected more than 0, more than 0, at least 1, got {got}")

    @property
    def gain(self) -> float:
        """Return amperes per volt at the burden, with the sign of the direction."""
        return self.direction * self.ratio / (self.burden_ohm * self.turns)

    def warning(self) -> str | None:
        """Return a warning about the burden, or None."""
        limits = BURDENS_OHM.get(self.supply_v)
        if limits is None:
            return f"supply_v: no burden limits known at ±{self.supply_v:g} V, only at ±12 and ±15"
        low, high = limits
        if low <= self.burden_ohm <= high:
            return None
        harm = "overheats the sensor" if self.burden_ohm < low else "clips before 50 A"
        return f"burden_ohm: {self.burden_ohm:g} {harm}; an LA 55 at ±{self.supply_v:g} V takes {low:g} to {high:g}"


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A correction or a characteristic, as a polynomial in the result of the previous step."""

    coefficients: tuple[float, ...] = field(metadata={"help": "c0, c1, c2, …: value = c0 + c1 x + c2 x² + …"})

    def __post_init__(self) -> None:
        """Reject a polynomial that does not depend on its input."""
        if len(self.coefficients) < 2:
            raise ValueError(f"coefficients: expected at least c0 and c1, got {list(self.coefficients)}")


@dataclass(frozen=True, slots=True)
class Scaling:
    """The scaling of one input; empty: the value is the voltage itself."""

    divider: Divider | None = field(default=None, metadata={"help": "resistors before the input"})
    hall: Hall | None = field(default=None, metadata={"help": "hall current sensor with burden"})
    polynomial: Polynomial | None = field(default=None, metadata={"help": "correction, applied last"})
    range: tuple[float, float] | None = field(
        default=None,
        metadata={"help": "least and greatest value, in the signal's unit, that can be true; beyond: no value"},
    )
    calibrated_on: str = field(default="", metadata={"help": "date of the last calibration, YYYY-MM-DD"})

    def __post_init__(self) -> None:
        """Reject an invalid date or range."""
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError(f"range: expected the least value, then a greater one, got {list(self.range)}")
        if self.calibrated_on:
            try:
                date.fromisoformat(self.calibrated_on)
            except ValueError:
                raise ValueError(f"calibrated_on: expected YYYY-MM-DD, got {self.calibrated_on!r}") from None

    def apply(self, volts: Number) -> Number:
        """Return the measured quantity for volts at the terminals."""
        value = volts
        if self.divider:
            value = value * self.divider.gain
        if self.hall:
            value = value * self.hall.gain - self.hall.offset_a
        if self.polynomial:
            *lower, highest = self.polynomial.coefficients
            result = value * 0.0 + highest
            for c in reversed(lower):  # Horner
                result = result * value + c
            value = result
        return value

    def outside(self, volts: Number) -> list[tuple[Mask, str]]:
        """Return, for each configured limit, whether these volts are beyond it, and the limit as text."""
        found: list[tuple[Mask, str]] = []
        value = volts
        if self.divider:
            if (limit_v := self.divider.limit_v) is not None:
                found.append((abs(volts) >= limit_v, f"the divider's output ends at {limit_v:g} V"))
            value = value * self.divider.gain
        if self.hall and self.hall.range_a is not None:
            range_a = self.hall.range_a / self.hall.turns
            found.append((abs(value * self.hall.gain) > range_a, f"the sensor measures up to ±{range_a:g} A"))
        if self.range:
            low, high = self.range
            value = self.apply(volts)
            found.append(((value < low) | (value > high), f"expected {low:g} to {high:g}"))
        return found

    def problem(self, volts: float) -> str | None:
        """Return why the sensor cannot have measured the value of these volts, or None."""
        limits = [text for is_beyond, text in self.outside(volts) if is_beyond]
        return f"{volts:g} V means {self.apply(volts):g}; {', '.join(limits)}" if limits else None

    def invert(self, value: float) -> float:
        """Return the volts at the terminals for this value. Raise ValueError for a polynomial of degree 2 or more."""
        if self.polynomial:
            c0, c1, *rest = self.polynomial.coefficients
            if rest or c1 == 0:
                raise ValueError("polynomial: expected degree 1, no other can be inverted uniquely")
            value = (value - c0) / c1
        if self.hall:
            value = (value + self.hall.offset_a) / self.hall.gain
        if self.divider:
            value = value / self.divider.gain
        return value

    def warnings(self, settling_us: float) -> list[str]:
        """Return warnings, one line each: the sensor's burden, a settling time that is too short for the source."""
        found = [w] if self.hall and (w := self.hall.warning()) else []
        source_ohm = self.divider.source_ohm if self.divider else 0.0
        needed_us = source_ohm * SETTLING_US_PER_OHM
        if source_ohm > MOST_SOURCE_OHM and settling_us < needed_us:
            found.append(
                f"divider: source resistance {source_ohm:.0f} ohm is above {MOST_SOURCE_OHM:.0f}:"
                f" set settling_us to {needed_us:.0f} or more, now {settling_us:g}"
            )
        return found
