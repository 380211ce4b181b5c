"""When a scan was taken: CLOCK_BOOTTIME fitted against the scan counter.

A stream carries no time. The device's crystal is good to tens of ppm, arrival of a packet is late by whatever network
and scheduler add, never early. So: in each block of 5 s the earliest arrival counts; a robust line (Theil–Sen: the
median of all pairs' slopes) through up to 5 minutes of such blocks is the clock. In the first minute the slope is the
device's nominal rate. Facts: docs/protocols/labjack_t7.md §6.
"""

from __future__ import annotations

from collections import deque

import numpy as np

BLOCK_NS = 5_000_000_000
MOST_BLOCKS = 60
LEAST_BLOCKS_FOR_SLOPE = 12
STEP_NS = 50_000_000
"""A whole block this far off the line: the counter is wrong (or the host slept), not the network slow."""


class ScanClock:
    """The line through arrivals. Lateness is measured against the nominal rate, in ns."""

    def __init__(self, rate_hz: float) -> None:
        self._period_ns = 1e9 / rate_hz
        self._origin_ns: int | None = None
        self._blocks: deque[tuple[int, float]] = deque(maxlen=MOST_BLOCKS)  # counter, least lateness
        self._block_end_ns = 0
        self._earliest: tuple[int, float] | None = None
        self._slope_ns = 0.0
        self._offset_ns = 0.0

    @property
    def is_set(self) -> bool:
        """Return whether it can tell a time yet."""
        return self._origin_ns is not None

    def anchor(self, counter: int, boottime_ns: int) -> float:
        """Learn that scan `counter` was due no later than this. Return by how many ns the line jumped, mostly 0."""
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
        """Return when this scan was taken; ValueError before the first anchor."""
        if self._origin_ns is None:
            raise ValueError("no packet has been anchored yet")
        return self._origin_ns + round(counter * self._period_ns + self._lateness_ns(counter))
