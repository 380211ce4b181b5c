"""The fake instruments of the bench, their links, and the configurations of collectors and shipper.

    mppt   Libre Solar charge controller on a pseudo-terminal, publishes
    load   EA EL 3160-60A on a pseudo-terminal, polled
    t7     LabJack T7 on two TCP ports, polled; AIN0 behind a divider, AIN1 a hall sensor

With a speed of N, every period and pause is an N-th of the real one; serial lines then run at MOST_BAUD.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collectors import devices, fakes
from collectors.bench.battery import Battery
from collectors.bench.replay import Recording, Replay
from collectors.bench.sensors import LOAD, MPPT, T7, Instrument, View
from collectors.device import Line
from collectors.fakes import World
from collectors.fakes.serve import Server, Station

BENCH, BATTERY = "virtual", "lfp-1"
LEAST_PERIOD_S = 0.01
"""Minimum poll period of a simulated bench, at any speed."""
MOST_BAUD = 4_000_000
SAMPLES_PER_ROW = 2.0
"""Polls of a replay's instruments per row: with two, one late poll loses no row."""
LEAST_SAY_S = 0.0025
"""Minimum period of publications: the messages take time on the wire."""


@dataclass(frozen=True, slots=True)
class InstrumentPosition:
    """One instrument's position on the bench."""

    name: str
    kind: str
    instrument: Instrument
    sees: tuple[str, ...]
    """The true values that it measures: measurements ("battery.") or quantities."""
    counted: frozenset[str]
    """The quantities that make a message a sample: see `collectors.fakes.serve.Station`."""
    talks: bool = False
    """Whether it publishes without being polled."""

    def seen(self, truth: Mapping[str, float]) -> dict[str, float | None]:
        """Return the true values that the instrument measures."""
        return {key: value for key, value in truth.items() if key.startswith(self.sees)}


PLACES: Mapping[str, InstrumentPosition] = {
    place.name: place
    for place in (
        InstrumentPosition(
            "mppt",
            "libresolar_mppt",
            MPPT,
            ("battery.", "solar.", "charger.", "load.current_a", "load.power_w"),
            frozenset({"battery.voltage_v", "battery.current_a"}),
            talks=True,
        ),
        InstrumentPosition("load", "ea_el3000a", LOAD, ("load.",), frozenset({"load.voltage_v"})),
        InstrumentPosition(
            "t7",
            "labjack_t7",
            T7,
            ("battery.voltage_v", "battery.current_a"),
            frozenset({"battery.voltage_v", "battery.current_a"}),
        ),
    )
}


def place_of(kind: str) -> InstrumentPosition:
    """Return this kind's position on the bench; for other kinds, one that measures every value exactly."""
    usual = next((place for place in PLACES.values() if place.kind == kind), None)
    return usual or InstrumentPosition(kind, kind, Instrument(1.0), ("",), frozenset())


T7_CHANNELS = (
    {
        "input": "AIN0",
        "signal": "battery.voltage_v",
        "scaling": {"divider": {"r1_ohm": 3000.0, "r2_ohm": 1000.0}},
    },
    {"input": "AIN1", "signal": "battery.current_a", "scaling": {"hall": {"burden_ohm": 100.0}}},
)
"""The channels in the T7's [device] table, which match the wiring of the fake's inputs."""


class Simulated:
    """The simulated battery; `speed`: simulated seconds per real second."""

    def __init__(self, speed: float = 1.0, seed: int = 1) -> None:
        self.speed = speed
        self.places: Sequence[InstrumentPosition] = list(PLACES.values())
        """The instruments for which it has values."""
        self._seed = seed
        self._battery = Battery(seed=seed)

    def world(self, place: InstrumentPosition) -> World:
        """Return the function of time that gives this instrument's readings."""
        view = View(place.instrument, self._seed + sum(map(ord, place.name)))

        def see(time_s: float) -> Mapping[str, float | None]:
            return view.see(place.seen(self._battery.at(time_s * self.speed)))

        return see

    def each_turn(self, now_s: float) -> float:
        """Do nothing: the battery is simulated when it is read. Return the time of the next call."""
        return now_s + 1.0

    def attach(self, station: Station) -> None:
        """Do nothing: the simulation needs no information about sent messages."""

    def period_s(self, place: InstrumentPosition) -> float:
        """Return the instrument's own period at this speed."""
        return max(place.instrument.period_s / self.speed, LEAST_PERIOD_S)

    def fake_options(self, place: InstrumentPosition) -> dict[str, Any]:
        """Return the options of the instrument's fake."""
        return {"period_s": self.period_s(place)} if place.name == "mppt" else {}

    def device_options(self, place: InstrumentPosition) -> dict[str, Any]:
        """Return what goes into the collector's [device] table."""
        options: dict[str, dict[str, Any]] = {
            "mppt": {},
            "load": {"pause_s": 0.05 / self.speed},
            "t7": {"channels": T7_CHANNELS},
        }
        return options[place.name]


class Recorded:
    """A recording; `speed`: recorded seconds per real second."""

    def __init__(self, recording: Recording, speed: float = 60.0) -> None:
        self.speed = speed
        self.places: Sequence[InstrumentPosition] = [place for place in PLACES.values() if recording.keys(place.name)]
        """The instruments that the recording has."""
        self.replay = Replay(recording, speed, [place.name for place in self.places])
        self._stations: list[Station] = []

    def world(self, place: InstrumentPosition) -> World:
        """Return the function of time that gives the instrument's recorded values in its fake's form.

        A T7 sends NaN for an input without a value, and still responds for the others. A load always sends a current;
        the recording has none, so the fake's is 0.
        """
        see = self.replay.world(place.name)
        if place.name == "t7":
            return lambda time_s: {
                key: math.nan if (v := see(time_s)).get(key) is None else v[key] for key in place.sees
            }
        if place.name == "load":
            return lambda time_s: {"load.current_a": 0.0, **see(time_s)}
        return see

    def each_turn(self, now_s: float) -> float:
        """Advance the recording; return the time of the next call.

        An instrument that was polled during a gap of the recording had no values to send; it responds when the gap is
        over, if the collector still waits. Otherwise every gap of a second would last until the collector's time-out,
        which at 60 times the speed is many seconds of the recording.
        """
        row = self.replay.row
        next_s = self.replay.advance(now_s)
        if self.replay.row != row:
            for station in self._stations:
                station.ask_again()
        return next_s

    def attach(self, station: Station) -> None:
        """Make the station record the row of each message and report it to the replay."""
        station.mark = lambda: self.replay.row
        station.on_sent = lambda row: self.replay.delivered(station.name, row)
        self._stations.append(station)

    def begin(self, now_s: float) -> None:
        """Start the recording soon, at a time between two polls of the collectors, which poll on a grid."""
        row_ns = 1e9 / self.speed
        phase = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) / row_ns + 0.75) % 1.0
        self.replay.begin(now_s + (2.0 - phase) / self.speed)

    def period_s(self, place: InstrumentPosition) -> float:
        """Return the period in s at which this instrument publishes or is polled."""
        period_s = 1.0 / self.speed / SAMPLES_PER_ROW
        return max(period_s, LEAST_SAY_S) if place.talks else period_s

    def fake_options(self, place: InstrumentPosition) -> dict[str, Any]:
        """Return the options of the instrument's fake: no noise or counters of its own."""
        options: dict[str, dict[str, Any]] = {
            "mppt": {"period_s": self.period_s(place), "publications": True},
            "load": {"has_charge": False, "has_status": False},
            "t7": {"noise": False},
        }
        return options[place.name]

    def device_options(self, place: InstrumentPosition) -> dict[str, Any]:
        """Return what goes into the collector's [device] table."""
        options: dict[str, dict[str, Any]] = {
            "mppt": {"extra_period_s": 0.0},
            "load": {"pause_s": 0.0, "status": False, "retries": 0, "timeout_s": 2.0},
            "t7": {"channels": T7_CHANNELS},
        }
        return options[place.name]


Source = Simulated | Recorded
"""The source of the true values."""


def build(folder: Path, source: Source, seed: int = 1) -> Server:
    """Return a server with every instrument of the bench; names of pseudo-terminals are created in `folder`."""
    server = Server(source.each_turn)
    for number, place in enumerate(source.places):
        kind = fakes.load(place.kind)
        options = kind.options(**source.fake_options(place))
        station = Station(place.name, kind, source.world(place), options, seed + number, place.counted)
        source.attach(station)
        if kind.channels:
            server.add_tcp(station, dict.fromkeys(kind.channels, 0))
        else:
            server.add_pty(station, folder / f"tty-{place.name}", line_at(source.speed, devices.load(place.kind).line))
    return server


def line_at(speed: float, line: Line) -> Line:
    """Return the line settings at this speed."""
    return line if speed <= 1 else Line(MOST_BAUD, line.bits, line.parity, line.stop)


def collector_toml(place: InstrumentPosition, source: Source, link: str, state_dir: Path, sinks: Iterable[str]) -> str:
    """Return the configuration of the collector that reads this instrument."""
    if source.speed > 1 and link.startswith("serial:"):
        link += f"?baud={MOST_BAUD}"
    tables: dict[str, Mapping[str, Any]] = {
        "collector": {
            "name": place.name,
            "bench": BENCH,
            "battery": BATTERY,
            "kind": place.kind,
            "link": link,
            "period_s": source.period_s(place),
            "report_s": 2.0,
            "state_dir": str(state_dir),
        },
        "device": source.device_options(place),
        "journal": {"sinks": list(sinks), "ballast_mib": 0.0},
    }
    return toml(tables)


def ship_toml(state_dir: Path, sink: Mapping[str, str]) -> str:
    """Return the shipper's configuration with a sink of these [[sink]] keys."""
    ship = {"bench": BENCH, "state_dir": str(state_dir), "report_s": 2.0}
    return toml({"ship": ship}) + "\n" + toml({"[sink]": {"name": SINK, **sink}})


SINK = "influx"


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables of plain values as TOML."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value)
    return repr(value)
