"""Detect data that contradict the cell model: wrong units, an unsigned current, another or a worn cell.

A filter accepts any input; its innovations and counters show the contradiction. On recordings of the shipped cells with
the right units the mean r²/P_y is below 0.3, not one voltage in a thousand is left out as a fault, and covariance
inflation (bump) occurs less than once an hour. Wrong units and signs raise these by one to three orders of magnitude.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soc.cell.parameters import CellParameters
from soc.models.state import FilterMemory
from soc.series import Series, counted_ah

Array = NDArray[np.float64]

UPDATES_LEAST = 100  # voltages compared before any warning is given
GATED_SHARE, GATED_LEAST = 0.02, 30  # of the voltages left out as sensor faults
BUMPS_PER_MINUTE, BUMPS_LEAST = 0.1, 10
SQUARE_MOST = 2.0  # mean r²/P_y
EXCURSION_MOST = 1.5  # capacities between the lowest and the highest counted charge
SETTLE_S = 600.0  # a wrong initial state is corrected within this time
KNOWN_SD = 0.05  # a state of charge is compared with counted charge only if its sd is below this
SWING_LEAST, MISMATCH_LEAST = 0.25, 0.1  # of the state of charge
WINDOW_S = 86_400.0  # a warning covers the last one to two of these
CAUSES = "look at the unit of time_s, the sign of current_a, --cell, --series, --parallel and the cell's age"


class ConsistencyMonitor:
    """Monitors one cell's estimate piece by piece and checks the newest one to two days."""

    def __init__(self, cell: CellParameters) -> None:
        self._cell = cell
        self._previous: tuple[str, ...] = ()
        self._baseline: Array | None = None
        self._capacity_ah = float(cell.capacity_ah.max())  # at the temperature of the newest piece
        self._counted_ah = 0.0
        self._begun_s = np.nan
        self._reset(np.nan)

    def _reset(self, time_s: float) -> None:
        """Begin a new window."""
        self._since_s = time_s
        self._low_ah = self._high_ah = self._counted_ah
        self._lowest: tuple[float, float, float] | None = None  # state of charge, its sd and the counted Ah there
        self._highest: tuple[float, float, float] | None = None
        self._is_signed = False

    def add(self, series: Series, soc: Array, sd: Array, before: Array, after: Array) -> None:
        """Add a piece, its estimate and the filter's memory before and after it."""
        first_s, last_s = float(series.time_s[0]), float(series.time_s[-1])
        if self._baseline is None:
            self._begun_s, self._baseline = first_s, before
            self._reset(first_s)
        elif last_s - self._since_s > WINDOW_S:
            self._previous, self._baseline = self.warnings(), before
            self._reset(first_s)
        counted = self._counted_ah + counted_ah(series)
        self._counted_ah = float(counted[-1])
        self._low_ah = min(self._low_ah, float(counted.min()))
        self._high_ah = max(self._high_ah, float(counted.max()))
        if np.isfinite(series.temperature_degc).any():
            degc = float(np.nanmedian(series.temperature_degc))
            self._capacity_ah = float(np.interp(degc, self._cell.temperature_degc, self._cell.capacity_ah))
        limit = 1e-3 * self._cell.nominal_ah
        self._is_signed |= bool((series.current_a > limit).any() and (series.current_a < -limit).any())
        known = (sd < KNOWN_SD) & (series.time_s - self._begun_s > SETTLE_S)
        if known.any():
            z, at, spread = soc[known], counted[known], sd[known]
            low, high = int(np.argmin(z)), int(np.argmax(z))
            if self._lowest is None or z[low] < self._lowest[0]:
                self._lowest = (float(z[low]), float(spread[low]), float(at[low]))
            if self._highest is None or z[high] > self._highest[0]:
                self._highest = (float(z[high]), float(spread[high]), float(at[high]))
        self._memory, self._last_s = after, last_s

    def warnings(self) -> tuple[str, ...]:
        """Return the contradictions of the model, with evidence; each begins with its kind and a colon."""
        if self._baseline is None:
            return ()
        since = self._memory - self._baseline
        updates = since[FilterMemory.UPDATES]
        found = [*self._from_voltages(since), *self._from_charge()] if updates >= UPDATES_LEAST else []
        if not found and self._last_s - self._since_s < WINDOW_S / 24:
            return self._previous
        return tuple(found)

    def _from_voltages(self, since: Array) -> list[str]:
        """Return the contradictions shown by the filter's counters and innovations in this window."""
        updates, gated, bumps = since[FilterMemory.UPDATES], since[FilterMemory.GATED], since[FilterMemory.BUMPS]
        minutes = max(self._last_s - self._since_s, 1.0) / 60.0
        square = since[FilterMemory.SUM_SQUARES] / updates
        evidence = []
        if gated >= GATED_LEAST and gated > GATED_SHARE * updates:
            evidence.append(f"{100 * gated / updates:.0f} % of {updates:.0f} voltages left out as faults")
        if bumps >= BUMPS_LEAST and bumps > BUMPS_PER_MINUTE * minutes:
            evidence.append(f"the belief was widened {bumps:.0f} times in {minutes:.0f} min")
        if square > SQUARE_MOST:
            evidence.append(f"voltage errors are {np.sqrt(square):.1f} times what the model expects")
        if not evidence:
            return []
        sign = "" if self._is_signed else "; current_a never changes its sign"
        return [f"the voltages contradict the cell model: {', '.join(evidence)}{sign}; {CAUSES}"]

    def _from_charge(self) -> list[str]:
        """Return contradictions in the counted charge: it exceeds the capacity or disagrees with the voltage."""
        capacity_ah = self._capacity_ah
        moved = self._high_ah - self._low_ah
        found = []
        if moved > EXCURSION_MOST * capacity_ah:
            found.append(
                f"the counted charge contradicts the capacity: it moves over {moved:.4g} Ah, {moved / capacity_ah:.1f} "
                f"times the {capacity_ah:.4g} Ah of {self._cell.name}; {CAUSES}"
            )
        if self._lowest is not None and self._highest is not None:
            swing = self._highest[0] - self._lowest[0]
            counted = (self._highest[2] - self._lowest[2]) / capacity_ah
            bound = MISMATCH_LEAST + 3.0 * float(np.hypot(self._highest[1], self._lowest[1]))
            if max(swing, abs(counted)) > SWING_LEAST and abs(swing - counted) > bound:
                found.append(
                    f"the counted charge contradicts the voltages: between two states {100 * swing:.0f} % apart by "
                    f"voltage {100 * counted:.0f} % of the capacity was counted: a worn or another cell, an offset or "
                    "gain of current_a, or another unit of time_s"
                )
        return found
