"""Serve fakes on their wires: one thread, any number of instruments, can be stopped at any time.

    world -> SentObserver -> fake -> FaultInjector -> wire ~ collector

`Station.sent` records what each fake sent, so that a run can prove that all of it was stored: one entry for every
message that carries measured values, with the CLOCK_BOOTTIME at which it was on the wire and whether a fault changed
it.
"""

from __future__ import annotations

import math
import os
import selectors
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from collectors.device import Line
from collectors.fakes import Fake, FakeKind, Out, World
from collectors.fakes.faults import Fault, FaultedBytes, FaultInjector
from collectors.fakes.wires import MAX_UNSENT, PtyWire, TcpWire, Wire

LOOK_S = 0.02
"""Interval in s at which a serial line that no program has open is checked."""
LONGEST_WAIT_S = 0.5
SPACING = 1.1
"""Minimum distance of two late messages, in transmission times. It is above 1: a collector that reads both at once and
subtracts the transmission time would otherwise stamp the second before the first."""
MOST_WAITING = 1000
"""Pieces waiting for transmission; with more, the fake's `tick` is not called."""


class _Watched(Mapping[str, float | None]):
    """Values that record which of them were used."""

    def __init__(self, values: Mapping[str, float | None], used: set[str]) -> None:
        self._values = values
        self._used = used

    def __getitem__(self, key: str) -> float | None:
        value = self._values[key]
        if value is not None and not math.isnan(value):
            self._used.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class SentObserver:
    """A world that records whether a message was made from its values."""

    def __init__(self, world: World, counted: frozenset[str]) -> None:
        """`counted`: a message that uses any of these keys is a sample; empty: any key."""
        self._world = world
        self._counted = counted
        self._used: set[str] = set()

    def __call__(self, time_s: float) -> Mapping[str, float | None]:
        """Return the true values at this time."""
        return _Watched(self._world(time_s), self._used)

    def gave(self) -> bool:
        """Return whether a sample was made since the last call."""
        gave = bool(self._used & self._counted if self._counted else self._used)
        self._used.clear()
        return gave


class SentLog:
    """When each message with measured values was sent, and whether a fault changed it or the message before it."""

    def __init__(self) -> None:
        self.boottime_ns = array("q")
        self.harmed = bytearray()
        self.marks = array("q")
        """The value of `Station.mark` when the message was made."""
        self.connected_ns = array("q")
        """When a collector opened the line."""
        self.gone_ns = array("q")
        """When it was detected that the collector had closed the line."""
        self._tail_harmed = False

    def add(self, boottime_ns: int, harmed: bool, mark: int) -> None:
        """Add a message. A changed message may spoil the next one (lost line end), so that counts as harmed, too."""
        self.boottime_ns.append(boottime_ns)
        self.marks.append(mark)
        self.harmed.append(harmed or self._tail_harmed)
        self._tail_harmed = harmed

    def harms(self) -> list[int]:
        """Return when the harmed messages were sent."""
        return [at_ns for at_ns, is_harmed in zip(self.boottime_ns, self.harmed, strict=False) if is_harmed]

    def spoil(self) -> None:
        """Record that a message without measured values was changed: the poll cycle that it belongs to may fail."""
        if self.harmed:
            self.harmed[-1] = True
        self._tail_harmed = True


class _Waiting(NamedTuple):
    """Bytes that wait for transmission to the collector."""

    at_s: float
    order: int
    data: bytes
    channel: str
    began_s: float
    """When the message's first byte was on the wire."""
    is_sample: bool
    """Whether this is the last piece of a message with measured values."""
    measured: bool
    """Whether the message has measured values."""
    harmed: bool
    """Whether a fault changed the message."""
    mark: int


class Station:
    """One fake on its wire."""

    def __init__(
        self,
        name: str,
        kind: FakeKind,
        world: World,
        options: Any,
        seed: int = 0,
        counted: frozenset[str] = frozenset(),
    ) -> None:
        """`counted`: keys of the world that make a message a sample; empty: any key."""
        self.name = name
        self.sent = SentLog()
        self.mischief = FaultInjector(seed)
        self.lost_bytes = 0
        """Bytes that did not fit on the wire because the collector had not read the earlier ones."""
        self.mark: Callable[[], int] = lambda: 0
        """Called when a message is made: returns which part of the world the message is about."""
        self.on_sent: Callable[[int], None] = lambda _mark: None
        """Called with the mark directly after a message with measured values was sent completely."""
        self.wire: Wire
        self._witness = SentObserver(world, counted)
        self._fake: Fake = kind.make(self._witness, options)
        self._now_s: Callable[[], float]
        self._queue: list[_Waiting] = []
        self._order = count()
        self._busy_until_s: dict[str, float] = {}
        self._wire_free_s = -math.inf
        self._is_open = False
        self._opened_ns: dict[str, int] = {}
        self._unanswered: tuple[bytes, str] | None = None

    def attach(self, wire: Wire, now_s: Callable[[], float]) -> None:
        """Connect it to its wire and start."""
        self.wire, self._now_s = wire, now_s
        wire.plug()

    def connected(self, channel: str) -> None:
        """Note that a collector has opened the wire."""
        self._unanswered = None
        self._opened_ns[channel] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.sent.connected_ns.append(self._opened_ns[channel])
        self._fake.connected(self._now_s(), channel)

    def heard(self, data: bytes, channel: str) -> None:
        """Process bytes from the collector."""
        now_s = self._now_s()
        clear = data if self.wire.is_clear() else self.mischief.noise(len(data))
        answers = self._fake.receive(clear, now_s, channel)
        self._unanswered = None if answers else (clear, channel)
        self._enqueue(answers, now_s)

    def ask_again(self) -> None:
        """Repeat a request that the fake did not respond to: the world may have a value for it now."""
        if self._unanswered:
            data, channel = self._unanswered
            self.heard(data, channel)

    def turn(self, now_s: float) -> float:
        """Do what is due; return the latest time of the next call."""
        self._plug_or_unplug(now_s)
        self._note_leaving()
        waits = [now_s + LONGEST_WAIT_S]
        if self.wire.look():
            waits.append(now_s + LOOK_S)
        tick_s = self._fake.next_tick_s()
        if tick_s is not None and self.wire.unsent() < MAX_UNSENT // 2 and len(self._queue) < MOST_WAITING:
            if tick_s <= now_s:
                self._enqueue(self._fake.tick(now_s), now_s)
                tick_s = self._fake.next_tick_s()
            if tick_s is not None:
                waits.append(tick_s)
        waits.append(self._deliver(now_s))
        change_s = self.mischief.next_change_s(now_s)
        if change_s is not None:
            waits.append(change_s)
        return min(waits)

    def _note_leaving(self) -> None:
        was_open, self._is_open = self._is_open, self.wire.is_open()
        if was_open and not self._is_open:
            self.sent.gone_ns.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def _plug_or_unplug(self, now_s: float) -> None:
        if self.mischief.on("unplug", now_s):
            self.wire.unplug()
        elif self.mischief.on("hold", now_s):
            self.wire.hold()
        else:
            self.wire.release()
            self.wire.plug()

    def _enqueue(self, outs: Sequence[Out], now_s: float) -> None:
        """Send these messages through the faults and, on a serial line, at the line's speed."""
        measured, mark = self._witness.gave(), self.mark()
        for i, out in enumerate(outs):
            start_s = max(now_s, out.at_s, self._busy_until_s.get(out.channel, 0.0))
            self._busy_until_s[out.channel] = start_s + len(out.data) * self.wire.byte_time_s
            pieces, harmed = self._spoil(out.data, now_s)
            for j, piece in enumerate(pieces):
                at_s = start_s + piece.delay_s + len(piece.data) * self.wire.byte_time_s
                is_sample = measured and i == len(outs) - 1 and j == len(pieces) - 1
                waiting = _Waiting(
                    at_s=at_s,
                    order=next(self._order),
                    data=piece.data,
                    channel=out.channel,
                    began_s=start_s,
                    is_sample=is_sample,
                    measured=measured,
                    harmed=harmed,
                    mark=mark,
                )
                heappush(self._queue, waiting)

    def _spoil(self, data: bytes, now_s: float) -> tuple[list[FaultedBytes], bool]:
        """Return the remaining pieces of a message, at least one, and whether a fault changed it."""
        clear = data if self.wire.is_clear() else self.mischief.noise(len(data))
        pieces = self.mischief.spoil(clear, now_s) or [FaultedBytes(b"", 0.0)]
        return pieces, b"".join(p.data for p in pieces) != data or self.mischief.on("delay", now_s) is not None

    def _deliver(self, now_s: float) -> float:
        """Write what is due; return when the next piece is due. A late piece still needs its transmission time."""
        while self._queue:
            due = self._queue[0]
            at_s = max(due.at_s, self._wire_free_s + SPACING * len(due.data) * self.wire.byte_time_s)
            if at_s > now_s:
                return at_s
            heappop(self._queue)
            if not self.wire.is_open(due.channel):
                continue
            began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - round((self._now_s() - due.began_s) * 1e9)
            self.lost_bytes += self.wire.write(due.data, due.channel)
            self._wire_free_s = self._now_s()
            if due.is_sample:  # a piece that waited when the line was opened counts as sent then
                self.sent.add(max(began_ns, self._opened_ns[due.channel]), due.harmed, due.mark)
                self.on_sent(due.mark)
            elif due.harmed and not due.measured:
                self.sent.spoil()
        return math.inf


class Server:
    """Any number of stations in one loop. `run` blocks; `call` and `stop` may be called from other threads."""

    def __init__(self, each_turn: Callable[[float], float] | None = None) -> None:
        """`each_turn` is called with the time before every pass and returns the latest time of its next call."""
        self.stations: dict[str, Station] = {}
        self._selector = selectors.DefaultSelector()
        self._each_turn = each_turn
        self._start_s = time.monotonic()
        self._stopped = False
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._bell, selectors.EVENT_READ, self._answer_bell)

    def now_s(self) -> float:
        """Return the time in s since the server was created."""
        return time.monotonic() - self._start_s

    def add_pty(self, station: Station, path: Path, line: Line) -> Station:
        """Serve it on a pseudo-terminal whose path is always `path`."""
        wire = PtyWire(path, line, self._selector, station.connected, station.heard)
        return self._add(station, wire)

    def add_tcp(self, station: Station, ports: Mapping[str, int]) -> Station:
        """Serve it on loopback, each channel on its port (0: a free one). Raise LinkBusy if a port is in use."""
        wire = TcpWire(ports, self._selector, station.connected, station.heard)
        return self._add(station, wire)

    def _add(self, station: Station, wire: Wire) -> Station:
        station.attach(wire, self.now_s)
        self.stations[station.name] = station
        return station

    def misbehave(self, target: str, fault: Fault) -> None:
        """Add a fault for the station named `target`; its start is on this server's clock."""
        self.call(lambda: self.stations[target].mischief.add(fault))

    def call(self, action: Callable[[], None]) -> None:
        """Run this in the server's thread soon."""
        self._calls.put(action)
        os.eventfd_write(self._bell, 1)

    def stop(self) -> None:
        """End `run`."""

        def leave() -> None:
            self._stopped = True

        self.call(leave)

    def run(self, until_s: float = float("inf")) -> None:
        """Serve until this time or until `stop`."""
        while not self._stopped and (now_s := self.now_s()) < until_s:
            waits = [station.turn(now_s) for station in self.stations.values()]
            waits.append(self._each_turn(now_s) if self._each_turn else now_s + LONGEST_WAIT_S)
            wait_s = max(0.0, min(*waits, until_s) - self.now_s())
            for key, _ in self._selector.select(wait_s):
                current = self._selector.get_map().get(key.fileobj)
                if current and current.data == key.data:  # an earlier event of this pass may have closed it
                    key.data()

    def _answer_bell(self) -> None:
        os.eventfd_read(self._bell)
        try:
            while True:
                self._calls.get_nowait()()
        except Empty:
            pass

    def close(self) -> None:
        """Disconnect every fake. Call it only after `run` has returned."""
        for station in self.stations.values():
            station.wire.unplug()
        self._selector.close()
        os.close(self._bell)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve in a separate thread during a with-block, and clean up afterwards.

    An error that ended the serving is raised when the block ends.
    """
    with ThreadPoolExecutor(1, "fakes") as pool:
        run = pool.submit(server.run)
        try:
            yield server
        finally:
            server.stop()
            wait([run])
            server.close()
        run.result()
