"""Recordings with a reference state of charge, the input of identification and scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soc.errors import SeriesError
from soc.series import Series

Array = NDArray[np.float64]

REFERENCE_GAP = 0.02  # a larger difference in state of charge between sampled current and reference gives a warning
REGENERATION_RATE = 0.05  # charging at more than this many capacities per hour shows the instantaneous hysteresis
REGENERATION_SHARE = 0.005  # … if it fills this share of the recording
FULL = 0.98  # a run that begins above this was charged just before: its hysteresis is on the charge side


@dataclass(frozen=True, eq=False)
class Run:
    """One recording of one cell and its reference: `soc` at each sample, from a tester's counter.

    `kind` distinguishes tests of different nature (a drive cycle, a slow discharge): a run can only replace one of its
    own kind. `temperature_degc` is the temperature of the test (the chamber's); `capacity_ah` and `efficiency` belong
    to the reference. The cell is at rest when the recording begins. Raises `SeriesError` if the lengths differ.
    """

    name: str
    temperature_degc: float
    capacity_ah: float
    efficiency: float
    series: Series
    soc: Array
    kind: str = "drive"

    def __post_init__(self) -> None:
        if len(self.soc) != len(self.series):
            raise SeriesError(f"run {self.name!r}: {len(self.series)} samples but {len(self.soc)} reference values")
        if not np.isfinite(self.soc).all():
            raise SeriesError(f"run {self.name!r}: the reference has values that are not numbers")

    def __getitem__(self, rows: slice) -> Run:
        """Return the same run with these rows only."""
        part = self.series[rows]
        return Run(self.name, self.temperature_degc, self.capacity_ah, self.efficiency, part, self.soc[rows], self.kind)

    @property
    def starts_full(self) -> bool:
        """Return whether the cell was fully charged just before."""
        return bool(self.soc[0] > FULL)

    @property
    def regenerates(self) -> bool:
        """Return whether the current charges often enough to tell M0 from R0."""
        return float(np.mean(self.series.current_a > REGENERATION_RATE * self.capacity_ah)) > REGENERATION_SHARE


def counted_soc(
    charged_ah: Array, discharged_ah: Array, capacity_ah: float, efficiency: float, start: float = 1.0
) -> Array:
    """Return the reference of a run from the tester's counters (0 at its start): start − (D − η·C)/Q."""
    return start - (discharged_ah - efficiency * charged_ah) / capacity_ah


def dynamic_capacity(
    charged_ah: Sequence[float], discharged_ah: Sequence[float], efficiency_room: float
) -> tuple[float, float]:
    """Return capacity (Ah) and efficiency from the three scripts of a dynamic test, the last two run at 25 °C.

    With the test itself at 25 °C pass `room_efficiency` of the same three scripts.
    """
    (c1, c2, c3), (d1, d2, d3) = charged_ah, discharged_ah
    efficiency = (d1 + d2 + d3 - efficiency_room * (c2 + c3)) / c1
    return d1 + d2 - efficiency * c1 - efficiency_room * c2, efficiency


def reference_warning(run: Run) -> str | None:
    """Return a warning if the reference and the summed sampled current differ by more than 2 % of the capacity."""
    series = run.series
    current = np.where(series.current_a > 0, run.efficiency, 1.0) * series.current_a
    counted = np.concatenate(([0.0], np.cumsum(current[1:] * np.diff(series.time_s)))) / 3600.0 / run.capacity_ah
    gap = counted - (run.soc - run.soc[0])
    worst = int(np.argmax(np.abs(gap)))
    if abs(gap[worst]) <= REFERENCE_GAP:
        return None
    return (
        f"{run.name}: reference inconsistent: at {series.time_s[worst]:.0f} s the sampled current has moved "
        f"{100 * gap[worst]:+.1f} % more than the reference; look for missing rows, a wrong capacity or sign"
    )
