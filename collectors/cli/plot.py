"""`collectors plot SIGNAL`: plots a signal of the last hour, or of any range, in the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from click.shell_completion import CompletionItem

from collectors.cli._journals import chosen_readers, names_argument, state_option
from collectors.cli.export import point, waiting_for_clock
from collectors.errors import ConfigError
from collectors.journal.reader import JournalReader
from collectors.journal.timestamps import iso
from collectors.signals import VOCABULARY

GAP_PERIODS = 2.5
"""A gap, in which nothing is drawn, is a time between two samples longer than this many usual periods."""
BRAILLE_COLUMNS = 2
"""Number of points side by side in one character."""
MIN_COLUMNS, MIN_LINES = 40, 10
USUAL_COLUMNS, USUAL_LINES = 80, 24
COLORS = ("blue", "orange", "green", "magenta", "red", "cyan")
TICKS = 5

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


def complete_signals(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return every signal of the vocabulary, for the shell."""
    names = [f"{measurement}.{name}" for measurement, fields in VOCABULARY.items() for name in fields]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command("plot")
@click.argument("signal", shell_complete=complete_signals)
@names_argument
@click.option("--from", "start", metavar="TIME", default="-1h", show_default=True, help="First time, or an age.")
@click.option("--to", "end", metavar="TIME", help="First time that is left out. Default: now.")
@click.option("--device", help="Only this tag `device`.")
@click.option("--width", type=click.IntRange(min=MIN_COLUMNS), help="Columns. Default: the terminal's.")
@click.option("--height", type=click.IntRange(min=MIN_LINES), help="Lines. Default: the terminal's, at most 24.")
@state_option
def COMMAND(  # noqa: N802 - every module here offers COMMAND
    signal: str,
    names: tuple[str, ...],
    start: str,
    end: str | None,
    device: str | None,
    width: int | None,
    height: int | None,
    state_dir: Path,
) -> None:
    """Draw SIGNAL, for example battery.voltage_v, from the journals of one, several or all collectors.

    One line for each series, so that instruments that measure the same lie over each other. Where samples are missing
    nothing is drawn. Times are UTC. A long range is drawn by the least and the greatest value of each column.

    \b
    collectors plot battery.voltage_v
    collectors plot battery.current_a mppt t7 --from -10m
    collectors plot load.power_w --from 2026-05-28T10:00 --to 2026-05-28T12:00
    """
    measurement, dot, name = signal.partition(".")
    if not dot or not name:
        raise ConfigError(f"{signal}: expected MEASUREMENT.SIGNAL; {_there_are(chosen_readers(state_dir, names))}")
    start_ns, end_ns = point(start, "--from"), point(end or "now", "--to")
    if start_ns >= end_ns:
        raise ConfigError(f"--from {start}: expected an earlier time than --to {end or 'now'}")
    readers = chosen_readers(state_dir, names)
    lines = {
        label: line
        for reader in readers
        for label, line in _series(reader, measurement, name, device, start_ns, end_ns).items()
    }
    if not lines:
        when = f"from {iso(start_ns, 0)} to {iso(end_ns, 0)}"
        waiting = ", ".join(waiting_for_clock(readers))
        clock = f"; {waiting}: some samples have no known time: left out; see collectors clock" if waiting else ""
        raise ConfigError(f"{state_dir}: no values of {signal} {when}; {_there_are(readers)}{clock}")
    size = shutil.get_terminal_size((USUAL_COLUMNS, USUAL_LINES + 1))
    columns = width or max(MIN_COLUMNS, size.columns)
    rows = height or max(MIN_LINES, min(USUAL_LINES, size.lines - 1))
    drawn = drawing(signal, lines, (start_ns, end_ns), (columns, rows), is_colored=sys.stdout.isatty())
    click.echo(drawn, color=True)


def _there_are(readers: list[JournalReader]) -> str:
    found = {f"{s.measurement}.{field.name}" for reader in readers for s in reader.streams() for field in s.fields}
    return f"there are: {', '.join(sorted(found))}"


def _series(
    reader: JournalReader, measurement: str, name: str, device: str | None, start_ns: int, end_ns: int
) -> dict[str, tuple[Int, Float]]:
    """Return each series that has the signal: its label to stamps and values, in order of time."""
    parts: dict[str, tuple[list[Int], list[Float]]] = {}
    for span in reader.range(start_ns, end_ns, measurement):
        at = next((i for i, field in enumerate(span.stream.fields) if field.name == name), None)
        if at is None or device not in (None, span.stream.tags.get("device")):
            continue
        column = span.columns[at]
        if not isinstance(column.values, np.ndarray):
            raise ConfigError(f"{measurement}.{name}: is text and cannot be drawn")
        present = np.ones(len(span.wall_ns), np.bool_) if column.missing is None else ~column.missing
        own = {k: v for k, v in span.stream.tags.items() if k not in ("bench", "device", "kind", "battery")}
        label = " ".join([span.stream.tags.get("device", reader.collector), *(f"{k}={v}" for k, v in own.items())])
        stamps, values = parts.setdefault(label, ([], []))
        stamps.append(span.wall_ns[present])
        values.append(column.values[present].astype(np.float64))
    joined = {label: (np.concatenate(stamps), np.concatenate(values)) for label, (stamps, values) in parts.items()}
    ordered = {label: (t[order := np.argsort(t, kind="stable")], v[order]) for label, (t, v) in joined.items()}
    return {label: line for label, line in ordered.items() if len(line[0])}


def pieces(stamps: Int, values: Float) -> Iterator[tuple[Int, Float]]:
    """Yield the parts of a series between its gaps."""
    steps = np.diff(stamps)
    usual = np.median(steps) if len(steps) else 0.0
    cuts = np.flatnonzero(steps > GAP_PERIODS * usual) + 1
    yield from zip(np.split(stamps, cuts), np.split(values, cuts), strict=True)


def thinned(stamps: Int, values: Float, span_ns: tuple[int, int], columns: int) -> tuple[Int, Float]:
    """Return the first, minimum, maximum and last sample of each column, in order of time: all that can be shown."""
    if len(stamps) <= 4 * columns:
        return stamps, values
    column = (stamps - span_ns[0]) * columns // (span_ns[1] - span_ns[0])
    starts = np.flatnonzero(np.diff(column, prepend=column[0] - 1))
    kept = set(starts.tolist())
    for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(stamps)], strict=True):
        part = values[first:last]
        kept |= {first + int(np.argmin(part)), first + int(np.argmax(part)), last - 1}
    chosen = np.array(sorted(kept), np.int64)
    return stamps[chosen], values[chosen]


def drawing(
    signal: str,
    lines: dict[str, tuple[Int, Float]],
    span_ns: tuple[int, int],
    size: tuple[int, int],
    *,
    is_colored: bool,
) -> str:
    """Return the plot as text of `columns` by `lines` characters."""
    import plotext

    start_ns, end_ns = span_ns
    plotext.clear_figure()
    plotext.limit_size(False, False)  # the caller sets the size; there may be no terminal
    plotext.plotsize(*size)
    plotext.theme("clear")
    plotext.title(f"{signal}   {iso(start_ns, 0)} to {iso(end_ns, 0)}")
    for number, (label, (stamps, values)) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        name: str | None = label
        for part_ns, part in pieces(stamps, values):
            shown_ns, shown = thinned(part_ns, part, span_ns, BRAILLE_COLUMNS * size[0])
            seconds = ((shown_ns - start_ns) / 1e9).tolist()
            draw = plotext.plot if len(seconds) > 1 else plotext.scatter
            draw(seconds, shown.tolist(), marker="braille", color=color, label=name)
            name = None  # one entry in the legend for all parts
    seconds_all = (end_ns - start_ns) / 1e9
    plotext.xlim(0, seconds_all)
    ticks = np.linspace(0, seconds_all, TICKS)
    plotext.xticks(ticks.tolist(), [_clock(start_ns + int(tick * 1e9), seconds_all) for tick in ticks])
    text: str = plotext.build()
    return text if is_colored else plotext.uncolorize(text)


def _clock(wall_ns: int, seconds: float) -> str:
    """Return a time of day, or the date with it for more than two days."""
    text = iso(wall_ns, 0).rstrip("Z")
    return text[5:16].replace("T", " ") if seconds > 2 * 86_400 else text[11:]
