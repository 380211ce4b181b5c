"""Delivers one batch of lines to a server, for every response the server may give. A generator without I/O or waits.

It yields `Send` (and is sent the WriteResponse) or `Wait`, and returns the lines that were rejected permanently. It
acts on the outcome of each request:

    stored      done
    refused     halve down to single lines; a line that is rejected alone is rejected permanently
    expired     sort by time stamp; bisection with single lines finds the first one that the server still accepts
    too large   halve, and shrink the batch limit
    slow        wait, halve, and shrink the batch limit; never rejected
    fault       back off. After 10 in a row, send one line that is known to be good; where none is known, or it is not
                stored any more, send single lines of the batch. If one is stored, the batch is at fault and is halved;
                otherwise the server is at fault, and the retries continue
    others      wait and send the same bytes again, without limit: a number of retries never causes a drop

Sending a line twice is harmless (same series, same time stamp: it overwrites itself), so every step may be repeated.
After 200 requests for one batch, the lines not yet classified are returned as `unsorted`, to be sent one by one later.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from collectors.shipper.influxdb.responses import Outcome, WriteResponse, classify

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 60.0
HOLD_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0
PATIENCE, PATIENCE_OF_A_PART = 10, 2
MOST_REQUESTS = 200
SLOW_S = 3.0
"""Live rows wait for the request before them: a request that takes longer was too large for the connection."""


@dataclass(frozen=True, slots=True)
class Send:
    """Instruction to send these lines in one request; the caller sends the WriteResponse into the generator."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Wait:
    """Instruction to wait; `state` is "retry" or "hold" (a person must act), `why` is one line for people."""

    seconds: float
    state: str
    why: str


class Refusal(NamedTuple):
    """One line that the server rejects."""

    line: str
    status: int | None
    reason: str
    """"refused", "expired", "too_large" or "fault"."""
    error: str
    """The text of the server's response."""


@dataclass(slots=True)
class Delivered:
    """The result of a batch: all its other lines are stored."""

    refused: list[Refusal] = field(default_factory=list)
    unsorted: list[str] = field(default_factory=list)


class BatchLimit:
    """Lines per request: halved when a request is too large for server or connection, then slowly increased again."""

    def __init__(self, most: int, floor: int = 100) -> None:
        self.most, self.floor, self.lines = most, min(floor, most), most

    def shrink(self) -> None:
        """Halve the limit, but not below `floor`."""
        self.lines = max(self.floor, self.lines // 2)

    def stored(self, seconds: float) -> None:
        """Adapt to a batch stored in this time: over SLOW_S halves the limit, else a fiftieth of `most` is added."""
        if seconds > SLOW_S:
            self.shrink()
        else:
            self.lines = min(self.most, self.lines + max(1, self.most // 50))


Uniform = Callable[[float, float], float]
Delivery = Generator[Send | Wait, WriteResponse | None, Delivered]
Steps = Generator[Send | Wait, WriteResponse | None, tuple[Outcome, WriteResponse]]


def backoff_s(failures: int, uniform: Uniform) -> float:
    """Return the wait in s after this many failures in a row: 0.5 s, doubling to 60 s, with full jitter."""
    return uniform(0.0, min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 20)))


def deliver(lines: Sequence[str], limit: BatchLimit, uniform: Uniform, known_good: str | None = None) -> Delivery:
    """Deliver a batch until every line is stored, rejected or unsorted. `known_good`: a line stored before."""
    done = Delivered()
    todo: list[Sequence[str]] = [lines]
    requests = 0
    good = [known_good] if known_good else []
    while todo:
        part = todo.pop()
        if requests >= MOST_REQUESTS:
            done.unsorted += part
            continue
        patience = PATIENCE if part is lines else PATIENCE_OF_A_PART
        verdict, answer = yield from _insist(part, uniform, good, patience)
        if verdict is Outcome.STORED:
            good[:] = part[-1:]
            continue
        if verdict in (Outcome.TOO_LARGE, Outcome.SLOW):
            limit.shrink()
        else:
            requests += 1
        if len(part) == 1:
            done.refused.append(Refusal(part[0], answer.status, verdict.name.lower(), answer.text))
            continue
        expired = 0
        if verdict is Outcome.EXPIRED:
            part = sorted(part, key=stamp_of)
            expired = yield from _count_expired(part, uniform, good)
            done.refused += [Refusal(line, answer.status, "expired", answer.text) for line in part[:expired]]
        rest = part[expired:]
        todo += [rest] if expired and rest else halves(rest)[::-1]
    return done


def halves(part: Sequence[str]) -> list[Sequence[str]]:
    """Return the non-empty halves."""
    middle = len(part) // 2
    return [half for half in (part[:middle], part[middle:]) if half]


def stamp_of(line: str) -> int:
    """Return the line's time stamp in ns."""
    return int(line.rpartition(" ")[2])


def _insist(part: Sequence[str], uniform: Uniform, good: list[str], patience: int) -> Steps:
    """Send until a response is definite about these lines; return its outcome and the response."""
    failures = faults = 0
    size = sum(map(len, part)) + len(part)
    while True:
        answer = yield Send(part)
        assert answer is not None
        verdict = classify(answer, size)
        if verdict in (Outcome.STORED, Outcome.REFUSED, Outcome.EXPIRED, Outcome.TOO_LARGE):
            return verdict, answer
        failures += 1
        if verdict is Outcome.SLOW and len(part) > 1:
            yield _wait(verdict, answer, failures, uniform, held=False)
            return verdict, answer
        faults = faults + 1 if verdict is Outcome.FAULT else 0
        if faults >= patience and (yield from _is_alive(part, good)):
            return verdict, answer
        yield _wait(verdict, answer, failures, uniform, held=verdict is Outcome.HOLD or faults >= patience)


def _is_alive(part: Sequence[str], good: list[str]) -> Generator[Send | Wait, WriteResponse | None, bool]:
    """Return whether the server stores a single line: one that it has stored before, or one of the part.

    The stored line becomes the known good line. An earlier one may be rejected by now: too old, or of another type.
    """
    for line in dict.fromkeys([*good, part[-1], part[0], part[len(part) // 2]]):
        answer = yield Send([line])
        assert answer is not None
        if classify(answer, len(line)) is Outcome.STORED:
            good[:] = [line]
            return True
    return False


def _wait(verdict: Outcome, answer: WriteResponse, failures: int, uniform: Uniform, *, held: bool) -> Wait:
    why = f"{answer.status or 'no answer'}: {answer.text}".strip()
    if verdict is Outcome.HOLD:
        return Wait(HOLD_S, "hold", why)
    if verdict is Outcome.BUSY and answer.retry_after_s is not None:
        return Wait(min(answer.retry_after_s, LONGEST_RETRY_AFTER_S), "retry", why)
    return Wait(backoff_s(failures, uniform), "hold" if held else "retry", why)


def _count_expired(
    part: Sequence[str], uniform: Uniform, good: list[str]
) -> Generator[Send | Wait, WriteResponse | None, int]:
    """Return how many of these lines, sorted by time stamp, are too old; 0 when single lines are inconclusive."""
    low, high = 0, len(part)
    while low < high:
        middle = (low + high) // 2
        verdict, _ = yield from _insist([part[middle]], uniform, good, PATIENCE)
        if verdict is Outcome.EXPIRED:
            low = middle + 1
        elif verdict is Outcome.STORED:
            high = middle
        else:
            return 0
    return low
