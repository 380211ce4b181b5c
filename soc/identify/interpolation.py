"""Interpolate anchors at temperatures that were not tested, where the tested ones lie far apart.

Between two tests filters interpolate linearly (log R against 1/T_K). Over 20 K or more that is not accurate enough,
because the slope of log R itself changes. A monotone cubic (Fritsch–Carlson: no overshoot, unlike a spline) through all
anchors' log R and shift against 1/T_K halves the voltage error at left-out temperatures (A123, 40 K apart: 13 → 7.5 mV
at 5 °C; and the C/30 discharges at −5, 15 and 35 °C, never used for the fit, are within 3 mV on average). Its values at
the middle of each wide gap become rows of the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from soc.identify.fit_results import KELVIN, Anchor, Fit

Array = NDArray[np.float64]

WIDE_K = 18.0  # a gap of at least this width gets a row in its middle


def filled(found: Fit) -> Fit:
    """Return the fit with an interpolated anchor in the middle of each wide gap between its anchors."""
    at = [a.temperature_degc for a in found.anchors]
    middles = [(low + high) / 2 for low, high in pairwise(at) if high - low >= WIDE_K]
    return with_rows(found, middles)


def with_rows(found: Fit, temperatures: Sequence[float]) -> Fit:
    """Return the fit with interpolated anchors at these temperatures added."""
    anchors = [*found.anchors, *(interpolated(found.anchors, t) for t in temperatures)]
    return replace(found, anchors=tuple(sorted(anchors, key=lambda a: a.temperature_degc)))


def interpolated(anchors: Sequence[Anchor], temperature_degc: float) -> Anchor:
    """Return the anchor at a temperature between others; `rms_v` and `sd` are the greater of the neighbours'."""
    at = np.array([a.temperature_degc for a in anchors])
    inverse = -1 / (at + KELVIN)
    here = -1 / (temperature_degc + KELVIN)
    right = int(np.searchsorted(at, temperature_degc))
    low, high = anchors[right - 1], anchors[right]

    def linear(value: Callable[[Anchor], float]) -> float:
        return float(np.interp(temperature_degc, at, [value(a) for a in anchors]))

    per_i0 = linear(lambda a: 1 / a.charge_transfer_a)
    capacity = linear(lambda a: a.capacity_ah)
    log_r = PchipInterpolator(inverse, np.log([a.r_ohm for a in anchors]))(here)
    return Anchor(
        temperature_degc=temperature_degc,
        capacity_ah=capacity,
        efficiency=linear(lambda a: a.efficiency),
        charge_transfer_a=1 / per_i0 if per_i0 > 0 else float("inf"),
        shift_v=np.asarray(PchipInterpolator(inverse, [a.shift_v for a in anchors])(here)),
        r_v=np.asarray(np.exp(log_r) * capacity),
        m_v=np.asarray(PchipInterpolator(inverse, [a.m_v for a in anchors])(here)),
        m0_v=linear(lambda a: a.m0_v),
        rms_v=max(low.rms_v, high.rms_v),
        sd=np.maximum(low.sd, high.sd),
        m0_observable=low.m0_observable and high.m0_observable,
        tested=False,
    )
