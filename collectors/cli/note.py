"""`collectors note`: writes an event on behalf of a person or a tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from collectors import config
from collectors.cli._journals import Unreadable
from collectors.errors import ConfigError, JournalError
from collectors.host.clock import UNSYNCHRONISED, system_clock
from collectors.host.privileges import become_owner
from collectors.journal import notes
from collectors.journal.reader import JournalReader
from collectors.shipper.journal_source import collectors_of
from collectors.signals import HUMAN_EVENTS

MOST_LETTERS = 2000


@click.command("note", epilog="Kinds: " + "; ".join(f"{k}: {e.meaning}" for k, e in sorted(HUMAN_EVENTS.items())) + ".")
@click.argument("kind", type=click.Choice(sorted(HUMAN_EVENTS)), metavar="KIND")
@click.argument("detail")
@click.option("--device", metavar="NAME", help="Which instrument it is about: tag `device`. Default: the whole bench.")
@click.option("--bench", metavar="NAME", help="Tag `bench`. Default: the bench that the journals here are of.")
@click.option(
    "--state", "state_dir", type=click.Path(path_type=Path, file_okay=False), default=config.state_dir_here,
    help="Where journals live. Default: $STATE_DIRECTORY, ./.state, or /var/lib/collectors.",
)  # fmt: skip
def COMMAND(kind: str, detail: str, device: str | None, bench: str | None, state_dir: Path) -> None:  # noqa: N802
    """Write down what was done: DETAIL, one line for people, under a KIND that dashboards draw.

    It goes into a journal of its own on this host (<state>/notes), and from there to the database as samples do; no
    server needs to be there now. Use sudo on a host whose collectors run as a user of their own: files are written as
    the owner of the state folder.

    \b
    sudo collectors note calibration "zeroed the current clamp" --device t7
    collectors note test_start "capacity test at C/5, cell 12"
    collectors note test_stop "at 2.5 V after 5 h 12 min" --state /var/lib/collectors

    Exit 0: it is on the disk. 74: the disk or the folder; 75: others kept writing notes, try again.
    """
    text = _one_line(detail)
    for option, name in (("--device", device), ("--bench", bench)):
        if name is not None and not config.NAME.fullmatch(name):
            raise click.BadParameter(f"expected letters, digits, '.', '_' or '-', got {name!r}", param_hint=option)
    if not state_dir.is_dir():
        raise JournalError(f"{state_dir}: no such folder; name the one of the journals with --state")
    become_owner(state_dir)
    bench = bench or bench_of(state_dir)
    state = notes.write(state_dir, bench, kind, text, {"device": device} if device else {}, system_clock())
    later = "; the time is not known yet, it will be put right" if state == UNSYNCHRONISED else ""
    click.echo(f"noted for {bench}{f', {device}' if device else ''}: {kind}: {text}{later}")


def _one_line(detail: str) -> str:
    """Return the text with single blanks between its words; BadParameter if it is empty or too long."""
    text = " ".join(detail.split())
    if not text or len(text) > MOST_LETTERS or not text.isprintable():
        raise click.BadParameter(f"expected 1 to {MOST_LETTERS} printable letters", param_hint="DETAIL")
    return text


def bench_of(state_dir: Path) -> str:
    """Return the bench to which all journals in this directory belong; ConfigError if there is none, or several.

    JournalError if the journals that might name it cannot be read.
    """
    unreadable, tags = Unreadable(), list[Mapping[str, str]]()
    for name in collectors_of(state_dir):
        reader = JournalReader(state_dir / name)
        with unreadable.remembering(reader):
            tags.append(reader.tags())
    benches = sorted({found["bench"] for found in tags if "bench" in found})
    if len(benches) == 1:
        return benches[0]
    unreadable.raise_if_any("so the bench is not known; say --bench NAME")
    raise ConfigError(f"{state_dir}: the journals here are of {', '.join(benches) or 'no bench'}; say --bench NAME")
