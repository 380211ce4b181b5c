"""Stream packets to bins: many packets at once, without Python code per scan.

    byte   0-1          2-3       4-5       6     7     8       9         10-11    12-13   14-15       16..
           transaction  protocol  length    unit  0x4C  0x10    reserved  backlog  status  additional  samples
           +1 each      0         10 + 2n   1                             bytes                        n x 16 bit

Samples come in scan-list order, repeatedly. The scan counter is the stream's clock: it starts at 0 and includes lost
scans. Bins and times are computed from it.

    status 2940     the device's buffer overflowed; what is delivered is valid
    status 2941     the overflow is over: `additional` scans were lost at the scan that begins with 0xFFFF. That scan
                    is a mark: it is not data and is not counted
    other           the stream ended; ENDINGS states the consequence

A gap in the transactions means lost packets, each with as many scans as the adjacent packet.
Facts: docs/protocols/labjack_t7.md §3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collectors.errors import FrameError
from collectors.protocols.dialogue import Cut
from collectors.reading import Event

Words = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

HEAD_BYTES = 16
UNIT_AND_FUNCTION = 0x014C
PACKET_TYPE = 0x10
UNCOUNTED_BYTES = 6
MARK, MARK_AT = b"\x01\x4c\x10", 6
"""Unit, function and packet type: the same in every header."""
FINE, RECOVERING, RECOVERED, OVERLAP, OVERFLOW, BURST_COMPLETE, BUFFER_FULL = 0, 2940, 2941, 2942, 2943, 2944, 2945
GAP_CODE = 0xFFFF
ENDINGS = {
    OVERLAP: "scan overlap: too fast for these channels, resolution and settling; lower scan_rate_hz",
    OVERFLOW: "more than 65535 scans lost; restarted",
    BURST_COMPLETE: "the device ended the stream as a burst; restarted",
    BUFFER_FULL: "the device's buffer is full; restarted",
}
TIMER_STEPS = 65536
MOST_HOLE = 0x8000
"""A step of half the counter's range or more is another stream and not a gap."""


class Packets(NamedTuple):
    """Consecutive packets of one length; one row per packet."""

    transaction: Words
    backlog_bytes: Words
    status: Words
    additional: Words
    codes: Words
    """Shape (packets, samples), host byte order."""


def encode(transaction: int, codes: Words, status: int = 0, additional: int = 0, backlog_bytes: int = 0) -> bytes:
    """Return one packet's bytes."""
    length = HEAD_BYTES - UNCOUNTED_BYTES + 2 * len(codes)
    head = struct.pack(
        ">HHHHHHHH", transaction, 0, length, UNIT_AND_FUNCTION, PACKET_TYPE << 8, backlog_bytes, status, additional
    )
    return head + codes.astype(">u2").tobytes()


def encode_many(transaction: int, codes: Words) -> bytes:
    """Return the bytes of packets with status 0, one per row of codes, numbered from `transaction` on."""
    packets, samples = codes.shape
    words = np.zeros((packets, HEAD_BYTES // 2 + samples), dtype=">u2")
    words[:, 0] = (transaction + np.arange(packets)) & 0xFFFF
    words[:, 2] = HEAD_BYTES - UNCOUNTED_BYTES + 2 * samples
    words[:, 3] = UNIT_AND_FUNCTION
    words[:, 4] = PACKET_TYPE << 8
    words[:, HEAD_BYTES // 2 :] = codes
    return words.tobytes()


def cut_packets(buffer: bytes) -> Cut | None:
    """Take all whole packets off the buffer: a list of Packets, one for each run of equal length."""
    runs: list[Packets] = []
    at = 0
    while True:
        try:
            run = _run(buffer, at)
        except FrameError:
            if runs:  # the packets before it are valid; the next call raises the error
                return Cut(runs, at)
            raise
        if run is None:
            return Cut(runs, at) if runs else None
        runs.append(run)
        at += len(run.transaction) * (HEAD_BYTES + 2 * run.codes.shape[1])


def _run(buffer: bytes, at: int) -> Packets | None:
    """Return the whole packets of one length that begin at byte `at`, or None if there is not one whole packet."""
    left = len(buffer) - at
    head = struct.unpack_from(">HHHHB", buffer, at) if left >= 9 else None
    if head is None:
        return None
    _, protocol, length, unit_function, kind = head
    if (protocol, unit_function, kind) != (0, UNIT_AND_FUNCTION, PACKET_TYPE) or length % 2 or length < 10:
        text = f"expected the head of a stream packet, got {buffer[at : at + 9].hex(' ')}"
        raise FrameError(text, drop=_rubbish(buffer))
    size = length + UNCOUNTED_BYTES
    if left < size:
        return None
    words = np.frombuffer(buffer, ">u2", left // size * (size // 2), at).reshape(-1, size // 2)
    alike = (words[:, 1] == 0) & (words[:, 2] == length) & (words[:, 3] == unit_function) & (words[:, 4] >> 8 == kind)
    words = words[: len(words) if alike.all() else int(np.argmin(alike))].astype(np.uint16)
    return Packets(words[:, 0], words[:, 5], words[:, 6], words[:, 7], words[:, 8:])


def _rubbish(buffer: bytes) -> int:
    """Return the number of bytes before the next position that can start a packet."""
    mark = buffer.find(MARK, MARK_AT + 1)
    return mark - MARK_AT if mark > 0 else max(1, len(buffer) - MARK_AT - len(MARK) + 1)


class StreamSegment(NamedTuple):
    """Consecutive scans without a gap."""

    first: int
    """The scan counter of the first scan."""
    codes: Words
    """Shape (scans, channels)."""

    @property
    def end(self) -> int:
        """Return the counter of the scan after the last."""
        return self.first + len(self.codes)


class Tracker:
    """Follows the scan counter of one stream through packets, gaps and recoveries."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.counter = 0
        """Counter of the next scan."""
        self.lost = 0
        self.ended: int | None = None
        """The status that ended the stream; later packets are ignored."""
        self._next_transaction: int | None = None
        self._recovering = False

    def feed(self, runs: Sequence[Packets]) -> tuple[list[StreamSegment], list[Event]]:
        """Return the scans in these packets, and the events between them."""
        segments: list[StreamSegment] = []
        events: list[Event] = []
        for run in runs:
            for piece, hole in self._pieces(run):
                if self.ended is None:
                    events += self._hole(hole, piece.codes.shape[1])
                    segments += self._scans(piece, events)
        return [s for s in segments if len(s.codes)], events

    def _pieces(self, run: Packets) -> Iterator[tuple[Packets, int]]:
        """Split a run at missing packets and around packets with a status; yield how many are missing before each."""
        expected = int(run.transaction[0]) if self._next_transaction is None else self._next_transaction
        self._next_transaction = (int(run.transaction[-1]) + 1) & 0xFFFF
        before = np.concatenate(([expected - 1], run.transaction[:-1].astype(np.int64)))
        holes = (run.transaction - before - 1) & 0xFFFF
        odd = run.status != FINE
        starts = np.flatnonzero((holes > 0) | odd | np.concatenate(([True], odd[:-1])))
        for start, end in zip(starts, np.append(starts[1:], len(holes)), strict=True):
            yield Packets(*(part[start:end] for part in run)), int(holes[start])

    def _hole(self, packets: int, samples: int) -> list[Event]:
        if not packets:
            return []
        if packets >= MOST_HOLE:
            self.ended = FINE
            return [Event("stream_gap", "the packets' numbers went backwards: another stream; restarted")]
        scans = packets * (samples // self.channels)
        self.counter += scans
        self.lost += scans
        return [Event("stream_gap", f"{packets} packets with {scans} scans never arrived")]

    def _scans(self, piece: Packets, events: list[Event]) -> list[StreamSegment]:
        """Return the scans of packets of one status."""
        status = int(piece.status[0])
        if status not in (FINE, RECOVERING, RECOVERED):
            self.ended = status
            events.append(Event("stream_ended", ENDINGS.get(status, f"unknown status {status}; restarted")))
            return []
        if piece.codes.shape[1] % self.channels:
            self.ended = FINE
            text = f"{piece.codes.shape[1]} samples in a packet are no scans of {self.channels} channels; restarted"
            events.append(Event("stream_ended", text))
            return []
        if status == RECOVERING and not self._recovering:
            backlog = int(piece.backlog_bytes[0])
            events.append(Event("stream_backlog", f"the device's buffer ran over, {backlog} bytes wait: host too slow"))
        self._recovering = status == RECOVERING
        codes = piece.codes.reshape(piece.codes.size // self.channels, self.channels)
        if status != RECOVERED:
            return [self._segment(codes)]
        return self._around_gap(codes, int(piece.additional[0]), events)

    def _around_gap(self, codes: Words, lost: int, events: list[Event]) -> list[StreamSegment]:
        """Return the scans before and after the mark; without a mark the gap was before the packet."""
        marks = np.flatnonzero(codes[:, 0] == GAP_CODE)
        mark = int(marks[0]) if len(marks) else 0
        before = self._segment(codes[:mark])
        self.counter += lost
        self.lost += lost
        events.append(Event("stream_gap", f"{lost} scans lost while the device's buffer was full"))
        return [before, self._segment(codes[mark + bool(len(marks)) :])]

    def _segment(self, codes: Words) -> StreamSegment:
        segment = StreamSegment(self.counter, codes)
        self.counter = segment.end
        return segment


class StreamBins(NamedTuple):
    """Complete bins: rows are bins, columns are the channels' tables."""

    number: Ints
    """Scan counter of the bin's first scan, divided by scans per bin."""
    samples: Ints
    """Number of scans in the bin; less than scans per bin if some were lost."""
    mean: Floats
    least: Floats
    greatest: Floats
    std: Floats
    """NaN if any sample of the bin was out of range: a mean without that sample would be wrong."""


class Binner:
    """Collects scans into bins by their counter; the incomplete bin is carried over to the next call."""

    def __init__(self, scans_per_bin: int, columns: Sequence[tuple[int, Floats]]) -> None:
        """`columns`: each channel's position in the scan, and the table that converts its codes to values."""
        self.scans_per_bin = scans_per_bin
        self._columns = columns
        self._waiting: list[StreamSegment] = []

    def feed(self, segments: Sequence[StreamSegment], counter: int) -> StreamBins | None:
        """Return the bins that are complete at `counter` (of the next scan), or None; empty bins are omitted."""
        self._waiting += segments
        over = counter // self.scans_per_bin * self.scans_per_bin
        done = [StreamSegment(s.first, s.codes[: max(0, over - s.first)]) for s in self._waiting]
        rest = [StreamSegment(max(s.first, over), s.codes[max(0, over - s.first) :]) for s in self._waiting]
        self._waiting = [s for s in rest if len(s.codes)]
        done = [s for s in done if len(s.codes)]
        return self._reduce(done) if done else None

    def _reduce(self, segments: Sequence[StreamSegment]) -> StreamBins:
        codes = np.concatenate([s.codes for s in segments])
        counter = np.concatenate([np.arange(s.first, s.end, dtype=np.int64) for s in segments])
        number = counter // self.scans_per_bin
        starts = np.flatnonzero(np.concatenate(([True], number[1:] != number[:-1])))
        samples = np.diff(np.append(starts, len(number)))
        parts = [_spread(table[codes[:, place]], starts, samples) for place, table in self._columns]
        mean, least, greatest, std = (np.stack(part, axis=1) for part in zip(*parts, strict=True))
        return StreamBins(number[starts], samples, mean, least, greatest, std)


def _spread(values: Floats, starts: Ints, samples: Ints) -> tuple[Floats, Floats, Floats, Floats]:
    """Return mean, minimum, maximum and (population) standard deviation of each bin."""
    mean = np.add.reduceat(values, starts) / samples
    away = values - np.repeat(mean, samples)
    variance = np.add.reduceat(away * away, starts) / samples
    return mean, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts), np.sqrt(variance)


def actual_scan_rate(rate_hz: float) -> tuple[int, float]:
    """Return the reload value of the device's scan timer for a wanted rate in Hz, and the rate that it gives.

    The timer counts 80 MHz / 8 and has 16 bits. Below 152.588 Hz the device uses another prescaler, and this function
    returns the wanted rate. The direction of rounding is not documented; a driver uses the rate reported by the device.
    """
    divisor = int(80e6 / (8 * rate_hz))
    if divisor > TIMER_STEPS:
        return TIMER_STEPS - 1, rate_hz
    return divisor - 1, 80e6 / (8 * divisor)
