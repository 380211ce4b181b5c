"""The instruments of the bench on their wires, and the configurations that read them.

    mppt   Libre Solar charge controller on a pseudo-terminal, talks by itself
    load   EA EL 3160-60A on a pseudo-terminal, is asked
    t7     LabJack T7 on two TCP ports, is asked; AIN0 behind a divider, AIN1 a hall sensor

With a speed of N every period and pause is an N-th of the real one, and serial lines are as much faster.
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
"""A simulated bench does not ask more often than this, however fast its time goes."""
MOST_BAUD = 4_000_000
SAMPLES_PER_ROW = 2.0
"""A replay's instruments are asked about twice in each row, so that one late question costs nothing."""
LEAST_SAY_S = 0.0025
"""What talks by itself does not do so more often than this: its messages take their time on the wire."""


@dataclass(frozen=True, slots=True)
class InstrumentPosition:
    """One instrument's place on the bench."""

    name: str
    kind: str
    instrument: Instrument
    sees: tuple[str, ...]
    """What of the truth it sees: measurements ("battery.") or quantities."""
    counted: frozenset[str]
    """What makes a message a sample: see `collectors.fakes.serve.Station`."""
    talks: bool = False
    """Whether it speaks by itself, unasked."""

    def seen(self, truth: Mapping[str, float]) -> dict[str, float | None]:
        """Return its part of the truth."""
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
    """Return the place of this kind on the bench; for other kinds one that sees everything exactly."""
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
"""The T7's [device] table, and how the fake's inputs are wired."""


class Simulated:
    """The simulated battery, `speed` of its seconds in one of ours."""

    def __init__(self, speed: float = 1.0, seed: int = 1) -> None:
        self.speed = speed
        self.places: Sequence[InstrumentPosition] = list(PLACES.values())
        """The instruments that it has something for."""
        self._seed = seed
        self._battery = Battery(seed=seed)

    def world(self, place: InstrumentPosition) -> World:
        """Return the truth through this instrument's sensors."""
        view = View(place.instrument, self._seed + sum(map(ord, place.name)))

        def see(time_s: float) -> Mapping[str, float | None]:
            return view.see(place.seen(self._battery.at(time_s * self.speed)))

        return see

    def each_turn(self, now_s: float) -> float:
        """Nothing is ever due: the battery moves when it is looked at."""
        return now_s + 1.0

    def attach(self, station: Station) -> None:
        """Nothing to be told."""

    def period_s(self, place: InstrumentPosition) -> float:
        """Return the instrument's own period at this speed."""
        return max(place.instrument.period_s / self.speed, LEAST_PERIOD_S)

    def fake_options(self, place: InstrumentPosition) -> dict[str, Any]:
        """Return what its fake needs to be told."""
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
    """A recording, `speed` of its seconds in one of ours."""

    def __init__(self, recording: Recording, speed: float = 60.0) -> None:
        self.speed = speed
        self.places: Sequence[InstrumentPosition] = [place for place in PLACES.values() if recording.keys(place.name)]
        """The instruments that the recording has."""
        self.replay = Replay(recording, speed, [place.name for place in self.places])
        self._stations: list[Station] = []

    def world(self, place: InstrumentPosition) -> World:
        """Return the instrument's recorded values as its fake understands them.

        A T7 that is asked for an input without a value says "not a number" for it, and still answers for the others.
        A load always says a current; the recording has none, so the fake's is 0.
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
        """Go on with the recording.

        Who was asked in a gap, and so had nothing to answer, answers when the gap is over, if the collector still
        waits. Without that, every gap of a second would cost the collector its whole patience, which at 60 times the
        speed is many seconds of the recording.
        """
        row = self.replay.row
        next_s = self.replay.advance(now_s)
        if self.replay.row != row:
            for station in self._stations:
                station.ask_again()
        return next_s

    def attach(self, station: Station) -> None:
        """Have the station say which row it has sent."""
        station.mark = lambda: self.replay.row
        station.on_sent = lambda row: self.replay.delivered(station.name, row)
        self._stations.append(station)

    def begin(self, now_s: float) -> None:
        """Start the recording soon, at a time between two questions of the collectors, which ask on a grid."""
        row_ns = 1e9 / self.speed
        phase = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) / row_ns + 0.75) % 1.0
        self.replay.begin(now_s + (2.0 - phase) / self.speed)

    def period_s(self, place: InstrumentPosition) -> float:
        """Return how often this instrument speaks."""
        period_s = 1.0 / self.speed / SAMPLES_PER_ROW
        return max(period_s, LEAST_SAY_S) if place.talks else period_s

    def fake_options(self, place: InstrumentPosition) -> dict[str, Any]:
        """Return what its fake needs to be told: no noise or counters of its own."""
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
"""Where the truth comes from."""


def build(folder: Path, source: Source, seed: int = 1) -> Server:
    """Return a server with every instrument of the bench; ptys are named in `folder`."""
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
    """Return the line's settings when time goes so much faster."""
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
    """Return the shipper's configuration for the database that these [[sink]] keys reach."""
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
