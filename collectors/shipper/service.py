"""The shipper's process: a worker thread for each sink, and a main thread that supervises, reports and stops them.

The main thread looks for new journals in the state directory every LOOK_FOR_JOURNALS_S, so a new collector needs no
configuration here. Reports on the shipper itself are written to its own journal, `<state>/shipper`, which is shipped
like any other. The systemd watchdog is notified while every worker was active within ALIVE_S. A request whose response
takes longer than `connect_s` + 2 × `answer_s` is aborted and sent again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from collectors.errors import ClockUnknown, CollectorError, ConfigError, JournalError, JournalLocked, SinkHeld
from collectors.host.clock import SYNCHRONISED, Clock, system_clock
from collectors.host.metrics import resident_bytes, wifi
from collectors.host.systemd import notify, watchdog_interval_s
from collectors.journal import notes, timestamps
from collectors.journal.committer import Committer
from collectors.journal.reader import JournalReader
from collectors.journal.settings import JournalSettings
from collectors.reading import Event, Value
from collectors.reading import Reading as Sample
from collectors.shipper.config import ShipConfig, SinkConfig
from collectors.shipper.cursors import ShipStore, StoreDamaged, put_aside
from collectors.shipper.influxdb.client import InfluxClient
from collectors.shipper.journal_source import JournalSource, collectors_of
from collectors.shipper.worker import SinkWorker

log = logging.getLogger("collectors.ship")

OWN_NAME = "shipper"
SHIP_DB = "ship.db"
MOST_DAMAGED = 3
"""Number of times that one run replaces a damaged ship.db; a disk that damages it again needs a person."""
TICK_S = 0.5
LOOK_FOR_JOURNALS_S = 5.0
TRIM_S = 3600.0
CONFIRMED_S = 600.0
LOOK_FOR_VERIFIED_S = 30.0
ALIVE_S = 120.0
STOP_S, COMMIT_S = 1.0, 0.7
"""Time for the workers and for the last commit: a stop must take at most 2 s."""


@dataclass(slots=True)
class SinkRuntime:
    """One sink with its client, worker and thread."""

    sink: SinkConfig
    post: InfluxClient
    courier: SinkWorker
    thread: threading.Thread | None = None
    failure: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Run the job in a thread; an exception that ends it is kept in `failure`."""

        def guarded() -> None:
            try:
                job()
            except CollectorError as error:  # the main thread raises it again; no traceback here
                self.failure = error
            except BaseException as error:
                self.failure = error
                raise

        self.thread = threading.Thread(target=guarded, name=f"sink {self.sink.name}", daemon=True)
        self.thread.start()

    @property
    def is_running(self) -> bool:
        """Return whether the thread runs."""
        return self.thread is not None and self.thread.is_alive()


class Service:
    """The configured shipper: journals, sinks, own reports."""

    def __init__(
        self,
        config: ShipConfig,
        clock: Clock,
        report: Callable[[Mapping[str, Any]], None],
        put_aside: Sequence[str] = (),
    ) -> None:
        """`report` takes one mapping per sink and report period; `put_aside` describes quarantined ship.db files.

        Raises ConfigError when a secret cannot be read, StoreDamaged.
        """
        self._config = config
        self._clock = clock
        self._report = report
        self._committer: Committer | None = None
        secrets = {sink.name: _secret(config, sink) for sink in config.sinks}
        self._put_aside = put_aside
        self.store = ShipStore(config.ship.state_dir / SHIP_DB, check=True)
        try:
            self.lanes = [self._lane(sink, secrets[sink.name]) for sink in config.sinks]
        except BaseException:
            self.store.close()
            raise
        self._verified_id = max((found.id for found in self.store.verified_after(0)), default=0)
        self._next_s: dict[str, float] = {}
        self._keep_notes = notes.TailingReader(config.ship.state_dir, clock)
        self._cpu = (time.monotonic(), time.process_time())
        self.find_journals()

    def _lane(self, sink: SinkConfig, secret: str) -> SinkRuntime:
        post = InfluxClient(sink, secret)
        courier = SinkWorker(
            sink.name,
            self.store,
            post,
            batch_lines=sink.batch_lines,
            save_s=self._config.ship.save_s,
            on_event=self._on_event,
        )
        return SinkRuntime(sink, post, courier)

    def _on_event(self, kind: str, detail: str) -> None:
        if self._committer is not None:
            self._committer.put(Event(kind, detail))

    def find_journals(self) -> None:
        """Add every new journal of the state directory to every sink worker."""
        for name in collectors_of(self._config.ship.state_dir):
            for lane in self.lanes:
                courier = lane.courier
                if name not in courier.readings:
                    reader = JournalReader(self._config.ship.state_dir / name)
                    courier.add(JournalSource(name, reader, self.store, lane.sink.name, courier.types))

    def run(self, stopping: Callable[[], bool]) -> None:
        """Ship until `stopping` returns true. Raises the exception that ended a worker or the committer."""
        settings = JournalSettings(sinks=tuple(sink.name for sink in self._config.sinks))
        tags = {"bench": self._config.ship.bench, "device": OWN_NAME, "kind": OWN_NAME}
        committer = Committer(self._config.ship.state_dir, OWN_NAME, tags, settings, self._clock)
        committer.start()
        self._committer = committer
        try:
            for words in self._put_aside:
                committer.put(Event("ship_db_damaged", words))
            committer.put(Event("shipper_start", ", ".join(f"{s.name}: {s.url}" for s in self._config.sinks)))
            for lane in self.lanes:
                lane.start(partial(lane.courier.run, self._config.ship.interval_s))
            notify("READY=1\nSTATUS=starting")
            while not stopping():
                self._tick(committer)
                time.sleep(TICK_S)
        finally:
            notify("STOPPING=1")
            try:
                self.stop()
            finally:
                committer.stop(COMMIT_S)

    def run_once(self, stopping: Callable[[], bool]) -> None:
        """Ship until everything that may be shipped is confirmed, or until stopped.

        Raises the exception that ended a worker. Rows that could not be shipped are an error as well: SinkHeld when a
        database accepts nothing until a person acts, ClockUnknown when rows wait for their clock offset, JournalError
        for a journal that cannot be read. Everything else is shipped first.
        """
        if not self.lanes[0].courier.readings:
            log.warning("%s: no journal here, nothing to ship", self._config.ship.state_dir)
        for lane in self.lanes:
            lane.start(lane.courier.run_once)
        held: list[str] = []
        try:
            while any(lane.is_running for lane in self.lanes) and not stopping():
                states = {lane.sink.name: lane.courier.health for lane in self.lanes if lane.is_running}
                if states and all(health.state == "hold" for health in states.values()):
                    held = [f"sink {name}: {health.why}" for name, health in states.items()]
                    break
                self._raise_failures()
                for lane in self.lanes:
                    _break_off(lane)
                time.sleep(0.02)
        finally:
            self.stop()
        self._raise_failures()
        for lane in self.lanes:
            lane.courier.look(now=True)
            self._report(self._facts(lane))
        if held:
            raise SinkHeld(
                "; ".join(held) + "; nothing is lost: mend it, see collectors sink check, and run this again"
            )
        if not stopping():
            self._raise_unshipped()

    def _raise_unshipped(self) -> None:
        """Raise the error that names unreadable journals or rows that wait for their clock, if there are any."""
        couriers = [lane.courier for lane in self.lanes]
        unreadable = {name: why for courier in couriers for name, why in courier.unreadable.items()}
        if unreadable:
            raise JournalError("\n".join(f"not shipped: {why}" for why in unreadable.values()))
        waiting = {name: rows for courier in couriers for name, rows in courier.waiting_for_clock().items()}
        if waiting:
            raise ClockUnknown(f"not shipped: {waiting_words(waiting)}")

    def stop(self) -> None:
        """Stop every worker, abort its request, and write its cursors to the disk."""
        until_s = time.monotonic() + STOP_S
        for lane in self.lanes:
            lane.courier.stop.set()
            lane.post.abort()
        for lane in self.lanes:
            if lane.thread is not None:
                lane.thread.join(max(0.0, until_s - time.monotonic()))
            if lane.is_running:  # blocked in a name lookup or a connect: its cursors are consistent nevertheless
                lane.courier.save()

    def close(self) -> None:
        """Close connections and ship.db; not while a worker still runs."""
        if not any(lane.is_running for lane in self.lanes):
            for lane in self.lanes:
                lane.post.close()
            self.store.close()

    def _tick(self, committer: Committer) -> None:
        self._raise_failures()
        if committer.failure is not None:
            raise committer.failure
        for lane in self.lanes:
            _break_off(lane)
        if self._is_due("journals", LOOK_FOR_JOURNALS_S):
            self.find_journals()
        if self._is_due("trim", TRIM_S) and (dropped := self.store.trim_dead()):
            committer.put(Event("dead_letters_dropped", f"{dropped}: older than 90 days, or beyond 64 MiB"))
        if self._is_due("confirmed", CONFIRMED_S) and (look := self._clock.look()).state == SYNCHRONISED:
            self.store.note_confirmed(look.boottime_ns + look.offset_ns)
        if self._is_due("verified", LOOK_FOR_VERIFIED_S):
            self._tell_verified(committer)
        if self._is_due("ping", min(watchdog_interval_s() or 5.0, 5.0)):
            self._ping()
        if self._is_due("report", self._config.ship.report_s):
            self._write_report(committer)

    def _tell_verified(self, committer: Committer) -> None:
        """Write an event for each verification (done by another process) that found acknowledged values missing."""
        for found in self.store.verified_after(self._verified_id):
            self._verified_id = found.id
            if found.missing:
                begun, ended = (timestamps.iso(stamp_ns, 0) for stamp_ns in (found.start_ns, found.end_ns))
                what = f"{found.missing} of {found.values} acknowledged values were missing, {found.resent} sent again"
                committer.put(Event("points_missing", f"{found.sink}: {begun} to {ended}: {what}"))

    def _is_due(self, what: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_s.get(what, 0.0):
            return False
        self._next_s[what] = now_s + every_s
        return True

    def _raise_failures(self) -> None:
        for lane in self.lanes:
            if lane.failure is not None:
                raise lane.failure

    def _ping(self) -> None:
        now_s = time.monotonic()
        states = [
            f"{lane.sink.name}: {lane.courier.health.state}, {sum(u.rows for u in lane.courier.unsent.values())} rows "
            f"unsent{', ' + lane.courier.health.why if lane.courier.health.why else ''}"
            for lane in self.lanes
        ]
        alive = all(now_s - lane.courier.alive_s < ALIVE_S for lane in self.lanes)
        status = f"STATUS={'; '.join(states)}".replace("\n", " ")
        notify(f"WATCHDOG=1\n{status}" if alive else status)

    def _facts(self, lane: SinkRuntime) -> dict[str, Any]:
        """Return the report on one sink."""
        courier = lane.courier
        state, why = courier.health.state, courier.health.why
        unreadable, waiting = courier.unreadable, courier.waiting_for_clock()
        if state == "ok" and (unreadable or waiting):
            state, why = "hold", "; ".join([*unreadable.values(), *([waiting_words(waiting)] if waiting else [])])
        ages = [u.age_s for u in courier.unsent.values() if u.age_s is not None]
        return {
            "sink": lane.sink.name,
            "state": state,
            "why": why,
            "lines_sent": courier.lines_sent,
            "dead_letters": self.store.dead_count(lane.sink.name),
            "unsent_rows": sum(u.rows for u in courier.unsent.values()),
            "unsent_age_s": max(ages, default=0.0),
            "waiting_for_clock": waiting,
            "unreadable": unreadable,
        }

    def _write_report(self, committer: Committer) -> None:
        self._keep_notes(committer.clock_state)
        now_ns = self._clock.boottime_ns()
        (then_s, then_cpu_s), self._cpu = self._cpu, (time.monotonic(), time.process_time())
        own: dict[str, Value] = {
            "memory_bytes": resident_bytes(),
            "cpu_share": (self._cpu[1] - then_cpu_s) / (self._cpu[0] - then_s),
            "journal_bytes": float(committer.journal_bytes),
            "disk_free_bytes": float(committer.disk_free_bytes),
            "clock_state": float(committer.clock_state),
            **wifi(),
        }
        committer.put(Sample("collector", now_ns, own))
        for lane in self.lanes:
            facts = self._facts(lane)
            self._report(facts)
            names = ("lines_sent", "dead_letters", "unsent_rows", "unsent_age_s")
            values: dict[str, Value] = {name: float(facts[name]) for name in names}
            committer.put(Sample("collector", now_ns, values, {"sink": lane.sink.name}))


def waiting_words(waiting: Mapping[str, int]) -> str:
    """Return a message that names the collectors whose rows wait for their clock offset, with advice."""
    listed = ", ".join(f"{rows} commits of {name}" for name, rows in sorted(waiting.items()))
    return (
        f"{listed} wait until their time is known: no time service has set the clock of that boot; "
        "`collectors clock` shows it, `collectors clock set` sets it by hand"
    )


def open_post(config: ShipConfig, name: str) -> InfluxClient:
    """Return a client for the sink of this name; ConfigError when there is none or its secret cannot be read."""
    for sink in config.sinks:
        if sink.name == name:
            return InfluxClient(sink, _secret(config, sink))
    raise ConfigError(f"{config.path}: no [[sink]] {name!r}; there are: {', '.join(s.name for s in config.sinks)}")


def _secret(config: ShipConfig, sink: SinkConfig) -> str:
    name = sink.password_file or sink.token_file
    return config.secret(name) if name else ""


def _break_off(lane: SinkRuntime) -> None:
    """Abort a request whose response takes longer than `connect_s` + 2 × `answer_s`."""
    since_s = lane.courier.asking_since_s
    if since_s is not None and time.monotonic() - since_s > lane.sink.connect_s + 2 * lane.sink.answer_s:
        lane.post.abort()


@contextmanager
def the_only_one(state_dir: Path) -> Iterator[None]:
    """Hold the shipper's lock; JournalLocked when another shipper holds it, JournalError when it cannot be created."""
    path = state_dir / "ship.lock"
    try:
        lock = path.open("ab")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}; state_dir must exist and be this user's") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalLocked(f"{path}: another shipper works here; stop it first") from error
        yield


def run(config: ShipConfig, *, once: bool = False, as_json: bool = False) -> int:
    """Ship until SIGTERM or SIGINT (with `once`: until nothing is left to ship); return the signal's number or 0.

    Raises ConfigError for a secret that cannot be read, JournalError for the state directory, JournalLocked for a
    second shipper; with `once` also SinkHeld. Cursors are on the disk when it returns.
    """
    logging.basicConfig(level=logging.INFO, format="ship: %(message)s")
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: stops.append(signum))
    if not config.ship.state_dir.is_dir():
        raise ConfigError(f"{config.path}: [ship] state_dir: no such folder: {config.ship.state_dir}")
    with the_only_one(config.ship.state_dir):
        _run(config, _print_json if as_json else _log, lambda: bool(stops), once=once)
    return stops[0] if stops else 0


def _run(
    config: ShipConfig, report: Callable[[Mapping[str, Any]], None], stopping: Callable[[], bool], *, once: bool
) -> None:
    """Run the service; quarantine a damaged ship.db and start again with a new one, at most MOST_DAMAGED times."""
    path = config.ship.state_dir / SHIP_DB
    told: list[str] = []
    while True:
        service = None
        try:
            service = Service(config, system_clock(), report, told)
            (service.run_once if once else service.run)(stopping)
        except StoreDamaged as error:
            if len(told) == MOST_DAMAGED:
                raise
            damage = str(error)
        else:
            return
        finally:
            if service is not None:
                service.close()
        told.append(f"{damage}; it is {put_aside(path).name} now, and all journals are sent again")
        log.error("%s", told[-1])


def _print_json(facts: Mapping[str, Any]) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201 - asked for


def _log(facts: Mapping[str, Any]) -> None:
    log.debug("%s", facts)
