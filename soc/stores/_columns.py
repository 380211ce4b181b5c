"""Map the columns of a source to the names of `soc`, each by a factor and an offset.

    time_s, current_a, voltage_v       required; positive current charges
    temperature_degc                   required, as a column or as one given value
    charge_ah, soc_ref                 used if present: the instrument's counter, a reference
    charged_ah, discharged_ah          a tester's two counters, each only rising; for identification

A rule is text: `current_a=I_mA*0.001`, `current_a=-I` (reverses the sign), `temperature_degc=T*0.1-273.15`. The right
side is a column's whole name if there is such a column; else a name followed by a factor and an offset.
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
GUESSED_AMONG = 200  # columns that are searched for a hint
SHOWN = 40  # columns listed in a message
FORMULA = re.compile(rf"(?P<sign>-?)(?P<name>.+?)(?:\*(?P<factor>-?{NUMBER}))?(?P<offset>[+-]{NUMBER})?")


@dataclass(frozen=True)
class ColumnSource:
    """The source of one column of `soc`: value = column·factor + offset."""

    column: str
    factor: float = 1.0
    offset: float = 0.0

    def of(self, values: Array) -> Array:
        """Return the values in the unit and sign of `soc`; the array itself where nothing changes."""
        return values if (self.factor, self.offset) == (1.0, 0.0) else values * self.factor + self.offset


@dataclass(frozen=True)
class Rules:
    """The columns of `soc` that have another name or unit in the source: column → formula."""

    formulas: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    needed: Sequence[str] = NEEDED
    """Columns that must be present."""

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Rules:
        """Return the rules in `column=formula` texts. Raises `StoreError` for anything else."""
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
        """Return column → source for every column present. Raises `StoreError` naming all that are missing."""
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
        """Return the message about missing columns: which, what is available instead, and what may be meant."""
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
        """Return the formula that may be meant; a wrong name in a rule is compared as given."""
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
        """Return doubts about units: mapped columns whose own name states another unit; they are used unchanged."""
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
    """Quote the text as one word of a shell."""
    return shlex.quote(text)


def _source(formula: str, available: Sequence[str]) -> ColumnSource | None:
    """Return the source of a formula, or None if it names no available column."""
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
