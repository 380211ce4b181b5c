"""`collectors init KIND`: writes a commented configuration for one instrument."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap
from typing import Any

import click

from collectors import config, config_template, devices
from collectors.device import Device
from collectors.errors import ConfigError
from collectors.journal.settings import JournalSettings

STDOUT = Path("-")


def default_bench() -> str:
    """Return this host's name if it can be a tag, else an empty string."""
    name = socket.gethostname().partition(".")[0]
    return name if config.NAME.fullmatch(name) else ""


def write_new(path: Path, text: str) -> None:
    """Write a new file; ConfigError if it exists."""
    if path == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(
            f"{path}: is there already, and nothing is written over it; choose another --output"
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path}: no such folder: {path.parent}") from error


def problems_of(text: str, load: Callable[[Path], object]) -> list[str]:
    """Return the problems of a configuration that is not written yet."""
    with TemporaryDirectory(prefix="battfleet-") as folder:
        path = Path(folder) / "new.toml"
        path.write_text(text, encoding="utf-8")
        try:
            load(path)
        except ConfigError as error:
            return [problem.removeprefix(f"{path}: ") for problem in error.problems]
    return []


def unfilled(blanks: Sequence[str], problems: Sequence[str]) -> list[str]:
    """Return the problems that do not concern a blank."""
    keys = [blank.rpartition(" ")[2] for blank in blanks]
    return [problem for problem in problems if not any(f"{key}:" in problem for key in keys)]


@click.command("init")
@click.argument("kind", type=click.Choice(devices.KINDS), metavar="KIND")
@click.option("--link", help="How the instrument is reached; `collectors ports` lists serial ports.")
@click.option("--name", help="Tag `device` and the journal's folder. Default: KIND.")
@click.option("--bench", default=default_bench, help="Tag `bench`. Default: this host's name.")
@click.option("--battery", help="Tag `battery`: which battery it measures.")
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True, help="A key of [device], as TOML.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File to write, - for standard output. Default: NAME.toml.",
)
def COMMAND(  # noqa: N802 - every module here offers COMMAND
    kind: str,
    link: str | None,
    name: str | None,
    bench: str,
    battery: str | None,
    options: tuple[str, ...],
    output: Path | None,
) -> None:
    """Write a configuration for an instrument of this KIND, with every key explained. Never writes over a file.

    What is not given and has no default is marked FILL IN; the others are comments that show their defaults. Then
    `collectors check` says whether it is complete, and `collectors once` whether the instrument responds.

    \b
    collectors init libresolar_mppt --link serial:/dev/serial/by-id/usb-FTDI_FT232R_A1B2C3-if00-port0 --name mppt
    collectors init labjack_t7 --link tcp:192.0.2.7 --option 'channels=[{input="AIN0", signal="battery.voltage_v"}]'
    collectors init ea_el3000a --output -
    """
    device = devices.load(kind)
    given = {"name": name or kind, "bench": bench, "battery": battery, "kind": kind, "link": link}
    usual = Path(f"{given['name']}.toml")
    path = output or usual
    text, blanks = instrument_toml(
        device, {k: v for k, v in given.items() if v}, _table(options), str(usual if path == STDOUT else path)
    )
    problems = unfilled(blanks, problems_of(text, config.load))
    if problems:
        raise ConfigError(problems)
    write_new(path, text)
    if path == STDOUT:
        return
    click.echo(f"{path}: written")
    for blank in blanks:
        click.echo(f"  fill in: {blank}")
    click.echo(f"next: collectors check {path}; collectors once {path}; collectors run {path}")


def _table(options: Sequence[str]) -> dict[str, Any]:
    """Return the [device] keys of KEY=VALUE texts; a value that is not TOML is text."""
    table: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--option {text}: expected KEY=VALUE")
        try:
            table[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[key.strip()] = value.strip()
    return table


def instrument_toml(
    device: Device, collector: Mapping[str, Any], options: Mapping[str, Any], path: str
) -> tuple[str, list[str]]:
    """Return the configuration's text and its blanks."""
    lines = [*(f"# {line}" for line in wrap(f"{device.title}. {device.notes}", config_template.WIDTH)), "#"]
    lines += ["# A line that begins with `# key =` shows a default."]
    lines += [f"# collectors check {path}    says whether it is complete", ""]
    tables = [
        config_template.table(config.Collector, "collector", collector),
        config_template.table(device.options, "device", options),
        config_template.table(JournalSettings, "journal", {}),
    ]
    parts = [part for part, _ in tables]
    if "link" not in collector:
        at = next(i for i, line in enumerate(parts[0]) if line.startswith("link ="))
        parts[0][at:at] = [f"# reached by: {', '.join(device.links)}", *_found_links(device)]
    for part in parts:
        lines += [*part, ""]
    return "\n".join(lines[:-1]) + "\n", [blank for _, blanks in tables for blank in blanks]


def _found_links(device: Device) -> list[str]:
    from collectors.host.serial_ports import ports

    return [f"# found here: {port.link}" for port in ports()] if "serial" in device.links else []
