"""The T7's stream as a source of packets, in real time at any rate; packets are made in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from collectors.devices.labjack_t7 import stream_packets as stream
from collectors.devices.labjack_t7.calibration import Calibration

Floats = npt.NDArray[np.float64]
VoltsOver = Callable[[str, float, float, int], Floats | None]
"""From input's name, start and end in s, and number of scans to the volts of each scan, or None without a value."""

BLOCK_S = 0.02
"""Minimum time between two blocks in s: the real device sends each packet by itself, here several share one wake-up."""
MOST_BLOCK_S = 0.5
NOISE_SAMPLES = 1 << 16
MOST_LOST = 65535
BACKLOG = 32767
"""Bytes in the device's buffer at an overflow, as the packet states it."""
NO_CODES = np.empty(0, dtype=np.uint16)
LOW_CODE, HIGH_CODE = 0, 65534


class StreamSource:
    """Makes packets between `start` and `stop`. Lost scans are reported by auto-recovery, as the device does."""

    def __init__(self, volts_over: VoltsOver, calibration: Callable[[float], Calibration], seed: int) -> None:
        self._volts_over = volts_over
        self._calibration = calibration
        self._noise = np.random.default_rng(seed).standard_normal(NOISE_SAMPLES)
        self.is_on = False
        self.next_s: float | None = None
        self.rate_hz = 0.0
        self._lost = 0
        """Number of scans that are lost and not yet reported."""
        self._to_lose = 0
        self._overflow = 0
        self._failure = 0

    def start(
        self,
        now_s: float,
        names: Sequence[str],
        ranges_v: Sequence[float],
        rate_hz: float,
        scans_per_packet: int,
        noise_uv: float,
    ) -> None:
        """Start with scan 0, now. `noise_uv` is the RMS noise at ±10 V in µV."""
        self.is_on = True
        _, self.rate_hz = stream.actual_scan_rate(rate_hz)
        self._names, self._scans = names, scans_per_packet
        self._calibrations = [self._calibration(range_v) for range_v in ranges_v]
        self._noise_v = [noise_uv * 1e-6 * range_v / 10.0 for range_v in ranges_v]
        self._start_s, self._counter, self._transaction = now_s, 0, 0
        self._lost = self._to_lose = self._overflow = self._failure = 0
        self._plan(now_s)

    def stop(self) -> None:
        """Stop at once."""
        self.is_on = False
        self.next_s = None

    def overflow(self, scans: int) -> None:
        """Report a buffer overflow in the next packet, then lose this many scans."""
        self._overflow = scans

    def fail(self, status: int) -> None:
        """End the stream with this status in the next packet."""
        self._failure = status

    def lose(self, packets: int) -> None:
        """Lose the next packets on the link."""
        self._to_lose += packets

    def _time_s(self, counter: int) -> float:
        return self._start_s + counter / self.rate_hz

    def _plan(self, now_s: float) -> None:
        self.next_s = max(self._time_s(self._counter + self._scans), now_s + BLOCK_S)

    def packets(self, now_s: float) -> bytes:
        """Return all packets that are complete by now."""
        data = b""
        while self.is_on and (count := self._due(now_s)):
            if self._failure:
                self.stop()
                data += stream.encode(self._transaction, NO_CODES, status=self._failure)
            else:
                data += self._overrun() if self._overflow else self._block(count)
        if self.is_on:
            self._plan(now_s)
        return data

    def _due(self, now_s: float) -> int:
        scans = int((now_s - self._start_s) * self.rate_hz) - self._counter
        most = max(1, int(MOST_BLOCK_S * self.rate_hz) // self._scans)
        return min(max(0, scans // self._scans), most)

    def _block(self, count: int) -> bytes:
        """Return the next packets; the first one reports scans that were lost before it."""
        codes = self._codes(count * self._scans)
        first = self._transaction
        self._counter += count * self._scans
        if codes is None:
            self._lost += count * self._scans
            return b""
        packets = codes.reshape(count, -1)
        kept = packets[self._to_lose :]
        gone = count - len(kept)
        self._to_lose -= gone
        self._transaction = (first + count) & 0xFFFF
        if self._lost and len(kept):
            return self._recovered((first + gone) & 0xFFFF, kept)
        return stream.encode_many((first + gone) & 0xFFFF, kept)

    def _overrun(self) -> bytes:
        """Return the packet that reports the overflow; the scans after it are lost."""
        codes = self._codes(self._scans)
        sent = b"" if codes is None else stream.encode(self._transaction, codes.ravel(), stream.RECOVERING, 0, BACKLOG)
        self._transaction = (self._transaction + bool(sent)) & 0xFFFF
        self._lost += self._overflow + (0 if sent else self._scans)
        self._counter += self._overflow + self._scans
        self._overflow = 0
        return sent

    def _recovered(self, transaction: int, packets: stream.Words) -> bytes:
        """Return packets, with mark and number of lost scans before the first scan; too many end the stream."""
        lost, self._lost = self._lost, 0
        if lost > MOST_LOST:
            self.stop()
            return stream.encode(transaction, NO_CODES, status=stream.OVERFLOW)
        mark = np.full(len(self._names), stream.GAP_CODE, dtype=np.uint16)
        first = stream.encode(transaction, np.concatenate((mark, packets[0])), stream.RECOVERED, lost)
        return first + stream.encode_many((transaction + 1) & 0xFFFF, packets[1:])

    def _codes(self, scans: int) -> stream.Words | None:
        """Return the codes of these scans, shape (scans, channels); None if the world has no value."""
        start_s, end_s = self._time_s(self._counter), self._time_s(self._counter + scans)
        columns = []
        for at, (name, calibration, noise_v) in enumerate(
            zip(self._names, self._calibrations, self._noise_v, strict=True)
        ):
            volts = self._volts_over(name, start_s, end_s, scans)
            if volts is None:
                return None
            begin = (self._counter * len(self._names) + at * 7919) % NOISE_SAMPLES
            noise = np.take(self._noise, np.arange(begin, begin + scans), mode="wrap")
            codes = np.rint(calibration.codes(volts + noise_v * noise))
            columns.append(np.clip(codes, LOW_CODE, HIGH_CODE).astype(np.uint16))
        return np.stack(columns, axis=1)
