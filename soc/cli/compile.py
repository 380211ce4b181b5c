"""`soc compile`: compile the filters beforehand, so that the first estimate does not wait for it."""

from __future__ import annotations

import time

import click


@click.command("compile")
@click.option("--pairs", type=click.IntRange(1, 3), default=3, help="R-C pairs of the cell's model; shipped cells: 3.")
def COMMAND(pairs: int) -> None:  # noqa: N802 - every module here offers COMMAND
    """Compile the filters for this computer; takes a minute once, and a few seconds when it was done before.

    scripts/setup does it. Compiled code is kept beside the program, or else in $CACHE_DIRECTORY, $XDG_CACHE_HOME or
    ~/.cache; $NUMBA_CACHE_DIR wins over all.

    \b
    soc compile
    """
    begun_s = time.monotonic()
    from soc.compilation import compile_filters, told
    from soc.models.compiled import CACHE

    with told():
        names = compile_filters(pairs)
    click.echo(f"{', '.join(names)} ready after {time.monotonic() - begun_s:.1f} s, in {CACHE}")
