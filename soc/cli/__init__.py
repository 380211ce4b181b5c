"""The `soc` command. Each module here is one subcommand: a click command named COMMAND, found by listing the package.

Exit codes (sysexits.h): 0 done; 2 wrong usage, or a result would overwrite an input; 65 a recording cannot be used;
69 a store does not respond; 70 a bug; 74 a file cannot be read or written; 78 a wrong cell file or option, or a missing
library.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pkgutil import iter_modules
from typing import NoReturn

import click

from soc import libraries
from soc.errors import (
    BeliefError,
    CellError,
    FileError,
    FilterError,
    OptionError,
    OverwriteError,
    SeriesError,
    SocError,
)


def exit_code(error: SocError | OSError) -> int:
    """Return the exit code of an expected error."""
    from soc.stores._errors import StoreDown, StoreError

    codes: dict[type[Exception], int] = {
        StoreDown: 69,
        StoreError: 65,
        SeriesError: 65,
        BeliefError: 65,
        CellError: 78,
        OptionError: 78,
        OverwriteError: 2,
        FileError: 74,
        FilterError: 65,
        OSError: 74,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 65)


def common_exit_code(errors: Sequence[SocError | OSError]) -> int:
    """Return the exit code of a command that continued after these errors: theirs if they agree, else 65."""
    codes = {exit_code(error) for error in errors}
    return codes.pop() if len(codes) == 1 else 65


def say_failure(place: str, error: SocError | OSError) -> None:
    """Print an error on standard error; each line begins with the recording concerned."""
    for line in str(error).splitlines():
        click.echo(f"soc: {line if place in line else f'{place}: {line}'}", err=True)


def _version() -> str:
    try:
        return version("battfleet")
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"


class Commands(click.Group):
    """Imports a subcommand only when it is needed, so that help does not load the numerical libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every subcommand's name."""
        return sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name}").COMMAND
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version(), prog_name="soc")
def cli() -> None:
    """Estimate the state of charge of battery cells from what was measured, with bounds that hold.

    \b
    Which cells are known:            soc cells
    Estimate recordings:              soc estimate a.csv b.csv --cell lg_hg2 --out-dir results
    Look at one:                      soc plot a.csv --cell lg_hg2 --out a.png
    Compare the filters:              soc compare a.csv --cell lg_hg2
    As a service:                     soc estimate --follow 'influx:http://localhost:8086/bat?device=t7' …
    Shell completion (bash):          eval "$(_SOC_COMPLETE=bash_source soc)"

    Recordings have the columns time_s, current_a (positive charges), voltage_v and temperature_degc.
    """


def main() -> None:
    """Run the command line. An expected error prints one message and sets its exit code; a bug prints its trace: 70."""
    try:
        cli.main(standalone_mode=True)
    except OSError as error:
        words = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        print(f"soc: {words}", file=sys.stderr)
        sys.exit(exit_code(error))
    except SocError as error:
        for line in str(error).splitlines():
            print(f"soc: {line}", file=sys.stderr)
        sys.exit(exit_code(error))
    except ImportError as error:
        advised = libraries.advice(error)
        if advised is None:
            _die_of_a_bug()
        print(f"soc: {advised}", file=sys.stderr)
        sys.exit(78)
    except Exception:  # noqa: BLE001 - the one place: a bug ends the process, with its trace and its own exit code
        _die_of_a_bug()


def _die_of_a_bug() -> NoReturn:
    traceback.print_exc()
    print("soc: this is a bug in battfleet; please report it with the lines above", file=sys.stderr)
    sys.exit(os.EX_SOFTWARE)


if __name__ == "__main__":
    main()
