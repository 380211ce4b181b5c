"""One run as the columns of a linear problem, and the compiled loops over its samples.

**Sign**: inside this module discharge is positive, as in the literature; `columns_of` reverses the sign once.

The unknowns form one row: the shift on its knots, R0 and the pairs' R on theirs (V at 1C), M on its own, M0. In a
sample's row only few entries are not zero: two neighbouring knots of each curve. Compiled code allocates nothing; it
uses the work arrays of a `ParameterBounds`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import GRID, Ocv, read
from soc.identify.fit_results import KELVIN, Anchor, Settings
from soc.identify.runs import Run
from soc.models.compiled import compiled

Array = NDArray[np.float64]
Places = NDArray[np.int64]


class Regressors(NamedTuple):
    """One run for the compiled loops. `*_at` is a knot and `*_weight` its weight; the next knot has the rest."""

    dt_s: Array
    current_a: Array
    effective_a: Array  # charge times η
    rest_v: Array  # voltage minus `base_v`
    base_v: Array  # OCV and the neighbours' share of the shift
    keep: NDArray[np.bool_]
    share: Array  # weight of this anchor in the shift
    scale: Array  # [1 + pairs, n]: resistances at the sample over this anchor's
    shift_at: Places
    shift_weight: Array
    r_at: Places
    r_weight: Array
    m_at: Places
    m_weight: Array
    h_start: float


class HysteresisLaw(NamedTuple):
    """The given values of a linear problem, and the number of knots of its curves."""

    tau_s: Array
    gamma: float
    capacity_ah: float
    charge_transfer_a: float
    shift_knots: int
    r_knots: int
    m_knots: int


class ParameterBounds(NamedTuple):
    """Work arrays of the compiled loops: i_R, zero at the start, and the indices and values of a row."""

    i_r: Array
    at: Places
    value: Array


def room(pairs: int) -> ParameterBounds:
    """Return work arrays for a model with this number of pairs."""
    width = 2 + 2 * (pairs + 1) + 3
    return ParameterBounds(np.zeros(pairs), np.zeros(width, dtype=np.int64), np.zeros(width))


def columns_of(
    run: Run, ocv: Ocv, settings: Settings, own: Anchor | None, neighbours: Mapping[float, Anchor]
) -> Regressors:
    """Return the run's columns; with `own` known, interpolated between it and its neighbours as in filters."""
    series = run.series
    discharge = -series.current_a
    n, rows = len(series), 1 + len(settings.tau_start_s)
    share, scale, known = np.ones(n), np.ones((rows, n)), np.zeros(n)
    if own is not None:
        for other in _bracketing(own.temperature_degc, neighbours):
            _blend(run, settings, own, other, share, scale, known)
    base = _ocv_along(ocv, run.soc, series.temperature_degc) + known
    return Regressors(
        np.concatenate(([0.0], np.diff(series.time_s))),
        discharge,
        np.where(discharge < 0, run.efficiency, 1.0) * discharge,
        series.voltage_v - base,
        base,
        (run.soc >= settings.lowest_soc) & (np.arange(n) > 0),
        share,
        scale,
        *place(run.soc, settings.soc_knots),
        *place(run.soc, settings.r_knots),
        *place(run.soc, settings.m_knots),
        1.0 if run.starts_full else 0.0,
    )


def share_of(temperature_degc: Array, own_degc: float, other_degc: float) -> Array:
    """Return the weight of the anchor at `own_degc` at these temperatures: 1 at it and beyond, 0 at the other."""
    if own_degc == other_degc:
        return np.ones_like(temperature_degc)
    return np.clip((other_degc - temperature_degc) / (other_degc - own_degc), 0.0, 1.0)


def place(soc: Array, knots: Array) -> tuple[Places, Array]:
    """Return the knot below each z and its weight (the next knot has the rest); clamped outside."""
    if len(knots) == 1:
        return np.zeros(len(soc), dtype=np.int64), np.ones(len(soc))
    k = np.clip(np.searchsorted(knots, soc, side="right") - 1, 0, len(knots) - 2)
    weight = np.clip((knots[k + 1] - soc) / (knots[k + 1] - knots[k]), 0.0, 1.0)
    return k.astype(np.int64), weight


def _bracketing(temperature_degc: float, neighbours: Mapping[float, Anchor]) -> list[Anchor]:
    """Return the nearest neighbour below and above, where there is one."""
    below = [t for t in neighbours if t < temperature_degc]
    above = [t for t in neighbours if t > temperature_degc]
    return [neighbours[t] for t in ([max(below)] if below else []) + ([min(above)] if above else [])]


def _blend(run: Run, settings: Settings, own: Anchor, other: Anchor, share: Array, scale: Array, known: Array) -> None:
    """Update share, scale and known for the samples on the side of one neighbour."""
    degc = run.series.temperature_degc
    part = share_of(degc, own.temperature_degc, other.temperature_degc)
    side = part < share
    known[side] = ((1 - part) * np.interp(run.soc, settings.soc_knots, other.shift_v))[side]
    own_k, other_k = 1 / (own.temperature_degc + KELVIN), 1 / (other.temperature_degc + KELVIN)
    weight = np.clip((1 / (degc + KELVIN) - own_k) / (other_k - own_k), 0.0, 1.0)
    for j in range(len(scale)):
        there, here = (np.interp(run.soc, settings.r_knots, a.r_ohm[j]) for a in (other, own))
        scale[j, side] = np.exp(weight * np.log(there / here))[side]
    share[side] = part[side]


def _ocv_along(ocv: Ocv, soc: Array, temperature_degc: Array) -> Array:
    """Return OCV(z,T) along a run, V."""
    return np.asarray(read(ocv.ocv0_v, soc) + temperature_degc * np.interp(soc, GRID, ocv.ocvrel_v_per_k))


@compiled
def accumulate(
    c: Regressors, law: HysteresisLaw, work: ParameterBounds, matrix: Array, right: Array
) -> tuple[float, int]:
    """Add one run's normal equations to matrix and right; return Σy² and the number of samples."""
    h, s, square, count = c.h_start, 0.0, 0.0, 0
    for k in range(1, len(c.dt_s)):
        h, s = _advance(c, law, work.i_r, k, h, s)
        if not c.keep[k]:
            continue
        n = _row(c, law, work, k, h, s)
        y = c.rest_v[k]
        for a in range(n):
            for b in range(n):
                matrix[work.at[a], work.at[b]] += work.value[a] * work.value[b]
            right[work.at[a]] += work.value[a] * y
        square += y * y
        count += 1
    return square, count


@compiled
def evaluate(c: Regressors, law: HysteresisLaw, work: ParameterBounds, x: Array, out: Array) -> None:
    """Fill `out` with the linear part of the model along one run, V, for the unknowns x."""
    h, s = c.h_start, 0.0
    for k in range(len(c.dt_s)):
        h, s = _advance(c, law, work.i_r, k, h, s)
        n = _row(c, law, work, k, h, s)
        out[k] = 0.0
        for a in range(n):
            out[k] += x[work.at[a]] * work.value[a]


@compiled
def _advance(c: Regressors, law: HysteresisLaw, i_r: Array, k: int, h: float, s: float) -> tuple[float, float]:
    """Propagate i_R (in place) over the interval before sample k; return h and s at its end."""
    current = c.effective_a[k]
    for j in range(len(i_r)):
        a = math.exp(-c.dt_s[k] / law.tau_s[j])
        i_r[j] = a * i_r[j] + (1.0 - a) * current
    decay = math.exp(-abs(law.gamma * current * c.dt_s[k] / (3600.0 * law.capacity_ah)))
    h = decay * h - (1.0 - decay) * np.sign(current)
    if abs(current) > law.capacity_ah / 100.0:
        s = -np.sign(current)
    return h, s


@compiled
def _row(c: Regressors, law: HysteresisLaw, work: ParameterBounds, k: int, h: float, s: float) -> int:
    """Write the non-zero entries of sample k's row; return their number."""
    n = _curve(work, 0, 0, law.shift_knots, c.shift_at[k], c.shift_weight[k], c.share[k])
    start = law.shift_knots
    for j in range(len(work.i_r) + 1):
        x = c.current_a[k] if j == 0 else work.i_r[j - 1]
        if j == 1 and law.charge_transfer_a < np.inf:
            x = law.charge_transfer_a * math.asinh(x / law.charge_transfer_a)
        x = -x * c.scale[j, k] / law.capacity_ah
        n = _curve(work, n, start, law.r_knots, c.r_at[k], c.r_weight[k], x)
        start += law.r_knots
    n = _curve(work, n, start, law.m_knots, c.m_at[k], c.m_weight[k], h)
    return _curve(work, n, start + law.m_knots, 1, 0, 1.0, s)


@compiled
def _curve(work: ParameterBounds, n: int, start: int, knots: int, at: int, weight: float, x: float) -> int:
    """Write x for a curve at its knot below and, if there is one, the next; return the new count."""
    work.at[n] = start + at
    work.value[n] = x * weight
    if knots == 1:
        return n + 1
    work.at[n + 1] = start + at + 1
    work.value[n + 1] = x * (1.0 - weight)
    return n + 2
