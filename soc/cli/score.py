"""`soc score`: compare estimates with a recording's own reference."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soc.cli import common_exit_code, say_failure
from soc.cli._options import RecordingOptions, recording_choices, recording_options
from soc.cli.estimate import FILTERS
from soc.errors import FilterError, SeriesError, SocError

if TYPE_CHECKING:
    from soc.estimation.score import Score, Trial
    from soc.estimation.session import Setup


@click.command("score")
@click.argument("places", metavar="RECORDING…", nargs=-1, required=True)
@recording_options
@click.option("--filter", "filter_name", type=click.Choice(FILTERS), default="spkf", help="The estimator.")
@click.option("--trials", is_flag=True, help="Also with a wrong start, offset, noise, 10 s means and a gap.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each row; states of charge 0..1.")
def COMMAND(places: tuple[str, ...], **taken: Any) -> None:  # noqa: N802 - every module here offers COMMAND
    """Estimate each RECORDING and compare with its column soc_ref: error, bounds and their coverage after ten minutes.

    rms and worst error, mean half width of the 3σ bound, how often the reference lies in it, time until the error stays
    below 5 %, and whether innovations are as large (1) and as white (0) as the filter believes. Where no --soc0 is
    given, the start is the reference's ± 1 %.

    \b
    soc score drive_*.parquet --cell lg_hg2
    soc score drive.csv --cell lg_hg2 --trials
    soc score drive.csv --cell lg_hg2 --soc0 0.5 --soc0-sd 0.3 --filter ekf --json
    """
    from soc.cli._tables import show

    wish = recording_choices(taken)
    scores: dict[str, Score] = {}
    failures: list[SocError | OSError] = []
    for place in places:
        try:
            scores |= scored(place, wish, taken["filter_name"], trials=taken["trials"])
        except (SocError, OSError) as error:
            failures.append(error)
            say_failure(place, error)
    if scores:
        show(scores, "recording", {}, as_json=taken["as_json"])
    if failures:
        sys.exit(common_exit_code(failures))


def scored(place: str, wish: RecordingOptions, filter_name: str, *, trials: bool) -> dict[str, Score]:
    """Return the recording's score, and those of its trials. Raises `SeriesError` if it has no reference."""
    from soc.estimation.score import TRIALS, Trial

    setup, series, reference = referenced(place, wish, filter_name)
    if trials:
        return _tried(place, setup, {name: make(series, reference) for name, make in TRIALS.items()})
    start = (float(reference[0]), 0.01) if setup.soc0 is None else (setup.soc0, setup.soc0_sd)
    return {place: judged(Trial(series, reference, *start), setup, place)}


def _tried(place: str, setup: Setup, trials: Mapping[str, Trial]) -> dict[str, Score]:
    """Return the score of each trial; prints a message for a trial that the recording is too short for."""
    scores = {}
    for name, trial in trials.items():
        try:
            scores[f"{place}: {name}"] = judged(trial, setup)
        except (SeriesError, FilterError) as error:
            click.echo(f"soc: {place}: {name} left out: {error}", err=True)
    return scores


def referenced(
    place: str, wish: RecordingOptions, filter_name: str, output: Path | None = None
) -> tuple[Setup, Any, Any]:
    """Return the setup, the series and its reference; for `output` see `RecordingOptions.setup`.

    Raises `SeriesError` if the recording has no reference.
    """
    import numpy as np

    from soc import stores
    from soc.estimation.cleaning import CleanedRecording
    from soc.estimation.session import whole

    recording = stores.read(place, wish.rules())
    for doubt in recording.doubts:
        click.echo(f"soc: {place}: {doubt}", err=True)
    setup = wish.setup(recording, filter_name, output=output)
    series, reference = whole(recording, CleanedRecording(setup.cell, setup.pack))
    if not np.isfinite(reference[0]):
        raise SeriesError(f"{place}: no reference: expected a column soc_ref (0..1), with a value in the first row")
    return setup, series, reference


def judged(trial: Trial, setup: Setup, place: str | None = None) -> Score:
    """Return the score of the setup's filter in a trial; if a place is given, warnings are printed for it."""
    from soc.compilation import told
    from soc.estimation.estimator import estimate
    from soc.estimation.score import score

    with told():
        found = estimate(
            trial.series, setup.cell, setup.filter, soc0=trial.soc0, soc0_sd=trial.soc0_sd, **setup.options
        )
    for warning in found.warnings if place is not None else ():
        click.echo(f"soc: {place}: {warning}", err=True)
    return score(found.time_s, found.soc, found.sd, trial.reference, found.innovation_v, found.innovation_sd_v)
