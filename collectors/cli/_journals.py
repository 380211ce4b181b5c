"""Shared by commands that read journals: the state directory, completion of names, filters for self-metrics."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from collectors import config, throughput
from collectors.errors import ConfigError, JournalError
from collectors.journal.directory_view import unreadable
from collectors.journal.reader import JournalReader
from collectors.shipper.journal_source import collectors_of

SELF = ("collector", throughput.MEASUREMENT)
"""The measurements that collectors and shipper write about themselves."""

Command = TypeVar("Command", bound=Callable[..., Any])


def state_option(command: Command) -> Command:
    """Add --state, the directory of the journals."""
    return click.option(
        "--state",
        "state_dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=config.state_dir_here,
        help="Where journals live. Default: $STATE_DIRECTORY, ./.state, or /var/lib/collectors.",
    )(command)


def self_option(command: Command) -> Command:
    """Add --self-metrics, without which only the instruments' readings are shown."""
    return click.option(
        "--self-metrics", is_flag=True, help="Also what collectors write of themselves: collector, throughput."
    )(command)


def is_wanted(measurement: str, asked: str | None, self_metrics: bool) -> bool:
    """Return whether rows of a measurement are requested: the named one, else readings, else all."""
    return measurement == asked if asked else self_metrics or measurement not in SELF


def complete_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the existing journals that are not named yet, for the shell."""
    state_dir = ctx.params.get("state_dir")
    folder = Path(state_dir) if state_dir else config.state_dir_here()
    try:
        found = collectors_of(folder)
    except JournalError:
        return []
    named = ctx.params.get("names") or ()
    return [CompletionItem(name) for name in found if name.startswith(incomplete) and name not in named]


def names_argument(command: Command) -> Command:
    """Add [COLLECTOR]..., with shell completion."""
    return click.argument("names", nargs=-1, metavar="[COLLECTOR]...", shell_complete=complete_names)(command)


def no_journal(state_dir: Path) -> str:
    """Return the message for a directory without journals: where they are, or how to begin one."""
    below = state_dir / "state"  # where a virtual bench keeps them: its --state also holds configurations and logs
    if collectors_of(below):
        return f"{state_dir}: no journal here; there are some in its folder state: --state {shlex.quote(str(below))}"
    return f"{state_dir}: no journal here; name the folder with --state, or start: collectors run CONFIG"


def chosen_readers(state_dir: Path, names: tuple[str, ...]) -> list[JournalReader]:
    """Return readers of the named collectors, or of all; ConfigError naming those that do not exist."""
    there = collectors_of(state_dir)
    missing = [name for name in names if name not in there]
    if not there:
        raise ConfigError(no_journal(state_dir))
    if missing:
        raise ConfigError(f"{state_dir}: no journal of {', '.join(missing)}; there is: {', '.join(there)}")
    return [JournalReader(state_dir / name) for name in names or there]


class Unreadable:
    """Journals that cannot be read, and why: the others are processed, then the command ends with exit code 74."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def without(self, readers: Sequence[JournalReader]) -> list[JournalReader]:
        """Return the readers whose newest file can be read; record the others."""
        found = []
        for reader in readers:
            with self.remembering(reader):
                reader.newest_seq()
                found.append(reader)
        return found

    @contextmanager
    def remembering(self, reader: JournalReader) -> Iterator[None]:
        """Record, instead of raising, an error that makes work with this journal impossible."""
        try:
            yield
        except JournalError as error:
            self.reasons.append(f"{reader.collector}: {error}")
        except OSError as error:
            self.reasons.append(f"{reader.collector}: {unreadable(reader.directory, error)}")

    def warn(self) -> None:
        """Name them on standard error now: a command with --follow may not end by itself."""
        for reason in self.reasons:
            click.echo(reason, err=True)

    def raise_if_any(self, others: str) -> None:
        """Raise JournalError naming each; `others` states what was done with the rest."""
        if self.reasons:
            raise JournalError("\n".join([*self.reasons, others]))
