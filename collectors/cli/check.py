"""`collectors check CONFIG…`: reports every mistake at once, before anything runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from collectors import config
from collectors.errors import ConfigError


def problems_of(path: Path) -> list[str]:
    """Return every problem of an instrument's or a shipper's configuration file."""
    try:
        tables = config.read_toml(path)
        if config.is_of_shipper(tables, path):
            from collectors.shipper.config import check

            return check(path)
        config.load(path)
    except ConfigError as error:
        return error.problems
    return []


@click.command("check")
@click.argument("paths", metavar="CONFIG...", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object: path to list of problems.")
def COMMAND(paths: tuple[Path, ...], as_json: bool) -> None:  # noqa: N802
    """Check configuration files of instruments and of the shipper; exit 78 when one is wrong.

    Nothing is opened or written. Names used twice among the given files are found, too.

    \b
    collectors check /etc/battfleet/collectors/*.toml /etc/battfleet/ship.toml
    """
    found = {str(path): problems_of(path) for path in paths}
    for path, other in _same_names(paths):
        found[str(path)].append(f"{path}: [collector] name: also used by {other}; names must be unique on a host")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for name, problems in found.items():
            for problem in problems:
                click.echo(problem, err=True)
            if not problems:
                click.echo(f"{name}: ok")
    if any(found.values()):
        sys.exit(ConfigError.exit_code)


def _same_names(paths: tuple[Path, ...]) -> list[tuple[Path, Path]]:
    """Return (file, earlier file) for each instrument name that an earlier file also has."""
    first: dict[str, Path] = {}
    twice = []
    for path in dict.fromkeys(paths):
        try:
            name = config.read_toml(path).get("collector", {}).get("name")
        except (ConfigError, AttributeError):  # unreadable or not a table: already reported by its own check
            continue
        if isinstance(name, str) and (other := first.setdefault(name, path)) != path:
            twice.append((path, other))
    return twice
