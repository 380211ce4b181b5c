"""`collectors run CONFIG`: runs the collector of one instrument until it is stopped."""

from __future__ import annotations

from pathlib import Path

import click

from collectors import config


@click.command("run")
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path, readable=False))
def COMMAND(path: Path) -> None:  # noqa: N802 - every module here offers COMMAND
    """Read the instrument that CONFIG names and keep every sample, until SIGTERM.

    Ready for systemd: Type=notify, watchdog, status line. Stops within two seconds, everything committed.

    \b
    collectors run /etc/battfleet/collectors/mppt.toml
    """
    loaded = config.load(path)
    from collectors.acquisition import service

    name, state_dir = loaded.collector.name, loaded.collector.state_dir.absolute()
    click.echo(f"{name}: {loaded.device.kind} on {loaded.collector.link}; stored in {state_dir / name}", err=True)
    service.run(loaded)
