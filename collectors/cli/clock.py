"""`collectors clock`: shows the state of the clock, and sets it manually where no time service does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from collectors import config
from collectors.cli._journals import Unreadable, chosen_readers
from collectors.errors import ConfigError, JournalError, JournalLocked
from collectors.host.clock import SET_BY_PERSON, SYNCHRONISED, Clock, ClockReading, system_clock
from collectors.host.privileges import become_owner
from collectors.journal import clock_request, timestamps
from collectors.journal.backlog import Work
from collectors.journal.reader import JournalReader
from collectors.journal.records import Boot
from collectors.journal.settings import JournalSettings
from collectors.journal.timeline import resolve
from collectors.journal.writer import JournalWriter
from collectors.shipper.journal_source import collectors_of

WORDS = {0: "unknown", SYNCHRONISED: "synchronised", SET_BY_PERSON: "set by hand"}
TAKEN_S = 10.0
"""Maximum wait in s for a running collector to apply a request, which it does at its next commit."""

STATE = click.option(
    "--state", "state_dir", type=click.Path(path_type=Path, file_okay=False), default=config.state_dir_here,
    help="Where journals live. Default: $STATE_DIRECTORY, ./.state, or /var/lib/collectors.",
)  # fmt: skip


def boot_object(boot: Boot, here: str) -> dict[str, Any]:
    """Return what is known about one boot's clock as plain data."""
    segments = resolve(boot.steps).segments
    return {
        "boot_id": boot.boot_id,
        "is_this_boot": boot.boot_id == here,
        "first_sample_boottime_s": boot.first_ns / 1e9,
        "segments": [
            {
                "from_boottime_s": segment.start_ns / 1e9,
                "from": timestamps.iso(segment.start_ns + segment.offset_ns, 3) if segment.state else None,
                "offset_ns": segment.offset_ns if segment.state else None,
                "seen_offset_ns": step.offset_ns,
                "time": WORDS[segment.state],
                "frozen": segment.frozen,
            }
            for step, segment in zip(boot.steps, segments, strict=True)
        ],
    }


def overview(state_dir: Path, clock: Clock) -> dict[str, Any]:
    """Return the host's clock and every journal's boots as plain data."""
    look = clock.look()
    unreadable = Unreadable()
    boots: dict[str, list[dict[str, Any]]] = {}
    for name in collectors_of(state_dir):
        reader = JournalReader(state_dir / name)
        with unreadable.remembering(reader):
            boots[name] = [boot_object(boot, clock.boot_id) for boot in reader.boots()]
    return {
        "now": timestamps.iso(look.boottime_ns + look.offset_ns, 3),
        "synchronised": look.state == SYNCHRONISED,
        "boot_id": clock.boot_id,
        "boottime_s": look.boottime_ns / 1e9,
        "offset_ns": look.offset_ns,
        "max_error_us": look.max_error_us,
        "collectors": boots,
        "unreadable": unreadable.reasons,
    }


@click.group("clock", invoke_without_command=True)
@STATE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def COMMAND(context: click.Context, state_dir: Path, as_json: bool) -> None:  # noqa: N802
    """Show the time, whether a time service vouches for it, and what each journal knows about its boots.

    Samples carry time since boot. Where no time service has set the clock, they wait in the journal; nothing is
    invented. `collectors clock set` says the time by hand. "frozen" marks what was shipped: it never changes again.
    Exit 74 when a journal cannot be read: it is named, and the others are shown.

    \b
    collectors clock
    collectors clock --json | jq .synchronised
    collectors clock set now
    """
    if context.invoked_subcommand is not None:
        context.obj = state_dir
        return
    found = overview(state_dir, system_clock())
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found)
    if found["unreadable"]:
        raise JournalError("\n".join(found["unreadable"]))


def _print(found: dict[str, Any]) -> None:
    vouched = "synchronised" if found["synchronised"] else "not synchronised: no time service vouches for it"
    click.echo(f"now {found['now']}, {vouched}\nboot {found['boot_id']}, {found['boottime_s']:.3f} s ago")
    for name, boots in found["collectors"].items():
        click.echo(f"{name}:")
        for boot in boots:
            click.echo(f"  boot {boot['boot_id']}{' (this one)' if boot['is_this_boot'] else ''}")
            for s in boot["segments"]:
                since = s["from"] or "time not known: samples wait"
                frozen = ", frozen" if s["frozen"] else ""
                click.echo(f"    from +{s['from_boottime_s']:.3f} s: {since} ({s['time']}{frozen})")


@COMMAND.command("set")
@click.argument("time")
@click.argument("names", nargs=-1, metavar="[COLLECTOR]...")
@click.option("--boot", help="Another boot than this one, by the beginning of its id; TIME is then its first sample's.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--state", "state_dir", type=click.Path(path_type=Path, file_okay=False), help="Where journals live.")
@click.pass_obj
def set_(above: Path, time: str, names: tuple[str, ...], boot: str | None, yes: bool, state_dir: Path | None) -> None:
    """Say what the time is, for samples that no time service vouches for.

    TIME is what the time is now ("now": believe this machine's clock), or, with --boot, when that boot's first sample
    was taken. Without a zone it is UTC. It applies to the samples of the boot whose time is not known, and is kept
    until a time service knows better. What was shipped stays as it was shipped. Without names and --boot it also
    reaches what begins later in this boot: collectors, the shipper, notes. Use sudo on a host whose collectors run as
    a user of their own.

    \b
    collectors clock set now
    collectors clock set 2026-05-28T10:00:00+02:00 --yes
    collectors clock set 2026-05-27T08:12 --boot 3f0c91 mppt

    Exit 74 when a journal cannot be read or written: it is named, and all others are set.
    """
    state_dir = state_dir or above
    clock = system_clock()
    look = clock.look()
    try:
        said_ns = timestamps.parse(time, look.boottime_ns + look.offset_ns)
    except ValueError as error:
        raise ConfigError(f"TIME {error}") from error
    if not state_dir.is_dir():
        raise JournalError(f"{state_dir}: no such folder; name the one of the journals with --state")
    become_owner(state_dir)
    is_for_all = not names and boot is None and look.state != SYNCHRONISED
    unreadable = Unreadable()
    has_any, was_asked = bool(names or boot or collectors_of(state_dir)), False
    for reader in chosen_readers(state_dir, names) if has_any else []:
        with unreadable.remembering(reader):
            was_asked |= _set_one(reader, clock, look, said_ns, boot, yes)
    if is_for_all:
        wanted = clock_request.ClockRequest(clock.boot_id, look.boottime_ns, said_ns - look.boottime_ns)
        _set_host(state_dir, clock, wanted, yes or was_asked)
    elif not has_any:
        click.echo(f"{state_dir}: no journal here, and a time service has set this machine's clock; nothing to do")
    unreadable.raise_if_any("the time of all others is set")


def _set_one(
    reader: JournalReader, clock: Clock, look: ClockReading, said_ns: int, boot: str | None, yes: bool
) -> bool:
    """Set the time of one journal's boot after confirmation; return whether there was anything to set."""
    known = _boot(reader, boot or clock.boot_id, optional=boot is None)
    if known is None:
        click.echo(f"{reader.collector}: nothing of this boot in the journal; nothing to do")
        return False
    if known.steps and known.steps[-1].state == SYNCHRONISED:
        click.echo(f"{reader.collector}: boot {known.boot_id}: a time service has set it; nothing to do")
        return False
    at_ns = look.boottime_ns if known.boot_id == clock.boot_id and boot is None else known.first_ns
    offset_ns = said_ns - at_ns
    first = timestamps.iso(known.first_ns + offset_ns, 3)
    click.echo(f"{reader.collector}: boot {known.boot_id}: its first sample was then taken at {first}")
    if yes or click.confirm("Is that right?", abort=True):
        take(reader, clock, clock_request.ClockRequest(known.boot_id, at_ns, offset_ns))
    return True


def _set_host(state_dir: Path, clock: Clock, wanted: clock_request.ClockRequest, yes: bool) -> None:
    """Write the request for processes that begin to write a journal later in this boot."""
    now = timestamps.iso(clock.boottime_ns() + wanted.offset_ns, 3)
    click.echo(f"what begins later in this boot takes it, too: it is {now} now")
    if yes or click.confirm("Is that right?", abort=True):
        clock_request.leave_for_host(state_dir, wanted)


def _boot(reader: JournalReader, prefix: str, optional: bool) -> Boot | None:
    """Return the one boot whose id has this prefix; None if there is none and `optional` is true."""
    found = [boot for boot in reader.boots() if boot.boot_id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found and optional:
        return None
    listed = ", ".join(boot.boot_id for boot in reader.boots())
    raise ConfigError(f"{reader.collector}: --boot {prefix}: {len(found)} boots begin so; there are: {listed}")


def take(reader: JournalReader, clock: Clock, wanted: clock_request.ClockRequest) -> None:
    """Have the request applied: by the collector if it runs, else here under its lock."""
    clock_request.leave(reader.directory, wanted)
    try:
        told: list[str] = []
        settings = JournalSettings(ballast_mib=0.0)
        writer = JournalWriter(reader.directory, reader.tags(), settings, clock, lambda _, detail: told.append(detail))
        try:
            writer.commit(Work())
        finally:
            writer.close()
        for detail in told:
            click.echo(detail, err=True)
    except JournalLocked:
        end_s = clock.monotonic_s() + TAKEN_S
        while clock_request.is_waiting(reader.directory) and clock.monotonic_s() < end_s:
            clock.sleep_s(0.1)
    taken = "waits for the collector" if clock_request.is_waiting(reader.directory) else "done"
    click.echo(f"{reader.collector}: {taken}")
