"""`soc plot`: draw a recording and its estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from soc.cli._options import recording_choices, recording_options
from soc.cli.estimate import FILTERS


@click.command("plot")
@click.argument("place", metavar="RECORDING")
@recording_options
@click.option("--filter", "filter_name", type=click.Choice(FILTERS), default="spkf", help="The estimator.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .png, .svg or .pdf file.")
@click.option("--raw", is_flag=True, help="Only what was measured: current, voltage, temperature.")
def COMMAND(place: str, filter_name: str, out: Path, raw: bool, **taken: Any) -> None:  # noqa: N802
    """Draw a RECORDING with its estimated state of charge, bounds and innovations; and soc_ref where it has one.

    \b
    soc plot drive.csv --cell lg_hg2 --out drive.png
    soc plot drive.csv --cell lg_hg2 --raw --out measured.svg
    """
    from soc import stores
    from soc.compilation import told
    from soc.estimation.cleaning import CleanedRecording
    from soc.estimation.estimator import estimate
    from soc.estimation.session import whole
    from soc.plotting import charts as drawing

    wish = recording_choices(taken)
    wish.refuse_overwriting([place], out)
    recording = stores.read(place, wish.rules())
    setup = wish.setup(recording, filter_name, output=out)
    series, reference = whole(recording, CleanedRecording(setup.cell, setup.pack))
    title = Path(place).name
    if raw:
        drawing.save(drawing.recorded(series, title), out)
        return
    with told():
        found = estimate(series, setup.cell, filter_name, soc0=setup.soc0, soc0_sd=setup.soc0_sd, **setup.options)
    for warning in (*recording.doubts, *found.warnings):
        click.echo(f"soc: {place}: {warning}", err=True)
    drawing.save(drawing.estimated(series, found, reference, f"{title} · {found.model} · {found.version}"), out)
