"""A recording's way through a filter, piece by piece: checked, tidied, estimated. Memory does not grow with it.

What cannot be used (no number, time not rising) is left out and counted; too much of it, or numbers that cannot be this
cell's, is a `SeriesError`. What merely looks wrong is a warning with its evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soc.belief import Belief
from soc.cell import OCV, Tables
from soc.errors import SeriesError
from soc.estimator import SIGMAS, SOC_SD, Estimate, Estimator
from soc.ocv import CELLS
from soc.parameters import CellParameters
from soc.series import CURRENT_MAX_A, TEMPERATURE_RANGE_DEGC, VOLTAGE_MAX_V, Series, tidied
from soc.stores import Recording
from soc.stores._results import Results

Array = NDArray[np.float64]

LEAST_ROWS = 2  # the first sample only starts the clock
UNUSABLE_SHARE = 0.05  # more than this of the rows left out: the recording is not what it seems
UNUSABLE_ROWS = 20  # … but not for a few rows at its start
RATE_MAX = 100.0  # times the capacity per hour: no cell does that, a wrong unit does
NET_CHARGE_MAX = 10.0  # capacities moved in one direction within one piece: likewise


@dataclass(frozen=True)
class Setup:
    """How recordings are estimated. `temperature_degc` stands in where the recording has no such column.

    `series`, `parallel`: elements and strings of the battery that was measured; estimates are of its average cell.
    `counted`: count beside the estimate, as a comparison.
    """

    cell: CellParameters
    filter: str = "spkf"
    soc0: float | None = None
    soc0_sd: float = SOC_SD
    temperature_degc: float | None = None
    series: int = 1
    parallel: int = 1
    counted: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class Stream:
    """One recording's estimator, with what was left out of the recording and what looks wrong in it."""

    def __init__(
        self,
        setup: Setup,
        resume: Mapping[str, Belief] | None = None,
        start: tuple[float, float, float] | None = None,
        *,
        strict: bool = True,
    ) -> None:
        """Begin; or go on from stored `beliefs`; or start from a state of charge, its deviation and a time.

        `strict`: too many unusable rows are an error; otherwise implausible values count as missing, however many.
        Raises `OptionError`, `BeliefError`.
        """
        self.setup, self._strict = setup, strict
        self.rows = self.missing = self.not_rising = self.used = 0
        self.warnings: list[str] = []
        known = resume or {}
        soc0, soc0_sd = start[:2] if start else (setup.soc0, setup.soc0_sd)
        self.last_s: float | None = start[2] if start else None
        names = dict.fromkeys((setup.filter, "coulomb") if setup.counted else (setup.filter,))
        self._estimators = {
            name: Estimator(setup.cell, name, soc0=soc0, soc0_sd=soc0_sd, resume=known.get(name), **setup.options)
            for name in names
        }
        if known:
            self.last_s = max(belief.time_s for belief in known.values())

    @property
    def beliefs(self) -> dict[str, Belief]:
        """What the filters believe now, by their names; none before the first sample."""
        return {name: e.belief for name, e in self._estimators.items() if e.belief is not None}

    def feed(self, columns: Mapping[str, ArrayLike]) -> Results | None:
        """The results for the next rows; None if none of them can be used. Raises `SeriesError`."""
        series = self._usable(columns)
        if series is None:
            return None
        if not self.used:
            _check_units(series, self.setup.cell)
        self.used += len(series)
        self.last_s = float(series.time_s[-1])
        found = {name: estimator.run(series) for name, estimator in self._estimators.items()}
        main = found[self.setup.filter]
        self.warnings += [w for w in main.warnings if w not in self.warnings]
        counted = found.get("coulomb", main)
        return self._results(series, main, counted.soc if self.setup.counted else np.full(len(series), np.nan))

    def finish(self, place: str) -> tuple[str, ...]:
        """What is to be said about the whole recording. Raises `SeriesError` if it was too short."""
        if self.used < LEAST_ROWS:
            raise SeriesError(
                f"{place}: {self.used} usable rows of {self.rows} ({self._left_out()}); an estimate needs {LEAST_ROWS}"
            )
        left_out = [f"left out of {self.rows} rows: {self._left_out()}"] if self.missing or self.not_rising else []
        return (*left_out, *self.warnings)

    def _left_out(self) -> str:
        return f"{self.missing} with a missing value, {self.not_rising} whose time does not rise"

    def _usable(self, columns: Mapping[str, ArrayLike]) -> Series | None:
        """The rows that can be used, per cell; counts the others. The first one must have a temperature."""
        arrays = {name: np.array(a, dtype=np.float64) for name, a in columns.items() if name != "soc_ref"}
        rows = len(arrays["time_s"])
        self.rows += rows
        arrays["temperature_degc"] = self._temperature(arrays.get("temperature_degc"), rows)
        arrays = self._per_cell(arrays)
        if not self._strict:
            _forget_implausible(arrays)
        if not self.beliefs:
            before = ~np.logical_or.accumulate(np.isfinite(arrays["temperature_degc"]))
            if self._strict and before.all():
                raise SeriesError(f"temperature_degc: no value in the first {rows} rows; give --temperature-degc")
            arrays["voltage_v"][before] = np.nan
        fresh = ~(arrays["time_s"] <= (-np.inf if self.last_s is None else self.last_s))
        whole = np.logical_and.reduce([np.isfinite(a) for name, a in arrays.items() if name != "temperature_degc"])
        self.not_rising += int((~fresh).sum())
        self.missing += int((fresh & ~whole).sum())
        self._not_too_much()
        if not (fresh & whole).any():
            return None
        series, dropped = tidied({name: a[fresh & whole] for name, a in arrays.items()})
        self.not_rising += dropped.not_rising
        self._not_too_much()
        return series

    def _temperature(self, measured: Array | None, rows: int) -> Array:
        """The temperatures of the rows; the given one stands in where there is no column or no value yet."""
        given = self.setup.temperature_degc
        if measured is None:
            if given is None:
                raise SeriesError(
                    "no temperature: no column temperature_degc and none given (there is no default); "
                    "give --temperature-degc, or map a column"
                )
            return np.full(rows, given)
        if given is not None and not self.beliefs:
            measured[~np.logical_or.accumulate(np.isfinite(measured))] = given
        return measured

    def _not_too_much(self) -> None:
        """Raise `SeriesError` if too much was left out so far."""
        unusable = self.missing + self.not_rising
        if self._strict and unusable > max(UNUSABLE_ROWS, UNUSABLE_SHARE * self.rows):
            raise SeriesError(
                f"{unusable} of the first {self.rows} rows cannot be used: {self._left_out()}; "
                "sort the rows by time_s and look at the missing values"
            )

    def _per_cell(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Columns of the average cell of the battery."""
        s = self.setup
        divisor = {"voltage_v": s.series, "current_a": s.parallel, "charge_ah": s.parallel}
        return {name: a / divisor[name] if divisor.get(name, 1) != 1 else a for name, a in arrays.items()}

    def _results(self, series: Series, found: Estimate, counted: Array) -> Results:
        """The estimate in the vocabulary's words, voltages and currents those of the whole battery again."""
        s, tables = self.setup, self._estimators[self.setup.filter].model.tables
        signals = {
            "soc": found.soc,
            "soc_lo": found.soc_lo,
            "soc_hi": found.soc_hi,
            "soc_counted": counted,
            "innovation_v": s.series * found.innovation_v,
            "innovation_bound_v": s.series * SIGMAS * found.innovation_sd_v,
            "current_offset_a": s.parallel * found.offset_a,
            "ocv_v": s.series * ocv_at(tables, found.soc, series.temperature_degc),
        }
        return Results(found.time_s, signals, found.model, found.version)


def run(recording: Recording, stream: Stream) -> Iterator[Results]:
    """The results for each piece of a recording. Raises `SeriesError` naming the place."""
    for columns in recording.chunks:
        try:
            results = stream.feed(columns)
        except SeriesError as error:
            raise SeriesError(f"{recording.place}: {error}") from error
        if results is not None:
            yield results


def ocv_at(tables: Tables, soc: Array, temperature_degc: Array) -> Array:
    """The open-circuit voltage, V, at these states of charge (within 0..1) and temperatures; NaN without one."""
    last = tables.points.shape[0] - 1
    place = np.clip((temperature_degc - tables.lowest_degc) * tables.per_k, 0.0, last)
    z = np.clip(soc, 0.0, 1.0) * CELLS
    known = np.isfinite(place) & np.isfinite(z)
    row, k = (np.where(known, a, 0.0).astype(int) for a in (place, z))
    after, right = np.minimum(row + 1, last), np.minimum(k + 1, CELLS)
    ocv = tables.points[:, :, OCV]
    low = ocv[row, k] + (z - k) * (ocv[row, right] - ocv[row, k])
    high = ocv[after, k] + (z - k) * (ocv[after, right] - ocv[after, k])
    return np.where(known, low + (place - row) * (high - low), np.nan)


def _forget_implausible(arrays: Mapping[str, Array]) -> None:
    """Make NaN of what `Series` would refuse a whole recording for."""
    low, high = TEMPERATURE_RANGE_DEGC
    limits = {"voltage_v": (-VOLTAGE_MAX_V, VOLTAGE_MAX_V), "current_a": (-CURRENT_MAX_A, CURRENT_MAX_A)}
    for name, (least, most) in (limits | {"temperature_degc": (low, high)}).items():
        values = arrays[name]
        values[~((values >= least) & (values <= most))] = np.nan


def _check_units(series: Series, cell: CellParameters) -> None:
    """Raise `SeriesError` where the numbers can only be another unit's or another battery's."""
    middle, largest = float(np.median(series.voltage_v)), float(np.abs(series.current_a).max())
    if not 0.3 * cell.voltage_min_v < middle < 1.5 * cell.voltage_max_v:
        raise SeriesError(
            f"voltage_v: median {middle:.4g} V is not one of {cell.name} ({cell.voltage_min_v:g} to "
            f"{cell.voltage_max_v:g} V): another unit (--map voltage_v=…*0.001), or a pack (--series N)?"
        )
    if largest > RATE_MAX * cell.nominal_ah:
        raise SeriesError(
            f"current_a: {largest:.4g} A is {largest / cell.nominal_ah:.0f} times the {cell.nominal_ah:g} Ah of "
            f"{cell.name} per hour: milliamperes (--map current_a=…*0.001), or a pack (--parallel N)?"
        )
    moved = float(series.current_a[1:] @ np.diff(series.time_s)) / 3600.0
    if abs(moved) > NET_CHARGE_MAX * cell.nominal_ah:
        raise SeriesError(
            f"time_s, current_a: {moved:+.4g} Ah in {series.duration_s:.4g} s is {abs(moved) / cell.nominal_ah:.0f} "
            f"times the capacity of {cell.name}: milliseconds (--map time_s=…*0.001), milliamperes, or another cell?"
        )
