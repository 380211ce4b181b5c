"""`collectors fake KIND`: serves an instrument without hardware, for testing a configuration."""

from __future__ import annotations

import re
import signal
import sys
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

from collectors import devices, fakes
from collectors.config import is_valid, load_dataclass
from collectors.errors import ConfigError
from collectors.text import encodable

if TYPE_CHECKING:
    from collectors.fakes.serve import Server, Station


@click.command("fake")
@click.argument("kind", type=click.Choice(devices.KINDS), metavar="KIND")
@click.option("--port", metavar="PATH|tcp[:PORT]", help="Where to serve it. [./tty-KIND; a T7: tcp]")
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True, help="What it is and does; see below.")
@click.option("--speed", type=click.FloatRange(min=0.1), default=1.0, help="Seconds of the battery in one of ours.")
@click.option("--seed", type=int, default=1, help="Of everything random.")
@click.option("--fault", "faults", metavar="KIND@START[+SECONDS][=AMOUNT]", multiple=True, help="As in `bench`.")
def COMMAND(  # noqa: N802 - every module here offers COMMAND
    kind: str, port: str | None, options: tuple[str, ...], speed: float, seed: int, faults: tuple[str, ...]
) -> None:
    """Serve a fake instrument on a pseudo-terminal or on loopback TCP until Ctrl-C; print the link that reaches it.

    It measures a simulated 12.8 V battery. While it runs it takes faults from the terminal, one on a line:
    KIND [SECONDS [AMOUNT]], for example: unplug 5. Kinds: unplug hold silence garble drop noise debug delay split.

    \b
    collectors fake libresolar_mppt --option generation=0.5
    collectors fake ea_el3000a --port /tmp/ttyLOAD --fault garble@10+5=0.05
    collectors fake labjack_t7 --port tcp:1502
    """
    from collectors.bench.setup import Simulated, place_of
    from collectors.fakes.faults import parse_fault
    from collectors.fakes.serve import Server, Station

    fake = fakes.load(kind)
    place = place_of(kind)
    planned = [parse_fault(f"{place.name}:{text}")[1] for text in faults]
    made = _options(fake.options, options, f"fake {kind}")
    station = Station(place.name, fake, Simulated(speed, seed).world(place), made, seed, place.counted)
    server = Server()
    try:
        _put_on_wire(server, station, kind, port)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: server.stop())
        for fault in planned:
            server.misbehave(place.name, fault)
        print(encodable(f'link = "{station.wire.link}"'), flush=True)
        Thread(target=_take_commands, args=(server, place.name), daemon=True).start()
        server.run()
    finally:
        server.close()


def _options(cls: type[Any], texts: tuple[str, ...], where: str) -> Any:
    """Return the fake's options, with these texts overriding the defaults; ConfigError naming each that is wrong."""
    hints = typing.get_type_hints(cls)
    table: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise ConfigError(f"{where}: --option {text}: expected KEY=VALUE")
        table[key] = option_value(value, hints.get(key, Any))
    made, problems = load_dataclass(cls, table, f"{where}: --option")
    if problems or made is None:
        raise ConfigError(problems)
    return made


def option_value(text: str, hint: Any) -> Any:
    """Return a value as TOML would read it; text if text is required (`serial=12` needs no quotes) or not TOML."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str) or not is_valid(hint, text) else text


def _put_on_wire(server: Server, station: Station, kind: str, port: str | None) -> None:
    """Serve the fake at the requested port; ConfigError or LinkBusy when that is not possible."""
    channels: Mapping[str, int] = fakes.load(kind).channels or {"": 0}
    where = port or ("tcp" if fakes.load(kind).channels else f"tty-{kind}")
    scheme, _, number = where.partition(":")
    if scheme == "tcp":
        if number and not (re.fullmatch("[0-9]{1,5}", number) and int(number) <= 65535):
            raise ConfigError(f"--port {where}: expected tcp:PORT with a PORT up to 65535")
        server.add_tcp(station, dict.fromkeys(channels, 0) | {"": int(number or 0)})
        return
    if fakes.load(kind).channels:
        raise ConfigError(f"--port {where}: a {kind} is reached over tcp; use tcp or tcp:PORT")
    path = Path(where).absolute()
    if path.exists() and not path.is_symlink():
        raise ConfigError(f"--port {path}: something is there already, and it is no link of ours")
    if not path.parent.is_dir():
        raise ConfigError(f"--port {path}: no such folder: {path.parent}")
    server.add_pty(station, path, devices.load(kind).line)


def _take_commands(server: Server, target: str) -> None:
    """Schedule the faults that are typed in, from now on."""
    from collectors.fakes.faults import parse_fault

    for line in sys.stdin:
        kind, *more = line.split() or [""]
        if not kind:
            continue
        seconds, amount = (more[0] if more else "1"), (f"={more[1]}" if more[1:] else "")
        try:
            _, fault = parse_fault(f"{target}:{kind}@{server.now_s():.3f}+{seconds}{amount}")
        except ConfigError as error:
            print(error, file=sys.stderr)
        else:
            server.misbehave(target, fault)
