"""The three instruments of the virtual bench, on a host: run as root there, with the Python that has `collectors`.

    python fakes_on_host.py       mppt on /dev/bat/mppt, load on /dev/bat/load, T7 on 127.0.0.1:502 and :702

Pull the cable of the charge controller for 5 s: `echo 5 >/run/unplug-mppt`.
"""

from __future__ import annotations

import fcntl
import os
import termios
from pathlib import Path

from collectors import devices, fakes
from collectors.bench.setup import Simulated
from collectors.fakes.faults import Fault
from collectors.fakes.serve import Server, Station

NAMES = Path("/dev/bat")
LOOK_S = 0.2
TTY_MODE = 0o666
"""Wide open, as the containers of tests have no udev to give a terminal its group."""


def make_ready(port: Path) -> None:
    """Let any user open it. A collector's exclusive claim outlives it, as the fake's end of the terminal stays open."""
    port.chmod(TTY_MODE)
    slave = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    fcntl.ioctl(slave, termios.TIOCNXCL)
    os.close(slave)


def main() -> None:
    """Serve until killed."""
    NAMES.mkdir(exist_ok=True)
    source = Simulated()

    def each_turn(now_s: float) -> float:
        for link in NAMES.iterdir():
            if link.exists() and not server.stations[link.name].wire.is_open():
                make_ready(link)
        for name in server.stations:
            order = Path(f"/run/unplug-{name}")
            if order.exists() and (seconds := order.read_text(encoding="ascii").strip()):
                server.misbehave(name, Fault("unplug", now_s, float(seconds), 0.0))
                order.unlink()
        return now_s + LOOK_S

    server = Server(each_turn)
    for place in source.places:
        kind = fakes.load(place.kind)
        options = kind.options(**source.fake_options(place))
        station = Station(place.name, kind, source.world(place), options, counted=place.counted)
        if kind.channels:
            server.add_tcp(station, kind.channels)
        else:
            server.add_pty(station, NAMES / place.name, devices.load(place.kind).line)
    server.run()


if __name__ == "__main__":
    main()
