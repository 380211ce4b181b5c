"""Report an identification and its accuracy: as one HTML file for readers, as JSON for programs.

Both contain the same: voltage errors of the fit and on held-out data by temperature, parameters with standard
deviations, residuals over state of charge and time, the noise that filters will assume, and warnings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import GRID
from soc.identify.fit_results import Anchor
from soc.identify.noise import HeldOut, local_mean
from soc.identify.result import Identified
from soc.plotting.svg import Line, chart

Array = NDArray[np.float64]

FORMAT = 1
MIDDLE = 0.5  # tables of parameters are for this state of charge
SOC_BINS: Array = np.linspace(0.0, 1.0, 21)


def summary(found: Identified) -> dict[str, Any]:
    """Return the report as plain numbers, for `json.dump`; voltages in V, resistances in Ω, times in s, NaN as null."""
    return {
        "format": FORMAT,
        "cell": found.cell.name,
        "model": found.cell.id,
        "source": found.cell.source,
        "procedure": found.cell.procedure,
        "tau_s": found.fit.tau_s.tolist(),
        "gamma": found.fit.gamma,
        "temperatures": [_temperature(found, a) for a in found.fit.anchors],
        "held_out": [
            {"run": e.run.name, "without": e.how, "rms_v": e.rms_v, "mean_v": float(e.residual_v[e.used].mean())}
            for e in found.held_out
        ],
        "warnings": list(found.warnings),
    }


def to_json(found: Identified) -> str:
    """Return the summary as JSON text."""
    return json.dumps(summary(found), indent=1, allow_nan=False, ensure_ascii=False)


def to_html(found: Identified) -> str:
    """Return the report as one HTML page."""
    s = summary(found)
    title = f"{s['cell']}: how the cell was identified, and what it is worth"
    warnings = "".join(f"<li>{escape(w)}</li>" for w in s["warnings"]) or "<li>none</li>"
    parts = [
        f"<h1>{escape(title)}</h1><p>Model {escape(s['model'])}. {escape(s['procedure'])}</p>",
        f"<p>{escape(s['source'])}</p><h2>Warnings</h2><ul>{warnings}</ul>",
        "<h2>Voltage error by temperature</h2>",
        _table(["°C", "fit, mV rms", "without the run", "without the temperature"], map(_error_row, s["temperatures"])),
        "<p>Above 5 % state of charge. “—”: nothing of the kind to hold out.</p>",
        f"<h2>Parameters at {100 * MIDDLE:g} % state of charge</h2>",
        f"<p>Shared by all temperatures: τ = {', '.join(f'{t:.3g}' for t in s['tau_s'])} s, γ = {s['gamma']:.3g}. "
        "± is one standard deviation, for coloured residuals.</p>",
        _table(_parameter_heads(s), (_parameter_row(t) for t in s["temperatures"])),
        "<h2>Curves</h2>",
        _figure("OCV as filters use it", _ocv_lines(found), "state of charge", "V"),
        _figure("R0 + ΣR", _resistance_lines(found), "state of charge", "mΩ"),
        "<h2>Residuals on held-out data</h2>",
        _figure("Root mean square over state of charge", _error_lines(found), "state of charge", "mV"),
        *(_figure(e.run.name, [_trace(e)], "time, h", "mV") for e in _worst_by_temperature(found.held_out)),
    ]
    return PAGE.format(title=escape(title), body="\n".join(parts))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --ink: light-dark(#1a1a1a, #e8e8e8); --grid: light-dark(#ddd, #444); }}
body {{ font: 15px/1.45 system-ui, sans-serif; color: var(--ink); }}
body {{ max-width: 74rem; margin: 1.5rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
td, th {{ padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }}
figure {{ display: inline-block; margin: 0 1rem 1rem 0; width: min(560px, 100%); vertical-align: top; }}
figcaption {{ font-weight: 600; }}
svg {{ width: 100%; height: auto; }}
svg text {{ font-size: 11px; fill: var(--ink); }}
svg .grid {{ stroke: var(--grid); stroke-width: 1; }}
svg polyline {{ fill: none; stroke-width: 1.5; }}
.legend span {{ margin-right: 1rem; }}
.legend i {{ display: inline-block; width: .9em; height: .9em; margin-right: .3em; }}
</style></head><body>
{body}
</body></html>
"""


# ---- numbers --------------------------------------------------------------------------------------------------------


def _temperature(found: Identified, anchor: Anchor) -> dict[str, Any]:
    """Return all figures of one temperature."""
    errors = [e for e in found.held_out if e.run.temperature_degc == anchor.temperature_degc]
    row = int(np.searchsorted(found.cell.temperature_degc, anchor.temperature_degc))
    noise = found.cell.noise
    return {
        "temperature_degc": anchor.temperature_degc,
        "capacity_ah": anchor.capacity_ah,
        "efficiency": anchor.efficiency,
        "charge_transfer_a": _number(anchor.charge_transfer_a),
        "fit_rms_v": anchor.rms_v,
        "without_run_rms_v": _rms(errors, "run"),
        "without_temperature_rms_v": _rms(errors, "temperature"),
        "parameters": _parameters(found, row),
        "noise": {name: float(np.mean(getattr(noise, name)[row])) for name in ("error_v", "bias_v", "resistance_sd")}
        | {"error_time_s": float(noise.error_time_s[row]), "bias_time_s": float(noise.bias_time_s[row])},
    }


def _parameters(found: Identified, row: int) -> dict[str, dict[str, float]]:
    """Return value and standard deviation at 50 % of the linearly fitted parameters."""
    cell = found.cell
    tables = {"r0_ohm": (cell.r0_ohm, cell.sd["r0_ohm"]), "m_v": (cell.m_v, cell.sd["m_v"])}
    tables |= {"m0_v": (cell.m0_v, cell.sd["m0_v"]), "shift_v": (cell.shift_v, cell.sd["shift_v"])}
    for k in range(cell.pairs):
        tables[f"r{k + 1}_ohm"] = (cell.r_ohm[k], cell.sd["r_ohm"][k])
    at = {name: [float(np.interp(MIDDLE, cell.soc_knots, t[row])) for t in pair] for name, pair in tables.items()}
    return {name: {"value": value, "sd": sd} for name, (value, sd) in at.items()}


def _rms(errors: Iterable[HeldOut], how: str) -> float | None:
    """Return the rms over the runs that were held out in this way; None if none was."""
    values = [e.rms_v for e in errors if e.how == how]
    return float(np.sqrt(np.mean(np.square(values)))) if values else None


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---- tables and figures ---------------------------------------------------------------------------------------------


def _error_row(t: dict[str, Any]) -> list[str]:
    values = (t["fit_rms_v"], t["without_run_rms_v"], t["without_temperature_rms_v"])
    return [f"{t['temperature_degc']:g}", *("—" if v is None else f"{1e3 * v:.1f}" for v in values)]


def _parameter_heads(s: dict[str, Any]) -> list[str]:
    pairs = [f"R{k + 1}, mΩ" for k in range(len(s["tau_s"]))]
    return ["°C", "Q, Ah", "η", "R0, mΩ", *pairs, "I0, A", "M, mV", "M0, mV"]


def _parameter_row(t: dict[str, Any]) -> list[str]:
    p = t["parameters"]
    pairs = [name for name in p if name.startswith("r") and name != "r0_ohm"]
    i0 = t["charge_transfer_a"]
    return [
        f"{t['temperature_degc']:g}",
        f"{t['capacity_ah']:.4g}",
        f"{t['efficiency']:.4f}",
        *(_with_sd(p[name]) for name in ("r0_ohm", *pairs)),
        "—" if i0 is None else f"{i0:.2g}",
        *(_with_sd(p[name]) for name in ("m_v", "m0_v")),
    ]


def _with_sd(p: dict[str, float]) -> str:
    """Format the value and its deviation in thousandths; a value on its bound has none."""
    return f"{1e3 * p['value']:.3g} ± {1e3 * p['sd']:.2g}" if p["sd"] else f"{1e3 * p['value']:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(h)}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _figure(caption: str, lines: Sequence[Line], x_label: str, y_label: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{chart(lines, x_label, y_label)}</figure>"


def _ocv_lines(found: Identified) -> list[Line]:
    cell = found.cell
    return [
        Line(f"{t:g} °C", GRID, cell.ocv.table(float(t)) + np.interp(GRID, cell.soc_knots, shift))
        for t, shift in zip(cell.temperature_degc, cell.shift_v, strict=True)
    ]


def _resistance_lines(found: Identified) -> list[Line]:
    cell = found.cell
    total = 1e3 * (cell.r0_ohm + cell.r_ohm.sum(axis=0))
    return [Line(f"{t:g} °C", cell.soc_knots, r) for t, r in zip(cell.temperature_degc, total, strict=True)]


def _error_lines(found: Identified) -> list[Line]:
    """Return the held-out error near each state of charge, one line per temperature; none where not measured."""
    lines = []
    for a in found.fit.anchors:
        errors = [e for e in found.held_out if e.run.temperature_degc == a.temperature_degc and e.how != "temperature"]
        socs = [e.run.soc for e in errors]
        squares, steps = [e.residual_v**2 for e in errors], [e.run.series.period_s for e in errors]
        near, seen = local_mean(socs, squares, steps, SOC_BINS)
        lines.append(Line(f"{a.temperature_degc:g} °C", SOC_BINS, np.where(seen > 0.0, 1e3 * np.sqrt(near), np.nan)))
    return lines


def _worst_by_temperature(errors: Sequence[HeldOut]) -> list[HeldOut]:
    """Return the run with the greatest error of each temperature."""
    own = [e for e in errors if e.how != "temperature"]
    degc = sorted({e.run.temperature_degc for e in own})
    return [max((e for e in own if e.run.temperature_degc == t), key=lambda e: e.rms_v) for t in degc]


def _trace(error: HeldOut) -> Line:
    shown = error.used
    hours = (error.run.series.time_s - error.run.series.time_s[0]) / 3600.0
    return Line(f"measured − model, without its {error.how}", hours[shown], 1e3 * error.residual_v[shown])
