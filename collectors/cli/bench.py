"""`collectors bench`: the virtual bench with three collectors, shipper and database, shown in one live table."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from collectors.errors import ConfigError, LinkDown

if TYPE_CHECKING:
    from collectors.bench.bench import Bench
    from collectors.bench.setup import Source
    from collectors.bench.summary import Summary

LIVELY_SEED = 11
"""Clouds and load change within the first minute."""
LOOK_S = 0.25
SHOW_S = 0.5
LINE_S = 5.0


@click.command("bench")
@click.option("--for", "seconds", type=click.FloatRange(min=1), help="End by itself after so many seconds.")
@click.option("--speed", type=click.FloatRange(min=0.1), help="Seconds of the bench in one of ours. [1; replay: 60]")
@click.option("--replay", metavar="CSV", type=click.Path(path_type=Path), help="A recording instead of a simulation.")
@click.option("--rows", type=click.IntRange(min=1), help="Only so many seconds of the recording.")
@click.option("--map", "maps", metavar="PATTERN=INSTRUMENT:KEY", multiple=True, help="What a column of the CSV is.")
@click.option(
    "--influx",
    metavar="auto|private|none|URL",
    default="auto",
    show_default=True,
    help="A database: see below.",
)
@click.option("--influx-token-file", metavar="FILE", type=click.Path(path_type=Path), help="Token of an InfluxDB 2.x.")
@click.option(
    "--influx-org", metavar="NAME", envvar="INFLUX_ORG", default="", help="Its organisation, if it has several."
)
@click.option("--keep-database", is_flag=True, help="Leave battfleet_bench on the server; see below.")
@click.option(
    "--state", metavar="DIR", type=click.Path(path_type=Path), help="Keep journals, configurations and logs here."
)
@click.option("--fault", "faults", metavar="TARGET:KIND@START[+SECONDS][=AMOUNT]", multiple=True, help="See below.")
@click.option("--seed", type=int, default=LIVELY_SEED, show_default=True, help="Of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON and nothing else.")
def COMMAND(  # noqa: N802 - every module here offers COMMAND
    seconds: float | None,
    speed: float | None,
    replay: Path | None,
    rows: int | None,
    maps: tuple[str, ...],
    influx: str,
    influx_token_file: Path | None,
    influx_org: str,
    keep_database: bool,
    state: Path | None,
    faults: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Run three fake instruments, their collectors, a shipper and a database, and show what comes of it.

    One battery, simulated or recorded, is seen by a charge controller, an electronic load and a T7, each with noise,
    gain and steps of its own. Ends with Ctrl-C, after --for, or with the recording; then says what was kept of what
    the fakes sent, and whether the database gives the same back. Exit code 1 when anything was lost.

    The database is the InfluxDB 1.x on this machine if it asks for no password, else a private one if influxd is
    installed, else none: then the journals are the store. --influx private leaves the machine's own alone. --influx
    URL takes a 1.x without users, or a 2.x: its token comes from --influx-token-file, from INFLUX_TOKEN, or is asked
    for. On a server that is not the bench's own, the database or bucket battfleet_bench is made for the run and dropped
    at its end; one that was there before stays, and so does one that does not hold what the journals hold.

    \b
    Faults, each from START for SECONDS after the beginning:
      mppt, load, t7   unplug silence garble drop noise debug delay split; hold (not t7)
      clock            reset: nobody vouches for the time, which is off by AMOUNT s
      database         stop (only a private one)

    \b
    collectors bench --for 60
    collectors bench --replay bench.csv --speed 60
    collectors bench --for 60 --influx http://localhost:8086 --influx-token-file token --keep-database
    collectors bench --for 60 --fault mppt:unplug@10+3 --fault load:garble@20+5=0.05 --fault database:stop@30+5
    """
    from collectors.bench.bench import FAULT_KINDS, Bench, Settings
    from collectors.bench.influx import Access, PrivateInflux, Unreachable
    from collectors.fakes.faults import parse_fault

    source = _source(replay, rows, maps, speed, seed)
    planned = [parse_fault(text, FAULT_KINDS) for text in faults]
    with ExitStack() as stack:
        folder = state or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="battfleet-")))
        access = Access(lambda url: _token(url, influx_token_file), influx_org)
        settings = Settings(folder.resolve(), source, influx, planned, seed, access, keep_database)
        stop = _on_signals()
        try:
            with Bench(settings) as bench:
                if bench.database and not isinstance(bench.database, PrivateInflux):
                    click.echo(f"database: {bench.database_text()}", err=True)
                _show(bench, seconds, stop, quiet=as_json)
                summary = bench.finish()
        except Unreachable as error:
            raise LinkDown(f"influx: {error}") from error
    _tell(summary, as_json)
    where = str(folder / "state") if state else "gone with the run; --state DIR keeps them"
    click.echo(f"journals: {where}", err=True)
    sys.exit(1 if summary.problems else 0)


def _token(url: str, file: Path | None) -> str:
    """Return the token from the file, from INFLUX_TOKEN, or typed at the terminal; empty when there is none.

    It is never an argument: all users of a host can read those.
    """
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--influx-token-file {file}: {getattr(error, 'strerror', error)}") from error
    if token := os.environ.get("INFLUX_TOKEN", "").strip():
        return token
    if sys.stdin.isatty() and sys.stderr.isatty():
        return str(click.prompt(f"token of {url}", hide_input=True, err=True)).strip()
    return ""


def _source(replay: Path | None, rows: int | None, maps: tuple[str, ...], speed: float | None, seed: int) -> Source:
    """Return the source of the simulated or recorded values; ConfigError for a recording that cannot be used."""
    from collectors.bench.replay import COLUMNS, Recording, parse_map, read
    from collectors.bench.setup import Recorded, Simulated

    if replay is None:
        if maps or rows:
            raise ConfigError("bench: --map and --rows say something about a recording: name it with --replay")
        return Simulated(speed or 1.0, seed)
    recording = read(replay, [parse_map(text) for text in maps] or COLUMNS)
    if rows:
        recording = Recording(recording.start_ms, recording.rows[:rows])
    return Recorded(recording, speed or 60.0)


def _on_signals() -> Callable[[], bool]:
    """Return a function that tells whether the end was requested: Ctrl-C, SIGTERM or a closed terminal."""
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    return lambda: bool(asked)


def _show(bench: Bench, seconds: float | None, stop: Callable[[], bool], quiet: bool) -> None:
    """Run the bench to its end and show its progress: a live table on a terminal, else a line every few seconds."""
    from rich.console import Console
    from rich.live import Live

    from collectors.bench import screen

    console = Console()
    with ExitStack() as stack:
        table = None
        if console.is_terminal and not quiet:
            table = stack.enter_context(Live(console=console, auto_refresh=False, transient=True))
        next_s = 0.0
        while not (stop() or bench.is_over or (seconds is not None and bench.now_s >= seconds)):
            time.sleep(LOOK_S)
            bench.tick()
            if quiet or bench.now_s < next_s:
                continue
            if table:
                table.update(screen.live(bench, console.width), refresh=True)
            else:
                print(screen.line(bench), flush=True)
            next_s = bench.now_s + (SHOW_S if table else LINE_S)


def _tell(summary: Summary, as_json: bool) -> None:
    """Print the result of the run."""
    if as_json:
        import orjson

        print(orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode())
        return
    from collectors.bench import screen

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for text in screen.summary_lines(summary, width):
        print(text)
