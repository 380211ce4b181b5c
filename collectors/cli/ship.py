"""`collectors ship CONFIG`: sends every journal of this host to the databases, or compares them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.errors import ConfigError, JournalError, LinkDown, SinkHeld
from collectors.shipper import config
from collectors.shipper.config import ShipConfig

if TYPE_CHECKING:
    from collectors.shipper.verification import VerificationReport

MOST_SERIES = 20
"""Maximum number of series with missing values in the text output; --json has all."""


@click.command("ship")
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--once",
    is_flag=True,
    help="End when everything is confirmed. Exit 69: a database takes nothing, or rows wait for their time; 74: a "
    "journal cannot be read.",
)
@click.option(
    "--verify",
    "verified",
    metavar="RANGE",
    help="Compare journals and databases over 24h, 7d or FROM..TO, and send again what is missing.",
)
@click.option("--sink", "name", help="With --verify: only this one.")
@click.option("--resend/--no-resend", default=True, help="With --verify: send again what is missing (default), or not.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each sink and report.")
def COMMAND(path: Path, once: bool, verified: str | None, name: str | None, resend: bool, as_json: bool) -> None:  # noqa: N802
    """Send all journals of the state folder to every sink of CONFIG, until SIGTERM.

    Delivery is at least once and overwrites itself, so the effect is exactly once. Nothing is sent before its time is
    known. What a database refuses for good: `collectors dead`. Is it reachable: `collectors sink check CONFIG`.

    --verify asks each database for what it has acknowledged: a server can lose that, too. A shipper may run beside it.
    It needs the right to read: see read_token_file (2.x), read_user and read_password_file (1.x). Exit 0: the database
    has everything now; 76: values are still missing or different; 69: it cannot be asked; 74: a journal is unreadable.

    \b
    collectors ship /etc/battfleet/ship.toml
    collectors ship ship.toml --once --json
    collectors ship ship.toml --verify 24h
    collectors ship ship.toml --verify 2026-05-28..2026-05-30T12:00 --no-resend --json
    """
    loaded = config.load(path)
    if verified is not None:
        if once:
            raise click.UsageError("--once and --verify: choose one")
        sys.exit(_verify(loaded, verified, name, resend=resend, as_json=as_json))
    if name is not None or not resend:
        raise click.UsageError("--sink and --no-resend: only with --verify")
    from collectors.shipper import service

    ended_by = service.run(loaded, once=once, as_json=as_json)
    if once and ended_by:
        sys.exit(128 + ended_by)


def _verify(loaded: ShipConfig, words: str, name: str | None, *, resend: bool, as_json: bool) -> int:
    """Verify the sinks and return the exit code."""
    from collectors.host.clock import system_clock
    from collectors.shipper.influxdb.query import NotReadable, QueryFailed
    from collectors.shipper.verification import clock_now, parse_range, verify

    chosen = [sink for sink in loaded.sinks if name in (None, sink.name)]
    if not chosen:
        raise ConfigError(f"{loaded.path}: no [[sink]] {name!r}; there are: {', '.join(s.name for s in loaded.sinks)}")
    now_ns = clock_now(system_clock().look())
    wanted = parse_range(words, now_ns)
    shown = sys.stderr.isatty() and not as_json
    code = 0
    for sink in chosen:
        try:
            report = verify(
                loaded, sink, wanted, now_ns, lambda line: click.echo(line, err=True) if shown else None, resend=resend
            )
        except (LinkDown, SinkHeld, NotReadable, QueryFailed) as error:  # the other sinks are still compared
            click.echo(f"collectors: {error}", err=True)
            code = max(code, error.exit_code)
            continue
        if as_json:
            click.echo(json.dumps(report.facts()))
        else:
            _print(report, resend=resend)
        code = max(code, 0 if report.is_whole else 76)
        if report.unreadable:
            code = code or JournalError.exit_code
    return code


def _print(report: VerificationReport, *, resend: bool) -> None:
    facts = report.facts()
    sink, missing, still = report.sink, facts["missing"], facts["still_missing"]
    click.echo(f"{sink}: {facts['from']} to {facts['to']}: {facts['values']} values compared")
    for series in facts["series"][:MOST_SERIES]:
        tags = "".join(f",{key}={value}" for key, value in series["tags"].items())
        counts = {what: series[what] for what in ("missing", "different", "dead_letters") if series[what]}
        found = [f"{count} {what.replace('_', ' ')}" for what, count in counts.items()]
        when = f" from {series['first']} to {series['last']}" if series["missing"] else ""
        click.echo(f"  {series['measurement']}{tags} {series['field']}: {', '.join(found)} of {series['values']}{when}")
    if len(facts["series"]) > MOST_SERIES:
        click.echo(f"  and {len(facts['series']) - MOST_SERIES} more; --json lists all")
    for collector, rows in report.unshipped.items():
        click.echo(f"  {collector}: {rows} commits are not confirmed yet and were not compared")
    for collector, why in report.unreadable.items():
        click.echo(f"  {collector}: unreadable: {why}")
    if not missing and not facts["different"]:
        click.echo(f"{sink}: nothing is missing")
    elif not missing:
        click.echo(f"{sink}: nothing is missing; {facts['different']} values are different: somebody else wrote them")
    elif not resend:
        click.echo(f"{sink}: {missing} values are missing; without --no-resend they are sent again")
    else:
        end = "all of them are there now" if not still else f"{still} are still missing"
        click.echo(f"{sink}: {missing} values were missing, {facts['resent']} were sent again: {end}")
