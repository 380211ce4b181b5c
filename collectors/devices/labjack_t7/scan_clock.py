"""The time of a scan: CLOCK_BOOTTIME fitted against the scan counter.

A stream carries no time stamps. The device's crystal is accurate to tens of ppm; a packet arrives late by the delay of
network and scheduler, and never early. So the earliest arrival of each block of 5 s is used: the clock is a robust line
(Theil–Sen: the median of all pairs' slopes) through up to 5 minutes of such blocks. In the first minute the slope is
the device's nominal rate. Facts: docs/protocols/labjack_t7.md §6.
"""

from __future__ import annotations

from collections import deque

import numpy as np

BLOCK_NS = 5_000_000_000
MOST_BLOCKS = 60
LEAST_BLOCKS_FOR_SLOPE = 12
STEP_NS = 50_000_000
"""A whole block this far off the line: the counter is wrong (or the host slept), it is not network delay."""


class ScanClock:
    """The line through the arrivals. Lateness is measured against the nominal rate, in ns."""

    def __init__(self, rate_hz: float) -> None:
        self._period_ns = 1e9 / rate_hz
        self._origin_ns: int | None = None
        self._blocks: deque[tuple[int, float]] = deque(maxlen=MOST_BLOCKS)  # counter, minimum lateness in ns
        self._block_end_ns = 0
        self._earliest: tuple[int, float] | None = None
        self._slope_ns = 0.0
        self._offset_ns = 0.0

    @property
    def is_set(self) -> bool:
        """Return whether there is an anchor, so that times can be computed."""
        return self._origin_ns is not None

    def anchor(self, counter: int, boottime_ns: int) -> float:
        """Add the arrival of scan `counter` at this time. Return by how many ns the line jumped, usually 0."""
        if self._origin_ns is None:
            self._origin_ns = boottime_ns - round(counter * self._period_ns)
            self._block_end_ns = boottime_ns + BLOCK_NS
        late_ns = boottime_ns - self._origin_ns - counter * self._period_ns
        if self._earliest is None or late_ns < self._earliest[1]:
            self._earliest = (counter, late_ns)
        if not self._blocks:
            self._offset_ns = self._earliest[1]
        if boottime_ns < self._block_end_ns:
            return 0.0
        block, self._earliest, self._block_end_ns = self._earliest, None, boottime_ns + BLOCK_NS
        off_ns = block[1] - self._lateness_ns(block[0]) if self._blocks else 0.0
        jump_ns = off_ns if abs(off_ns) > STEP_NS else 0.0
        if jump_ns:
            self._blocks.clear()
        self._blocks.append(block)
        self._fit()
        return jump_ns

    def _lateness_ns(self, counter: float) -> float:
        return self._offset_ns + self._slope_ns * counter

    def _fit(self) -> None:
        counters, lateness = np.array(self._blocks, dtype=np.float64).T
        self._slope_ns = 0.0
        if len(counters) >= LEAST_BLOCKS_FOR_SLOPE:
            a, b = np.triu_indices(len(counters), k=1)
            self._slope_ns = float(np.median((lateness[b] - lateness[a]) / (counters[b] - counters[a])))
        self._offset_ns = float(np.median(lateness - self._slope_ns * counters))

    def boottime_ns(self, counter: float) -> int:
        """Return the time of this scan. Raise ValueError before the first anchor."""
        if self._origin_ns is None:
            raise ValueError("no packet has been anchored yet")
        return self._origin_ns + round(counter * self._period_ns + self._lateness_ns(counter))
