"""`collectors export`: writes the journals as CSV, Parquet or line protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from collectors.cli._journals import Unreadable, chosen_readers, is_wanted, names_argument, self_option, state_option
from collectors.errors import ClockUnknown, CollectorError, ConfigError, JournalError
from collectors.host.clock import system_clock
from collectors.journal import timestamps
from collectors.journal.reader import JournalReader
from collectors.journal.records import UNSYNCHRONISED, Boot, RowRange
from collectors.journal.timeline import resolve
from collectors.table_export import STDOUT, Layout, opened

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".lp": "lp"}
EVER_NS = 2**63 - 1
EVENT = "event"


def _form(form: str | None, output: Path) -> str:
    found = form or SUFFIXES.get(output.suffix) or ("csv" if output == STDOUT else None)
    if found is None:
        raise ConfigError(f"{output}: expected a name ending in {', '.join(SUFFIXES)}, or --format")
    return found


def point(text: str, option: str) -> int:
    look = system_clock().look()
    try:
        return timestamps.parse(text, look.boottime_ns + look.offset_ns)
    except ValueError as error:
        raise ConfigError(f"{option} {error}") from error


@contextmanager
def _progress(shown: bool, start_ns: int, end_ns: int) -> Iterator[Callable[[RowRange], None]]:
    """Yield a function that receives each row range; draws a progress bar over the exported time on standard error."""
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]:,} rows"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        known = start_ns > 0 and end_ns < EVER_NS
        task = progress.add_task("exporting", total=end_ns - start_ns if known else None, rows=0)
        rows = 0

        def show(span: RowRange) -> None:
            nonlocal rows
            rows += len(span.wall_ns)
            progress.update(task, completed=int(span.wall_ns[-1]) - start_ns if known else None, rows=rows)

        yield show


@click.command("export")
@names_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=STDOUT,
    help="File to write; its suffix (.csv, .parquet, .lp) is the format. Default: standard output.",
)
@click.option("--format", "form", type=click.Choice(["csv", "parquet", "lp"]), help="If the suffix does not say it.")
@click.option("--from", "start", metavar="TIME", help="First time, or an age such as -2h. Default: the beginning.")
@click.option("--to", "end", metavar="TIME", help="First time that is left out. Default: everything.")
@click.option("--measurement", help="Only this measurement, for example battery.")
@click.option("--device", help="Only rows with this tag `device`.")
@self_option
@state_option
@click.option("--progress/--no-progress", default=None, help="Draw a bar. Default: when standard error is a terminal.")
def COMMAND(  # noqa: N802
    names: tuple[str, ...],
    output: Path,
    form: str | None,
    start: str | None,
    end: str | None,
    measurement: str | None,
    device: str | None,
    self_metrics: bool,
    state_dir: Path,
    progress: bool | None,
) -> None:
    """Write what the journals hold as CSV, Parquet or InfluxDB line protocol. No database is needed.

    Times are UTC unless they carry a zone. What collectors report about themselves comes with --self-metrics, or with
    --measurement collector. Events and notes come with --measurement event, with all others in line protocol, and where
    there is nothing else. Within a series rows come in order of time; a file appears when it is whole. Samples whose
    time is not known yet are left out (see `collectors clock`). Exit 69 if there is nothing else; 74 if damaged rows,
    or a journal that cannot be read, were left out.

    \b
    collectors export -o all.parquet
    collectors export mppt --from -2h --measurement battery
    collectors export --from 2026-05-28T10:00 --to 2026-05-28T12:00 -o morning.csv
    collectors export notes --measurement event
    collectors export --format lp | influx write --bucket bench
    """  # fmt: skip
    unreadable = Unreadable()
    readers = unreadable.without(chosen_readers(state_dir, names))
    if not readers:
        unreadable.raise_if_any("nothing is exported")
    if output != STDOUT:
        _refuse_inside_a_journal(output, state_dir)
    start_ns = 0 if start is None else point(start, "--from")
    end_ns = EVER_NS if end is None else point(end, "--to")
    wanted = [
        stream
        for reader in readers
        for stream in reader.streams()
        if is_wanted(stream.measurement, measurement, self_metrics) and device in (None, stream.tags.get("device"))
    ]
    form = _form(form, output)
    has_events = measurement == EVENT or (measurement is None and (form == "lp" or not any(map(_has_rows, readers))))
    noted = _events(readers, start_ns, end_ns, device) if has_events else []
    wanted += [span.stream for span in noted]
    if not wanted:
        raise _nothing(state_dir, readers, measurement, device)
    shown = sys.stderr.isatty() and output != STDOUT if progress is None else progress
    with opened(output, form, Layout.of(wanted)) as table, _progress(shown, start_ns, end_ns) as show:
        for event in noted:
            table.write(event)
        for reader in readers:
            for span in reader.range(start_ns, end_ns, measurement):
                is_of_device = device in (None, span.stream.tags.get("device"))
                if is_of_device and is_wanted(span.stream.measurement, measurement, self_metrics):
                    table.write(span)
                    show(span)
    _warn(readers)
    unreadable.raise_if_any("all others are exported")


def _has_rows(reader: JournalReader) -> bool:
    """Return whether the journal holds readings, or ever held any; one with notes only does not."""
    return bool(reader.streams())


def _nothing(
    state_dir: Path, readers: list[JournalReader], measurement: str | None, device: str | None
) -> CollectorError:
    """Return the error that states why there is nothing to export."""
    waiting = waiting_for_clock(readers)
    if waiting and measurement in (None, EVENT):
        return ClockUnknown(
            f"{', '.join(waiting)}: the time of what is there is not known; see collectors clock, and set it by hand "
            "with collectors clock set"
        )
    return ConfigError(f"{state_dir}: nothing has measurement {measurement or 'any'}, device {device or 'any'}")


def waiting_for_clock(readers: list[JournalReader]) -> list[str]:
    """Return the collectors that have samples without a known time."""
    return [r.collector for r in readers if any(_is_unknown(boot) for boot in r.boots()) and r.newest_seq()]


def _is_unknown(boot: Boot) -> bool:
    """Return whether some samples of this boot have no known time."""
    return any(segment.state == UNSYNCHRONISED for segment in resolve(boot.steps).segments)


def _refuse_inside_a_journal(output: Path, state_dir: Path) -> None:
    """Raise `ConfigError` if the output lies in the directory of a journal, where it could replace one of its files."""
    folders = [folder for folder in state_dir.resolve().iterdir() if folder.is_dir()]
    inside = [folder for folder in folders if folder in output.resolve().parents]
    if inside:
        raise ConfigError(f"{output}: lies in the folder of a journal, {inside[0]}; choose another place")


def _events(readers: list[JournalReader], start_ns: int, end_ns: int, device: str | None) -> list[RowRange]:
    """Return the events of all these journals, which are few."""
    found = [span for reader in readers for span in reader.event_spans(start_ns, end_ns)]
    return [span for span in found if device in (None, span.stream.tags.get("device"))]


def _warn(readers: list[JournalReader]) -> None:
    """Report what is missing from the export; JournalError if corruption was the reason."""
    for reader in readers:
        unknown = [boot.boot_id for boot in reader.boots() if _is_unknown(boot)]
        for boot_id in unknown:
            click.echo(f"{reader.collector}: boot {boot_id}: some samples have no known time and are left out; "
                       "see collectors clock", err=True)  # fmt: skip
    damage = [(reader.collector, found) for reader in readers for found in reader.take_damage()]
    if damage:
        listed = "\n".join(f"{name}/{d.file}: {d.table} {d.row}: {d.why}" for name, d in damage)
        raise JournalError(f"{len(damage)} damaged rows were left out, the rest was exported:\n{listed}")
