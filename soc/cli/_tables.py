"""Scores as text tables and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from soc.estimation.score import Score

COLUMNS = ("rms %", "worst %", "±3σ %", "coverage %", "settled s", "r²/P", "colour")


def cells_of(found: Score) -> tuple[str, ...]:
    """Return the table's cells of one score; SOC in %, and a dash for a missing value."""
    values = (
        (100 * found.rms, "{:.2f}"),
        (100 * found.worst, "{:.2f}"),
        (100 * found.half_width, "{:.2f}"),
        (100 * found.coverage, "{:.1f}"),
        (found.converged_s, "{:.0f}"),
        (found.nis, "{:.2f}"),
        (found.colour, "{:.2f}"),
    )
    return tuple("–" if math.isnan(value) else form.format(value) for value, form in values)


def show(scores: Mapping[str, Score], first: str, extra: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> None:
    """Print a table, or one JSON object for each row; `extra` has more values of a row, by name."""
    if as_json:
        for name, found in scores.items():
            plain = {
                k: None if isinstance(v, float) and math.isnan(v) else v for k, v in dataclasses.asdict(found).items()
            }
            click.echo(json.dumps({first: name, **plain, **extra.get(name, {})}))
        return
    names = list(dict.fromkeys(key for more in extra.values() for key in more))
    width = max(len(name) for name in (*scores, first))
    click.echo(f"{first:<{width}}" + "".join(f"{title:>12}" for title in (*COLUMNS, *names)))
    for name, found in scores.items():
        more = [f"{extra.get(name, {}).get(key, '–')}" for key in names]
        click.echo(f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in (*cells_of(found), *more)))
