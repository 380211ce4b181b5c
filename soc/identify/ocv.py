"""Open-circuit voltage from slow tests: the four-script test, or one slow discharge and charge.

Positive current charges, as everywhere outside the cell model. Ampere-hours come from the tester's counters, never
from the sampled current. After G. L. Plett, *Battery Management Systems* I, ch. 2.

The four scripts, at C/20 or slower, each counted anew: (1) at T from full: discharge to v_min; (2) at 25 °C: bring to
v_min at rest; (3) at T: charge to v_max; (4) at 25 °C: bring to v_max at rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import GRID, Ocv
from soc.errors import SeriesError

Array = NDArray[np.float64]

ROOM_DEGC = 25.0
CENTRE = 0.5  # the branches are joined at this z
RESISTANCE_RATIO_MAX = 2.0  # between the two branches at one end; a larger step is diffusion, not R·i
WHOLE_CHARGE = 0.95  # a charge that returns less than this share of the discharge was stopped early


@dataclass(frozen=True, eq=False)
class Script:
    """One script of a slow test: samples and the tester's two counters, which start at zero and only rise."""

    time_s: Array
    current_a: Array
    voltage_v: Array
    charged_ah: Array
    discharged_ah: Array

    @property
    def charge_ah(self) -> float:
        """Return the total charge, Ah."""
        return float(self.charged_ah[-1])

    @property
    def discharge_ah(self) -> float:
        """Return the total discharge, Ah."""
        return float(self.discharged_ah[-1])


@dataclass(frozen=True, eq=False)
class OcvTest:
    """A slow test's capacity, efficiency and OCV on `soc.cell.ocv.GRID`; `gap_v` is v_chg − v_dis at 50 %."""

    capacity_ah: float
    efficiency: float
    voltage_v: Array
    gap_v: float


def room_efficiency(scripts: Sequence[Script]) -> float:
    """Return η(25 °C) = ΣD/ΣC over scripts that were all run at 25 °C and end where they began."""
    return sum(s.discharge_ah for s in scripts) / sum(s.charge_ah for s in scripts)


def four_scripts(scripts: Sequence[Script], efficiency_room: float) -> OcvTest:
    """Return capacity, efficiency and OCV from the four scripts of one temperature; `efficiency_room` is η(25 °C).

    Raises `SeriesError` if a branch does not reach the middle, where the two are joined.
    """
    s1, s2, s3, s4 = scripts
    discharged = sum(s.discharge_ah for s in scripts)
    efficiency = (discharged - efficiency_room * (s2.charge_ah + s4.charge_ah)) / (s1.charge_ah + s3.charge_ah)
    capacity = s1.discharge_ah + s2.discharge_ah - efficiency * s1.charge_ah - efficiency_room * s2.charge_ah
    down = _branch(s1, -1)
    up = _branch(s3, +1)
    low = _limited(down.ohm_last, up.ohm_first)
    high = _limited(down.ohm_first, up.ohm_last)
    soc_down = 1.0 - s1.discharged_ah[down.rows] / capacity
    soc_up = efficiency * s3.charged_ah[up.rows] / capacity
    if soc_down.min() > CENTRE or soc_up.max() < CENTRE:
        raise SeriesError(
            f"OCV test: discharge reaches z = {soc_down.min():.2f}, charge {soc_up.max():.2f}; both must pass {CENTRE}"
        )
    v_down = down.voltage_v + down.ampere * (low[0] + (high[0] - low[0]) * soc_down)
    v_up = up.voltage_v - up.ampere * (low[1] + (high[1] - low[1]) * soc_up)
    curve, gap = blend(np.interp(GRID, soc_down[::-1], v_down[::-1]), np.interp(GRID, soc_up, v_up))
    return OcvTest(capacity, efficiency, curve, gap)


def blend(discharge_v: Array, charge_v: Array) -> tuple[Array, float]:
    """Return the OCV between two branches on `GRID`, each used where it starts from rest; and the gap at z = 0.5."""
    gap = float(np.interp(CENTRE, GRID, charge_v - discharge_v))
    return np.where(GRID < CENTRE, charge_v - GRID * gap, discharge_v + (1.0 - GRID) * gap), gap


def slow_pair(current_a: Array, voltage_v: Array, charge_ah: Array) -> OcvTest:
    """Return the OCV as the mean of a slow discharge and the charge after it, each normalised by its own Ah (± 10 mV).

    Capacity is that of the discharge. A charge that was stopped early is normalised by the discharge, and its missing
    end continues parallel to the discharge curve. Raises `SeriesError` if there is no such pair.
    """
    down, up = _longest(current_a < -_on(current_a)), _longest(current_a > _on(current_a))
    if down.stop - down.start < 3 or up.stop - up.start < 3:
        raise SeriesError("slow pair: expected one long discharge and one long charge in the recording")
    taken = float(charge_ah[down][0] - charge_ah[down][-1])
    given = float(charge_ah[up][-1] - charge_ah[up][0])
    soc_down = 1.0 + (charge_ah[down] - charge_ah[down][0]) / taken
    soc_up = (charge_ah[up] - charge_ah[up][0]) / (given if given > WHOLE_CHARGE * taken else taken)
    v_down = np.interp(GRID, soc_down[::-1], voltage_v[down][::-1])
    v_up = np.interp(GRID, soc_up, voltage_v[up])
    gap = v_up - v_down
    reached = np.searchsorted(GRID, soc_up[-1], side="right") - 1
    gap[reached + 1 :] = gap[reached]
    return OcvTest(taken, 1.0, v_down + gap / 2, float(np.interp(CENTRE, GRID, gap)))


def over_temperature(curves: Mapping[float, Array], lowest_degc: float = 0.0) -> Ocv:
    """Fit OCV0(z) + T·OCVrel(z) by least squares to curves on `GRID`; those below `lowest_degc` contain polarisation.

    One usable curve gives OCVrel = 0.
    """
    usable = {t: v for t, v in curves.items() if t >= lowest_degc} or dict(curves)
    temperature = np.array(list(usable))
    if len(temperature) == 1:
        return Ocv(next(iter(usable.values())), np.zeros_like(GRID))
    design = np.column_stack([np.ones_like(temperature), temperature])
    solution = np.linalg.lstsq(design, np.array(list(usable.values())), rcond=None)[0]
    return Ocv(solution[0], solution[1])


@dataclass(frozen=True, eq=False)
class _Branch:
    """The loaded part of a script: its rows, voltage, mean current, and the resistances of its first and last step."""

    rows: slice
    voltage_v: Array
    ampere: float
    ohm_first: float
    ohm_last: float


def _branch(script: Script, sign: int) -> _Branch:
    rows = _longest(sign * script.current_a > _on(script.current_a))
    ampere = float(np.median(np.abs(script.current_a[rows])))
    v = script.voltage_v
    before = v[rows.start - 1] if rows.start else v[rows.start]
    after = v[rows.stop] if rows.stop < len(v) else v[rows.stop - 1]
    first, last = abs(v[rows.start] - before) / ampere, abs(after - v[rows.stop - 1]) / ampere
    return _Branch(rows, v[rows], ampere, float(first), float(last))


def _on(current_a: Array) -> float:
    """Return the current, A, above which a current flows on purpose: half of the largest typical one."""
    return 0.5 * float(np.median(np.abs(current_a[current_a != 0.0]))) if np.any(current_a) else np.inf


def _longest(flag: NDArray[np.bool_]) -> slice:
    """Return the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flag.astype(np.int8), [0]))))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return slice(0, 0)
    k = int(np.argmax(stops - starts))
    return slice(int(starts[k]), int(stops[k]))


def _limited(down: float, up: float) -> tuple[float, float]:
    """Return the two branches' resistances at one end, each limited to twice the other's."""
    return min(down, RESISTANCE_RATIO_MAX * up), min(up, RESISTANCE_RATIO_MAX * down)
