"""`collectors devices [KIND]`: the supported instruments, from their own modules."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

import click

from collectors import devices
from collectors.config import describe_type
from collectors.device import Device


def option_rows(device: Device) -> list[dict[str, str]]:
    """Return name, type, default and help of each key of the kind's [device] table."""
    hints = typing.get_type_hints(device.options)
    rows = []
    for spec in dataclasses.fields(device.options):
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        default = "required" if required else _as_toml(_default(spec))
        rows.append(
            {
                "name": spec.name,
                "type": describe_type(hints[spec.name]),
                "default": default,
                "help": spec.metadata.get("help", ""),
            }
        )
    return rows


def _default(spec: dataclasses.Field[Any]) -> Any:
    factory = spec.default_factory
    return spec.default if factory is dataclasses.MISSING else factory()


def _as_toml(value: Any) -> str:
    """Return a default as one would write it in the configuration."""
    return "none" if value is None else json.dumps(value, default=str)


def as_dict(device: Device) -> dict[str, Any]:
    """Return the device's description as plain data."""
    return {
        "kind": device.kind,
        "title": device.title,
        "links": list(device.links),
        "measurements": {m: list(names) for m, names in device.signals.items()},
        "paced_by": device.paced_by,
        "checked": device.checked,
        "notes": device.notes,
        "options": option_rows(device),
    }


def markdown() -> str:
    """Return docs/devices.md: one table of all kinds, then each kind's options."""
    found = [devices.load(kind) for kind in devices.KINDS]
    lines = [
        "# Supported instruments",
        "",
        "Made by `collectors devices --markdown`; do not edit.",
        "",
        "| kind | instrument | links | measures | frames checked |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| [`{d.kind}`](#{d.kind}) | {d.title} | {', '.join(d.links)} | {', '.join(d.signals)} | "
        f"{'yes' if d.checked else 'no'} |"
        for d in found
    ]
    for d in found:
        lines += ["", f"## {d.kind}", "", f"{d.title}. {d.notes}".strip(), ""]
        lines += ["| [device] key | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| `{r['name']}` | {r['type']} | `{r['default']}` | {r['help']} |" for r in option_rows(d)]
        lines += ["", "| measurement | signals |", "| --- | --- |"]
        lines += [f"| {m} | {', '.join(f'`{n}`' for n in names)} |" for m, names in d.signals.items()]
    return "\n".join(lines) + "\n"


@click.command("devices")
@click.argument("kind", required=False, shell_complete=lambda *_: devices.KINDS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print docs/devices.md.")
def COMMAND(kind: str | None, as_json: bool, as_markdown: bool) -> None:  # noqa: N802
    """List the supported instruments, or show one KIND's options and signals.

    \b
    collectors devices
    collectors devices ea_el3000a
    """
    if as_markdown:
        click.echo(markdown(), nl=False)
        return
    found = [devices.load(k) for k in ([kind] if kind else devices.KINDS)]
    if as_json:
        click.echo(json.dumps([as_dict(d) for d in found], indent=2))
    elif kind:
        _show(found[0])
    else:
        for d in found:
            click.echo(f"{d.kind:<18} {d.title} ({', '.join(d.links)}): {', '.join(d.signals)}")


def _show(device: Device) -> None:
    click.echo(
        f"{device.kind}: {device.title}\n{device.notes}\n\nlinks: {', '.join(device.links)}\n\n[device] options:"
    )
    for row in option_rows(device):
        click.echo(f"  {row['name']} = {row['default']}  ({row['type']})\n      {row['help']}")
    click.echo("\nsignals:")
    for measurement, names in device.signals.items():
        click.echo(f"  {measurement}: {', '.join(names)}")
