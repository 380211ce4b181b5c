"""Polls one instrument on a schedule and counts every outcome by name. One process, one instrument.

Schedule   Polled instruments are polled at whole multiples of the period of CLOCK_BOOTTIME, so that all collectors of
           a host sample at the same instants. A slot that passes while a poll cycle still runs is skipped and counted,
           never made up for. Instruments that send unasked are listened to.
Failure    An absent or lost link is opened again after 0.2 s, doubling to 1 s. Silence for 5 periods is a lost link.
           Every loss and every return is an event in the journal.
Guarantee  What `poll` returned is in the committer's queue before the next poll cycle starts. After a request to stop
           the loop ends within 0.3 s of waiting, plus what the driver needs to restore its settings (at most 0.5 s).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from collectors import signals, transports
from collectors.acquisition.session import SLICE_S, SOON_S, Session, identify
from collectors.config import Config
from collectors.device import Driver, Output
from collectors.errors import CollectorError, FrameError, LinkDown, NoReply, Refused, WrongDevice
from collectors.host.clock import Clock
from collectors.protocols.dialogue import DialogueStopped
from collectors.reading import Event, Identity, Reading, Value
from collectors.throughput import Integrator

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 1.0
SILENT_PERIODS, LEAST_SILENCE_S = 5, 3.0
CLOSE_S = 0.5
BAD_TURN = (FrameError, NoReply, Refused)
"""Failures of the instrument that the next poll cycle may not have. Others concern link, configuration or disk."""


class Sink(Protocol):
    """Receives readings and events; it never blocks the loop."""

    def put(self, item: Output) -> None:
        """Accept one reading or event."""
        ...


class RangeGuard:
    """Removes implausible values from readings. The first and the last of a run of them is an event each."""

    def __init__(self) -> None:
        self.rejected = 0
        self._outside: Counter[str] = Counter()

    def check(self, reading: Reading) -> tuple[Reading, list[Event]]:
        """Return the reading with implausible values set to None, and the events that report them."""
        values: dict[str, Value] = {}
        events: list[Event] = []
        for name, value in reading.values.items():
            signal = signals.VOCABULARY[reading.measurement][name]
            key = ".".join((reading.measurement, *reading.tags.values(), name))
            inside = value is None or signal.low <= value <= signal.high  # NaN is outside
            values[name] = value + 0.0 if inside and value is not None else None  # 0.0 only, never −0.0 beside it
            if not inside:
                self.rejected += 1
                self._outside[key] += 1
                if self._outside[key] == 1:
                    limits = f"expected {signal.low:g} to {signal.high:g} {signal.unit}".rstrip()
                    events.append(Event("out_of_range", f"{key}: {value!r}; {limits}", reading.boottime_ns))
            elif value is not None and (count := self._outside.pop(key, 0)):
                events.append(Event("back_in_range", f"{key}: after {count} values left out", reading.boottime_ns))
        return replace(reading, values=values), events


class Poller:
    """Polls one instrument and passes its readings on. `run` returns when `stopping` returns true."""

    def __init__(
        self,
        config: Config,
        sink: Sink,
        clock: Clock,
        stopping: Callable[[], bool],
        each_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """`each_turn` is called at least every 0.3 s of waiting and after every poll cycle: watchdog, reports."""
        self.config = config
        self.sink = sink
        self.clock = clock
        self.stopping = stopping
        self.each_turn = each_turn
        self.outcomes: Counter[str] = Counter()
        self.samples = 0
        self.skipped = 0
        self.reconnects = 0
        self.turns = 0
        self.turn_time_s = 0.0
        self.last_good_s: float | None = None
        self.last_stamp_ns: int | None = None
        self.identity: Identity | None = None
        self.state = "starting"
        self._loss = ""
        self._guard = RangeGuard()
        self._integrator = Integrator(max(self.silence_s, SILENT_PERIODS * self.config.collector.period_s))
        self._bytes_before = 0
        self._conversation: Session | None = None

    @property
    def silence_s(self) -> float:
        """Return the time in s without a sample after which the instrument counts as silent."""
        return self.config.device.silence_s or max(LEAST_SILENCE_S, SILENT_PERIODS * self.config.collector.period_s)

    @property
    def bytes_in(self) -> int:
        """Return how many bytes the instrument has sent since start."""
        return self._bytes_before + (self._conversation.bytes_in if self._conversation else 0)

    def run(self) -> None:
        """Collect until stopped. Raises WrongDevice when another device responds, ConfigError for an unusable link."""
        wait_s = FIRST_WAIT_S / 2
        while not self.stopping():
            good_before = self.last_good_s
            try:
                self._session()
            except DialogueStopped:
                return
            except WrongDevice as error:
                raise WrongDevice(f"{self.config.collector.link}: {error}") from error
            except (*BAD_TURN, LinkDown) as error:
                self._note_loss(error)
            finally:
                self._bytes_before, self._conversation = self.bytes_in, None
            wait_s = FIRST_WAIT_S if self.last_good_s != good_before else min(2 * wait_s, LONGEST_WAIT_S)
            self._wait(wait_s)

    def _note_loss(self, error: CollectorError) -> None:
        """Count the loss; report an event if the cause is another one; unknown bytes differ each time."""
        cause = type(error).__name__
        self.outcomes[cause] += 1
        if self._loss != (loss := cause if isinstance(error, BAD_TURN) else f"{cause}: {error}"):
            self._loss = loss
            self.state = f"{cause}: {error}"
            self.sink.put(Event("link_down", f"{self.config.collector.link}: {self.state}"))

    def _session(self) -> None:
        """Open link and instrument, and run poll cycles until an error ends the session."""
        settings = self.config.collector
        link = transports.open_link(settings.link, self.config.device)
        try:
            conversation = self._conversation = Session(link, self.clock, self._stopping_between_slices)
            driver: Driver = self.config.device.driver(self.config.options)
            self.identity = identify(conversation, driver, self.config.device)
            self.reconnects += self.last_good_s is not None
            who = " ".join(filter(None, (self.identity.model, self.identity.serial, self.identity.firmware)))
            self.sink.put(Event("link_up", f"{settings.link}: {who}"))
            self.state = f"reading {who}"
            self._loss = ""
            try:
                self._turns(conversation, driver)
            finally:
                for row in self._integrator.flush():
                    self.sink.put(row)
                self._put_back(link, driver)
        finally:
            link.close()

    def _put_back(self, link: transports.Link, driver: Driver) -> None:
        """Let the driver restore what it changed; on a lost link there is nothing to restore."""
        end_s = self.clock.monotonic_s() + CLOSE_S
        try:
            Session(link, self.clock, lambda: self.clock.monotonic_s() > end_s).carry(driver.close())
        except (CollectorError, DialogueStopped) as error:
            self.outcomes[f"close:{type(error).__name__}"] += 1

    def _stopping_between_slices(self) -> bool:
        self.each_turn()
        return self.stopping()

    def _wait(self, seconds: float) -> None:
        end_s = self.clock.monotonic_s() + seconds
        while not self._stopping_between_slices() and (left_s := end_s - self.clock.monotonic_s()) > SOON_S:
            self.clock.sleep_s(min(left_s, SLICE_S))

    def _turns(self, conversation: Session, driver: Driver) -> None:
        period_s = self.config.collector.period_s
        silence_s = self.silence_s
        on_grid = getattr(driver, "paced_by", self.config.device.paced_by) == "grid"
        heard_s = self.clock.monotonic_s()
        slot = self._next_slot(period_s)
        while not self.stopping():
            if on_grid:
                slot = self._await_slot(slot, period_s)
                if self.stopping():
                    return
            began_s = self.clock.monotonic_s()
            try:
                outputs = conversation.carry(driver.poll())
            except BAD_TURN as error:
                self.outcomes[type(error).__name__] += 1
            else:
                self.outcomes["ok"] += 1
                self._accept(outputs, period_s, on_grid)
                heard_s = self.clock.monotonic_s() if outputs else heard_s
            self._count_rejected(conversation)
            self.turns += 1
            self.turn_time_s += self.clock.monotonic_s() - began_s
            self.each_turn()
            if self.clock.monotonic_s() - heard_s > silence_s:
                raise LinkDown(f"no good frame for {self.clock.monotonic_s() - heard_s:.1f} s")

    def _count_rejected(self, conversation: Session) -> None:
        self.outcomes += conversation.errors
        conversation.errors.clear()

    def _next_slot(self, period_s: float) -> int:
        return int(self.clock.boottime_ns() // (period_s * 1e9)) + 1

    def _await_slot(self, slot: int, period_s: float) -> int:
        """Wait for the slot and return the number of the next one; slots that are over are skipped and counted."""
        due = self._next_slot(period_s)
        if due > slot + 1:
            self.skipped += due - 1 - slot
            slot = due - 1
        if due > slot:
            return slot + 1  # the slot began during the last poll cycle: it is due now
        self._wait((slot * period_s * 1e9 - self.clock.boottime_ns()) / 1e9)
        return slot + 1

    def _accept(self, outputs: Sequence[Output], period_s: float, on_grid: bool) -> None:
        for item in self._plausible(outputs):
            self.sink.put(item)
        stamps = [item.boottime_ns for item in outputs if isinstance(item, Reading)]
        if not stamps:
            return
        self.samples += len(stamps)
        self.last_good_s = self.clock.monotonic_s()
        if not on_grid and self.last_stamp_ns is not None:
            missed = round((stamps[0] - self.last_stamp_ns) / (period_s * 1e9)) - 1
            self.skipped += max(0, missed)
        self.last_stamp_ns = stamps[-1]

    def _plausible(self, outputs: Iterable[Output]) -> Iterable[Output]:
        for item in outputs:
            if isinstance(item, Event):
                yield item
                continue
            rejected = self._guard.rejected
            reading, events = self._guard.check(item)
            self.outcomes["OutOfRange"] += self._guard.rejected - rejected
            yield reading
            yield from events
            yield from self._integrator.add(reading)
