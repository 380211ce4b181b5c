"""From runs to a cell: the fit, its error on held-out data, and the parameters for filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters
from soc.identify.dynamic import by_temperature, fit, refine
from soc.identify.fit_results import Fit, Settings
from soc.identify.interpolation import filled
from soc.identify.least_squares import rounded
from soc.identify.noise import HeldOut, ModelUncertainty, held_out, noise_of
from soc.identify.runs import Run, reference_warning

Array = NDArray[np.float64]


@dataclass(frozen=True)
class About:
    """The contents of a cell file that are not fitted. Voltages in V, capacity as the maker states it."""

    name: str
    chemistry: str
    nominal_ah: float
    voltage_min_v: float
    voltage_max_v: float
    source: str
    procedure: str
    doubt: ModelUncertainty = field(default_factory=ModelUncertainty)


@dataclass(frozen=True, eq=False)
class Identified:
    """A cell, how it was identified, and its error on held-out data."""

    cell: CellParameters
    fit: Fit
    held_out: tuple[HeldOut, ...]
    warnings: tuple[str, ...]


def identify(runs: Sequence[Run], ocv: Ocv, about: About, settings: Settings | None = None) -> Identified:
    """Identify the cell from these runs; its noise is measured on held-out runs or temperatures."""
    found = fit(runs, ocv, settings)
    errors = held_out(runs, found)
    references = [w for w in map(reference_warning, runs) if w]
    return Identified(cell_of(filled(found), errors, about), found, tuple(errors), (*found.warnings, *references))


def cells_without(known: Identified, about: About) -> Iterator[tuple[Run, CellParameters, str]]:
    """Yield each drive cycle with the cell identified without it, to judge estimates, and what was left out.

    Left out is the run where its temperature has another of its kind, else the whole temperature. A run at the lowest
    or highest temperature that is the only one there cannot be left out ("nothing"). Time constants and γ, five numbers
    from all runs, are kept. The noise contains no residual of what was left out.
    """
    found, groups = known.fit, by_temperature([e.run for e in known.held_out if e.how != "temperature"])
    anchors = {a.temperature_degc: a for a in found.anchors}
    for t, runs in groups.items():
        for run in (r for r in runs if r.kind == "drive"):
            others = [r for r in runs if r is not run]
            if any(r.kind == run.kind for r in others):
                renewed = refine({t: others}, found.ocv, found.settings, found.tau_s, found.gamma, anchors, 1)
                errors, rest, how = (
                    [e for e in known.held_out if e.run is not run],
                    replace(found, anchors=renewed),
                    "run",
                )
            elif min(anchors) < t < max(anchors):
                errors = [e for e in known.held_out if e.run.temperature_degc != t]
                rest = replace(found, anchors=tuple(a for a in found.anchors if a.temperature_degc != t))
                how = "temperature"
            else:
                errors, rest, how = list(known.held_out), found, "nothing"
            yield run, cell_of(filled(rest), errors, about), how


def cell_of(found: Fit, errors: Sequence[HeldOut], about: About) -> CellParameters:
    """Return the parameters of a fit in the layout of filters, all on the fit's knots of z, rounded."""
    s, anchors = found.settings, found.anchors
    noise = noise_of(found, errors, s.soc_knots, about.doubt)
    return CellParameters(
        name=about.name,
        chemistry=about.chemistry,
        nominal_ah=about.nominal_ah,
        voltage_min_v=about.voltage_min_v,
        voltage_max_v=about.voltage_max_v,
        temperature_degc=np.array([a.temperature_degc for a in anchors]),
        soc_knots=s.soc_knots,
        capacity_ah=rounded([a.capacity_ah for a in anchors]),
        efficiency=rounded([a.efficiency for a in anchors]),
        ocv=Ocv(np.round(found.ocv.ocv0_v, 6), np.round(found.ocv.ocvrel_v_per_k, 9)),
        tau_s=rounded(np.repeat(found.tau_s[:, None], len(anchors), axis=1)),
        gamma=rounded(np.full(len(anchors), found.gamma)),
        charge_transfer_a=rounded([a.charge_transfer_a for a in anchors]),
        noise=noise,
        sd={name: rounded(value, 2) for name, value in _linear(found, [a.sd for a in anchors]).items()},
        source=about.source,
        procedure=about.procedure,
        **{name: rounded(value) for name, value in _linear(found, [a.coefficients for a in anchors]).items()},
    )


def _linear(found: Fit, coefficients: Sequence[Array]) -> dict[str, Array]:
    """Return the linear coefficients (or their standard deviations) of each anchor as tables over T and z knots."""
    s = found.settings
    knots, pairs = s.soc_knots, len(found.tau_s)
    n_s, n_r, n_m, _ = s.sizes
    capacity = np.array([a.capacity_ah for a in found.anchors])[:, None, None]
    x = np.array(coefficients)
    r = x[:, n_s : n_s + n_r * (1 + pairs)].reshape(len(x), 1 + pairs, n_r) / capacity
    r = np.array([[np.interp(knots, s.r_knots, row) for row in rows] for rows in r])
    return {
        "shift_v": x[:, :n_s],
        "r0_ohm": r[:, 0],
        "r_ohm": np.swapaxes(r[:, 1:], 0, 1),
        "m_v": np.array([np.interp(knots, s.m_knots, row) for row in x[:, -1 - n_m : -1]]),
        "m0_v": np.repeat(x[:, -1:], len(knots), axis=1),
    }
