"""Run a filter along a Series to obtain an Estimate. A notebook, a replay and a live service use the same step.

    estimate(series, cell)                            a whole recording
    Estimator(cell).run(chunk), .step(…)              a stream; any division into chunks gives the same bits
    carry_cells(model, beliefs, samples, threads)     many cells of one kind

A `Model` is a cell, a filter and its options, prepared for use. It propagates a `StateEstimate` through samples and
returns a new one; `Estimator` keeps only the newest. Positive current charges. Bounds are three standard deviations.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soc import filters
from soc.cell.parameters import CellParameters
from soc.cell.tables import Tables, tables
from soc.errors import BeliefError, FilterError, OptionError
from soc.estimation.consistency import ConsistencyMonitor
from soc.estimation.initial_state import from_soc, from_voltage
from soc.filters import Samples
from soc.models.measurement_update import INNOVATION, INNOVATION_SD, OFFSET, OUTPUTS, SD, SOC
from soc.models.options import Options, options, settings
from soc.models.state import FilterMemory, StateEstimate, state_names
from soc.series import Series, wrong_sign

Array = NDArray[np.float64]

VERSION = "1"  # of the algorithm: changes when the same input gives another output
SIGMAS = 3.0
REST_C = 0.02  # a current below this, 1/h, counts as zero when the initial state is found
SOC_SD = 0.05  # standard deviation of a given state of charge, unless stated


class Model:
    """A cell, a filter and its options, prepared for use; immutable."""

    def __init__(self, cell: CellParameters, filter: str = "spkf", chosen: Options | None = None) -> None:  # noqa: A002
        self.cell, self.filter = cell, filter
        self.options = settings(chosen or Options(), cell)
        self.states = state_names(cell.pairs, self.options.offset_state, self.options.bias_state)
        self.tables: Tables = tables(cell, len(self.states))
        self.names = (filter, cell.id)
        self._run = filters.find(filter)

    def start(
        self,
        voltage_v: float,
        temperature_degc: float,
        current_a: float,
        soc: float | None = None,
        soc_sd: float = SOC_SD,
    ) -> StateEstimate:
        """Return the initial state: from `soc` if it is known, else from the voltage. Raises `OptionError`."""
        if math.isnan(temperature_degc):
            raise OptionError("no temperature at the start: give temperature_degc (there is no default)")
        if soc is None:
            rested = abs(current_a) < REST_C * self.cell.nominal_ah
            return from_voltage(
                self.tables, self.options, self.names, voltage_v, temperature_degc, 0.0 if rested else current_a
            )
        if not (-0.05 <= soc <= 1.05 and soc_sd >= 0):
            raise OptionError(f"soc0 {soc} ± {soc_sd}: expected 0..1 and a standard deviation that is not negative")
        return from_soc(self.tables, self.options, self.names, soc, soc_sd, current_a)

    def carry(self, belief: StateEstimate, samples: Samples) -> tuple[StateEstimate, Array]:
        """Return the state after these samples of one cell, and the outputs [sample, column]."""
        self.check(belief)
        mean, cov, memory = belief.mean[None].copy(), belief.cov[None].copy(), belief.memory[None].copy()
        out = np.empty((1, samples.time_s.shape[1], OUTPUTS))
        self.run(mean, cov, memory, samples, out)
        return StateEstimate(belief.filter, belief.model, belief.states, mean[0], cov[0], memory[0]), out[0]

    def run(self, means: Array, covs: Array, memories: Array, samples: Samples, outs: Array) -> None:
        """Propagate the state estimates of many cells in place; see `soc.filters`."""
        scratch = filters.scratch(len(self.states))
        self._run(self.tables, self.options, means, covs, memories, samples, outs, scratch)

    def check(self, belief: StateEstimate) -> None:
        """Raise `BeliefError` if the state estimate was made with another cell, filter or set of states."""
        if (belief.filter, belief.model) != self.names or belief.states != self.states:
            raise BeliefError(
                f"stored belief is of {belief.filter} on {belief.model} with states {', '.join(belief.states)}; "
                f"this is {self.names[0]} on {self.names[1]} with {', '.join(self.states)}: start anew"
            )


@dataclass(frozen=True, eq=False)
class Estimate:
    """State of charge along a recording, with bounds that are three standard deviations, not clipped to 0..1.

    `innovation_v` is measured minus predicted voltage, `innovation_sd_v` its predicted deviation; nan where no voltage
    was used (the first sample starts the clock). `offset_a` is the estimated offset of the current sensor.
    `normalised_innovation` is the mean of r²/P_y, 1 if the noise settings are right; `innovation_lag1` its correlation
    from sample to sample, 0 for white innovations. `anchor_age_s`: time since the cell was last detected full or empty;
    nan: never.
    """

    time_s: Array
    soc: Array
    sd: Array
    innovation_v: Array
    innovation_sd_v: Array
    offset_a: Array
    belief: StateEstimate
    warnings: tuple[str, ...]

    @property
    def soc_lo(self) -> Array:
        """Lower bound, 3σ."""
        return self.soc - SIGMAS * self.sd

    @property
    def soc_hi(self) -> Array:
        """Upper bound, 3σ."""
        return self.soc + SIGMAS * self.sd

    @property
    def model(self) -> str:
        """Return the cell's id: its name and a checksum of its numbers."""
        return self.belief.model

    @property
    def version(self) -> str:
        """Return the filter and the version of the algorithm."""
        return f"{self.belief.filter}-{VERSION}"

    @property
    def health(self) -> dict[str, int]:
        """Return the filter's counters since the initial state: counter → count."""
        return self.belief.counters

    @property
    def normalised_innovation(self) -> float:
        """Return the mean of r²/P_y since the initial state."""
        memory = self.belief.memory
        return (
            float(memory[FilterMemory.SUM_SQUARES] / memory[FilterMemory.UPDATES])
            if memory[FilterMemory.UPDATES]
            else math.nan
        )

    @property
    def innovation_lag1(self) -> float:
        """Return the correlation of r/√P_y from one sample to the next since the initial state."""
        memory = self.belief.memory
        return (
            float(memory[FilterMemory.SUM_LAGGED] / memory[FilterMemory.SUM_SQUARES])
            if memory[FilterMemory.SUM_SQUARES]
            else math.nan
        )

    @property
    def anchor_age_s(self) -> float:
        """Return the time from the last full or empty anchor to the last sample, s; nan: never."""
        return float(self.belief.memory[FilterMemory.TIME] - self.belief.memory[FilterMemory.ANCHOR_TIME])


class Point(NamedTuple):
    """The result of one live sample."""

    soc: float
    soc_lo: float
    soc_hi: float
    innovation_v: float
    innovation_sd_v: float
    offset_a: float


class Estimator:
    """A streaming estimator. It holds the newest state estimate; `belief` may be stored and passed back as `resume`."""

    def __init__(
        self,
        cell: CellParameters,
        filter: str = "spkf",  # noqa: A002
        *,
        soc0: float | None = None,
        soc0_sd: float = SOC_SD,
        resume: StateEstimate | None = None,
        use_counter: bool = False,
        **chosen: Any,
    ) -> None:
        self.model = Model(cell, filter, options(**chosen))
        self._start = (soc0, soc0_sd)
        self._use_counter, self._charge_ah = use_counter, math.nan
        if resume is not None:
            self.model.check(resume)
        self.belief = resume
        self._monitor = ConsistencyMonitor(cell)

    def step(self, time_s: float, current_a: float, voltage_v: float, temperature_degc: float) -> Point:
        """Return the result after one more sample; a missing voltage or temperature is nan."""
        columns = np.array((time_s, current_a, voltage_v, temperature_degc, math.nan), dtype=np.float64)
        samples = Samples(*columns.reshape(-1, 1, 1))
        if self.belief is None:
            self.belief = self.model.start(voltage_v, temperature_degc, current_a, *self._start)
        self.belief, outs = self.model.carry(self.belief, samples)
        soc, sd, innovation, innovation_sd, offset = outs[0].tolist()
        return Point(soc, soc - SIGMAS * sd, soc + SIGMAS * sd, innovation, innovation_sd, offset)

    def run(self, chunk: Series) -> Estimate:
        """Return the results for the next piece of the recording. Raises `FilterError` if a result is not finite."""
        if self.belief is None:
            v, t, i = (float(c[0]) for c in (chunk.voltage_v, chunk.temperature_degc, chunk.current_a))
            self.belief = self.model.start(v, t, i, *self._start)
        samples = self._samples(chunk)
        late, before = _not_after(chunk, self.belief), self.belief.memory
        self.belief, outs = self.model.carry(self.belief, samples)
        _check_outputs(self.model.filter, chunk, outs)
        self._monitor.add(chunk, outs[:, SOC], outs[:, SD], before, self.belief.memory)
        return Estimate(
            time_s=chunk.time_s,
            soc=outs[:, SOC],
            sd=outs[:, SD],
            innovation_v=outs[:, INNOVATION],
            innovation_sd_v=outs[:, INNOVATION_SD],
            offset_a=outs[:, OFFSET],
            belief=self.belief,
            warnings=(*late, *doubts(chunk, self.model.cell), *self._monitor.warnings()),
        )

    def _samples(self, chunk: Series) -> Samples:
        """Return the chunk in the layout of filters, with the counter's mean current if it is to be used."""
        counted = np.full(len(chunk), math.nan)
        if self._use_counter:
            if chunk.charge_ah is None:
                raise OptionError("use_counter: the recording has no charge_ah column")
            time_before = math.nan if self.belief is None else self.belief.time_s
            hours = np.diff(chunk.time_s, prepend=time_before) / 3600.0
            counted = np.diff(chunk.charge_ah, prepend=self._charge_ah) / hours
            self._charge_ah = float(chunk.charge_ah[-1])
        columns = (chunk.time_s, chunk.current_a, chunk.voltage_v, chunk.temperature_degc, counted)
        return Samples(*np.array(columns)[:, None, :])  # a copy: code is compiled once, for writable arrays


def estimate(
    series: Series,
    cell: CellParameters,
    filter: str = "spkf",  # noqa: A002
    *,
    soc0: float | None = None,
    soc0_sd: float = SOC_SD,
    resume: StateEstimate | None = None,
    use_counter: bool = False,
    **chosen: Any,
) -> Estimate:
    """Estimate the state of charge along a recording of this cell.

    The initial state is `soc0` ± `soc0_sd` if given, or the stored state estimate `resume` aged by the gap to the first
    sample, or is found from the first voltage. `use_counter` takes the current of each interval from the recording's
    charge counter. Other names are those of `soc.models.options.Options`. Raises `OptionError`, `BeliefError`.
    """
    stream = Estimator(cell, filter, soc0=soc0, soc0_sd=soc0_sd, resume=resume, use_counter=use_counter, **chosen)
    return stream.run(series)


def _check_outputs(name: str, chunk: Series, outs: Array) -> None:
    """Raise `FilterError` if an estimate or its deviation is not finite."""
    finite = np.isfinite(outs[:, SOC]) & np.isfinite(outs[:, SD])
    if not finite.all():
        k = int(np.argmin(finite))
        raise FilterError(
            f"filter {name}: no finite estimate from sample {k} on, at {chunk.time_s[k]:.9g} s; try another --filter"
        )


def _not_after(chunk: Series, belief: StateEstimate) -> tuple[str, ...]:
    """Return a warning if samples are skipped because the state estimate has a later time."""
    late = int((chunk.time_s <= belief.time_s).sum())
    if late == 0:
        return ()
    return (
        f"time_s: {late} of {len(chunk)} samples are not after the belief's time {belief.time_s:.9g} s and were "
        "skipped; if the clock was set back, start anew",
    )


def doubts(series: Series, cell: CellParameters) -> tuple[str, ...]:
    """Return what looks wrong in the recording as one of this cell, with evidence; the recording is used unchanged."""
    found = []
    sign = wrong_sign(series)
    if sign is not None:
        found.append(f"current_a has the wrong sign: {sign}")
    middle, largest = float(np.median(series.voltage_v)), float(np.abs(series.current_a).max())
    if not 0.6 * cell.voltage_min_v < middle < 1.3 * cell.voltage_max_v:
        found.append(
            f"voltage_v: median {middle:.3g} V is not this cell's ({cell.voltage_min_v:g}..{cell.voltage_max_v:g} V)"
        )
    if largest > 50.0 * cell.nominal_ah:
        found.append(f"current_a: {largest:.4g} A is {largest / cell.nominal_ah:.0f} times the capacity per hour: mA?")
    return tuple(found)


def carry_cells(
    model: Model, beliefs: Sequence[StateEstimate], samples: Samples, threads: int | None = None
) -> tuple[list[StateEstimate], Array]:
    """Return the state estimates of many cells of one kind after their samples, and the outputs [cell, sample, column].

    Cells are divided among threads (default: one per core); the result does not depend on the division.
    """
    for belief in beliefs:
        model.check(belief)
    means, covs, memories = (np.stack([getattr(b, k) for b in beliefs]) for k in ("mean", "cov", "memory"))
    outs = np.empty((*samples.time_s.shape, OUTPUTS))
    run_threaded(model, means, covs, memories, samples, outs, threads or os.cpu_count() or 1)
    parts = zip(means, covs, memories, strict=True)
    return [StateEstimate(*model.names, model.states, *part) for part in parts], outs


def run_threaded(
    model: Model, means: Array, covs: Array, memories: Array, samples: Samples, outs: Array, threads: int
) -> None:
    """Run `Model.run` with the cells divided among threads; the compiled code does not hold Python's lock."""
    edges = np.linspace(0, len(means), min(threads, len(means)) + 1).astype(int)

    def part(low: int, high: int) -> None:
        own = Samples(*(column[low:high] for column in samples))
        model.run(means[low:high], covs[low:high], memories[low:high], own, outs[low:high])

    with ThreadPoolExecutor(len(edges) - 1) as pool:
        for done in [pool.submit(part, *ends) for ends in pairwise(edges)]:
            done.result()
