"""`soc cells`: list the known cells, show one in full, and check a cell file."""

from __future__ import annotations

import json
from typing import Any

import click

from soc.cli._options import CellName


@click.command("cells")
@click.argument("names", metavar="[CELL]…", nargs=-1, type=CellName())
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each cell.")
def COMMAND(names: tuple[str, ...], as_json: bool) -> None:  # noqa: N802 - every module here offers COMMAND
    """List the cells that come with battfleet, or show what each CELL (name or file) is; a wrong file is explained.

    \b
    soc cells
    soc cells lg_hg2
    soc cells my_cell.toml --json
    """
    from soc.cell import library

    for name in names or library.names():
        found = summary(name)
        if as_json:
            click.echo(json.dumps(found))
        elif names:
            _show(found)
        else:
            degc = found["temperature_degc"]
            click.echo(
                f"{name:<20} {found['chemistry']:<4} {found['nominal_ah']:g} Ah, "
                f"{found['voltage_min_v']:g} to {found['voltage_max_v']:g} V, tested at {degc[0]:g} to {degc[-1]:g} °C"
            )


def summary(name: str) -> dict[str, Any]:
    """Return the main figures of a cell as plain data. Raises `CellError`."""
    from soc.cell import library

    cell = library.cell(name)
    middle = cell.soc_knots.searchsorted(0.5) if len(cell.soc_knots) > 1 else 0
    return {
        "name": name,
        "id": cell.id,
        "chemistry": cell.chemistry,
        "nominal_ah": cell.nominal_ah,
        "voltage_min_v": cell.voltage_min_v,
        "voltage_max_v": cell.voltage_max_v,
        "pairs": cell.pairs,
        "temperature_degc": cell.temperature_degc.tolist(),
        "capacity_ah": cell.capacity_ah.tolist(),
        "r0_ohm": cell.r0_ohm[:, middle].tolist(),
        "error_v": cell.noise.error_v[:, middle].tolist(),
        "source": cell.source,
        "procedure": cell.procedure,
    }


def _show(found: dict[str, Any]) -> None:
    click.echo(f"{found['id']}  {found['chemistry']}, {found['nominal_ah']:g} Ah, {found['pairs']} R-C pairs, "
               f"{found['voltage_min_v']:g} to {found['voltage_max_v']:g} V\n")  # fmt: skip
    click.echo("    °C   capacity Ah   R0 mΩ   model error mV   (at half charge)")
    rows = zip(*(found[key] for key in ("temperature_degc", "capacity_ah", "r0_ohm", "error_v")), strict=True)
    for degc, ah, ohm, error in rows:
        click.echo(f"{degc:6g} {ah:13.3f} {1e3 * ohm:7.2f} {1e3 * error:16.1f}")
    for key in ("source", "procedure"):
        if found[key]:
            click.echo(f"\n{key}: {found[key]}")
