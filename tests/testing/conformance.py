"""Plays the cases of tests/frames on the device modules without a link: whole, damaged, split and joined.

A `Hand` replaces `collectors.acquisition.session` on a real link, without time: it replies to each Ask from a list of
exchanges, and gives no reply after the end of the list.
"""

from __future__ import annotations

import math
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from collectors import devices
from collectors.config import load_dataclass
from collectors.device import Device
from collectors.errors import CollectorError, FrameError, LinkDown, NoReply
from collectors.fakes import Fake, FakeKind, Out
from collectors.protocols.dialogue import Ask, Dialogue, DialogueStopped, Pause, Reply
from collectors.reading import Event, Identity, Reading, Value

FRAMES = Path(__file__).parents[1] / "frames"
BOOTTIME_NS = 1_000_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """One request and the pieces in which its reply arrives; no pieces: no reply."""

    ask: bytes
    pieces: tuple[bytes, ...]
    channel: str = ""

    @property
    def reply(self) -> bytes:
        return b"".join(self.pieces)


@dataclass(frozen=True)
class Case:
    """One case of a TOML file; see tests/frames/README.md."""

    kind: str
    name: str
    origin: str
    options: Mapping[str, Any]
    opening: tuple[Exchange, ...]
    dialogue: str
    repeat: int
    exchanges: tuple[Exchange, ...]
    expect: Sequence[Mapping[str, Any]]
    events: Sequence[str] | None
    error: str | None
    identity: Mapping[str, str] | None

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


@dataclass
class Outcome:
    """The result of playing a case."""

    polls: list[list[Reading | Event]] = field(default_factory=list)
    identity: Identity | None = None
    error: str = ""
    unused: int = 0
    """Exchanges that nobody asked for."""

    @property
    def readings(self) -> list[Reading]:
        return [output for poll in self.polls for output in poll if isinstance(output, Reading)]


class Unexpected(AssertionError):
    """The driver sent another request than the case expects."""


class Hand:
    """Plays dialogues over a list of exchanges."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self.exchanges = deque(exchanges)
        self._buffers: dict[str, bytes] = {}

    def carry(self, dialogue: Dialogue[T]) -> T:
        """Return the dialogue's result."""
        try:
            step = next(dialogue)
            while True:
                reply = None if isinstance(step, Pause) else self._ask(step)
                if reply is None and isinstance(step, Ask):
                    step = dialogue.throw(NoReply("the case is silent here"))
                else:
                    step = dialogue.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    def _ask(self, ask: Ask) -> Reply | None:
        if ask.flush:
            self._buffers[ask.channel] = b""
        reply = None if ask.send else self._cut(ask)
        if reply is None:
            for piece in (b"", *self._next(ask)):
                self._buffers[ask.channel] = self._buffers.get(ask.channel, b"") + piece
                reply = reply or self._cut(ask)
        return reply

    def _next(self, ask: Ask) -> tuple[bytes, ...]:
        if not self.exchanges:
            return ()
        exchange = self.exchanges.popleft()
        if (ask.send, ask.channel) != (exchange.ask, exchange.channel):
            raise Unexpected(f"asked {ask.send!r} on {ask.channel!r}, the case has {exchange.ask!r}")
        return exchange.pieces

    def _cut(self, ask: Ask) -> Reply | None:
        reply, self._buffers[ask.channel] = cut_one(ask, self._buffers.get(ask.channel, b""), BOOTTIME_NS)
        return reply


def options_of(of: Device | FakeKind, table: Mapping[str, Any]) -> Any:
    """Return a device's or fake's options from a table."""
    options, problems = load_dataclass(of.options, table, "options")
    assert not problems, problems
    return options


def play(case: Case, exchanges: Sequence[Exchange] | None = None) -> Outcome:
    """Play the case, with other exchanges than its own if given."""
    device = devices.load(case.kind)
    driver = device.driver(options_of(device, case.options))
    if case.opening and case.dialogue != "open":
        Hand(case.opening).carry(driver.open())
    hand = Hand(case.exchanges if exchanges is None else exchanges)
    outcome = Outcome()
    try:
        for _ in range(case.repeat):
            if case.dialogue == "open":
                outcome.identity = hand.carry(driver.open())
            elif case.dialogue == "poll":
                outcome.polls.append(hand.carry(driver.poll()))
            else:
                hand.carry(driver.close())
    except CollectorError as error:
        outcome.error = type(error).__name__
    outcome.unused = len(hand.exchanges)
    return outcome


def damaged(case: Case, index: int, *pieces: bytes) -> list[Exchange]:
    """Return the case's exchanges up to one whose reply arrives as these pieces; no reply follows."""
    return [*case.exchanges[:index], replace(case.exchanges[index], pieces=pieces)]


def changed(case: Case, index: int, *pieces: bytes) -> list[Exchange]:
    """Return all of the case's exchanges, one of them with its reply arriving as these pieces."""
    return [*damaged(case, index, *pieces), *case.exchanges[index + 1 :]]


def answered(case: Case) -> list[int]:
    """Return which exchanges have a reply."""
    return [index for index, exchange in enumerate(case.exchanges) if exchange.reply]


def is_part(values: Mapping[str, Value], whole: Mapping[str, Value]) -> bool:
    """Return whether every value is one of the whole's; a missing value is allowed."""
    return all(value is None or is_close(value, whole.get(name)) for name, value in values.items())


def is_close(value: float, other: Value) -> bool:
    return other is not None and math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-12)


def all_cases() -> Iterator[Case]:
    """Yield every case of every kind."""
    for path in sorted(FRAMES.glob("*/*.toml")):
        yield from _cases(path)


def round_trips() -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield kind, device options and fake's options of every file with a [fake] table, else of the kind's defaults."""
    for kind in devices.KINDS:
        contents = [tomllib.loads(path.read_text()) for path in sorted(FRAMES.glob(f"{kind}/*.toml"))]
        pairs = [(content.get("options", {}), content["fake"]) for content in contents if "fake" in content]
        for options, fake_options in pairs or [({}, {})]:
            yield kind, options, fake_options


def _cases(path: Path) -> Iterator[Case]:
    content = tomllib.loads(path.read_text())
    for table in content.get("case", ()):
        yield Case(
            kind=path.parent.name,
            name=f"{path.stem}: {table['name']}",
            origin=content["origin"],
            options={**content.get("options", {}), **table.get("options", {})},
            opening=tuple(map(_exchange, content.get("open", ()))),
            dialogue=table["dialogue"],
            repeat=table.get("repeat", 1),
            exchanges=tuple(map(_exchange, table["exchange"])),
            expect=table.get("expect", ()),
            events=table.get("events"),
            error=table.get("error"),
            identity=table.get("identity"),
        )


def _exchange(table: Mapping[str, Any]) -> Exchange:
    reply = _bytes(table, "reply")
    assert bool(reply) != table.get("silence", False), f"an exchange is either answered or silent: {table}"
    return Exchange(_bytes(table, "ask"), (reply,) if reply else (), table.get("channel", ""))


def _bytes(table: Mapping[str, Any], key: str) -> bytes:
    text: str = table.get(f"{key}_text", "")
    return text.encode() or bytes.fromhex(table.get(key, ""))


class Bench:
    """Plays dialogues against a fake in simulated time, as a real link and a session do, without waiting."""

    def __init__(self, fake: Fake, channels: Iterable[str]) -> None:
        self.now_s = 0.0
        self._fake = fake
        self._due: list[Out] = []
        self._buffers = dict.fromkeys(channels, b"")
        for channel in channels:
            fake.connected(self.now_s, channel)

    def carry(self, dialogue: Dialogue[T]) -> T:
        """Return the dialogue's result."""
        try:
            step = next(dialogue)
            while True:
                if isinstance(step, Pause):
                    self.now_s += step.seconds
                    step = dialogue.send(None)
                    continue
                try:
                    reply = self._ask(step) or NoReply("the fake said nothing usable")
                except (LinkDown, DialogueStopped) as error:
                    reply = error
                step = dialogue.throw(reply) if isinstance(reply, Exception) else dialogue.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    def _ask(self, ask: Ask) -> Reply | None:
        self.now_s += ask.pause_s
        if ask.flush:
            self._arrive()
            self._buffers[ask.channel] = b""
        if ask.send:
            self._due += self._fake.receive(ask.send, self.now_s, ask.channel)
        deadline_s = self.now_s + ask.timeout_s
        while (reply := self._cut(ask)) is None:
            tick_s = self._fake.next_tick_s()
            moments = [out.at_s for out in self._due] + ([] if tick_s is None else [tick_s])
            if not moments or min(moments) > deadline_s:
                self.now_s = deadline_s
                return None
            self.now_s = max(self.now_s, min(moments))
            self._arrive()
        return reply

    def _arrive(self) -> None:
        tick_s = self._fake.next_tick_s()
        if tick_s is not None and tick_s <= self.now_s:
            self._due += self._fake.tick(self.now_s)
        for out in self._due:
            if out.at_s <= self.now_s:
                self._buffers[out.channel] += out.data
        self._due = [out for out in self._due if out.at_s > self.now_s]

    def _cut(self, ask: Ask) -> Reply | None:
        reply, self._buffers[ask.channel] = cut_one(ask, self._buffers[ask.channel], int(self.now_s * 1e9))
        return reply


def cut_one(ask: Ask, buffer: bytes, boottime_ns: int) -> tuple[Reply | None, bytes]:
    """Return the first frame and the rest of the buffer, without what cannot be a frame before it."""
    while buffer:
        try:
            cut = ask.cut(buffer)
        except FrameError as error:
            assert error.drop >= 1, f"nothing would ever be dropped: {error}"
            buffer = buffer[error.drop :]
            continue
        if cut is None:
            break
        assert 0 < cut.used <= len(buffer), "a cut takes some of what is there"
        return Reply(cut.payload, boottime_ns), buffer[cut.used :]
    return None, buffer
