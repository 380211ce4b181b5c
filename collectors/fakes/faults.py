"""Fault injection: faults that act on a fake's bytes, by command, while it runs.

    unplug   the port disappears, and comes back afterwards under the same name
    hold     another program has the port (serial lines only)
    silence  nothing is sent
    garble   each byte has one bit flipped with probability `amount`
    drop     each byte is lost with probability `amount`
    noise    random bytes precede a message with probability `amount`
    debug    a line of debug text precedes a message with probability `amount`
    delay    everything arrives `amount` seconds later
    split    every byte arrives by itself, `amount` seconds apart

One seeded generator supplies all random numbers, so a run can be repeated. Faults of different kinds act together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from collectors.errors import ConfigError

DEBUG_TEXT = b'Received Request (15 bytes): ?output "Bat_V"\n'
"""What a charge controller of 2019 prints between its answers (docs/protocols/libresolar_mppt.md §1)."""


def flip_bits(data: bytes, rng: Random, share: float) -> bytes:
    """Return the bytes, each with one bit flipped with this probability."""
    return bytes(b ^ (1 << rng.randrange(8)) if rng.random() < share else b for b in data)


def drop_bytes(data: bytes, rng: Random, share: float) -> bytes:
    """Return the bytes that remain if each is lost with this probability."""
    return bytes(b for b in data if rng.random() >= share)


def put_noise_before(data: bytes, rng: Random, share: float) -> bytes:
    """Return the message, with this probability after 1 to 16 random bytes."""
    return rng.randbytes(rng.randint(1, 16)) + data if rng.random() < share else data


def put_debug_before(data: bytes, rng: Random, share: float) -> bytes:
    """Return the message, with this probability after a line of debug text."""
    return DEBUG_TEXT + data if rng.random() < share else data


def silence(data: bytes, rng: Random, share: float) -> bytes:  # noqa: ARG001 - the form of the table below
    """Return nothing."""
    return b""


BYTES: Mapping[str, Callable[[bytes, Random, float], bytes]] = {
    "silence": silence,
    "garble": flip_bits,
    "drop": drop_bytes,
    "noise": put_noise_before,
    "debug": put_debug_before,
}
"""Faults that change a message, in the order in which they are applied."""

AMOUNTS: Mapping[str, float] = {
    "unplug": 0.0,
    "hold": 0.0,
    "silence": 1.0,
    "garble": 0.02,
    "drop": 0.02,
    "noise": 0.5,
    "debug": 0.5,
    "delay": 0.3,
    "split": 0.0005,
}
"""Every kind of fault and its default amount: a probability, or seconds for delay and split."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, from `start_s` on the server's clock, for `seconds`."""

    kind: str
    start_s: float
    seconds: float
    amount: float

    def is_on(self, now_s: float) -> bool:
        """Return whether it is active now."""
        return self.start_s <= now_s < self.start_s + self.seconds


_FAULT = re.compile(
    r"(?P<target>[\w-]+):(?P<kind>[a-z]+)@(?P<start>\d+(\.\d+)?)(\+(?P<seconds>\d+(\.\d+)?))?(=(?P<amount>-?\d+(\.\d+)?))?"
)


def parse_fault(text: str, kinds: Mapping[str, float] = AMOUNTS) -> tuple[str, Fault]:
    """Return (target, fault) of "TARGET:KIND@START[+SECONDS][=AMOUNT]", times in s. Raise ConfigError for other texts.

    The default of SECONDS is 1; that of AMOUNT is the kind's value in `kinds`.
    """
    found = _FAULT.fullmatch(text)
    if not found:
        raise ConfigError(
            f"fault {text!r}: expected TARGET:KIND@START[+SECONDS][=AMOUNT], for example mppt:unplug@10+2"
        )
    kind = found["kind"]
    if kind not in kinds:
        raise ConfigError(f"fault {text!r}: no kind {kind!r}; there are: {', '.join(kinds)}")
    amount = float(found["amount"]) if found["amount"] else kinds[kind]
    start_s, seconds = float(found["start"]), float(found["seconds"] or 1.0)
    if not all(map(math.isfinite, (start_s, seconds, amount))):
        raise ConfigError(f"fault {text[:40]!r}: expected numbers that a clock can reach")
    return found["target"], Fault(kind, start_s, seconds, amount)


class FaultedBytes(NamedTuple):
    """Bytes that arrive together, `delay_s` later than without faults."""

    data: bytes
    delay_s: float


class FaultInjector:
    """Holds the faults of one fake and applies them to its messages."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = Random(seed)  # noqa: S311 - repeatable on purpose
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        self._faults.append(fault)

    def on(self, kind: str, now_s: float) -> Fault | None:
        """Return the active fault of this kind; the one added last if there are several."""
        return next((f for f in reversed(self._faults) if f.kind == kind and f.is_on(now_s)), None)

    def next_change_s(self, now_s: float) -> float | None:
        """Return when the next fault starts or ends; faults that are over are removed."""
        self._faults = [f for f in self._faults if now_s < f.start_s + f.seconds]
        edges = [edge for f in self._faults for edge in (f.start_s, f.start_s + f.seconds) if edge > now_s]
        return min(edges, default=None)

    def spoil(self, data: bytes, now_s: float) -> list[FaultedBytes]:
        """Return a message sent now as the active faults change it; unchanged and without delay if none is active."""
        for kind, change in BYTES.items():
            fault = self.on(kind, now_s)
            if fault:
                data = change(data, self._rng, fault.amount)
        late = self.on("delay", now_s)
        delay_s = late.amount if late else 0.0
        apart = self.on("split", now_s)
        if not apart:
            return [FaultedBytes(data, delay_s)] if data else []
        return [FaultedBytes(data[i : i + 1], delay_s + i * apart.amount) for i in range(len(data))]

    def noise(self, count: int) -> bytes:
        """Return random bytes, as a line with another speed receives for `count` bytes."""
        return self._rng.randbytes(count)
