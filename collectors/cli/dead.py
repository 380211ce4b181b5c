"""`collectors dead …`: lists, shows, resends and deletes dead letters, the lines that a database rejected for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from collectors.errors import CollectorError
from collectors.shipper import config
from collectors.shipper.config import ShipConfig
from collectors.shipper.cursors import DeadLetter, ShipStore, open_existing
from collectors.shipper.influxdb.responses import Outcome, classify
from collectors.shipper.retry import Refusal

SHOWN = 100


def _selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that select dead letters."""
    for option in reversed(
        (
            click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path, readable=False)),
            click.argument("ids", metavar="[ID]...", nargs=-1, type=int),
            click.option("--sink", help="Only those of this sink."),
            click.option("--collector", help="Only those of this collector."),
            click.option(
                "--reason", help="Only these: refused, type, expired, too_large, fault, unencodable, unsorted."
            ),
        )
    ):
        command = option(command)
    return command


def _open(path: Path) -> tuple[ShipConfig, ShipStore]:
    loaded = config.load(path)
    return loaded, open_existing(loaded.ship.state_dir / "ship.db")


def _when(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.first_ns / 1e9, UTC).isoformat(timespec="seconds")


@click.group("dead")
def COMMAND() -> None:  # noqa: N802 - every module here offers COMMAND
    """List, show, resend or delete lines that a database refused for good.

    \b
    collectors dead list ship.toml --reason type
    collectors dead show ship.toml 17
    collectors dead resend ship.toml --collector mppt
    collectors dead delete ship.toml --reason expired --yes
    """


@COMMAND.command("list")
@_selection
@click.option("--limit", default=SHOWN, show_default=True, help="How many to list, oldest first; -1 for all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line.")
def list_letters(
    path: Path, ids: tuple[int, ...], sink: str | None, collector: str | None, reason: str | None, limit: int,
    as_json: bool,
) -> None:  # fmt: skip
    """List refused lines: number, sink, collector, reason, when, the server's words."""
    with _open(path)[1] as store:
        letters = store.dead(sink, collector, reason, ids, limit)
    for letter in letters:
        if as_json:
            click.echo(json.dumps(letter._asdict()))
        else:
            words = f"{letter.status or '-'} {letter.error}".replace("\n", " ")
            click.echo(
                f"{letter.id:>6}  {letter.sink}  {letter.collector}  {letter.reason}  {_when(letter)}  {words[:100]}"
            )
    if not letters and not as_json:
        click.echo("no such dead letters")


@COMMAND.command("show")
@_selection
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line.")
def show_letters(
    path: Path, ids: tuple[int, ...], sink: str | None, collector: str | None, reason: str | None, as_json: bool
) -> None:
    """Show refused lines whole: the line itself and everything that is known about it."""
    with _open(path)[1] as store:
        letters = store.dead(sink, collector, reason, ids)
    for letter in letters:
        if as_json:
            click.echo(json.dumps(letter._asdict()))
            continue
        for name, value in {**letter._asdict(), "first_ns": _when(letter)}.items():
            click.echo(f"{name:>10}  {value}")
        click.echo()


@COMMAND.command("resend")
@_selection
@click.option("--json", "as_json", is_flag=True, help="One JSON object with the counts.")
def resend_letters(
    path: Path, ids: tuple[int, ...], sink: str | None, collector: str | None, reason: str | None, as_json: bool
) -> None:
    """Send the lines once more, one by one; what is stored now is forgotten here. Exit 76 when some are refused again.

    Do this after the cause is gone: a wrong type in the database, a retention policy that was too short.
    """
    loaded, store = _open(path)
    stored = refused = 0
    with store:
        for name in [s.name for s in loaded.sinks if sink in (None, s.name)]:
            letters = [letter for letter in store.dead(name, collector, reason, ids) if letter.reason != "unencodable"]
            some = _resend(loaded, store, name, letters)
            stored, refused = stored + some, refused + len(letters) - some
    click.echo(json.dumps({"stored": stored, "refused": refused}) if as_json else f"{stored} stored, {refused} refused")
    if refused:
        sys.exit(76)


def _resend(loaded: ShipConfig, store: ShipStore, name: str, letters: Sequence[DeadLetter]) -> int:
    """Return how many lines the sink has accepted; CollectorError when it does not respond as a database would."""
    from collectors.shipper.service import open_post

    stored = 0
    with open_post(loaded, name) as post:
        for letter in letters:
            answer = post.ask([letter.line])
            verdict = classify(answer, len(letter.line))
            if verdict is Outcome.STORED:
                stored += 1
                store.remove_dead([letter.id])
                store.forget_types(name, letter.line.partition(" ")[0].partition(",")[0])
            elif verdict in (Outcome.REFUSED, Outcome.EXPIRED):
                refusal = Refusal(letter.line, answer.status, verdict.name.lower(), answer.text)
                store.add_dead(name, letter.collector, letter.seq, [refusal])
            else:
                words = f"{answer.status or 'no answer'}: {answer.text}"
                raise CollectorError(f"sink {name}: {words}; {stored} stored before that")
    return stored


@COMMAND.command("delete")
@_selection
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with the count; needs --yes.")
def delete_letters(
    path: Path, ids: tuple[int, ...], sink: str | None, collector: str | None, reason: str | None, yes: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Delete refused lines here, for good. They are still in the journal as long as that is kept."""
    if as_json and not yes:
        raise click.UsageError("--json needs --yes: there is nobody to ask")
    with _open(path)[1] as store:
        letters = store.dead(sink, collector, reason, ids)
        if letters and not yes:
            click.confirm(f"Delete {len(letters)} refused lines for good?", abort=True)
        store.remove_dead([letter.id for letter in letters])
    click.echo(json.dumps({"deleted": len(letters)}) if as_json else f"{len(letters)} deleted")
