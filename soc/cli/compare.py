"""`soc compare`: run all filters on one recording and print their scores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soc import libraries
from soc.cli._options import recording_choices, recording_options
from soc.errors import FilterError, OptionError

if TYPE_CHECKING:
    from soc.estimation.score import Score


@click.command("compare")
@click.argument("place", metavar="RECORDING")
@recording_options
@click.option("--filter", "filters", multiple=True, help="Only these filters; default: all that are installed.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw them, too: a .png, .svg or .pdf file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each filter; states of charge 0..1.")
def COMMAND(place: str, filters: tuple[str, ...], plot: Path | None, **taken: Any) -> None:  # noqa: N802
    """Run every filter over one RECORDING from the same start, with the same cell, and print their scores.

    The reference is the column soc_ref. All filters use one model, so expect small differences: what tells them apart
    is a wrong start, an offset of the sensor, and the bounds.

    \b
    soc compare drive.csv --cell lg_hg2 --soc0 0.6 --soc0-sd 0.3
    soc compare drive.csv --cell lg_hg2 --filter spkf --filter coulomb --plot compare.png
    """
    from soc import filters as known
    from soc.cli._tables import show
    from soc.cli.score import referenced
    from soc.compilation import told
    from soc.estimation.estimator import estimate
    from soc.estimation.score import score

    wish, as_json = recording_choices(taken), taken["as_json"]
    wish.refuse_overwriting([place], plot)
    unknown = sorted(set(filters) - set(known.NAMES))
    if unknown:
        raise OptionError(f"no filter {', '.join(unknown)}; there are {', '.join(known.NAMES)}")
    setup, series, reference = referenced(place, wish, "spkf", output=plot)
    soc0, soc0_sd = (float(reference[0]), 0.01) if setup.soc0 is None else (setup.soc0, setup.soc0_sd)
    scores: dict[str, Score] = {}
    extra: dict[str, dict[str, Any]] = {}
    estimates = {}
    failures: list[FilterError] = []
    for name in filters or known.NAMES:
        try:
            # A first call with two samples compiles the filter, so that the measured time excludes compilation.
            with told():
                estimate(series[:2], setup.cell, name, soc0=soc0, soc0_sd=soc0_sd, **setup.options)
            begun = time.perf_counter()
            found = estimate(series, setup.cell, name, soc0=soc0, soc0_sd=soc0_sd, **setup.options)
        except ImportError as error:
            click.echo(f"soc: {name} left out: {libraries.advice(error) or error}", err=True)
            continue
        except FilterError as error:
            click.echo(f"soc: {name} left out: {error}", err=True)
            failures.append(error)
            continue
        extra[name] = {"µs/sample": round(1e6 * (time.perf_counter() - begun) / len(series), 2)}
        scores[name] = score(found.time_s, found.soc, found.sd, reference, found.innovation_v, found.innovation_sd_v)
        estimates[name] = found
        for warning in found.warnings:
            click.echo(f"soc: {name}: {warning}", err=True)
    if failures and not scores:
        raise failures[0]
    show(scores, "filter", extra, as_json=as_json)
    if plot is not None:
        from soc.plotting import charts as drawing

        drawing.save(drawing.compared(estimates, series.time_s, reference, title=Path(place).name), plot)
