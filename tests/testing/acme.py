"""An invented instrument for tests of the code around instruments: frames of `Z <value> <sum>`, three bytes each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from collectors.device import Device, Output
from collectors.errors import BadChecksum, FrameError, LinkDown
from collectors.host.clock import FakeClock
from collectors.protocols.dialogue import Ask, Cut, Dialogue
from collectors.reading import Identity, Reading
from collectors.transports import Arrived

HEAD = 0x5A


def frame(value: int) -> bytes:
    return bytes([HEAD, value, (HEAD + value) % 256])


def cut(buffer: bytes) -> Cut | None:
    if buffer[0] != HEAD:
        raise FrameError(f"expected {HEAD:#x}, got {buffer[0]:#x}")
    if len(buffer) < 3:
        return None
    if (buffer[0] + buffer[1]) % 256 != buffer[2]:
        raise BadChecksum("sum")
    return Cut(buffer[1], 3)


@dataclass(frozen=True)
class Options:
    scale: float = field(default=1.0, metadata={"help": "volts per count"})


class Driver:
    def __init__(self, options: Options) -> None:
        self.options = options

    def open(self) -> Dialogue[Identity]:
        reply = yield Ask(b"who", cut, timeout_s=0.5)
        return Identity("ACME PM1", str(reply.payload))

    def poll(self) -> Dialogue[list[Output]]:
        reply = yield Ask(b"poll", cut, timeout_s=0.5)
        return [Reading("battery", reply.boottime_ns, {"voltage_v": reply.payload * self.options.scale})]

    def close(self) -> Dialogue[None]:
        yield Ask(b"bye", cut, timeout_s=0.1)


def decode(chunks: Iterable[bytes]) -> Iterable[Mapping[str, Any]]:
    return ({"value": chunk[1]} for chunk in chunks)


DEVICE = Device("acme", "ACME PM1", ("serial",), Options, Driver, {"battery": ["voltage_v"]}, decode)


@dataclass
class ScriptedLink:
    """Replies to each write with the next item: bytes after `delay_s`, or an exception. Time is the FakeClock's."""

    clock: FakeClock
    answers: list[bytes | LinkDown | None]
    delay_s: float = 0.01
    byte_time_s: float = 0.0
    written: list[bytes] = field(default_factory=list)
    pending: bytes = b""
    closed: int = 0

    def write(self, data: bytes, channel: str = "") -> None:
        self.written.append(data)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, LinkDown):
            raise answer
        self.pending += answer or b""

    def read(self, timeout_s: float, channel: str = "", linger_s: float = 0.0) -> Arrived:
        self.clock.sleep_s(min(timeout_s, self.delay_s) if self.pending else timeout_s)
        data, self.pending = self.pending, b""
        return Arrived(data, self.clock.boottime_ns())

    def flush(self) -> None:
        self.pending = b""

    def close(self) -> None:
        self.closed += 1
