"""`collectors status`: shows what is stored, shipped and waiting on this host."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from collectors import config, signals
from collectors.cli._journals import no_journal
from collectors.errors import JournalError
from collectors.host.clock import Clock, system_clock
from collectors.journal import held_losses, notes
from collectors.journal.directory_view import unreadable
from collectors.journal.reader import JournalReader
from collectors.journal.retention import disk_is_low, free_bytes
from collectors.journal.schema import get_meta
from collectors.journal.settings import JournalSettings
from collectors.shipper import sink_status
from collectors.shipper.journal_source import collectors_of
from collectors.shipper.service import OWN_NAME

STALE_S = 60.0
CLOCK_WORDS = signals.VOCABULARY["collector"]["clock_state"].codes or {}


def collector_status(directory: Path, sinks: list[sink_status.SinkState]) -> dict[str, Any]:
    """Return the status of one collector's journal as plain data."""
    reader = JournalReader(directory)
    clock = system_clock()
    newest_seq = reader.newest_seq()
    chunks = reader.tail(1)
    here = [c for c in chunks if c.boot_id == clock.boot_id]
    is_shipper = reader.collector == OWN_NAME  # it has metrics of itself only
    measured = [c for c in here if is_shipper or c.stream.measurement != "collector"]
    newest_ns = max((int(c.boottime_ns[-1]) for c in measured), default=None)
    own = {
        spec.name: float(column.values[-1])
        for c in here
        if c.stream.measurement == "collector" and "outcome" not in c.stream.tags
        for spec, column in zip(c.stream.fields, c.columns, strict=True)
        if column.missing is None or not column.missing[-1]
    }
    events = reader.events_after(max(0, newest_seq - 5000), 5000)
    telling = signals.HUMAN_EVENTS if is_notes(reader.collector) else ("link_up", "link_down", "collector_stop")
    last = next((e for e in reversed(events) if e.kind in telling), None)
    return {
        "collector": reader.collector,
        "tags": dict(reader.tags()),
        "last_sample_age_s": None if newest_ns is None else (clock.boottime_ns() - newest_ns) / 1e9,
        "state": None if last is None else f"{last.kind}: {last.detail}",
        "clock": CLOCK_WORDS.get(int(own["clock_state"])) if "clock_state" in own else None,
        "recent_events": {
            kind: n
            for kind, row in signals.EVENTS.items()
            if row.is_loss and (n := sum(e.kind == kind for e in events))
        },
        "own": own,
        "held": held_object(reader, clock),
        "disk_free_bytes": free_bytes(directory),
        "disk_is_low": disk_is_low(directory, JournalSettings()),
        "journal_files": len(reader.files()),
        "journal_bytes": sum(f.stat().st_size for f in directory.glob("j-*")),
        "newest_seq": newest_seq,
        "unsent": {s.sink: reader.commits_between(s.cursors.get(reader.collector, 0)) for s in sinks},
        "dead_letters": {s.sink: n for s in sinks if (n := s.dead_letters.get(reader.collector, 0))},
    }


def held_object(reader: JournalReader, clock: Clock) -> dict[str, Any] | None:
    """Return the collector's latest record of what the disk did not accept; None while it accepts everything."""
    nothing: dict[str, Any] = {}
    try:
        record = held_losses.read(reader.directory)
    except OSError as error:
        raise unreadable(reader.directory / held_losses.NAME, error) from error
    if record is None or record.id == reader.newest(get_meta, nothing).get(held_losses.META):
        return None
    is_here = record.boot_id == clock.boot_id
    return {
        "rows": record.losses.row_count,
        "events": record.losses.event_count,
        "why": record.why,
        "is_lost": record.is_final,
        "noted_s_ago": (clock.boottime_ns() - record.at_ns) / 1e9 if is_here else None,
        "since_s": (clock.boottime_ns() - record.since_ns) / 1e9 if is_here else None,
    }


def status(state_dir: Path) -> dict[str, Any]:
    """Return the host's whole status as plain data; what cannot be read is named, and the rest is included."""
    found: dict[str, Any] = {"collectors": [], "sinks": [], "unreadable": {}}
    sinks: list[sink_status.SinkState] = []
    try:
        sinks = sink_status.sinks(state_dir)
    except JournalError as error:
        found["unreadable"]["ship.db"] = str(error)
    for name in collectors_of(state_dir):
        try:
            found["collectors"].append(collector_status(state_dir / name, sinks))
        except JournalError as error:
            found["unreadable"][name] = str(error)
    found["sinks"] = [{"sink": s.sink} | (s.health._asdict() if s.health else {"state": "never tried"}) for s in sinks]
    return found


@click.command("status")
@click.option(
    "--state", "state_dir", type=click.Path(path_type=Path, file_okay=False), default=config.state_dir_here,
    help="Where journals live. Default: $STATE_DIRECTORY, ./.state, or /var/lib/collectors.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def COMMAND(state_dir: Path, as_json: bool) -> None:  # noqa: N802
    """Show every collector on this host: last sample, state, what is kept, sent, waiting and refused.

    Exit 69 when there is no journal, or one has had no sample for a minute; 74 when a journal, or the shipper's own
    file, cannot be read: it is named with the reason, and all others are shown.

    \b
    collectors status
    collectors status --state /var/lib/battfleet --json | jq '.collectors[].unsent'
    """
    found = status(state_dir)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found["collectors"] and not found["unreadable"]:
        click.echo(no_journal(state_dir), err=True)
    else:
        _print(found)
    if found["unreadable"]:
        sys.exit(JournalError.exit_code)
    ages = [c["last_sample_age_s"] for c in found["collectors"] if not is_notes(c["collector"])]
    if not ages or any(age is None or age > STALE_S for age in ages):
        sys.exit(69)


def is_notes(name: str) -> bool:
    """Return whether this is the journal of notes, which no one expects at regular times."""
    return name == notes.NAME


def _held_line(found: dict[str, Any]) -> str:
    what = f"{found['rows']} readings and {found['events']} events"
    if found["is_lost"]:
        return f"LOST at the last stop: {what}, the next start records it: {found['why']}"
    if found["noted_s_ago"] is None:
        return f"LOST in an earlier boot: at least {what}, the next start records it: {found['why']}"
    return f"THE DISK TAKES NOTHING: {what} waited in memory {found['noted_s_ago']:.0f} s ago: {found['why']}"


def _print(found: dict[str, Any]) -> None:
    for c in found["collectors"]:
        age = "no sample since boot" if c["last_sample_age_s"] is None else f"{c['last_sample_age_s']:.1f} s ago"
        what = "what people and tools did" if is_notes(c["collector"]) else f"last sample {age}"
        click.echo(f"{c['collector']}: {what}")
        nothing = "sends on what the others keep" if c["collector"] == OWN_NAME else "never opened its link"
        click.echo(f"  {c['state'] or nothing}")
        megabytes = c["journal_bytes"] / 1e6
        click.echo(f"  journal {megabytes:.1f} MB in {c['journal_files']} files; clock {c['clock'] or 'unknown'}")
        if c["held"]:
            click.echo(f"  {_held_line(c['held'])}")
        if c["disk_is_low"]:
            click.echo(f"  disk nearly full: {c['disk_free_bytes'] / 1e6:.1f} MB free")
        for kind, count in c["recent_events"].items():
            click.echo(f"  {count} × {kind} lately")
        for sink, count in c["unsent"].items():
            refused = c["dead_letters"].get(sink, 0)
            click.echo(f"  {sink}: {count} commits not confirmed" + (f", {refused} lines refused" if refused else ""))
    for name, why in found["unreadable"].items():
        click.echo(f"{name}: unreadable: {why}", err=True)
    for s in found["sinks"]:
        click.echo(f"sink {s['sink']}: {s['state']}" + (f": {s['why']}" if s.get("why") else ""))
