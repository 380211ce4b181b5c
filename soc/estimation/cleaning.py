"""Turn columns as read into a Series that an estimator can use. Unusable rows are left out and counted.

Left out are rows with a missing time, current or voltage, rows whose time does not rise, and rows before the first
known temperature. Too many of them, or numbers that are impossible for this cell, raise `SeriesError`. Values are never
changed except for units: the values of a pack become those of its average cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soc.cell.parameters import CellParameters
from soc.errors import SeriesError
from soc.series import CURRENT_MAX_A, TEMPERATURE_RANGE_DEGC, VOLTAGE_LEAST_V, VOLTAGE_MAX_V, Series, counted_ah

Array = NDArray[np.float64]

NAMES = ("time_s", "current_a", "voltage_v", "temperature_degc")
LEAST_ROWS = 2  # the first sample only starts the clock
UNUSABLE_SHARE = 0.05  # a larger share of unusable rows raises an error: the columns are probably wrong
UNUSABLE_ROWS = 20  # fewer unusable rows than this, as at the start of a recording, raise no error
RATE_MAX = 100.0  # times the capacity per hour; a larger current shows a wrong unit
EXCURSION_MAX = 10.0  # capacities between lowest and highest counted charge of the first piece; more shows a wrong unit

NO_TEMPERATURE = (
    "no temperature: no column temperature_degc and none given (there is no default); "
    "give --temperature-degc, or map a column"
)


@dataclass(frozen=True)
class Pack:
    """How the measured battery is built from cells, and the temperature used where none is measured (yet)."""

    series: int = 1
    parallel: int = 1
    temperature_degc: float | None = None
    use_counter: bool = False
    """Take the charge between samples from the instrument's counter, column charge_ah."""


class CleanedRecording:
    """Cleans the pieces of one recording in order and counts the rows left out so far.

    `strict`: too many unusable rows raise an error. Otherwise any number of implausible values count as missing.
    """

    def __init__(self, cell: CellParameters, pack: Pack, last_s: float | None = None, *, strict: bool = True) -> None:
        self.cell, self.pack, self.last_s = cell, pack, last_s
        self.rows = self.used = self.missing = self.not_rising = 0
        self._strict = strict
        self._names = (*NAMES, "charge_ah") if pack.use_counter else NAMES
        self._is_resumed = last_s is not None  # units were checked when the recording began
        self._is_warm = self._is_resumed  # a temperature is known from an earlier run
        self._is_measured = False  # a temperature was measured, so the given one is no longer used

    def take(self, columns: Mapping[str, ArrayLike]) -> tuple[Series, Array] | None:
        """Return the usable rows and their reference (NaN without a column `soc_ref`), or None if there are none."""
        count = len(np.asarray(columns["time_s"]))
        self.rows += count
        arrays = {name: np.array(columns[name], dtype=np.float64) for name in self._names if name in columns}
        reference = np.asarray(columns.get("soc_ref", np.full(count, np.nan)), dtype=np.float64)
        arrays["temperature_degc"] = self._temperature(arrays.get("temperature_degc"), count)
        self._scale(arrays)
        rows = self._usable(arrays)
        if not rows.any():
            return None
        series = Series(**{name: a[rows] for name, a in arrays.items()})
        if not self.used and not self._is_resumed:
            check_units(series, self.cell)
        self.used += len(series)
        self.last_s, self._is_warm = float(series.time_s[-1]), True
        return series, reference[rows]

    def finish(self) -> list[str]:
        """Return messages about the whole recording. Raises `SeriesError` if it was too short."""
        if self.used < LEAST_ROWS:
            raise SeriesError(
                f"{self.used} usable rows of {self.rows} ({self._left_out()}); an estimate needs at least {LEAST_ROWS}"
            )
        return [f"left out of {self.rows} rows: {self._left_out()}"] if self.used < self.rows else []

    def silence(self) -> str | None:
        """Return why there is no usable row so far, worded as for an unusable recording; None if there is one."""
        if self.used:
            return None
        if not self.rows:
            return "no samples so far: look at device, measurement and the beginning (from=)"
        no_temperature = f"; {NO_TEMPERATURE}" if not self._is_warm and self.missing == self.rows else ""
        return f"no usable row of {self.rows} so far ({self._left_out()}){no_temperature}"

    def _left_out(self) -> str:
        return f"{self.missing} with a missing value, {self.not_rising} whose time does not rise"

    def _temperature(self, measured: Array | None, count: int) -> Array:
        """Return the temperatures of the rows; the given one is used where there is no column or no value yet."""
        given = self.pack.temperature_degc
        if measured is None:
            if given is None:
                raise SeriesError(NO_TEMPERATURE)
            return np.full(count, given)
        if given is not None and not self._is_measured:
            not_yet = ~np.logical_or.accumulate(np.isfinite(measured))
            measured[not_yet] = given
            self._is_measured = bool(not not_yet.all())
        return measured

    def _scale(self, arrays: dict[str, Array]) -> None:
        """Convert the arrays to columns of the average cell; unless `strict`, replace implausible values by NaN."""
        divisors = {"voltage_v": self.pack.series, "current_a": self.pack.parallel, "charge_ah": self.pack.parallel}
        for name, divisor in divisors.items():
            if name in arrays:
                arrays[name] /= divisor
        if not self._strict:
            _forget_implausible(arrays)

    def _usable(self, arrays: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Return which rows can be used; counts the others."""
        needed = [a for name, a in arrays.items() if name != "temperature_degc"]
        whole = np.logical_and.reduce([np.isfinite(a) for a in needed])
        if not self._is_warm:
            warm = np.logical_or.accumulate(np.isfinite(arrays["temperature_degc"]))
            if self._strict and not warm.any():
                raise SeriesError(f"temperature_degc has no value in the first {len(warm)} rows: {NO_TEMPERATURE}")
            whole &= warm
        time_s = np.where(whole, arrays["time_s"], -np.inf)
        highest = np.maximum.accumulate(np.concatenate(([-np.inf if self.last_s is None else self.last_s], time_s)))
        rising = time_s > highest[:-1]
        self.missing += int((~whole).sum())
        self.not_rising += int((whole & ~rising).sum())
        unusable = self.missing + self.not_rising
        if self._strict and unusable > max(UNUSABLE_ROWS, UNUSABLE_SHARE * self.rows):
            raise SeriesError(
                f"{unusable} of the first {self.rows} rows cannot be used: {self._left_out()}; "
                "sort the rows by time_s and look at the missing values"
            )
        return rising


def _forget_implausible(arrays: Mapping[str, Array]) -> None:
    """Replace by NaN the values for which `Series` would reject the whole recording."""
    limits = {"voltage_v": (VOLTAGE_LEAST_V, VOLTAGE_MAX_V), "current_a": (-CURRENT_MAX_A, CURRENT_MAX_A)}
    for name, (least, most) in (limits | {"temperature_degc": TEMPERATURE_RANGE_DEGC}).items():
        values = arrays[name]
        values[~((values >= least) & (values <= most))] = np.nan


def check_units(series: Series, cell: CellParameters) -> None:
    """Raise `SeriesError` where the numbers can only be in another unit or of another battery."""
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
    counted = counted_ah(series)
    moved = float(np.ptp(counted))
    if moved > EXCURSION_MAX * cell.nominal_ah:
        raise SeriesError(
            f"time_s, current_a: the counted charge moves over {moved:.4g} Ah in {series.duration_s:.4g} s, "
            f"{moved / cell.nominal_ah:.0f} times the capacity of {cell.name}: milliseconds (--map time_s=…*0.001), "
            "milliamperes, or another cell?"
        )
