"""`collectors sink …`: provisions databases for the shipper, and checks them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click

from collectors import config_template
from collectors.cli.init import STDOUT, default_bench, problems_of, unfilled, write_new
from collectors.errors import ConfigError, LinkDown
from collectors.shipper import config
from collectors.shipper.config import ShipConfig, SinkConfig
from collectors.shipper.influxdb.detect import Detected, Dialect, detect


@click.group("sink")
def COMMAND() -> None:  # noqa: N802 - every module here offers COMMAND
    """Make the databases of a shipper's configuration ready, and see whether they are.

    \b
    collectors sink init http://localhost:8086
    collectors sink setup ship.toml --keep 52w --admin-user admin --admin-secret-file admin-password
    collectors sink check ship.toml
    """


def _chosen(loaded: ShipConfig, name: str | None) -> list[SinkConfig]:
    chosen = [sink for sink in loaded.sinks if name in (None, sink.name)]
    if not chosen:
        raise ConfigError(f"{loaded.path}: no [[sink]] {name!r}; there are: {', '.join(s.name for s in loaded.sinks)}")
    return chosen


@COMMAND.command("init")
@click.argument("url")
@click.option("--name", default="lab", show_default=True, help="What the sink is called here.")
@click.option("--bench", default=default_bench, help="Tag `bench` of the shipper's own points. Default: this host.")
@click.option("--dialect", type=click.Choice(["influxdb1", "influxdb2"]), help="Default: what responds at URL.")
@click.option("--database", default="bat", show_default=True, help="1.x: database.")
@click.option("--user", help="1.x: user. Default: the bench's name, where the server asks for one.")
@click.option("--org", help="2.x: organisation.")
@click.option("--bucket", default="bat/raw", show_default=True, help="2.x: bucket.")
@click.option("--ca-file", default="", help="Certificate authority for https.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default=Path("ship.toml"),
    show_default=True, help="File to write, - for standard output.",
)  # fmt: skip
def init(url: str, name: str, dialect: str | None, ca_file: str, output: Path, **given: str | None) -> None:
    """Write a shipper's configuration for the database at URL, with every key explained. Never writes over a file.

    The server is asked which InfluxDB it is, and a 1.x whether it has users. `sink setup` then creates the database and
    the file with the password or token, and `sink check` says whether all is well.

    \b
    collectors sink init http://localhost:8086
    collectors sink init https://influx.example.org --org lab --dialect influxdb2
    """
    keys = {"name": name, "url": url, "ca_file": ca_file, **given}
    text, blanks = ship_toml({key: value for key, value in keys.items() if value}, dialect, str(output))
    problems = unfilled(blanks, problems_of(text, config.load))
    if problems:
        raise ConfigError(problems)
    write_new(output, text)
    if output == STDOUT:
        return
    click.echo(f"{output}: written")
    for blank in blanks:
        click.echo(f"  fill in: {blank}")
    click.echo(f'in each instrument\'s [journal]: sinks = ["{name}"]    keeps what is not sent yet')
    click.echo(f"next: collectors sink setup {output}; collectors sink check {output}; collectors ship {output}")


def _detected(url: str, ca_file: str) -> Detected:
    try:
        return detect(url, ca_file)
    except LinkDown as error:
        raise LinkDown(f"{error}; --dialect influxdb1 or influxdb2 says which it is without asking") from error


def ship_toml(given: Mapping[str, str], dialect: str | None, path: str) -> tuple[str, list[str]]:
    """Return the configuration's text and its blanks. Queries the server for what is not given."""
    sink = dict(given)
    ship = {"bench": sink.pop("bench")} if "bench" in sink else {}
    found = (
        _detected(sink["url"], sink.get("ca_file", "")) if dialect is None else Detected(cast("Dialect", dialect), "")
    )
    needed, allowed = config.OF_DIALECT[found.dialect]
    foreign = {key for n, a in config.OF_DIALECT.values() for key in n + a} - {*needed, *allowed}
    sink = {key: value for key, value in sink.items() if key not in foreign} | {"dialect": found.dialect}
    if found.dialect == "influxdb2":
        sink["token_file"] = f"{sink['name']}-token"
    elif "user" in sink or found.has_users:
        sink.setdefault("user", ship.get("bench", "bench"))
        sink["password_file"] = f"{sink['name']}-password"
    version = f", which is {found.version}" if found.version else ""
    parts = [
        config_template.table(config.Ship, "ship", ship),
        config_template.table(config.SinkConfig, "[sink]", sink, foreign, needed),
    ]
    lines = [f"# Ships the journals of this host to {sink['url']}{version}.", "#"]
    lines += ["# A line that begins with `# key =` shows a default."]
    lines += [f"# collectors check {path}    says whether it is complete"]
    for part, _ in parts:
        lines += ["", *part]
    return "\n".join(lines) + "\n", [blank for _, blanks in parts for blank in blanks]


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

    The user's password or the token is made, if its file is not there yet, and written to that file, mode 0600. On 2.x
    a token made here before is made anew when it may not write there any more; any other in that file is left alone.
    A second run changes nothing and says so. Exit 69: no answer; 76: the database refused; 78: configuration.
    """
    from collectors.shipper.influxdb.provisioning import Admin, duration_s, set_up

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
    from collectors.shipper.influxdb.provisioning import check_sink

    loaded = config.load(path)
    good = True
    for sink in _chosen(loaded, name):
        for is_good, what in check_sink(loaded, sink):
            good &= is_good
            said = {"sink": sink.name, "ok": is_good, "what": what}
            click.echo(json.dumps(said) if as_json else f"{sink.name}: {'ok' if is_good else 'FAILED'}: {what}")
    if not good:
        sys.exit(69)
