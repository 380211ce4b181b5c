"""The state estimate of a filter: mean and covariance of the state, and the filter's memory.

The state, with discharge positive as in the literature, is i_R1 .. i_Rn, h, z, then optionally the current sensor's
offset i_b and the voltage bias b. `memory` holds times, the last sample, running means and counters, under the names of
`FilterMemory`. A state estimate is immutable: a filter returns a new one, and `to_dict` converts it to JSON values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soc.errors import BeliefError

Array = NDArray[np.float64]

FORMAT = 1


class FilterMemory(IntEnum):
    """Indices into `StateEstimate.memory`. Times are on the recording's clock, s; nan: not yet."""

    TIME = 0
    DIRECTION = 1  # s of the model: −1, 0, +1
    CURRENT = 2  # last current, discharge positive, A
    TEMPERATURE = 3  # last known, °C
    TEMPERATURE_TIME = 4
    PERIOD = 5  # usual time between samples, s
    MEAN_SQUARE = 6  # recent, A²
    MEAN = 7  # recent, A
    BUMP_TIME = 8
    CONVERGED = 9
    GATE_SINCE = 10
    ANCHOR_SINCE = 11
    ANCHOR_TIME = 12
    LAST_NORMALISED = 13  # last r/√P_y
    SUM_SQUARES = 14  # Σ r²/P_y
    SUM_LAGGED = 15  # Σ r_k r_{k−1} / √(P_y,k P_y,k−1)
    # Counters
    SAMPLES = 16
    UPDATES = 17  # samples whose voltage was compared
    SKIPPED = 18  # time did not rise, or current missing
    GAPS = 19
    LONG_GAPS = 20
    GATED = 21
    GATE_OPENED = 22  # voltages were left out for too long: the state estimate counts as wrong, not the sensor
    BUMPS = 23
    FLOORED_PIVOTS = 24
    CLAMPED_HYSTERESIS = 25
    OUTSIDE_TEMPERATURE = 26  # beyond the tested range: the nearest tested temperature was used
    HELD_TEMPERATURE = 27
    LOST_TEMPERATURE = 28  # missing for longer than it may be held
    ANCHORS = 29
    FROZEN_OFFSET = 30  # the curve was too flat to correct the current's offset
    BENDS_LEFT_OUT = 32  # the negative centre weight made the second-order part negative
    CLAMPED_SOC = 31  # the estimate left −0.05..1.05: model and cell disagree


SLOTS = len(FilterMemory)
FIRST_COUNTER = int(FilterMemory.SAMPLES)


@dataclass(frozen=True, eq=False)
class StateEstimate:
    """The state estimate of one cell (arrays read-only); `model` is the id of the cell it was made with."""

    filter: str
    model: str
    states: tuple[str, ...]
    mean: Array  # (n,)
    cov: Array  # (n, n)
    memory: Array = field(repr=False)  # (SLOTS,)

    def __post_init__(self) -> None:
        for name in ("mean", "cov", "memory"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def time_s(self) -> float:
        """Return the time of the estimate on the recording's clock; nan before the first sample."""
        return float(self.memory[FilterMemory.TIME])

    def __getitem__(self, state: str) -> float:
        """Return the mean of a state by name."""
        return float(self.mean[self.states.index(state)])

    def sd(self, state: str) -> float:
        """Return the standard deviation of a state by name."""
        k = self.states.index(state)
        return float(np.sqrt(self.cov[k, k]))

    @property
    def counters(self) -> dict[str, int]:
        """Return the filter's counters: counter name → count since the initial state."""
        return {m.name.lower(): int(self.memory[m]) for m in FilterMemory if m >= FIRST_COUNTER}

    def to_dict(self) -> dict[str, Any]:
        """Return the state estimate as JSON values; floats keep every bit, nan becomes None."""
        numbers = {
            k: [None if np.isnan(x) else float(x) for x in getattr(self, k).ravel()] for k in ("mean", "cov", "memory")
        }
        return {"format": FORMAT, "filter": self.filter, "model": self.model, "states": list(self.states), **numbers}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StateEstimate:
        """Return the state estimate of `to_dict`. Raises `BeliefError` if it has another format or is damaged."""
        if values.get("format") != FORMAT:
            raise BeliefError(
                f"stored belief: format {values.get('format')!r}, this version reads {FORMAT}: start anew"
            )
        try:
            arrays = {k: np.array(values[k], dtype=np.float64) for k in ("mean", "cov", "memory")}
            n = len(values["states"])
            arrays["cov"] = arrays["cov"].reshape(n, n)
            if arrays["mean"].shape != (n,) or arrays["memory"].shape != (SLOTS,):
                raise ValueError("wrong number of values")
            if not (np.isfinite(arrays["mean"]).all() and np.isfinite(arrays["cov"]).all()):
                raise ValueError("a value is missing")
            if (arrays["cov"].diagonal() < 0.0).any():
                raise ValueError("a variance is negative")
            states = tuple(values["states"])
            if not (isinstance(values["filter"], str) and isinstance(values["model"], str) and "z" in states):
                raise ValueError("filter, model or states are not named")
            return cls(values["filter"], values["model"], states, **arrays)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BeliefError(f"stored belief is damaged ({error}): start anew") from error


def state_names(pairs: int, offset: bool, bias: bool) -> tuple[str, ...]:
    """Return the names of the states, in order."""
    return (*(f"i_r{j + 1}" for j in range(pairs)), "h", "z", *(("i_b",) if offset else ()), *(("b",) if bias else ()))


def blank_memory() -> Array:
    """Return the memory before the first sample: times nan, counters zero."""
    memory = np.zeros(SLOTS)
    for slot in (
        FilterMemory.TIME,
        FilterMemory.TEMPERATURE,
        FilterMemory.TEMPERATURE_TIME,
        FilterMemory.PERIOD,
        FilterMemory.BUMP_TIME,
    ):
        memory[slot] = np.nan
    for slot in (
        FilterMemory.GATE_SINCE,
        FilterMemory.ANCHOR_SINCE,
        FilterMemory.ANCHOR_TIME,
        FilterMemory.LAST_NORMALISED,
    ):
        memory[slot] = np.nan
    return memory
