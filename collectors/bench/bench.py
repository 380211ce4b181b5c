"""One run of the virtual bench: fakes in a thread, a collector process for each, a shipper, a database, and the result.

with Bench(settings) as bench:
    while not bench.is_over:
        time.sleep(0.25)
        bench.tick()
    summary = bench.finish()
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

from collectors.bench import influx
from collectors.bench.comparison import check_replay, compare_database
from collectors.bench.influx import DATABASE, Access, Influx, PrivateInflux
from collectors.bench.processes import Worker
from collectors.bench.reconciliation import Gap, Journal, gaps, reconcile
from collectors.bench.replay import Replay, Stall
from collectors.bench.sensors import Agreement, agreement
from collectors.bench.setup import SINK, InstrumentPosition, Recorded, Source, build, collector_toml, ship_toml
from collectors.bench.summary import ReplayReport, RunReport, Summary, problems_of
from collectors.errors import ConfigError
from collectors.fakes.faults import AMOUNTS, Fault
from collectors.fakes.serve import Server, serving
from collectors.host.clock import MANUAL_CLOCK_SOURCE, SYNCHRONISED, UNSYNCHRONISED, system_clock, write_clock_file
from collectors.journal.reader import JournalReader
from collectors.shipper.cursors import Health, ShipStore

BENCH_FAULTS: Mapping[str, Mapping[str, float]] = {"clock": {"reset": -3600.0}, "database": {"stop": 0.0}}
"""Faults of the bench itself: the clock loses its setting (amount: its error in s), the private database is stopped."""
FAULT_KINDS = {**AMOUNTS, **BENCH_FAULTS["clock"], **BENCH_FAULTS["database"]}
CATCH_UP_S = 60.0
TAIL_S, LEAST_TAIL_S = 600.0, 20.0
"""Time that is kept in memory for the live table: in s of the bench's time, and the minimum in real s."""
MARGIN_NS = 300_000_000
"""Samples sent within this time before a collector is asked to stop may arrive too late and are not counted."""


class Quantity(NamedTuple):
    """A signal of one instrument."""

    place: str
    measurement: str
    signal: str


class Compared(NamedTuple):
    """Two quantities that measure the same."""

    title: str
    reference: Quantity
    other: Quantity


BATTERY_V, BATTERY_A = Quantity("mppt", "battery", "voltage_v"), Quantity("mppt", "battery", "current_a")
COMPARED: Sequence[Compared] = (
    Compared("battery V: t7 against mppt", BATTERY_V, Quantity("t7", "battery", "voltage_v")),
    Compared("battery V: load against mppt", BATTERY_V, Quantity("load", "load", "voltage_v")),
    Compared("battery A: t7 against mppt", BATTERY_A, Quantity("t7", "battery", "current_a")),
    Compared("load A: load against mppt", Quantity("mppt", "load", "current_a"), Quantity("load", "load", "current_a")),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run."""

    folder: Path
    """Directory of journals, configurations, logs, pseudo-terminals, and the private database."""
    source: Source
    influx: str = "auto"
    """A URL, "auto", "private" or "none"."""
    faults: Sequence[tuple[str, Fault]] = ()
    seed: int = 1
    access: Access | None = None
    keep_database: bool = False
    """Keep the database on a server that is not the bench's own, although this run has created it."""


@dataclass
class Switch:
    """A part of the bench that a fault turns off for some time."""

    fault: Fault
    turn_off: Callable[[], None]
    turn_on: Callable[[], None]
    is_off: bool = False

    def look(self, now_s: float) -> None:
        """Turn it off or on when that is due."""
        if self.fault.is_on(now_s) != self.is_off:
            self.is_off = not self.is_off
            (self.turn_off if self.is_off else self.turn_on)()


class Bench:
    """One run. When the with-block ends, only the content of the directory remains."""

    def __init__(self, settings: Settings) -> None:
        check_faults(settings)
        self.settings = settings
        self.places: Sequence[InstrumentPosition] = settings.source.places
        self.journals: dict[str, Journal] = {}
        self.workers: dict[str, Worker] = {}
        self.shipper: Worker | None = None
        self.database: Influx | None = None
        self.is_new = False
        """Whether this run has created the database."""
        self.kept_because = "--keep-database" if settings.keep_database else ""
        """Why the database is kept although this run has created it; empty: it is dropped at the end."""
        self.is_dropped = False
        self.since_ns = 0
        self.replay_began = False
        self._clock = settings.folder / "clock.json"
        self._tail_s = max(TAIL_S / settings.source.speed, LEAST_TAIL_S)
        self._switches: list[Switch] = []
        self._stack = ExitStack()
        self._server: Server
        self._store: ShipStore | None = None

    def __enter__(self) -> Self:
        """Start everything."""
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything that still runs."""
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        folder = self.settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._tell_clock()
        self.database = influx.find(self.settings.influx, folder / "influxdb", self.settings.access)
        if isinstance(self.database, PrivateInflux):
            stack.callback(self.database.stop)
        self._server = stack.enter_context(serving(build(folder, self.settings.source, self.settings.seed)))
        self.since_ns = boottime_ns()
        if self.database:
            self._start_shipper(stack, self.database)
        for place in self.places:
            self._start_collector(stack, place)
        self._plan_faults()

    def _start_collector(self, stack: ExitStack, place: InstrumentPosition) -> None:
        state = self.settings.folder / "state"
        config = self.settings.folder / f"{place.name}.toml"
        link = self._server.stations[place.name].wire.link
        sinks = [SINK] if self.database else []
        config.write_text(collector_toml(place, self.settings.source, link, state, sinks), encoding="utf-8")
        self.journals[place.name] = Journal(JournalReader(state / place.name), self.since_ns, self._tail_s)
        self.workers[place.name] = self._start_worker(stack, place.name, ["run", str(config)])

    def _start_shipper(self, stack: ExitStack, database: Influx) -> None:
        self.is_new = database.prepare(DATABASE)
        stack.callback(self._drop)
        secrets = Path(stack.enter_context(TemporaryDirectory(prefix="battfleet-secret-")))
        state = self.settings.folder / "state"
        state.mkdir(exist_ok=True)
        config = self.settings.folder / "ship.toml"
        config.write_text(ship_toml(state, database.sink(DATABASE, secrets)), encoding="utf-8")
        self._store = ShipStore(state / "ship.db")
        stack.callback(self._store.close)
        self.shipper = self._start_worker(stack, "ship", ["ship", str(config)])

    def _drop(self) -> None:
        """Drop the database if this run has created it and it is not to be kept. A private one is not dropped."""
        database = self.database
        if (
            not database
            or isinstance(database, PrivateInflux)
            or not self.is_new
            or self.kept_because
            or self.is_dropped
        ):
            return
        try:
            database.drop(DATABASE)
            self.is_dropped = True
        except influx.Unreachable as error:
            self.kept_because = f"it could not be dropped: {error}"

    def _start_worker(self, stack: ExitStack, name: str, arguments: Sequence[str]) -> Worker:
        worker = Worker(name, arguments, self.settings.folder / f"{name}.log", {MANUAL_CLOCK_SOURCE: str(self._clock)})
        stack.callback(worker.await_end)
        stack.callback(worker.ask_to_stop)
        worker.start()
        return worker

    def _tell_clock(self) -> None:
        write_clock_file(self._clock, state=SYNCHRONISED)

    def _reset_clock(self, by_s: float) -> None:
        offset_ns = time.time_ns() - boottime_ns() + round(by_s * 1e9)
        write_clock_file(self._clock, offset_ns, UNSYNCHRONISED)

    def _plan_faults(self) -> None:
        for target, fault in self.settings.faults:
            if target == "clock":
                reset = partial(self._reset_clock, fault.amount)
                self._switches.append(Switch(fault, reset, self._tell_clock))
            elif target == "database":
                if not isinstance(self.database, PrivateInflux):
                    raise ConfigError("fault: only a private database can be stopped: use --influx private")
                self._switches.append(Switch(fault, self.database.stop, self.database.start))
            else:
                self._server.misbehave(target, fault)

    @property
    def now_s(self) -> float:
        """Return the time in s since the fakes started, on which the starts of faults are given."""
        return self._server.now_s()

    @property
    def health(self) -> Health | None:
        """Return the state of the sink that the shipper reports."""
        return self._store.health(SINK) if self._store else None

    def gaps(self, name: str, journal: Journal) -> list[Gap]:
        """Return the gaps in an instrument's samples in this journal."""
        [place] = [place for place in self.places if place.name == name]
        no_event = "no value in the recording" if self.replay else "the collector was late"
        causes = [
            *journal.causes(),
            *((at_ns, "harmed by a fault") for at_ns in self._server.stations[name].sent.harms()),
        ]
        return gaps(journal.stamps(), causes, self.settings.source.period_s(place), no_event)

    def database_text(self) -> str:
        """Return a description of the database; for a server that is not the bench's own, whether the data is kept."""
        if self.database is None:
            return "none: the journals are the store"
        if isinstance(self.database, PrivateInflux):
            return self.database.url
        where = f"{DATABASE} on {self.database.url}"
        if not self.is_new:
            return f"{where}, which was there before and stays"
        if self.kept_because:
            return f"{where}, which stays: {self.kept_because}"
        return f"{where}, {'dropped' if self.is_dropped else 'made for this run and dropped at its end'}"

    def unsent(self) -> int:
        """Return the number of commits that the database has not confirmed."""
        if not self._store:
            return 0
        marks = self._store.marks(SINK)
        return sum(
            max(0, journal.reader.newest_seq() - (marks[name].confirmed if name in marks else 0))
            for name, journal in self.journals.items()
        )

    @property
    def replay(self) -> Replay | None:
        """Return the replay, if the source is a recording."""
        return self.settings.source.replay if isinstance(self.settings.source, Recorded) else None

    @property
    def is_over(self) -> bool:
        """Return whether a replay has reached its end; a simulation has no end."""
        return self.replay is not None and self.replay.is_over

    def tick(self) -> None:
        """Do what is due: faults, restarts, reading new rows. To be called several times a second."""
        for switch in self._switches:
            switch.look(self.now_s)
        for worker in (*self.workers.values(), *([self.shipper] if self.shipper else [])):
            worker.supervise()
        for journal in self.journals.values():
            journal.update()
        source = self.settings.source
        if (
            isinstance(source, Recorded)
            and not self.replay_began
            and all(journal.rows for journal in self.journals.values())
        ):
            self.replay_began = True
            self._server.call(lambda: source.begin(self._server.now_s()))

    def agreement(self, journals: Mapping[str, Journal] | None = None) -> dict[str, Agreement]:
        """Return the agreement of the instruments from these journals (None: from the bench's own, recent rows)."""
        journals = journals or self.journals
        found = {}
        for compared in COMPARED:
            mine, theirs = compared.reference, compared.other
            if self._has(mine) and self._has(theirs):
                reference = journals[mine.place].course(mine.measurement, mine.signal)
                other = journals[theirs.place].course(theirs.measurement, theirs.signal)
                result = agreement(reference, other, self._within_ns(compared))
                if result:
                    found[compared.title] = result
        return found

    def _has(self, quantity: Quantity) -> bool:
        """Return whether the source has values of this quantity."""
        if self.replay:
            return f"{quantity.measurement}.{quantity.signal}" in self.replay.recording.keys(quantity.place)
        return True

    def _within_ns(self, compared: Compared) -> int:
        """Return half of the slower instrument's period: samples nearer than this are treated as simultaneous."""
        names = compared.reference.place, compared.other.place
        periods_s = [self.settings.source.period_s(place) for place in self.places if place.name in names]
        return round(max(periods_s) * 0.5e9)

    def finish(self) -> Summary:
        """Stop the collectors, send all pending rows, and return the result of the run."""
        for switch in self._switches:
            switch.look(math.inf)
        until_ns = boottime_ns() - MARGIN_NS
        seconds = (until_ns - self.since_ns) / 1e9
        stalls, rows = self._served(until_ns)
        for worker in self.workers.values():
            worker.ask_to_stop()
        exit_codes = {name: worker.await_end() for name, worker in self.workers.items()}
        journals = {name: Journal(journal.reader, self.since_ns) for name, journal in self.journals.items()}
        for journal in journals.values():
            journal.update()
        caught_up = self._catch_up()
        boot_id = system_clock().boot_id
        database = self.database
        summary = Summary(
            seconds=seconds,
            instruments={n: self._report(n, journal, until_ns, exit_codes[n]) for n, journal in journals.items()},
            agreement=self.agreement(journals),
            database=self.database_text(),
            read_back=compare_database(list(journals.values()), boot_id, database, DATABASE) if database else None,
            replay=self._check_replay(journals, stalls, rows),
        )
        problems = [*problems_of(summary), *([] if caught_up else ["the database did not take everything in time"])]
        if summary.read_back and not summary.read_back.is_same:
            self.kept_because = self.kept_because or "it does not hold the same as the journals"
        self._drop()
        return replace(summary, problems=problems, database=self.database_text())

    def _catch_up(self) -> bool:
        """Send the pending rows; return whether all of them are confirmed."""
        if not self.shipper:
            return True
        self.shipper.ask_to_stop()
        self.shipper.await_end()
        log, config = self.settings.folder / "ship.log", str(self.settings.folder / "ship.toml")
        last = Worker("ship", ["ship", config, "--once"], log, {MANUAL_CLOCK_SOURCE: str(self._clock)})
        return last.run(CATCH_UP_S) == 0

    def _report(self, name: str, journal: Journal, until_ns: int, exit_code: int | None) -> RunReport:
        return RunReport(
            account=reconcile(self._server.stations[name].sent, journal.stamps(), journal.up_ns(), until_ns),
            rows=journal.rows,
            events=dict(Counter(event.kind for event in journal.events)),
            gaps=self.gaps(name, journal),
            restarts=self.workers[name].restarts,
            exit_code=exit_code,
        )

    def _served(self, until_ns: int) -> tuple[Sequence[Stall], int]:
        """Return the stalls so far and the number of rows that had ended. Must precede the stop of the collectors.

        Rows stall once the collectors are stopped.
        """
        replay = self.replay
        if replay is None:
            return [], 0
        return list(replay.stalls), len(replay.recording.rows) if replay.is_over else replay.served(until_ns)

    def _check_replay(self, journals: Mapping[str, Journal], stalls: Sequence[Stall], rows: int) -> ReplayReport | None:
        """Return the comparison of the served rows with the journals."""
        replay = self.replay
        if replay is None:
            return None
        return ReplayReport(
            speed=replay.speed,
            rows=rows,
            of_rows=len(replay.recording.rows),
            seconds=(replay.began_ns[rows] - replay.began_ns[0]) / 1e9 if rows else 0.0,
            stalls=stalls,
            latest_s=replay.latest_s,
            instruments={
                place.name: check_replay(
                    replay,
                    place.name,
                    place.instrument,
                    self._server.stations[place.name].sent,
                    journals[place.name],
                    place.talks,
                    rows,
                )
                for place in self.places
            },
        )


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def check_faults(settings: Settings) -> None:
    """Raise ConfigError for a fault that its target does not support."""
    own = {place.name: AMOUNTS for place in settings.source.places}
    kinds: Mapping[str, Mapping[str, float]] = {**own, **BENCH_FAULTS}
    problems = []
    for target, fault in settings.faults:
        if target not in kinds:
            problems.append(f"fault: no target {target!r}; there are: {', '.join(kinds)}")
        elif fault.kind not in kinds[target]:
            problems.append(f"fault: {target} has no {fault.kind!r}; it has: {', '.join(kinds[target])}")
        elif (target, fault.kind) == ("t7", "hold"):
            problems.append("fault: t7 is on TCP and cannot be held by another program; use unplug or silence")
    if problems:
        raise ConfigError(problems)
