r"""An exchange with an instrument, described by a generator that does no I/O and no waiting.

A *dialogue* is a generator. It yields the next action and is sent the reply; its return value is the result. It uses no
port and no clock, so a test can run it step by step:

    def poll() -> Dialogue[list[Reading]]:
        reply = yield Ask(b"\x5a\x01", cut)          # send these bytes; cut() takes one frame off the received bytes
        return [Reading("battery", reply.boottime_ns, decode(FIELDS, reply.payload))]

`collectors.acquisition.session.Session` does all waiting, for every device and every link. The error that ends a wait
is raised inside the dialogue: NoReply at its deadline, LinkDown, DialogueStopped. A dialogue that has received values
worth keeping catches the error and returns them; the session meets the cause again in the next poll cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar


class Cut(NamedTuple):
    """One frame taken off the front of a buffer."""

    payload: Any
    """The decoded and validated frame: bytes or a small value object."""
    used: int
    """How many bytes of the buffer were consumed, including garbage before the frame."""


class DialogueStopped(Exception):
    """The process was asked to stop while a dialogue was waiting."""


Cutter = Callable[[bytes], Cut | None]
"""Takes one frame off a buffer. None: incomplete, read on. FrameError: drop `error.drop` bytes, count, try again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send these bytes (none: only listen), then cut one frame out of the received bytes."""

    send: bytes
    cut: Cutter
    timeout_s: float = 1.0
    """How long to wait for the complete frame. After that, NoReply is raised *inside* the dialogue."""
    pause_s: float = 0.0
    """Minimum time between the end of the last frame on this link and this send."""
    flush: bool = False
    """Drop the content of the receive buffer before sending; for strict request–response devices."""
    channel: str = ""
    """The link's channel: "" is the main one; a T7 streams on "stream"."""
    linger_s: float = 0.0
    """Fast streams: after bytes arrived, keep collecting this long, so that one cut gets many packets."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this long without sending; the dialogue is sent None afterwards."""

    seconds: float


class Reply(NamedTuple):
    """The reply to an Ask."""

    payload: Any
    """`Cut.payload`."""
    boottime_ns: int
    """CLOCK_BOOTTIME when the frame's first byte was on the wire."""


T = TypeVar("T")
Dialogue = Generator[Ask | Pause, Any, T]
"""Yields Ask (is sent a Reply) or Pause (is sent None); NoReply, LinkDown or DialogueStopped are thrown into it."""
