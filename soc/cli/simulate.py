"""`soc simulate`: simulate a cell under a current and write a recording with a known state of charge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soc.cli._options import CELL
from soc.errors import CellError

if TYPE_CHECKING:
    from soc.series import Series

PROFILE_NAMES = ("rest", "discharge", "charge", "cycle", "pulses", "drive", "solar")


@click.command("simulate")
@CELL
@click.option(
    "--profile", default="drive", help=f"{', '.join(PROFILE_NAMES)}, or a file with time_s,current_a. Default drive."
)
@click.option("--hours", type=click.FloatRange(0.001), default=2.0, help="Length of a built-in profile. Default 2.")
@click.option("--period-s", type=click.FloatRange(0.001), default=1.0, help="Its time between samples. Default 1.")
@click.option("--soc0", type=float, default=1.0, help="State of charge at the start. Default 1.")
@click.option("--temperature-degc", type=float, default=25.0, help="Of the cell, throughout. Default 25.")
@click.option("--noise-v", type=click.FloatRange(0), default=0.0, help="White noise of the voltage, V.")
@click.option("--noise-a", type=click.FloatRange(0), default=0.0, help="White noise of the current, A.")
@click.option("--offset-a", type=float, default=0.0, help="Constant error of the current sensor, A.")
@click.option("--seed", type=int, default=0, help="Of the noise and the random profiles. Default 0.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("-"), help="CSV or Parquet; default standard output."
)
def COMMAND(cell: str | None, profile: str, out: Path, **asked: Any) -> None:  # noqa: N802 - every module offers COMMAND
    """Simulate a cell under a current: writes a recording with its true state of charge as soc_ref.

    Built-in profiles: rest; discharge and charge at C/5; cycle, C/2 out and in for an hour each; pulses, like HPPC;
    drive, random to 2C; solar, days of a house. A full cell takes no charge, an empty one ends the recording.

    \b
    soc simulate --cell lg_hg2 --profile drive --hours 3 --noise-v 0.002 --out drive.csv
    soc simulate --cell a123_26650 --profile load.csv --soc0 0.8 --out answer.parquet
    """
    if cell is None:
        raise CellError("which cell is it? Give --cell; `soc cells` lists the known ones")
    from soc.cell.library import path_of
    from soc.files import refuse_overwriting
    from soc.stores import local_files

    refuse_overwriting([out], [path_of(cell), *(() if profile in PROFILE_NAMES else local_files(profile))])
    series, soc = simulated(cell, profile, **asked)
    write(series, soc, out, {"cell": cell, "soc0": asked["soc0"]})


def simulated(
    cell: str,
    profile: str,
    *,
    hours: float,
    period_s: float,
    soc0: float,
    temperature_degc: float,
    noise_v: float,
    noise_a: float,
    offset_a: float,
    seed: int,
) -> tuple[Series, Any]:
    """Return the recording as instruments with these faults report it, and the true state of charge."""
    from soc.cell import library
    from soc.simulation import profiles
    from soc.simulation.simulate import Faults, measured, simulate

    parameters = library.cell(cell)
    if profile in PROFILE_NAMES:
        time_s, current_a = profiles.current(
            profile, parameters, temperature_degc, soc0, 3600.0 * hours, period_s, seed
        )
    else:
        time_s, current_a = _from_file(profile)
    series, soc = simulate(parameters, time_s, current_a, temperature_degc, soc0)
    faults = Faults(voltage_sd_v=noise_v, current_sd_a=noise_a, current_offset_a=offset_a)
    return measured(series, faults, seed), soc


def _from_file(place: str) -> tuple[Any, Any]:
    """Return times and current of a file with the columns time_s and current_a. Raises `StoreError`."""
    import numpy as np

    from soc import stores

    rules = stores.Rules(needed=("time_s", "current_a"))
    chunks = list(stores.read(place, rules).chunks)
    if not chunks:
        raise stores.StoreError(f"{place}: no rows; expected time_s and current_a")
    time_s, current_a = (np.concatenate([chunk[name] for chunk in chunks]) for name in ("time_s", "current_a"))
    return time_s, current_a


def write(series: Series, soc: Any, out: Path, header: dict[str, Any]) -> None:
    """Write a recording with its reference; a CSV begins with its header line."""
    import json

    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from soc.files import whole_file

    names = ("time_s", "current_a", "voltage_v", "temperature_degc")
    table = pa.table({**{name: getattr(series, name).round(6) for name in names}, "soc_ref": soc.round(6)})
    with whole_file(out) as file:
        if out.suffix == ".parquet":
            pq.write_table(table.replace_schema_metadata({"battfleet": json.dumps(header)}), file, compression="zstd")
            return
        file.write(f"# {json.dumps(header)}\n".encode())
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(quoting_header="none"))
