"""One recording of one cell: arrays of equal length, rising times, units in the names.

Positive current charges. Values are per cell: the caller divides a pack's current by its parallel strings and its
voltage by its series elements (`Series.of_pack` does this). The current of a sample is the mean over the interval that
*ends* at its time. A missing temperature is NaN; no other value may be missing.

Nothing is repaired silently: `Series` rejects bad data, and `tidied` drops unusable rows and counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soc.errors import SeriesError

Array = NDArray[np.float64]

# What a single cell can show. A value outside means a wrong unit or a faulty sensor; the caller must correct both.
VOLTAGE_LEAST_V, VOLTAGE_MAX_V = 0.02, 10.0
CURRENT_MAX_A = 5000.0
TEMPERATURE_RANGE_DEGC = (-80.0, 200.0)


@dataclass(frozen=True, eq=False)
class Series:
    """Samples of one cell, checked. `charge_ah` is the instrument's own counter, if any; it rises while charging.

    Raises `SeriesError` naming the column, the row and the value.
    """

    time_s: Array
    current_a: Array
    voltage_v: Array
    temperature_degc: Array
    charge_ah: Array | None = field(default=None)

    def __post_init__(self) -> None:
        for name in _columns(self):
            object.__setattr__(self, name, _frozen(getattr(self, name), name))
        _check_lengths(self)
        _check_times(self.time_s)
        _check_values(self)

    def __len__(self) -> int:
        return len(self.time_s)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Series:
        """Return the same recording with these rows only, given as a slice, a mask or an array of indices."""
        return Series(**{name: getattr(self, name)[rows] for name in _columns(self)})

    @property
    def duration_s(self) -> float:
        """Return the last time minus the first, s."""
        return float(self.time_s[-1] - self.time_s[0])

    @property
    def period_s(self) -> float:
        """Return the usual time between samples (median), s; NaN for a single sample."""
        return float(np.median(np.diff(self.time_s))) if len(self) > 1 else float("nan")

    @classmethod
    def of_pack(cls, columns: Mapping[str, ArrayLike], series: int, parallel: int) -> Series:
        """Return the average cell of a pack of `series` elements in `parallel` strings; `columns` as in `Series`."""
        scale = {"current_a": 1 / parallel, "charge_ah": 1 / parallel, "voltage_v": 1 / series}
        return cls(**{k: np.asarray(v, dtype=float) * scale.get(k, 1.0) for k, v in columns.items()})


@dataclass(frozen=True)
class Dropped:
    """The number of rows that `tidied` dropped, by reason."""

    missing: int
    not_rising: int

    @property
    def total(self) -> int:
        """Return the total number of dropped rows."""
        return self.missing + self.not_rising


def tidied(columns: Mapping[str, ArrayLike]) -> tuple[Series, Dropped]:
    """Return the usable rows of a recording and the counts of the others.

    Dropped are rows without time, current or voltage and rows whose time does not rise above all earlier ones
    (a clock set back, a repeated row). Values are never changed. Raises `SeriesError` if no row remains or
    what remains is not a valid Series.
    """
    arrays = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    needed = [arrays[name] for name in ("time_s", "current_a", "voltage_v")]
    whole = np.logical_and.reduce([np.isfinite(a) for a in needed])
    kept = {name: a[whole] for name, a in arrays.items()}
    highest = np.maximum.accumulate(np.concatenate(([-np.inf], kept["time_s"])))
    rising = kept["time_s"] > highest[:-1]
    series = Series(**{name: a[rising] for name, a in kept.items()})
    return series, Dropped(missing=int((~whole).sum()), not_rising=int((~rising).sum()))


GAP_RATIO = 2.5  # an interval longer than this many usual ones is a gap
GAP_LEAST_S = 2.5  # shorter intervals are never gaps


def gaps(time_s: ArrayLike) -> NDArray[np.bool_]:
    """Return which intervals between the samples at these rising times are gaps, one value fewer than samples.

    A gap is an interval much longer than the usual one (the lower median). Nothing was measured during it: the current
    of the sample at its end is no evidence of the charge that flowed meanwhile.
    """
    intervals_s = np.diff(np.asarray(time_s, dtype=np.float64))
    long = intervals_s > GAP_LEAST_S
    if long.any():  # otherwise the usual interval, which takes a partial sort, is not needed
        middle = (intervals_s.size - 1) // 2
        long &= intervals_s > GAP_RATIO * np.partition(intervals_s, middle)[middle]
    return np.asarray(long)


def counted_ah(series: Series) -> Array:
    """Return the charge counted from the sampled current since the first sample, Ah, [sample]; nothing over gaps."""
    hours = np.where(gaps(series.time_s), 0.0, np.diff(series.time_s)) / 3600.0
    return np.concatenate(([0.0], np.cumsum(series.current_a[1:] * hours)))


@dataclass(frozen=True)
class SignEvidence:
    """Evidence that the sign of the current is reversed."""

    steps: int
    against: int
    ohm: float

    def __str__(self) -> str:
        return (
            f"voltage falls when current_a rises: in {self.against} of {self.steps} current steps, "
            f"slope {self.ohm * 1e3:.1f} mΩ (a cell has a positive one); positive current must charge"
        )


def wrong_sign(series: Series, step_a: float | None = None) -> SignEvidence | None:
    """Return evidence that positive current discharges in this recording, or None.

    A cell's voltage moves with the charging current within one sample (its ohmic part), so over the steps of the
    current larger than `step_a` (default: a quarter of the largest) Δv and Δi agree in sign. Evidence is at least
    three steps of which nine in ten disagree. Steps over a gap are not counted. A recording without steps gives None.
    """
    close = ~gaps(series.time_s)
    di, dv = np.diff(series.current_a)[close], np.diff(series.voltage_v)[close]
    if di.size == 0:
        return None
    limit = 0.25 * float(np.abs(di).max()) if step_a is None else step_a
    big = (np.abs(di) > max(limit, 1e-3)) & (dv != 0.0)
    steps, against = int(big.sum()), int((di[big] * dv[big] < 0).sum())
    if steps < 3 or against < 0.9 * steps:
        return None
    return SignEvidence(steps, against, float(di[big] @ dv[big] / (di[big] @ di[big])))


def _columns(series: Series) -> list[str]:
    """Return the names of the columns that this recording has."""
    return [f.name for f in fields(series) if getattr(series, f.name) is not None]


def _frozen(values: ArrayLike, name: str) -> Array:
    """Return a read-only double array. Raises `SeriesError` if the values are not one row of numbers."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SeriesError(f"{name}: not numbers ({error})") from error
    if array.ndim != 1:
        raise SeriesError(f"{name}: expected one row of numbers, got an array of shape {array.shape}")
    array.setflags(write=False)
    return array


def _check_lengths(series: Series) -> None:
    lengths = {name: len(getattr(series, name)) for name in _columns(series)}
    if len(set(lengths.values())) > 1:
        raise SeriesError("columns differ in length: " + ", ".join(f"{k} {n}" for k, n in lengths.items()))
    if len(series) == 0:
        raise SeriesError("no rows: a Series needs at least one sample")


def _check_times(time_s: Array) -> None:
    _refuse("time_s", time_s, ~np.isfinite(time_s), "is not a number")
    falls = np.flatnonzero(np.diff(time_s) <= 0)
    if falls.size:
        k = int(falls[0]) + 1
        what = "repeats" if time_s[k] == time_s[k - 1] else "goes back"
        raise SeriesError(
            f"time_s {what} at row {k}: {time_s[k]:.9g} after {time_s[k - 1]:.9g} ({falls.size} such rows); "
            "sort the recording, or drop such rows with soc.series.tidied"
        )


def _check_values(series: Series) -> None:
    for name in _columns(series)[1:]:
        values = getattr(series, name)
        absent = np.isinf(values) if name == "temperature_degc" else ~np.isfinite(values)
        _refuse(name, values, absent, "is not a number; drop such rows with soc.series.tidied")
    v, i, t = series.voltage_v, series.current_a, series.temperature_degc
    _refuse("voltage_v", v, np.abs(v) > VOLTAGE_MAX_V, "is no cell voltage: mV, or a pack's? expected V per cell")
    if 0 < np.median(np.abs(v)) < VOLTAGE_LEAST_V:
        raise SeriesError(f"voltage_v: median {np.median(v):.3g}: kilovolts? expected V per cell")
    _refuse("current_a", i, np.abs(i) > CURRENT_MAX_A, "is no cell current: milliamperes? expected A")
    low, high = TEMPERATURE_RANGE_DEGC
    _refuse("temperature_degc", t, (t < low) | (t > high), "is no cell temperature: kelvin or 0.1 °C? expected °C")


def _refuse(name: str, values: Array, bad: NDArray[np.bool_], why: str) -> None:
    """Raise `SeriesError` with the first bad row and the number of bad rows, if any."""
    if bad.any():
        k = int(np.argmax(bad))
        raise SeriesError(f"{name} at row {k}: {values[k]:.6g} {why} ({int(bad.sum())} such rows)")
