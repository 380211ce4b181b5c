"""`collectors ports`: lists the serial ports of this host, their adapters and users."""

from __future__ import annotations

import dataclasses
import json

import click

from collectors.host.serial_ports import Port, ports


@click.command("ports")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per port.")
def COMMAND(as_json: bool) -> None:  # noqa: N802 - every module here offers COMMAND
    """List serial ports: the link for a configuration, what is plugged in, who uses it, whether you may.

    A name in /dev/serial/by-id stays the same when the adapter is plugged in again; /dev/ttyUSB0 does not. Other users'
    processes are seen by root only.

    \b
    collectors ports
    collectors ports --json | jq -r .link
    """
    found = ports()
    if not found and not as_json:
        click.echo("no serial port; is the adapter plugged in? (dmesg | tail says what the kernel saw)", err=True)
    for port in found:
        if as_json:
            click.echo(json.dumps({"link": port.link, **dataclasses.asdict(port)}))
        else:
            _show(port)


def _show(port: Port) -> None:
    click.echo(f'link = "{port.link}"')
    if port.names:
        click.echo(f"    now at {port.device}")
    else:
        click.echo("    no lasting name: this one changes with the order of plugging in; see docs/add-a-bench.md")
    numbers = f"USB {port.vendor_id}:{port.product_id}" if port.vendor_id else "not on USB"
    facts = [numbers, port.vendor, port.product, f"serial {port.serial}" if port.serial else "", port.driver]
    click.echo("    " + ", ".join(filter(None, facts)))
    for user in port.users:
        click.echo(f"    in use by process {user.pid}: {user.command}")
    if not port.is_allowed:
        click.echo(f"    you may not open it: sudo usermod -aG {port.group} $USER, then log in again")
