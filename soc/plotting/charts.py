"""Charts of recordings and estimates as matplotlib figures: for notebooks, and for files without a display.

Bands are three standard deviations. The time axis is in hours since the start; states of charge are in %.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from soc import libraries
from soc.errors import OptionError
from soc.files import whole_file
from soc.series import Series, gaps

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise OptionError(f"plots: {libraries.advice(error) or error}") from error

Array = NDArray[np.float64]

SUFFIXES = (".png", ".svg", ".pdf")
MOST_POINTS = 4000  # a chart has fewer pixels
ESTIMATE, REFERENCE, MEASURED = "#1f6feb", "#1a1a1a", "#6e7781"
OTHERS = ("#d1242f", "#1a7f37", "#8250df", "#bf8700")


class Estimated(Protocol):
    """The result of `soc.estimate`."""

    @property
    def time_s(self) -> Array: ...
    @property
    def soc(self) -> Array: ...
    @property
    def soc_lo(self) -> Array: ...
    @property
    def soc_hi(self) -> Array: ...
    @property
    def innovation_v(self) -> Array: ...
    @property
    def innovation_sd_v(self) -> Array: ...


def recorded(series: Series, title: str = "") -> Figure:
    """Draw current, voltage and temperature of a recording."""
    figure, axes = _stack(3, title, (1.0, 1.0, 0.5))
    hours, rows = _hours(series.time_s)
    for axis, values, label in zip(
        axes,
        (series.current_a, series.voltage_v, series.temperature_degc),
        ("current, A\n(+ charges)", "voltage, V", "°C"),
        strict=True,
    ):
        axis.plot(hours, values[rows], color=MEASURED, linewidth=0.8)
        axis.set_ylabel(label)
    return figure


def estimated(series: Series, found: Estimated, reference: Array | None = None, title: str = "") -> Figure:
    """Draw current, voltage, the estimate with its bounds (and the reference), and the innovations with theirs."""
    figure, (current, voltage, soc, innovation) = _stack(4, title, (0.6, 0.6, 1.6, 0.8))
    hours, rows = _hours(series.time_s)
    current.plot(hours, series.current_a[rows], color=MEASURED, linewidth=0.7)
    current.set_ylabel("current, A\n(+ charges)")
    voltage.plot(hours, series.voltage_v[rows], color=MEASURED, linewidth=0.7)
    voltage.set_ylabel("voltage, V")
    band(soc, found, "estimate ± 3σ")
    if reference is not None and np.isfinite(reference).any():
        soc.plot(hours, 100 * reference[rows], color=REFERENCE, linewidth=1.0, linestyle="--", label="reference")
    soc.set_ylabel("state of charge, %")
    soc.legend(loc="best")
    bound = 3e3 * found.innovation_sd_v[rows]
    innovation.fill_between(hours, -bound, bound, color=ESTIMATE, alpha=0.15, linewidth=0, label="± 3σ expected")
    innovation.plot(hours, 1e3 * found.innovation_v[rows], color=MEASURED, linewidth=0.6, label="measured − expected")
    innovation.set_ylabel("innovation, mV")
    sizes = np.concatenate([bound, 1e3 * np.abs(found.innovation_v[rows])])
    if np.isfinite(sizes).any():  # otherwise the few wide bands behind a gap would reduce the rest to a line
        most = 1.3 * float(np.nanpercentile(sizes, 99.0))
        innovation.set_ylim(-max(most, 1e-3), max(most, 1e-3))
    innovation.legend(loc="best", ncols=2)
    return figure


def compared(estimates: Mapping[str, Estimated], time_s: Array, reference: Array, title: str = "") -> Figure:
    """Draw the estimates of several filters, and their errors within their own bounds."""
    figure, (soc, error) = _stack(2, title, (1.2, 1.0))
    hours, rows = _hours(time_s)
    soc.plot(hours, 100 * reference[rows], color=REFERENCE, linewidth=1.2, linestyle="--", label="reference", zorder=3)
    for (name, found), color in zip(estimates.items(), (ESTIMATE, *OTHERS), strict=False):
        soc.plot(hours, 100 * found.soc[rows], color=color, linewidth=1.2, label=name)
        error.plot(hours, 100 * (found.soc - reference)[rows], color=color, linewidth=1.0)
        width = 100 * (found.soc_hi - found.soc)[rows]
        error.plot(hours, width, color=color, linewidth=0.8, linestyle=":")
        error.plot(hours, -width, color=color, linewidth=0.8, linestyle=":")
    soc.set_ylabel("state of charge, %")
    soc.legend(loc="best")
    error.axhline(0.0, color=REFERENCE, linewidth=0.6)
    error.set_ylabel("error, %\n(dotted: ± 3σ)")
    return figure


def band(axis: Axes, found: Estimated, label: str, color: str = ESTIMATE) -> None:
    """Draw an estimate with its bounds."""
    hours, rows = _hours(found.time_s)
    low, high = 100 * found.soc_lo[rows], 100 * found.soc_hi[rows]
    axis.fill_between(hours, low, high, color=color, alpha=0.2, linewidth=0)
    axis.plot(hours, 100 * found.soc[rows], color=color, linewidth=1.4, label=label)


def save(figure: Figure, path: Path) -> None:
    """Write the figure; the suffix selects the format. Raises `OptionError` for another suffix, `FileError`."""
    if path.suffix not in SUFFIXES:
        raise OptionError(f"{path}: expected a name ending in {', '.join(SUFFIXES)}")
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix.lstrip("."), dpi=130)


def _stack(count: int, title: str, heights: tuple[float, ...]) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels above each other with one time axis."""
    figure = Figure(figsize=(9.0, 1.2 + 1.9 * sum(heights)), layout="constrained")
    axes = list(figure.subplots(count, 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    for axis in axes:
        axis.grid(visible=True, color="#d0d7de", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.0)
    axes[-1].set_xlabel("hours")
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, axes


def _hours(time_s: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return hours since the start, and the indices of the rows to draw of a long recording.

    Lines end at a gap: the row before it is drawn as well, and again with no time, which breaks every line there.
    """
    before = np.flatnonzero(gaps(time_s))
    kept = np.unique(
        np.concatenate([np.arange(0, len(time_s), max(1, len(time_s) // MOST_POINTS)), before, before + 1])
    )
    breaks = np.searchsorted(kept, before, side="right")
    rows = np.insert(kept, breaks, before)
    hours = (time_s[rows] - time_s[0]) / 3600.0
    hours[breaks + np.arange(len(breaks))] = np.nan
    return hours, rows
