"""Boottime to wall time, from the clock table of one boot. Pure.

The table's rows are *segments*: from a row's boottime on, until the next row's, REALTIME − BOOTTIME was `offset_ns`.
A new row is written when the offset changes by more than STEP_NS and when a time service first synchronises the clock.
When a time service stops later, no row is written: BOOTTIME continues, so a correct offset stays correct.

The wall time of a segment's rows:

    synchronised      its own offset
    frozen            its own offset, whatever is found later: rows were shipped with it
    unsynchronised    the offset of the next synchronised or frozen segment of the boot, if there is one later;
                      else that of the next one that was set manually; else none yet: the rows must not be shipped
    set manually      the same, but else its own

So an offset applies to everything unsynchronised before it, back to the last segment that had a time of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from collectors.host.clock import ClockReading
from collectors.journal.records import SET_BY_PERSON, SYNCHRONISED, UNSYNCHRONISED, ClockStep, IntArray

STEP_NS = 1_000_000
"""Offsets that differ by less are regarded as the same offset, read with jitter."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of boottime with one offset; `state` UNSYNCHRONISED means that the offset is not known yet."""

    start_ns: int
    offset_ns: int
    state: int
    frozen: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """All segments of one boot, in order; the first one reaches back to the boot's beginning."""

    segments: Sequence[Segment]

    def index(self, boottime_ns: IntArray) -> IntArray:
        """Return for each stamp the index of its segment."""
        starts = np.array([s.start_ns for s in self.segments[1:]], dtype=np.int64)
        return np.searchsorted(starts, boottime_ns, side="right").astype(np.int64)

    def to_wall(self, boottime_ns: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Return wall time in ns since 1970 for each stamp, and whether it is known (else the time is 0)."""
        stamps = np.asarray(boottime_ns, dtype=np.int64)
        if not self.segments:
            return np.zeros_like(stamps), np.zeros(stamps.shape, dtype=np.bool_)
        at = self.index(stamps)
        offsets = np.array([s.offset_ns for s in self.segments], dtype=np.int64)
        known = np.array([s.state != UNSYNCHRONISED for s in self.segments])[at]
        return np.where(known, stamps + offsets[at], 0), known

    def states(self, boottime_ns: IntArray) -> IntArray:
        """Return the clock state of each stamp's offset: UNSYNCHRONISED, SYNCHRONISED or SET_BY_PERSON."""
        stamps = np.asarray(boottime_ns, dtype=np.int64)
        if not self.segments:
            return np.full(stamps.shape, UNSYNCHRONISED, dtype=np.int64)
        return np.array([s.state for s in self.segments], dtype=np.int64)[self.index(stamps)]

    def used(self, boottime_ns: IntArray) -> list[ClockStep]:
        """Return the unfrozen segments that determine the time of these stamps: freeze them before shipping."""
        found = [self.segments[i] for i in np.unique(self.index(boottime_ns))] if self.segments else []
        return [
            ClockStep(s.start_ns, s.offset_ns, s.state, frozen=True)
            for s in found
            if s.state != UNSYNCHRONISED and not s.frozen
        ]

    def intervals(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """Return the ranges of boottime, each [from, to), whose wall time lies in [start_ns, end_ns)."""
        ends = [*(s.start_ns for s in self.segments[1:]), 2**63 - 1]
        found = []
        for i, (segment, end) in enumerate(zip(self.segments, ends, strict=False)):
            if segment.state == UNSYNCHRONISED:
                continue
            begin = 0 if i == 0 else segment.start_ns
            low, high = max(begin, start_ns - segment.offset_ns), min(end, end_ns - segment.offset_ns)
            if low < high:
                found.append((low, high))
        return found


def resolve(steps: Sequence[ClockStep]) -> Timeline:
    """Return the timeline of these segments, by the rules above; `steps` rise in boottime."""
    known: ClockStep | None = None
    segments = []
    for step in reversed(steps):
        if step.frozen or step.state == SYNCHRONISED or (step.state == SET_BY_PERSON and known is None):
            known = step
        offset_ns, state = (known.offset_ns, known.state) if known else (step.offset_ns, UNSYNCHRONISED)
        segments.append(Segment(step.boottime_ns, offset_ns, state, step.frozen))
    return Timeline(segments[::-1])


def step_after(last: ClockStep | None, look: ClockReading) -> ClockStep | None:
    """Return the row that the clock table needs after this reading, or None if its last row is still valid.

    Once a boot's clock was set manually, only a time service overrides it: other changes of REALTIME are ignored.
    """
    seen = ClockStep(look.boottime_ns, look.offset_ns, look.state, frozen=False)
    if last is None:
        return seen
    if last.state == SET_BY_PERSON:
        return seen if look.state == SYNCHRONISED else None
    moved = abs(look.offset_ns - last.offset_ns) > STEP_NS
    vouched = look.state == SYNCHRONISED and last.state == UNSYNCHRONISED
    return seen if moved or vouched else None


def step_by_person(steps: Sequence[ClockStep], boottime_ns: int, offset_ns: int) -> ClockStep:
    """Return the row that sets a boot's offset manually; ValueError with the reason if its clock is known.

    `boottime_ns` is the time of the setting; for a boot that is over, any value.
    """
    if steps and steps[-1].state == SYNCHRONISED:
        raise ValueError("a time service has set the clock of this boot; it is known already")
    after_ns = steps[-1].boottime_ns + 1 if steps else 0
    return ClockStep(max(boottime_ns, after_ns), offset_ns, SET_BY_PERSON, frozen=False)


def with_frozen(steps: Sequence[ClockStep], frozen: Sequence[ClockStep]) -> list[ClockStep]:
    """Return the steps; those with which rows were shipped get the frozen offset and state."""
    shipped = {f.boottime_ns: f for f in frozen}
    return [replace(shipped[s.boottime_ns], frozen=True) if s.boottime_ns in shipped else s for s in steps]
