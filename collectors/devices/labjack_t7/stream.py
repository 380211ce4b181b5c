"""Stream mode: the T7 sends scans unasked; they become bins of mean, minimum, maximum and standard deviation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from collectors import signals
from collectors.device import Output
from collectors.devices.labjack_t7 import calibration as volts
from collectors.devices.labjack_t7 import stream_packets as stream
from collectors.devices.labjack_t7.client import T7Client
from collectors.devices.labjack_t7.configuration import (
    STREAMS,
    MissingInputs,
    configure,
    enter,
    groups,
    identity,
    inputs,
    refuse_wifi,
    started_at,
    warnings,
)
from collectors.devices.labjack_t7.options import Channel, T7Options
from collectors.devices.labjack_t7.registers import register
from collectors.devices.labjack_t7.scaling import Scaling
from collectors.devices.labjack_t7.scan_clock import ScanClock
from collectors.errors import LinkDown, NoReply, Refused
from collectors.protocols.dialogue import Ask, Cut, Dialogue, Reply
from collectors.reading import Event, Identity, Reading, Value

BUFFER_BYTES = 32768
MOST_SAMPLES_PER_PACKET = 512
PACKET_S = 0.1
"""Longest time between packets in s, so that the data of a slow stream do not arrive late."""
TO_ETHERNET = 1
DRAIN_S = 0.2
LINGER_S = 0.1
SILENT_S = 2.0
CHANNEL = "stream"
CHECK_S = 5.0
"""How often, in s, the driver checks that the stream is still the one that it started."""
TAKEN = "another program has ended this T7's stream and started its own"
OUTSIDE = "a sample of the bin is beyond the range of the input or of its sensor"
SPREAD = ("mean", "least", "greatest", "std")


class Kept(NamedTuple):
    """One reading per bin: its measurement and tags, and which columns of the bins give which field."""

    measurement: str
    tags: Mapping[str, str]
    fields: tuple[tuple[str, str, int], ...]
    """Field's name, one of SPREAD, column."""


def spread_names(measurement: str, name: str) -> list[tuple[str, str]]:
    """Return the fields of a decimated signal that are in the vocabulary, each with its part of SPREAD."""
    stem, _, unit = name.rpartition("_")
    names = (name, f"{stem}_min_{unit}", f"{stem}_max_{unit}", f"{stem}_std_{unit}")
    return [(n, part) for n, part in zip(names, SPREAD, strict=True) if signals.find(measurement, n)]


def plan(channels: tuple[Channel, ...]) -> list[Kept]:
    """Return the readings of a bin: a group of channels per measurement and tags, then the raw volts that are kept.

    Columns: the channels in their order, then the raw volts of each channel with `keep_raw`, in the same order.
    """
    kept = []
    for group in groups(channels):
        fields = [
            (name, part, channels.index(channel))
            for channel in group
            for name, part in spread_names(channel.measurement, channel.name)
        ]
        kept.append(Kept(group[0].measurement, group[0].tags, tuple(fields)))
    for column, channel in enumerate((c for c in channels if c.keep_raw), start=len(channels)):
        fields = [(name, part, column) for name, part in spread_names("analog", "raw_v")]
        kept.append(Kept("analog", {"channel": channel.input}, tuple(fields)))
    return kept


def _drain(buffer: bytes) -> Cut | None:
    return Cut(None, len(buffer)) if buffer else None


class Streamer:
    """One poll cycle: all packets that arrived within 0.1 s, reduced to the bins that they complete."""

    paced_by = "device"

    def __init__(self, options: T7Options) -> None:
        self._options = options
        self._channels = options.channels
        self._session = T7Client()
        self._news = warnings(options)
        self._calibration = {c.range_v: volts.nominal(c.range_v) for c in options.channels}
        self._kept = plan(options.channels)
        self._missing = MissingInputs()
        self._last_ns = 0
        self._serial = ""
        self._checked_ns = 0
        self._started_at: int | None = None
        """Time stamp of the stream's first scan, by the device; None before its first packets."""
        self._leftover = False
        self._stamp_is_good = True

    def open(self) -> Dialogue[Identity]:
        """Return the identity, after writing the inputs' settings and starting the stream."""
        who, taken_over = yield from enter(self._session, self._options)
        self._serial = who.serial
        self._news += taken_over
        yield from configure(self._session, inputs(self._channels))
        if self._options.calibration == "device":
            yield from self._read_calibration()
        self._tables = [volts.table(self._calibration[c.range_v], c.scaling) for c in self._channels]
        self._tables += [volts.table(self._calibration[c.range_v], Scaling()) for c in self._channels if c.keep_raw]
        yield from self._start()
        return identity(who, self._options)

    def close(self) -> Dialogue[None]:
        """Stop the stream, unless another program has replaced it."""
        if not (yield from self._is_taken()):
            yield from self._session.write({"STREAM_ENABLE": 0})

    def poll(self) -> Dialogue[list[Output]]:
        """Return the readings of the bins that this poll cycle's packets complete, and the events of the stream.

        If the stream ended in a way that a restart corrects, the next poll cycle restarts it. After a scan overlap it
        raises LinkDown, because the same settings would cause an overlap again at once.
        """
        if self._tracker.ended == stream.OVERLAP:
            raise LinkDown(f"the T7 stopped its stream: {stream.ENDINGS[stream.OVERLAP]}")
        if self._tracker.ended is not None:
            self._news += self._readings([], self._tracker.counter + self._binner.scans_per_bin)
            if (yield from self._is_taken()):
                raise LinkDown(TAKEN)
            yield from self._session.write({"STREAM_ENABLE": 0})
            yield from self._start()
        try:
            reply: Reply = yield Ask(b"", self._cut, timeout_s=SILENT_S, channel=CHANNEL, linger_s=LINGER_S)
        except NoReply as silence:
            yield from self._explain(silence)
            raise
        if self._started_at is None:
            self._started_at = yield from started_at(self._session)  # the first scan is one period after the start
            STREAMS.note_own(self._serial, self._started_at)
            self._checked_ns = reply.boottime_ns
        runs: list[stream.Packets] = reply.payload
        segments, events = self._tracker.feed(runs)
        # Packets go to every connection. Those of another program's stream look the same, usually after a gap.
        is_due = reply.boottime_ns - self._checked_ns > CHECK_S * 1e9
        if is_due or any(event.kind == "stream_gap" for event in events):
            self._checked_ns = reply.boottime_ns
            if (yield from self._is_taken()):
                raise LinkDown(TAKEN)
        outputs, self._news = [*self._news, *events], []
        if segments:
            is_good = self._stamp_is_good and runs[0].status[0] != stream.RECOVERED
            counter = segments[0].first + runs[0].codes.shape[1] // len(self._channels)
            outputs += self._anchor(counter, reply.boottime_ns, is_good)
        outputs += self._readings(segments, self._tracker.counter)
        return outputs

    def _is_taken(self) -> Dialogue[bool]:
        """Return whether a stream runs that this driver did not start."""
        if self._started_at is None or not (yield from self._session.read("STREAM_ENABLE")).by_name["STREAM_ENABLE"]:
            return False
        return (yield from started_at(self._session)) != self._started_at

    def _explain(self, silence: NoReply) -> Dialogue[None]:
        """Raise the cause of a silent stream if it can be determined: another program, or Wi-Fi."""
        if self._started_at is None:
            yield from refuse_wifi(self._session)
        elif (yield from self._is_taken()):
            raise LinkDown(TAKEN) from silence

    def _read_calibration(self) -> Dialogue[None]:
        """Read the constants of the streaming converter from the device's flash."""
        data = b""
        while len(data) < volts.FLASH_BYTES:
            floats = min(volts.FLASH_FLOATS_PER_READ, (volts.FLASH_BYTES - len(data)) // 4)
            yield from self._session.write({"INTERNAL_FLASH_READ_POINTER": volts.FLASH_ADDRESS + len(data)})
            reply = yield from self._session.read_raw(register("INTERNAL_FLASH_READ"), 2 * floats)
            data += reply.payload.body
        sets = volts.from_flash(data)
        self._calibration = {range_v: sets[range_v] for range_v in self._calibration}

    def _start(self) -> Dialogue[None]:
        """Start the stream, in the order of docs/protocols/labjack_t7.md §2, and count its scans from 0."""
        yield from self._drain()
        options, channels = self._options, len(self._channels)
        scans = min(max(1, round(options.scan_rate_hz * PACKET_S)), MOST_SAMPLES_PER_PACKET // channels)
        index = options.stream_resolution_index
        yield from self._session.write(
            {
                "STREAM_SCANRATE_HZ": options.scan_rate_hz,
                "STREAM_NUM_ADDRESSES": channels,
                "STREAM_SAMPLES_PER_PACKET": scans * channels,
                "STREAM_SETTLING_US": self._channels[0].settling_us,
                "STREAM_RESOLUTION_INDEX": index,
                "STREAM_BUFFER_SIZE_BYTES": BUFFER_BYTES,
            }
        )
        yield from self._session.write({"STREAM_CLOCK_SOURCE": 0})
        yield from self._session.write({"STREAM_AUTO_TARGET": TO_ETHERNET, "STREAM_DATATYPE": 0, "STREAM_NUM_SCANS": 0})
        yield from self._session.write({"STREAM_TRIGGER_INDEX": 0, "STREAM_AUTORECOVER_DISABLE": 0})
        places = {f"STREAM_SCANLIST_ADDRESS{i}": register(c.input).address for i, c in enumerate(self._channels)}
        yield from self._session.write(places)
        yield from self._session.write({"STREAM_ENABLE": 1})
        actual = (yield from self._session.read("STREAM_RESOLUTION_INDEX_ACTUAL", "STREAM_SCANRATE_HZ_ACTUAL")).by_name
        if actual["STREAM_RESOLUTION_INDEX_ACTUAL"] != index:
            got = actual["STREAM_RESOLUTION_INDEX_ACTUAL"]
            raise Refused(f"STREAM_RESOLUTION_INDEX: wrote {index}, the device streams at {got}")
        self._count_from_zero(float(actual["STREAM_SCANRATE_HZ_ACTUAL"]))

    def _drain(self) -> Dialogue[None]:
        """Connect to the stream's port and discard what an earlier stream left there."""
        try:
            while True:
                yield Ask(b"", _drain, timeout_s=DRAIN_S, channel=CHANNEL)
        except NoReply:
            return
        except LinkDown:
            yield from refuse_wifi(self._session)
            raise

    def _count_from_zero(self, scan_rate_hz: float) -> None:
        places = [*range(len(self._channels)), *(i for i, c in enumerate(self._channels) if c.keep_raw)]
        scans_per_bin = max(1, round(self._options.bin_s * scan_rate_hz))
        self._tracker = stream.Tracker(len(self._channels))
        self._binner = stream.Binner(scans_per_bin, list(zip(places, self._tables, strict=True)))
        self._clock = ScanClock(scan_rate_hz)
        self._leftover = False
        self._started_at = None

    def _cut(self, buffer: bytes) -> Cut | None:
        """Take all whole packets. The stamp of a packet whose first bytes came with an earlier read is too early."""
        cut = stream.cut_packets(buffer)
        self._stamp_is_good = not self._leftover
        self._leftover = (cut.used if cut else 0) < len(buffer)
        return cut

    def _anchor(self, counter: int, boottime_ns: int, is_good: bool) -> Iterator[Event]:
        """Pass the arrival of the first packet to the clock; yield an event if the clock had to jump."""
        if is_good or not self._clock.is_set:
            jump_ns = self._clock.anchor(counter, boottime_ns)
            if jump_ns:
                yield Event("stream_time_step", f"the scan counter was {jump_ns / 1e6:.1f} ms off the host's clock")

    def _readings(self, segments: list[stream.StreamSegment], counter: int) -> Iterator[Output]:
        """Yield the readings of the complete bins, stamped at the bin's middle, strictly increasing."""
        bins = self._binner.feed(segments, counter)
        if bins is None:
            return
        columns = {part: getattr(bins, part).tolist() for part in SPREAD}
        for row, (number, samples) in enumerate(zip(bins.number.tolist(), bins.samples.tolist(), strict=True)):
            middle_ns = self._clock.boottime_ns((number + 0.5) * self._binner.scans_per_bin)
            self._last_ns = max(middle_ns, self._last_ns + 1)
            for channel, mean in zip(self._channels, columns["mean"][row], strict=False):
                yield from self._missing.note(channel, OUTSIDE if mean != mean else None, self._last_ns)
            for kept in self._kept:
                values: dict[str, Value] = {"samples": float(samples)}
                for name, part, column in kept.fields:
                    value = columns[part][row][column]
                    values[name] = None if value != value else value  # NaN: a sample in the bin was out of range
                yield Reading(kept.measurement, self._last_ns, values, kept.tags)
