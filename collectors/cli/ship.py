"""`collectors ship CONFIG`: send every journal of this host to the databases."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from collectors.shipper import config


@click.command("ship")
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--once",
    is_flag=True,
    help="End when everything is confirmed. Exit 69: a database takes nothing, or rows wait for their time; 74: a "
    "journal cannot be read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each sink and report.")
def COMMAND(path: Path, once: bool, as_json: bool) -> None:  # noqa: N802 - every module here offers COMMAND
    """Send all journals of the state folder to every sink of CONFIG, until SIGTERM.

    Delivery is at least once and overwrites itself, so the effect is exactly once. Nothing is sent before its time is
    known. What a database refuses for good: `collectors dead`. Is it reachable: `collectors sink check CONFIG`.

    \b
    collectors ship /etc/battfleet/ship.toml
    collectors ship ship.toml --once --json
    """
    loaded = config.load(path)
    from collectors.shipper import service

    ended_by = service.run(loaded, once=once, as_json=as_json)
    if once and ended_by:
        sys.exit(128 + ended_by)
