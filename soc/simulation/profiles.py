"""Current profiles for simulations. Positive current charges; amperes scale with the cell's nominal capacity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from soc.cell.parameters import CellParameters
from soc.errors import OptionError

Array = NDArray[np.float64]
Random = np.random.Generator

FULL, EMPTY = 1.0, 0.02  # limits of the state of charge in a built-in profile
DAY_S = 86_400.0


def rest(time_s: Array, _: Random) -> Array:
    """No current."""
    return np.zeros_like(time_s)


def discharge(time_s: Array, _: Random) -> Array:
    """Discharge at C/5."""
    return np.full_like(time_s, -0.2)


def charge(time_s: Array, _: Random) -> Array:
    """Charge at C/5."""
    return np.full_like(time_s, 0.2)


def cycle(time_s: Array, _: Random) -> Array:
    """Alternate an hour of discharge at C/2 with an hour of charge at C/2: half of the capacity."""
    return np.where((time_s // 3600.0) % 2 == 0, -0.5, 0.5)


def pulses(time_s: Array, _: Random) -> Array:
    """Every ten minutes: 10 s discharge at 1C, 40 s rest, 10 s charge at 0.75C, five minutes discharge at C/5, rest."""
    since = time_s % 600.0
    steps = [since < 10, since < 50, since < 60, since < 100, since < 400]
    return np.select(steps, [-1.0, 0.0, 0.75, 0.0, -0.2], 0.0)


def drive(time_s: Array, random: Random) -> Array:
    """A new current every 15 s on average, between 2C discharge and 0.5C charge, with a mean of C/2 discharge."""
    change = random.random(len(time_s)) < np.diff(time_s, prepend=time_s[0]) / 15.0
    demand = np.clip(random.normal(-0.5, 0.6, int(change.sum()) + 1), -2.0, 0.5)
    return np.asarray(demand[np.cumsum(change)])


def solar(time_s: Array, random: Random) -> Array:
    """Days of a house: sun from 7 to 19 h through clouds, a base load, evening appliances; half the capacity a day."""
    hour = time_s % DAY_S / 3600.0
    sun = 0.11 * np.maximum(np.sin((hour - 7.0) / 12.0 * np.pi), 0.0) * ((hour > 7.0) & (hour < 19.0))
    load = np.where((hour > 18.0) & (hour < 22.0), 0.06, 0.012)
    return np.asarray(sun * _steps(time_s, DAY_S, 0.4, 1.1, random) * _steps(time_s, 300.0, 0.6, 1.0, random) - load)


def _steps(time_s: Array, width_s: float, low: float, high: float, random: Random) -> Array:
    """Return a random number between two others, a new one for each section of time."""
    stretch = ((time_s - time_s[0]) // width_s).astype(np.int64)
    return np.asarray(random.uniform(low, high, int(stretch[-1]) + 1)[stretch])


PROFILES: dict[str, Callable[[Array, Random], Array]] = {
    f.__name__: f for f in (rest, discharge, charge, cycle, pulses, drive, solar)
}


def current(
    name: str, cell: CellParameters, temperature_degc: float, soc0: float, duration_s: float, period_s: float, seed: int
) -> tuple[Array, Array]:
    """Return times and current, A, of a built-in profile; a full cell is not charged, an empty one ends the profile.

    Raises `OptionError` for another name, and for a cell that is empty from the start.
    """
    if name not in PROFILES:
        raise OptionError(f"no profile {name!r}; there are {', '.join(PROFILES)}, or give a file")
    time_s = np.arange(0.0, duration_s + period_s / 2, period_s)
    amperes = cell.nominal_ah * PROFILES[name](time_s, np.random.default_rng(seed))
    amperes[0] = 0.0
    capacity_ah = float(np.interp(temperature_degc, cell.temperature_degc, cell.capacity_ah))
    possible = _possible(amperes, soc0, period_s / 3600.0 / capacity_ah)
    if len(possible) < 2:
        raise OptionError(f"profile {name}: the cell is already empty at soc0 {soc0:g}")
    return time_s[: len(possible)], possible


def _possible(amperes: Array, soc: float, per_ampere: float) -> Array:
    """Return the current, limited to what the cell can accept or deliver."""
    taken: list[float] = []
    for ampere in amperes.tolist():
        flows = 0.0 if ampere > 0.0 and soc >= FULL else ampere
        soc += flows * per_ampere
        if soc < EMPTY and flows < 0.0:
            break
        taken.append(flows)
    return np.array(taken)
