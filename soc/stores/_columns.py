"""Columns under our names: which source column becomes which, by what factor and offset.

    time_s, current_a, voltage_v       needed; positive current charges
    temperature_degc                   needed, as a column or as one given value
    charge_ah, soc_ref                 taken where they are: the instrument's counter, a reference
    charged_ah, discharged_ah          a tester's two counters, each only rising; for identification

A rule is text: `current_a=I_mA*0.001`, `current_a=-I` (turns the sign), `temperature_degc=T*0.1-273.15`. The right side
is a column's whole name if there is such a column; else what stands after its name is a factor and an offset.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from soc.stores._errors import StoreError
from soc.stores._units import best_match, formula_for, other_unit

Array = NDArray[np.float64]
Columns = Mapping[str, Array]

NEEDED = ("time_s", "current_a", "voltage_v")
OPTIONAL = ("temperature_degc", "charge_ah", "charged_ah", "discharged_ah", "soc_ref")
WORDS = NEEDED + OPTIONAL

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
FORMULA_CHARACTERS = 300
GUESSED_AMONG = 200  # columns that a hint is looked for in
SHOWN = 40  # columns in a message
FORMULA = re.compile(rf"(?P<sign>-?)(?P<name>.+?)(?:\*(?P<factor>-?{NUMBER}))?(?P<offset>[+-]{NUMBER})?")


@dataclass(frozen=True)
class ColumnSource:
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
    needed: Sequence[str] = NEEDED
    """Our columns that must be there."""

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Rules:
        """Rules from `ours=formula` texts. Raises `StoreError` for anything else."""
        formulas: dict[str, str] = {}
        for text in texts:
            ours, equals, formula = (part.strip() for part in text.partition("="))
            if len(formula) > FORMULA_CHARACTERS:
                raise StoreError(f"column rule for {ours[:40]!r}: longer than {FORMULA_CHARACTERS} characters")
            if not (equals and formula and ours in WORDS):
                raise StoreError(
                    f"column rule {text!r}: expected OURS=THEIRS[*FACTOR][+OFFSET], OURS one of {', '.join(WORDS)}; "
                    "for example current_a=I_mA*0.001"
                )
            if ours in formulas:
                raise StoreError(f"column rule {text!r}: {ours} was already given as {formulas[ours]!r}")
            formulas[ours] = formula
        return cls(MappingProxyType(formulas))

    def resolve(self, available: Sequence[str], where: str) -> dict[str, ColumnSource]:
        """Our name → source for every column that there is. Raises `StoreError` naming all that are missing."""
        found: dict[str, ColumnSource] = {}
        missing = []
        for ours in WORDS:
            source = _source(self.formulas.get(ours, ours), available)
            if source is not None:
                found[ours] = source
            elif ours in self.needed or ours in self.formulas:
                missing.append(ours)
        if missing:
            raise StoreError(self._explained(missing, found, available, where))
        return found

    def _explained(
        self, missing: Sequence[str], found: Mapping[str, ColumnSource], available: Sequence[str], where: str
    ) -> str:
        """What is said where columns are missing: which, what there is instead, and what may be meant."""
        used = {source.column for source in found.values()}
        left = [name for name in available if name not in used and name not in WORDS]
        named = [f"{ours} (from {self.formulas[ours]!r})" if ours in self.formulas else ours for ours in missing]
        guesses = {ours: guess for ours in missing if (guess := self._guess(ours, left)) is not None}
        options = [f"--map {_quoted(f'{ours}={formula}')}" for ours, formula in guesses.items()]
        options += [f"--map {ours}=THEIRS*FACTOR" for ours in missing if ours not in guesses]
        there = ", ".join(available[:SHOWN]) + (f" and {len(available) - SHOWN} more" if len(available) > SHOWN else "")
        hint = "did you mean" if guesses else "say which is which with"
        return f"{where}: no column {', '.join(named)}; there are {there or 'none'}; {hint} {' '.join(options)}"

    def _guess(self, ours: str, available: Sequence[str]) -> str | None:
        """The formula that may be meant; a name that was given wrongly is compared as it is."""
        asked = self.formulas.get(ours)
        if asked is None:
            theirs = best_match(ours, available[:GUESSED_AMONG])
            return None if theirs is None else formula_for(ours, theirs)
        match = FORMULA.fullmatch(asked)
        name = asked if match is None else match["name"]
        by_case = {other.lower(): other for other in available[:GUESSED_AMONG]}
        near = get_close_matches(name.lower(), by_case, n=1) or [*by_case][:0]
        return asked.replace(name, by_case[near[0]]) if near else None

    def unit_doubts(self, sources: Mapping[str, ColumnSource]) -> list[str]:
        """What is odd about the units: a mapped column whose own name says another one, taken as it is."""
        return [
            f"{ours} is taken from {source.column!r} as it is, but that name says {unit}: "
            f"--map {_quoted(f'{ours}={formula_for(ours, source.column)}')}"
            for ours, source in sources.items()
            if ours in self.formulas
            and abs(source.factor) == 1.0
            and source.offset == 0.0
            and (unit := other_unit(ours, source.column)) is not None
        ]


def _quoted(text: str) -> str:
    """The text as one word of a shell."""
    return shlex.quote(text)


def _source(formula: str, available: Sequence[str]) -> ColumnSource | None:
    """The source that a formula means, or None if it names no column that there is."""
    if formula in available:
        return ColumnSource(formula)
    match = FORMULA.fullmatch(formula)
    if match is None or match["name"].strip() not in available:
        return None
    factor = float(match["factor"] or 1.0) * (-1.0 if match["sign"] else 1.0)
    offset = float(match["offset"] or 0.0)
    if not (math.isfinite(factor) and math.isfinite(offset)):
        raise StoreError(f"column rule {formula!r}: expected a finite factor and offset")
    return ColumnSource(match["name"].strip(), factor, offset)
