"""Line charts as inline SVG, for a report that opens anywhere and loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 44
# The Okabe–Ito colours, which colour-blind readers can distinguish, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#000000")
POINTS_MAX = 600  # more points are not visible at this width


@dataclass(frozen=True, eq=False)
class Line:
    """One curve and its name."""

    name: str
    x: Array
    y: Array


def chart(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """Return an SVG element with these curves; values that are not finite leave gaps."""
    x_low, x_high = _range([line.x for line in lines])
    y_low, y_high = _range([line.y for line in lines])

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">']
    for tick in ticks(x_low, x_high):
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for tick in ticks(y_low, y_high):
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for line, colour in zip(lines, _colours(len(lines)), strict=True):
        x_all, y_all = thinned(line.x, line.y)
        for run in _finite_runs(x_all, y_all):
            points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in run)
            parts.append(f'<polyline points="{points}" stroke="{colour}"/>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_label)}</text>'
    )
    return "".join(parts) + "</svg>" + legend([line.name for line in lines])


def legend(names: Sequence[str]) -> str:
    """Return the names of curves beside their colours, as HTML."""
    marks = zip(names, _colours(len(names)), strict=True)
    items = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in marks)
    return f'<p class="legend">{"".join(items)}</p>'


def ticks(low: float, high: float) -> list[float]:
    """Return about six round values between low and high, 1, 2 or 5 times a power of ten apart."""
    step = 10.0 ** np.floor(np.log10((high - low) / 5))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 7)
    first = np.ceil(low / step - 1e-9)
    return [round(float(k * step), 10) + 0.0 for k in np.arange(first, high / step + 1e-9)]


def thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """Return at most 600 points of a curve: the least and greatest value of each of 300 sections, in order."""
    if len(x) <= POINTS_MAX:
        return x, y
    stretches = np.array_split(np.arange(len(x)), POINTS_MAX // 2)
    kept = [int(part[f(y[part])]) for part in stretches for f in (np.argmin, np.argmax)]
    rows = np.unique(kept)
    return x[rows], y[rows]


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _range(values: Sequence[Array]) -> tuple[float, float]:
    """Return the least and greatest finite value; with a margin if they are equal."""
    finite = [v[np.isfinite(v)] for v in values]
    everything = np.concatenate(finite) if finite else np.zeros(0)
    if not len(everything):
        return 0.0, 1.0
    low, high = float(everything.min()), float(everything.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _finite_runs(x: Array, y: Array) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(a) and np.isfinite(b):
            runs[-1].append((a, b))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
