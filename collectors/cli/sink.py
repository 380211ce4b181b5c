"""`collectors sink …`: make databases ready for the shipper, and see whether they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from collectors.errors import ConfigError
from collectors.shipper import config
from collectors.shipper.config import ShipConfig, SinkConfig


@click.group("sink")
def COMMAND() -> None:  # noqa: N802 - every module here offers COMMAND
    """Make the databases of a shipper's configuration ready, and see whether they are.

    \b
    collectors sink setup ship.toml --keep 52w --admin-user admin --admin-secret-file admin-password
    collectors sink check ship.toml
    """


def _chosen(loaded: ShipConfig, name: str | None) -> list[SinkConfig]:
    chosen = [sink for sink in loaded.sinks if name in (None, sink.name)]
    if not chosen:
        raise ConfigError(f"{loaded.path}: no [[sink]] {name!r}; there are: {', '.join(s.name for s in loaded.sinks)}")
    return chosen


@COMMAND.command("setup")
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path, readable=False))
@click.option("--sink", "name", help="Only this one.")
@click.option(
    "--keep", metavar="DURATION", help="How long the database keeps points: 30d, 52w, forever. Default: as it is."
)
@click.option("--admin-user", default="admin", show_default=True, help="1.x: a user that may do everything.")
@click.option(
    "--admin-secret-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the administrator's password (1.x) or operator token (2.x). A 1.x without users needs none.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each step.")
def setup(
    path: Path, name: str | None, keep: str | None, admin_user: str, admin_secret_file: Path | None, as_json: bool
) -> None:
    """Create what is missing: database or bucket, retention, and a user or token that may write there and nothing else.

    The user's password or the token is made, if its file is not there yet, and written to that file, mode 0600. A
    second run changes nothing and says so. Exit 69: no answer; 76: the database refused; 78: configuration.
    """
    from collectors.shipper.setting_up import Admin, duration_s, set_up

    loaded = config.load(path)
    try:
        keep_s = None if keep is None else duration_s(keep)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--keep") from error
    admin = Admin(admin_user, admin_secret_file.read_text(encoding="utf-8").strip() if admin_secret_file else "")
    changed = 0
    for sink in _chosen(loaded, name):
        for step in set_up(loaded, sink, admin, keep_s):
            changed += step.changed
            said = {"sink": sink.name, "changed": step.changed, "what": step.what}
            click.echo(json.dumps(said) if as_json else f"{sink.name}: {'made' if step.changed else 'ok'}: {step.what}")
    if not as_json:
        click.echo(f"{changed} changed" if changed else "nothing to change")


@COMMAND.command("check")
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path, readable=False))
@click.option("--sink", "name", help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each thing tried.")
def check(path: Path, name: str | None, as_json: bool) -> None:
    """Try whether each database answers, lets us in and would take points; say what to do if not. Writes no point.

    Exit 0: all is well. 69: something is not.
    """
    from collectors.shipper.setting_up import check_sink

    loaded = config.load(path)
    good = True
    for sink in _chosen(loaded, name):
        for is_good, what in check_sink(loaded, sink):
            good &= is_good
            said = {"sink": sink.name, "ok": is_good, "what": what}
            click.echo(json.dumps(said) if as_json else f"{sink.name}: {'ok' if is_good else 'FAILED'}: {what}")
    if not good:
        sys.exit(69)
