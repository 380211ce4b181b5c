"""The `collectors` command. Each module here is one subcommand: a click command named COMMAND, which is discovered.

Exit codes: 0 done; 2 wrong usage; 69 device or server absent; 70 a bug; 74 disk or journal; 75 held by another
process, try later; 76 the device responded wrongly or is another one; 78 configuration, or a library is not
installed; 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from importlib import import_module
from pkgutil import iter_modules
from typing import NoReturn

import click

from collectors import libraries
from collectors.errors import CollectorError


class Commands(click.Group):
    """Imports a subcommand only when it is invoked: a collector must use little memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every subcommand's name."""
        return sorted(m.name.replace("_", "-") for m in iter_modules(__path__) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name.replace('-', '_')}").COMMAND
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="battfleet", prog_name="collectors")
def cli() -> None:
    """Read battery instruments, keep every sample, ship it to InfluxDB.

    \b
    See it work without hardware:     collectors bench --for 60
    Check a configuration:            collectors check mppt.toml
    Collect:                          collectors run mppt.toml
    Shell completion (bash):          eval "$(_COLLECTORS_COMPLETE=bash_source collectors)"
    """


DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def main() -> None:
    """Run the command line; an expected error gives one message and its exit code, a bug its traceback and 70."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    try:
        cli.main(standalone_mode=True)
    except CollectorError as error:
        print(f"collectors: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            _die_of_a_bug()
        print(f"collectors: {error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
        # The rest of the buffer cannot be written either: redirect the last flush to null, else Python exits with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(os.EX_IOERR)
    except ImportError as error:
        advised = libraries.advice(error)
        if advised is None:
            _die_of_a_bug()
        print(f"collectors: {advised}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    except Exception:  # noqa: BLE001 - the only place: a bug ends the process with its traceback and its own exit code
        _die_of_a_bug()


def _die_of_a_bug() -> NoReturn:
    traceback.print_exc()
    sys.exit(os.EX_SOFTWARE)


if __name__ == "__main__":
    main()
