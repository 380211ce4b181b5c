"""Runs one dialogue over one link. All waiting for any instrument is here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from collectors.device import Device, Driver
from collectors.errors import FrameError, LinkDown, NoReply, NotUnderstood
from collectors.host.clock import Clock
from collectors.protocols.dialogue import Ask, Dialogue, DialogueStopped, Pause, Reply
from collectors.reading import Identity
from collectors.transports import Link

T = TypeVar("T")

BUFFER_BYTES = 64 * 1024
"""Maximum bytes in a buffer without a frame; beyond, they are dropped. Stream channels get STREAM_BUFFER_BYTES."""
STREAM_BUFFER_BYTES = 16 * 1024 * 1024
HEARD_BYTES = 32
"""Number of unrecognised bytes that are shown to the user, who may recognise their format."""
STAMP_NS = 1000
"""Stamps are whole microseconds: no read is timed more precisely, and finer digits cost the journal 0.1 byte."""
SLICE_S = 0.25
"""Longest single wait, so that a request to stop is seen in time."""
SOON_S = 1e-6
"""A shorter wait is not worth its system call."""


class Inbox:
    """Bytes that arrived on one channel and are not cut yet, and when their first byte was on the wire."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._reads: deque[list[int]] = deque()  # [bytes left of that read, stamp of the first of them, ns per byte]
        self._ended_ns = 0

    def add(self, data: bytes, boottime_ns: int, byte_time_s: float) -> None:
        """Append the data of one read; the read returned when its last byte had arrived."""
        if data:
            byte_ns = int(byte_time_s * 1e9)
            self.data += data
            # A process delayed between read and clock stamps too late: data read next did not arrive before these.
            first_ns = max(boottime_ns - len(data) * byte_ns, self._ended_ns)
            self._ended_ns = max(boottime_ns, self._ended_ns)
            self._reads.append([len(data), first_ns, byte_ns])

    @property
    def boottime_ns(self) -> int:
        """Return when the first remaining byte was on the wire, CLOCK_BOOTTIME in ns."""
        return self._reads[0][1]

    def drop(self, count: int) -> None:
        """Remove the first `count` bytes."""
        count = min(count, len(self.data))
        del self.data[:count]
        while count:
            read = self._reads[0]
            used = min(count, read[0])
            read[0] -= used
            read[1] += used * read[2]
            count -= used
            if not read[0]:
                self._reads.popleft()


class Session:
    """One link with its receive buffers: bytes that are not cut yet stay for the next poll cycle.

    `errors` counts rejected frames by error name; `bytes_in` counts bytes read; `heard` is the beginning of what came
    since the last whole frame.
    """

    def __init__(self, link: Link, clock: Clock, stopping: Callable[[], bool] = lambda: False) -> None:
        self.link = link
        self.clock = clock
        self.stopping = stopping
        self.errors: Counter[str] = Counter()
        self.bytes_in = 0
        self.heard = b""
        self._inboxes: dict[str, Inbox] = {}
        self._last_end_s = 0.0

    def carry(self, dialogue: Dialogue[T]) -> T:
        """Return the dialogue's result. Raises the dialogue's errors, LinkDown from the link, or DialogueStopped."""
        try:
            step = next(dialogue)
            while True:
                try:
                    answer = self._do(step)
                except (NoReply, LinkDown, DialogueStopped) as error:
                    step = dialogue.throw(error)
                else:
                    step = dialogue.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            dialogue.close()

    def _do(self, step: Ask | Pause) -> Reply | None:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        if step.pause_s:
            self._sleep(self._last_end_s + step.pause_s - self.clock.monotonic_s())
        if step.flush:
            self.link.flush()
            self._inboxes.pop(step.channel, None)
        if step.send:
            self.link.write(step.send, step.channel)
        try:
            return self._receive(step)
        finally:
            self._last_end_s = self.clock.monotonic_s()

    def _sleep(self, seconds: float) -> None:
        end_s = self.clock.monotonic_s() + seconds
        while (left_s := end_s - self.clock.monotonic_s()) > SOON_S:
            if self.stopping():
                raise DialogueStopped
            self.clock.sleep_s(min(left_s, SLICE_S))

    def _receive(self, ask: Ask) -> Reply:
        """Return the next whole frame; NoReply (naming the last frame error, if any) at the deadline."""
        inbox = self._inboxes.setdefault(ask.channel, Inbox())
        deadline_s = self.clock.monotonic_s() + ask.timeout_s
        last_error: FrameError | None = None
        while True:
            reply, error = self._cut(ask, inbox)
            last_error = error or last_error
            if reply:
                return reply
            left_s = deadline_s - self.clock.monotonic_s()
            if left_s <= SOON_S:
                seen = f"; last: {last_error}" if last_error else ""
                rest = f"; {len(inbox.data)} bytes of an unfinished frame" if inbox.data else ""
                raise NoReply(f"nothing usable within {ask.timeout_s:g} s{seen}{rest}")
            if self.stopping():
                raise DialogueStopped
            data, boottime_ns = self.link.read(min(left_s, SLICE_S), ask.channel, ask.linger_s)
            self.bytes_in += len(data)
            self.heard += data[: HEARD_BYTES - len(self.heard)]
            inbox.add(data, boottime_ns, self.link.byte_time_s)

    def _cut(self, ask: Ask, inbox: Inbox) -> tuple[Reply | None, FrameError | None]:
        """Return the first frame and the last error before it; invalid bytes are dropped and counted."""
        error: FrameError | None = None
        while inbox.data:
            try:
                cut = ask.cut(bytes(inbox.data))
            except FrameError as found:
                error = found
                self.errors[type(found).__name__] += 1
                inbox.drop(max(1, found.drop))
                continue
            if cut is not None:
                stamp = inbox.boottime_ns // STAMP_NS * STAMP_NS
                inbox.drop(cut.used)
                self.heard = bytes(inbox.data[:HEARD_BYTES])
                return Reply(cut.payload, stamp), error
            if len(inbox.data) <= (STREAM_BUFFER_BYTES if ask.linger_s else BUFFER_BYTES):
                break
            error = FrameError(f"{len(inbox.data)} bytes without a frame")
            self.errors["FrameError"] += 1
            inbox.drop(len(inbox.data))
        return None, error


def identify(conversation: Session, driver: Driver, device: Device) -> Identity:
    """Return the identity of the instrument that responds.

    Raises the errors of `Driver.open`; NoReply states what was expected, and is NotUnderstood where bytes arrived.
    """
    try:
        return conversation.carry(driver.open())
    except NoReply as error:
        if conversation.heard:
            raise NotUnderstood(f"expected {device.title}, heard {shown(conversation.heard)}: {error}") from error
        raise type(error)(f"expected {device.title}: {error}") from error


def shown(data: bytes) -> str:
    """Return bytes as text for people: quoted where they are text, else in hex."""
    text = data.decode("ascii", "replace")
    is_text = all(character.isprintable() or character in "\r\n\t" for character in text) and "\ufffd" not in text
    return repr(text) if is_text else data.hex(" ")
