"""Columns under our names: which source column becomes which, by what factor and offset.

    time_s, current_a, voltage_v       needed; positive current charges
    temperature_degc                   needed, as a column or as one given value
    charge_ah, soc_ref                 taken where they are: the instrument's counter, a reference
    charged_ah, discharged_ah          a tester's two counters, each only rising; for identification

A rule is text: `current_a=I_mA*0.001`, `current_a=-I` (turns the sign), `temperature_degc=T*0.1-273.15`. The right side
is a column's whole name if there is such a column; else what stands after its name is a factor and an offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from soc.stores._errors import StoreError

Array = NDArray[np.float64]
Columns = Mapping[str, Array]

NEEDED = ("time_s", "current_a", "voltage_v")
OPTIONAL = ("temperature_degc", "charge_ah", "charged_ah", "discharged_ah", "soc_ref")
WORDS = NEEDED + OPTIONAL

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
FORMULA = re.compile(rf"(?P<sign>-?)(?P<name>.+?)(?:\*(?P<factor>-?{NUMBER}))?(?P<offset>[+-]{NUMBER})?")


@dataclass(frozen=True)
class Source:
    """Where one of our columns comes from: value = column·factor + offset."""

    column: str
    factor: float = 1.0
    offset: float = 0.0

    def of(self, values: Array) -> Array:
        """The values in our unit and sign; the array itself where nothing changes."""
        return values if (self.factor, self.offset) == (1.0, 0.0) else values * self.factor + self.offset


@dataclass(frozen=True)
class Rules:
    """Which of our columns has another name or unit in the source: our name → formula."""

    formulas: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Rules:
        """Rules from `ours=formula` texts. Raises `StoreError` for anything else."""
        formulas: dict[str, str] = {}
        for text in texts:
            ours, equals, formula = (part.strip() for part in text.partition("="))
            if not (equals and formula and ours in WORDS):
                raise StoreError(
                    f"column rule {text!r}: expected OURS=THEIRS[*FACTOR][+OFFSET], OURS one of {', '.join(WORDS)}; "
                    "for example current_a=I_mA*0.001"
                )
            if ours in formulas:
                raise StoreError(f"column rule {text!r}: {ours} was already given as {formulas[ours]!r}")
            formulas[ours] = formula
        return cls(MappingProxyType(formulas))

    def resolve(self, available: Sequence[str], where: str) -> dict[str, Source]:
        """Our name → source for every column that there is. Raises `StoreError` naming all that are missing."""
        found: dict[str, Source] = {}
        problems = []
        for ours in WORDS:
            formula = self.formulas.get(ours, ours)
            source = _source(formula, available)
            if source is not None:
                found[ours] = source
            elif ours in NEEDED or ours in self.formulas:
                problems.append(ours if formula == ours else f"{ours} (from {formula!r})")
        if problems:
            raise StoreError(
                f"{where}: no column {', '.join(problems)}; there are {', '.join(available) or 'none'}. "
                "Say which is which: --map current_a=THEIRS*FACTOR"
            )
        return found


def _source(formula: str, available: Sequence[str]) -> Source | None:
    """The source that a formula means, or None if it names no column that there is."""
    if formula in available:
        return Source(formula)
    match = FORMULA.fullmatch(formula)
    if match is None or match["name"].strip() not in available:
        return None
    factor = float(match["factor"] or 1.0) * (-1.0 if match["sign"] else 1.0)
    return Source(match["name"].strip(), factor, float(match["offset"] or 0.0))
