"""Pass a recording through a filter piece by piece. Memory does not grow with the length of the recording."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soc.cell.ocv import CELLS
from soc.cell.parameters import CellParameters
from soc.cell.tables import OCV, Tables
from soc.errors import SeriesError
from soc.estimation.cleaning import CleanedRecording, Pack
from soc.estimation.estimator import SIGMAS, SOC_SD, Estimate, Estimator
from soc.models.state import FilterMemory, StateEstimate
from soc.series import Series
from soc.stores import Recording, Results

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Setup:
    """How recordings are estimated. `full`: all signals, including the counted state of charge, not only three."""

    cell: CellParameters
    filter: str = "spkf"
    soc0: float | None = None
    soc0_sd: float = SOC_SD
    pack: Pack = field(default_factory=Pack)
    full: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """A state of charge, its standard deviation and its time."""

    soc: float
    soc_sd: float
    time_s: float


class Stream:
    """The estimator of one recording, with the rows left out so far and the warnings."""

    def __init__(
        self,
        setup: Setup,
        *,
        resume: Mapping[str, StateEstimate] | None = None,
        start: Start | None = None,
        strict: bool = True,
    ) -> None:
        """Begin a session, continue from stored state estimates (`resume`), or begin where another one ended (`start`).

        `strict`: see `CleanedRecording`. Raises `OptionError`, `BeliefError`.
        """
        self.setup, known = setup, resume or {}
        soc0, soc0_sd = (setup.soc0, setup.soc0_sd) if start is None else (start.soc, start.soc_sd)
        names = dict.fromkeys((setup.filter, "coulomb") if setup.full else (setup.filter,))
        self._estimators = {
            name: Estimator(
                setup.cell,
                name,
                soc0=soc0,
                soc0_sd=soc0_sd,
                resume=known.get(name),
                use_counter=setup.pack.use_counter,
                **setup.options,
            )
            for name in names
        }
        last_s = max((belief.time_s for belief in known.values()), default=None if start is None else start.time_s)
        temperatures = [float(belief.memory[FilterMemory.TEMPERATURE]) for belief in known.values()]
        self._last_degc = temperatures[0] if temperatures else math.nan
        self.intake = CleanedRecording(setup.cell, setup.pack, last_s, strict=strict)
        self._warnings: dict[str, str] = {}  # by kind: the newest evidence replaces the older

    @property
    def beliefs(self) -> dict[str, StateEstimate]:
        """Return the filters' current state estimates, by filter name; none before the first sample."""
        return {name: e.belief for name, e in self._estimators.items() if e.belief is not None}

    def feed(self, columns: Mapping[str, ArrayLike]) -> Results | None:
        """Return the results for the next rows; None if none of them can be used. Raises `SeriesError`."""
        taken = self.intake.take(columns)
        if taken is None:
            return None
        series, _ = taken
        found = {name: estimator.run(series) for name, estimator in self._estimators.items()}
        main = found[self.setup.filter]
        self._warnings |= {warning.partition(":")[0]: warning for warning in main.warnings}
        signals = {"soc": main.soc, "soc_lo": main.soc_lo, "soc_hi": main.soc_hi}
        if self.setup.full:
            signals |= {"soc_counted": found["coulomb"].soc, **self._more(series, main)}
        return Results(main.time_s, signals, main.model, main.version, main.warnings)

    def finish(self) -> list[str]:
        """Return messages about the whole recording. Raises `SeriesError` if it was too short."""
        return [*self.intake.finish(), *self._warnings.values()]

    def _more(self, series: Series, found: Estimate) -> dict[str, Array]:
        """Return the further signals of the estimate; voltages and currents are again those of the whole battery."""
        pack, tables = self.setup.pack, self._estimators[self.setup.filter].model.tables
        temperature_degc = self._held(series.temperature_degc)
        return {
            "innovation_v": pack.series * found.innovation_v,
            "innovation_bound_v": pack.series * SIGMAS * found.innovation_sd_v,
            "current_offset_a": pack.parallel * found.offset_a,
            "ocv_v": pack.series * ocv_at(tables, found.soc, temperature_degc),
        }

    def _held(self, temperature_degc: Array) -> Array:
        """Return the temperatures with the last known one where none was measured, as the filter holds it."""
        known = np.isfinite(temperature_degc)
        values = np.concatenate(([self._last_degc], temperature_degc))
        place = np.maximum.accumulate(np.concatenate(([0], np.where(known, np.arange(1, len(values)), 0))))
        self._last_degc = float(values[place[-1]])
        return np.asarray(values[place[1:]])


def run(recording: Recording, stream: Stream) -> Iterator[Results]:
    """Return the results for each piece of a recording. Raises `SeriesError` naming the place."""
    for columns in recording.chunks:
        with placed(recording.place):
            results = stream.feed(columns)
        if results is not None:
            yield results


def ahead(pieces: Iterator[Results]) -> Iterator[Results]:
    """Prefetch: compute the next piece while the caller stores the last one, so that both run at the same time."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece


def whole(recording: Recording, intake: CleanedRecording) -> tuple[Series, Array]:
    """Return all usable rows at once, and their reference. Raises `SeriesError` naming the place."""
    with placed(recording.place):
        taken = [found for columns in recording.chunks if (found := intake.take(columns)) is not None]
        intake.finish()
    series = {
        name: np.concatenate([getattr(part, name) for part, _ in taken])
        for name in ("time_s", "current_a", "voltage_v", "temperature_degc")
    }
    return Series(**series), np.concatenate([reference for _, reference in taken])


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Add the place of the recording to a `SeriesError`."""
    try:
        yield
    except SeriesError as error:
        raise SeriesError(f"{place}: {error}") from error


def ocv_at(tables: Tables, soc: Array, temperature_degc: Array) -> Array:
    """Return the open-circuit voltage, V, at these states of charge (within 0..1) and temperatures; NaN without one."""
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
