"""`collectors once CONFIG`: runs poll cycles until one gives readings and prints them; nothing is stored."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click

from collectors import config, signals, transports
from collectors.acquisition.session import Session, identify
from collectors.device import Driver, Output
from collectors.errors import FrameError, NoReply, Refused, WrongDevice
from collectors.host.clock import system_clock
from collectors.reading import Identity, Reading

TURNS = 20


def one_turn(loaded: config.Config) -> tuple[Identity, list[Output]]:
    """Return the identity and the outputs of the first poll cycle that gives readings; NoReply when none does."""
    link = transports.open_link(loaded.collector.link, loaded.device)
    try:
        conversation = Session(link, system_clock())
        driver: Driver = loaded.device.driver(loaded.options)
        identity = identify(conversation, driver, loaded.device)
        try:
            for _ in range(TURNS):
                if outputs := conversation.carry(driver.poll()):
                    return identity, outputs
            raise NoReply(f"answers, but gave no reading in {TURNS} turns")
        finally:
            conversation.carry(driver.close())
    finally:
        link.close()


def _json(item: Output) -> dict[str, Any]:
    return {"type": type(item).__name__.lower()} | {k: v for k, v in dataclasses.asdict(item).items() if v != {}}


@click.command("once")
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path, readable=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
def COMMAND(path: Path, as_json: bool) -> None:  # noqa: N802
    """Read the instrument once and print what it says. Nothing is stored.

    Use it to try a configuration. Stop the instrument's collector first: a port has one reader.

    \b
    collectors once mppt.toml
    collectors once mppt.toml --json | jq .
    """
    loaded = config.load(path)
    try:
        identity, outputs = one_turn(loaded)
    except (FrameError, NoReply, Refused, WrongDevice) as error:  # LinkDown names its port already
        click.echo(f"collectors: {loaded.collector.link}: {error}", err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(json.dumps({"type": "identity"} | dataclasses.asdict(identity)))
        for item in outputs:
            click.echo(json.dumps(_json(item)))
        return
    click.echo(" ".join(filter(None, (identity.model, identity.serial, identity.firmware))))
    for key, value in identity.detail.items():
        click.echo(f"  {key}: {value}")
    for item in outputs:
        if isinstance(item, Reading):
            _print_reading(item)
        else:
            click.echo(f"event {item.kind}: {item.detail}")


def _print_reading(reading: Reading) -> None:
    tags = "".join(f" {key}={value}" for key, value in reading.tags.items())
    click.echo(f"{reading.measurement}{tags}")
    for name, value in reading.values.items():
        signal = signals.find(reading.measurement, name)
        unit = signal.unit if signal else ""
        meaning = signal.codes.get(int(value), "") if signal and signal.codes and value is not None else ""
        shown = "no value" if value is None else f"{value:g} {unit} {meaning}"
        click.echo(f"  {name:<28} {shown}".rstrip())
