"""`collectors tail`: shows the newest readings, and with --follow each new one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from collectors.cli._journals import Unreadable, chosen_readers, is_wanted, names_argument, self_option, state_option
from collectors.host.clock import system_clock
from collectors.journal.history import News
from collectors.journal.reader import JournalReader
from collectors.journal.records import Chunk, EventRecord
from collectors.journal.timestamps import iso

LOOK_S = 0.5
"""Time in s between checks for new rows: the collectors commit once a second."""


def row_objects(reader: JournalReader, chunk: Chunk) -> Iterator[dict[str, Any]]:
    """Yield each row as plain data; `time` is None while the boot's clock is not known."""
    wall_ns, known = reader.to_wall(chunk.boot_id, chunk.boottime_ns)
    for i, (boottime_ns, wall, is_known) in enumerate(
        zip(chunk.boottime_ns.tolist(), wall_ns.tolist(), known.tolist(), strict=True)
    ):
        yield {
            "time": iso(wall, 3) if is_known else None,
            "boottime_s": boottime_ns / 1e9,
            "collector": reader.collector,
            "measurement": chunk.stream.measurement,
            "tags": dict(chunk.stream.tags),
            "values": {
                field.name: float(column.values[i])
                for field, column in zip(chunk.stream.fields, chunk.columns, strict=True)
                if column.missing is None or not column.missing[i]
            },
        }


def event_object(reader: JournalReader, event: EventRecord) -> dict[str, Any]:
    """Return the event as plain data."""
    wall_ns, known = reader.to_wall(event.boot_id, np.array([event.boottime_ns], dtype=np.int64))
    return {
        "time": iso(int(wall_ns[0]), 3) if known[0] else None,
        "boottime_s": event.boottime_ns / 1e9,
        "collector": reader.collector,
        "tags": dict(event.tags),
        "event": event.kind,
        "detail": event.detail,
    }


def _say(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found))
        return
    time = found["time"] or f"boot +{found['boottime_s']:.3f} s"
    if "event" in found:
        about = "".join(f" {k}={v}" for k, v in found["tags"].items())
        click.echo(f"{time}  {found['collector']}  {found['event']}{about}: {found['detail']}")
        return
    own = {k: v for k, v in found["tags"].items() if k not in ("bench", "device", "kind", "battery")}
    what = " ".join([found["measurement"], *(f"{k}={v}" for k, v in own.items())])
    values = " ".join(f"{name}={value:.10g}" for name, value in found["values"].items())
    click.echo(f"{time}  {found['collector']}  {what}  {values or '(no value)'}")


Wanted = Callable[[Chunk], bool]


def _follow(readers: list[JournalReader], wanted: Wanted, as_json: bool, for_s: float | None) -> None:
    clock = system_clock()
    end_s = None if for_s is None else clock.monotonic_s() + for_s
    cursors = {reader.collector: reader.newest_seq() for reader in readers}
    news = {reader.collector: News() for reader in readers}
    for reader in readers:
        for chunk in reader.tail():
            news[reader.collector].of(chunk)
    while end_s is None or clock.monotonic_s() < end_s:
        clock.sleep_s(LOOK_S)
        for reader in readers:
            batch = reader.after(cursors[reader.collector])
            cursors[reader.collector] = batch.hi
            for chunk in map(news[reader.collector].of, filter(wanted, batch.chunks)):
                for row in row_objects(reader, chunk):
                    _say(row, as_json)
            for event in batch.events:
                _say(event_object(reader, event), as_json)


@click.command("tail")
@names_argument
@click.option("-n", "--rows", type=click.IntRange(min=0), default=1, help="Newest rows of each series. Default: 1.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, events included, until Ctrl-C.")
@click.option("--for", "for_s", type=float, metavar="SECONDS", help="Follow for so long.")
@click.option("--measurement", help="Only this measurement, for example battery.")
@self_option
@state_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def COMMAND(  # noqa: N802
    names: tuple[str, ...],
    rows: int,
    follow: bool,
    for_s: float | None,
    measurement: str | None,
    self_metrics: bool,
    state_dir: Path,
    as_json: bool,
) -> None:
    """Show the newest readings of one, several or all collectors, straight from their journals.

    A row whose time is not known yet shows the time since boot. What collectors report about themselves is shown with
    --self-metrics, or with --measurement collector. Exit 74 when a journal cannot be read: it is named, and the others
    are shown.

    \b
    collectors tail
    collectors tail mppt -n 10
    collectors tail --follow --measurement battery --json | jq .values.voltage_v
    """  # fmt: skip
    unreadable = Unreadable()
    readers = unreadable.without(chosen_readers(state_dir, names))
    unreadable.warn()

    def wanted(chunk: Chunk) -> bool:
        return is_wanted(chunk.stream.measurement, measurement, self_metrics)

    for reader in readers:
        for chunk in filter(wanted, reader.tail(rows) if rows else []):
            for row in row_objects(reader, chunk):
                _say(row, as_json)
    if readers and (follow or for_s is not None):
        _follow(readers, wanted, as_json, for_s)
    unreadable.raise_if_any("all others are shown")
