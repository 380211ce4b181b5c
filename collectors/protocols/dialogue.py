r"""A conversation with an instrument, described without any waiting.

A *dialogue* is a generator. It yields what to do next and is sent what came back; its return value is the
result. It never touches a port or a clock, so a test carries it by hand:

    def poll() -> Dialogue[list[Reading]]:
        reply = yield Ask(b"\x5a\x01", cut)          # send this; cut() takes one frame off what arrives
        return [Reading("battery", reply.boottime_ns, decode(FIELDS, reply.payload))]

`collectors.acquisition.session.Conversation` does all the waiting, for every device and every link. What ends a wait is
raised inside the dialogue: NoReply at its deadline, LinkDown, and Stopped. A dialogue that has heard something that is
worth keeping catches them and returns that; whoever carries it meets the cause again in the next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar


class Cut(NamedTuple):
    """One frame taken off the front of a buffer."""

    payload: Any
    """What the codec made of the frame, already checked; bytes or a small value object."""
    used: int
    """How many bytes of the buffer it took, leading rubbish included."""


class DialogueStopped(Exception):
    """The process was asked to stop while a dialogue was waiting."""


Cutter = Callable[[bytes], Cut | None]
"""Takes one frame off a buffer. None: not whole yet, read on. FrameError: drop `error.drop` bytes, count, try again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send these bytes (none: only listen), then cut one frame out of what arrives."""

    send: bytes
    cut: Cutter
    timeout_s: float = 1.0
    """How long to wait for the whole frame. When it passes, NoReply is raised *inside* the dialogue."""
    pause_s: float = 0.0
    """Least time between the end of the last frame on this link and this send."""
    flush: bool = False
    """Drop what is still in the receive buffer before sending; for strict request–response devices."""
    channel: str = ""
    """Which of the link's channels: "" is the main one; a T7 streams on "stream"."""
    linger_s: float = 0.0
    """Fast streams: after bytes arrived, keep collecting this long, so that one cut sees many packets."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this long without asking anything; the dialogue is sent None afterwards."""

    seconds: float


class Reply(NamedTuple):
    """What came back for an Ask."""

    payload: Any
    """`Cut.payload`."""
    boottime_ns: int
    """CLOCK_BOOTTIME when the frame's first byte was on the wire."""


T = TypeVar("T")
Dialogue = Generator[Ask | Pause, Any, T]
"""Yields Ask (is sent a Reply) or Pause (is sent None); has NoReply, LinkDown or Stopped thrown into it."""
