"""`soc estimate RECORDING…`: estimate the state of charge with bounds; `--follow` runs the live service."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click

from soc.cli import common_exit_code, say_failure
from soc.cli._options import RecordingOptions, recording_choices, recording_options
from soc.errors import SocError

FILTERS = ("spkf", "ekf", "coulomb", "filterpy_ukf")


@dataclass(frozen=True)
class BatchJob:
    """One recording, and where its estimate is written."""

    place: str
    out: str


@click.command("estimate")
@click.argument("places", metavar="RECORDING…", nargs=-1, required=True)
@recording_options
@click.option("--filter", "filter_name", type=click.Choice(FILTERS), default="spkf", help="The estimator.")
@click.option("--out-dir", type=click.Path(path_type=Path, file_okay=False), help="One file per recording, same name.")
@click.option("--out", help="Where the estimate of one recording goes: a file or influx:…; default standard output.")
@click.option("--all", "all_columns", is_flag=True, help="Write innovations, offset, OCV and counting, too.")
@click.option("--jobs", type=click.IntRange(1), help="Recordings at the same time; default: one per processor.")
@click.option("--json", "as_json", is_flag=True, help="Report on each recording as a JSON line on standard error.")
@click.option("--follow", is_flag=True, help="Never end: wait for new samples, write results, keep the belief.")
@click.option("--to", "sink", help="With --follow: where results go. Default: the InfluxDB that is read.")
@click.option("--state", type=click.Path(path_type=Path), help="With --follow: the file that keeps the belief.")
@click.option("--every", "every_s", type=float, default=10.0, help="With --follow: seconds between looks.")
@click.option("--settle", "settle_s", type=float, default=5.0, help="With --follow: leave younger samples to arrive.")
def COMMAND(places: tuple[str, ...], **taken: Any) -> None:  # noqa: N802 - every module here offers COMMAND
    """Estimate the state of charge along each RECORDING: a CSV or Parquet file, - or a store.

    Recordings have the columns time_s, current_a (positive charges), voltage_v, temperature_degc. A CSV may begin with
    a line `# {"cell": "lg_hg2", "soc0": 0.9, "soc0_sd": 0.02, "temperature_degc": 25}`; options win over it. The result
    has time_s, soc, soc_lo and soc_hi (three standard deviations), one row for each row that can be used.

    \b
    soc estimate a.csv b.csv --cell lg_hg2 --out-dir results
    soc estimate log.csv --cell lg_hg2 --map current_a=-I_mA*0.001 --map voltage_v=U --temperature-degc 22
    collectors export mppt --from -2h --measurement battery | \\
        soc estimate - --map time_s=time --cell my_cell.toml --series 4
    soc estimate 'journal:/var/lib/collectors?device=mppt&from=-2h' --cell my_cell.toml --series 4
    soc estimate 'influx:http://localhost:8086/bat?device=mppt&from=-1d' --cell my_cell.toml --series 4 --out day.csv
    soc estimate --follow 'influx:http://localhost:8086/bat?device=t7&user=soc&password_file=pw' \\
        --cell my_cell.toml --series 4 --temperature-degc 25 --state t7.json
    """
    from soc.stores import file_of

    wish = recording_choices(taken)
    follow = {key: taken.pop(key) for key in ("sink", "state", "every_s", "settle_s")}
    if taken.pop("follow"):
        _follow(places, wish, taken["filter_name"], follow)
        return
    jobs = _plan(places, taken["out_dir"], taken["out"])
    wish.refuse_overwriting(places, *(file_of(job.out) for job in jobs))
    if taken["out_dir"] is not None:
        taken["out_dir"].mkdir(parents=True, exist_ok=True)
    from soc.compilation import told

    with told():
        failures = _run_all(jobs, wish, taken)
    if failures:
        sys.exit(common_exit_code(failures))


def _follow(places: Sequence[str], wish: RecordingOptions, filter_name: str, taken: dict[str, Any]) -> None:
    if len(places) != 1:
        raise click.UsageError("--follow takes one RECORDING: run one service for each battery")
    if taken["state"] is None:
        raise click.UsageError("--follow needs --state FILE: where the belief is kept for the next start")
    import logging

    from soc import stores
    from soc.estimation import service

    logging.basicConfig(format="soc: %(message)s")
    wish.refuse_overwriting(places, taken["state"], None if taken["sink"] is None else stores.file_of(taken["sink"]))
    service.run(places[0], wish.rules(), lambda recording: wish.setup(recording, filter_name, full=True), **taken)


def _plan(places: Sequence[str], out_dir: Path | None, out: str | None) -> list[BatchJob]:
    """Return where each estimate is written; two estimates for the same output are wrong usage."""
    if out is not None and out_dir is not None:
        raise click.UsageError("--out or --out-dir, not both")
    if out_dir is None:
        if len(places) > 1:
            raise click.UsageError("several recordings need --out-dir")
        return [BatchJob(places[0], out or "-")]
    names = [Path(place).name for place in places]
    unnamed = [place for place in places if place == "-" or ":" in place]
    if unnamed:
        raise click.UsageError(f"{unnamed[0]}: has no file name for --out-dir; give --out")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.UsageError(f"two recordings are called {twice[0]}: their results would overwrite each other")
    return [BatchJob(place, str(out_dir / name)) for place, name in zip(places, names, strict=True)]


def _run_all(jobs: Sequence[BatchJob], wish: RecordingOptions, taken: dict[str, Any]) -> list[SocError | OSError]:
    """Estimate all recordings; report each error at once and return all of them."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    failures: list[SocError | OSError] = []
    with ThreadPoolExecutor(taken["jobs"]) as pool, _progress(len(jobs)) as progress:
        futures = {pool.submit(_estimate, job, wish, taken["filter_name"], taken["all_columns"]): job for job in jobs}
        for future in as_completed(futures):
            progress.advance()
            try:
                _report(future.result(), taken["as_json"])
            except BrokenPipeError:
                raise  # the reader of the pipe has gone: click ends without a message
            except (SocError, OSError) as error:
                failures.append(error)
                _say_failure(futures[future].place, error, taken["as_json"])
    return failures


def _estimate(job: BatchJob, wish: RecordingOptions, filter_name: str, all_columns: bool) -> dict[str, Any]:
    """Estimate one recording; return the figures to print."""
    from soc import stores
    from soc.estimation.session import Stream, ahead, placed, run

    begun_s = time.perf_counter()
    recording = stores.read(job.place, wish.rules())
    output = stores.file_of(job.out)
    stream = Stream(wish.setup(recording, filter_name, full=all_columns, output=output))
    last = None
    with stores.writer(job.out, all_columns=all_columns) as writer:
        for last in ahead(run(recording, stream)):
            writer.write(last)
        with placed(job.place):
            warnings = [*recording.doubts, *stream.finish()]
    assert last is not None, "finish() refuses a recording without results"
    return {
        "recording": job.place,
        "out": job.out,
        "model": last.model,
        "version": last.version,
        "rows": stream.intake.rows,
        "used": stream.intake.used,
        "seconds": round(time.perf_counter() - begun_s, 3),
        **{f"{name}_end": round(float(last.signals[name][-1]), 6) for name in ("soc", "soc_lo", "soc_hi")},
        "warnings": warnings,
        "health": stream.beliefs[filter_name].counters,
    }


def _report(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found), err=True)
        return
    for warning in found["warnings"]:
        click.echo(f"soc: {found['recording']}: {warning}", err=True)


def _say_failure(place: str, error: SocError | OSError, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"recording": place, "error": str(error)}), err=True)
        return
    say_failure(place, error)


class _Silent:
    """A progress display that shows nothing."""

    def advance(self) -> None:
        """Do nothing."""


class _Bar:
    """One progress bar over all recordings, on standard error."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("estimating", total=total)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._progress.stop()

    def advance(self) -> None:
        """Count one more recording as done."""
        self._progress.advance(self._task)


def _progress(total: int) -> Any:
    """Return a progress bar if standard error is a terminal and the work takes long enough."""
    return _Bar(total) if sys.stderr.isatty() and total > 1 else nullcontext(_Silent())
