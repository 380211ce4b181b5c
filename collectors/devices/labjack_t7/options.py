"""The options of a T7, validated against the device's limits before anything is opened.

Facts: docs/protocols/labjack_t7.md §1 (settings), §2 (stream), §5 (speed by resolution index), §7 (sensor).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from collectors import signals
from collectors.devices.labjack_t7.scaling import Scaling
from collectors.errors import ConfigError

RANGES_V = (10.0, 1.0, 0.1, 0.01)
INPUT = re.compile(r"AIN(\d|1[0-3])")
SINGLE_ENDED = 199
MOST_RESOLUTION, MOST_RESOLUTION_PRO, MOST_RESOLUTION_STREAM = 8, 12, 8
DEFAULT_RESOLUTION, DEFAULT_RESOLUTION_PRO, DEFAULT_RESOLUTION_STREAM = 8, 9, 1
MOST_SETTLING_US, MOST_SETTLING_STREAM_US = 50_000.0, 4_400.0
MOST_SAMPLES_PER_S = 100_000.0

STREAM_ONE = (100_000, 48_000, 22_000, 11_000, 5_500, 2_500, 1_200, 600)
"""Maximum sample rate in samples/s by resolution index 1 to 8, with one channel."""
STREAM_SEVERAL: Mapping[float, tuple[int, ...]] = {
    10.0: (100_000, 39_600, 19_800, 9_800, 4_400, 2_600, 1_300, 630),
    1.0: (8_200, 7_200, 2_800, 2_600, 1_300, 640, 440, 400),
    0.1: (1_700, 800),
}
"""The same with several channels, by the smallest range among them; rates that are not listed are not published."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One analog input: its settings and the signal that it measures."""

    input: str = field(metadata={"help": "AIN0 to AIN13"})
    signal: str = field(metadata={"help": "what it measures, for example battery.current_a; see the vocabulary"})
    scaling: Scaling = field(default=Scaling(), metadata={"help": "divider, hall, polynomial, range, calibrated_on"})
    negative: str = field(default="GND", metadata={"help": "GND, or AIN<n+1> on an even AIN<n> (differential)"})
    range_v: float = field(default=10.0, metadata={"help": "± input range: 10, 1, 0.1 or 0.01"})
    resolution_index: int = field(
        default=0, metadata={"help": "1 to 8 (Pro 12), higher is finer and slower; 0: 8 (Pro 9), in a stream 1"}
    )
    settling_us: float = field(default=0.0, metadata={"help": "0: the device chooses; at most 50000 (stream 4400)"})
    keep_raw: bool = field(default=False, metadata={"help": "keep the volts at the terminals as well (analog.raw_v)"})
    cell: str = field(default="", metadata={"help": "tag `cell`, for one cell of several"})

    @property
    def number(self) -> int:
        """Return the n of AIN<n>."""
        return int(self.input.removeprefix("AIN"))

    @property
    def negative_ch(self) -> int:
        """Return the register's value for the negative input."""
        return SINGLE_ENDED if self.negative == "GND" else int(self.negative.removeprefix("AIN"))

    @property
    def measurement(self) -> str:
        """Return the part of `signal` before the dot."""
        return self.signal.partition(".")[0]

    @property
    def name(self) -> str:
        """Return the part of `signal` after the dot."""
        return self.signal.partition(".")[2]

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags of its readings."""
        return {"cell": self.cell} if self.cell else {}

    def problems(self) -> Iterator[str]:
        """Yield the mistakes in this channel that do not depend on the mode, one line each."""
        if not INPUT.fullmatch(self.input):
            yield f"input: expected AIN0 to AIN13, got {self.input!r}"
        elif self.negative != "GND" and (self.number % 2 or self.negative != f"AIN{self.number + 1}"):
            is_odd = self.number % 2
            pair = "GND (only even inputs can be differential)" if is_odd else f"GND or AIN{self.number + 1}"
            yield f"negative: expected {pair} for {self.input}, got {self.negative!r}"
        if signals.find(self.measurement, self.name) is None:
            yield f"signal: {self.signal!r} is not in the vocabulary; expected for example battery.current_a"
        if self.range_v not in RANGES_V:
            yield f"range_v: expected 10, 1, 0.1 or 0.01, got {self.range_v:g}"


@dataclass(frozen=True, slots=True)
class T7Options:
    """The [device] table of a T7."""

    channels: tuple[Channel, ...] = field(metadata={"help": "[[device.channels]] tables, one for each input"})
    mode: Literal["sample", "stream"] = field(
        default="sample", metadata={"help": "sample: asked once per period; stream: up to 100 ksamples/s, kept as bins"}
    )
    scan_rate_hz: float = field(default=1000.0, metadata={"help": "stream: scans of all channels per second"})
    bin_s: float = field(default=0.1, metadata={"help": "stream: length of a bin of mean, min, max, std; 0.01 to 1"})
    calibration: Literal["device", "nominal"] = field(
        default="device", metadata={"help": "stream: read the device's own constants, or use the type's nominal ones"}
    )
    serial_number: str = field(
        default="", metadata={"help": "refuse any other device; empty: whichever answers", "number_is_text": True}
    )
    device_temperature: bool = field(default=False, metadata={"help": "sample: also read the converter's temperature"})

    def __post_init__(self) -> None:
        """Raise ConfigError that lists everything outside the device's limits."""
        problems = [
            f"channels[{i}] {problem}" for i, channel in enumerate(self.channels) for problem in channel.problems()
        ]
        if not self.channels:
            problems.append("channels: expected at least one")
        if self.serial_number and not self.serial_number.isdecimal():
            problems.append(f"serial_number: expected digits, got {self.serial_number!r}")
        problems += self._doubles()
        problems += self._sample_problems() if self.mode == "sample" else self._stream_problems()
        if problems:
            raise ConfigError(problems)

    def _doubles(self) -> Iterator[str]:
        inputs = [c.input for c in self.channels]
        targets = [(c.signal, c.cell) for c in self.channels]
        for i, channel in enumerate(self.channels):
            if channel.input in inputs[:i]:
                yield f"channels[{i}] input: {channel.input} is used twice"
            if (channel.signal, channel.cell) in targets[:i]:
                yield f"channels[{i}] signal: {channel.signal} is measured twice; tell them apart with cell = …"

    def _sample_problems(self) -> Iterator[str]:
        for i, c in enumerate(self.channels):
            if not 0 <= c.resolution_index <= MOST_RESOLUTION_PRO:
                yield f"channels[{i}] resolution_index: expected 0 to 8 (T7-Pro: 12), got {c.resolution_index}"
            if not 0 <= c.settling_us <= MOST_SETTLING_US:
                yield f"channels[{i}] settling_us: expected 0 to {MOST_SETTLING_US:.0f}, got {c.settling_us:g}"

    def _stream_problems(self) -> Iterator[str]:
        for i, c in enumerate(self.channels):
            if not 0 <= c.resolution_index <= MOST_RESOLUTION_STREAM:
                yield f"channels[{i}] resolution_index: expected 0 to 8 in a stream, got {c.resolution_index}"
            if not 0 <= c.settling_us <= MOST_SETTLING_STREAM_US:
                limit = f"{MOST_SETTLING_STREAM_US:.0f} in a stream"
                yield f"channels[{i}] settling_us: expected 0 to {limit}, got {c.settling_us:g}"
            if signals.find(c.measurement, c.name) and not signals.find(c.measurement, "samples"):
                lack = f"the vocabulary has no {c.measurement}.samples"
                yield f"channels[{i}] signal: {c.signal} cannot be kept as bins, {lack}"
        for i, (a, b) in enumerate(pairwise(self.channels), start=1):
            if (a.resolution_index, a.settling_us) != (b.resolution_index, b.settling_us):
                yield f"channels[{i}]: a stream has one resolution_index and settling_us for all channels, they differ"
        if not 0.01 <= self.bin_s <= 1.0:
            yield f"bin_s: expected 0.01 to 1, got {self.bin_s:g}"
        if self.device_temperature:
            yield "device_temperature: only in mode = 'sample'; a temperature channel would limit a stream to 250 Hz"
        if self.scan_rate_hz <= 0 or self.scan_rate_hz * self.bin_s < 1:
            yield f"scan_rate_hz: expected more than 0 and at least one scan per bin, got {self.scan_rate_hz:g}"
        yield from self._rate_problems()

    def _rate_problems(self) -> Iterator[str]:
        samples_per_s = self.scan_rate_hz * len(self.channels)
        most = self.most_samples_per_s()
        if samples_per_s > most:
            index = self.stream_resolution_index
            yield (
                f"scan_rate_hz: {self.scan_rate_hz:g} scans/s of {len(self.channels)} channels are {samples_per_s:g}"
                f" samples/s; expected at most {most:g} at resolution_index {index} and these ranges"
            )
        settling_us = max((c.settling_us for c in self.channels), default=0.0)
        if samples_per_s * settling_us > 1e6:
            yield f"settling_us: {settling_us:g} leaves no time at {samples_per_s:g} samples/s"

    @property
    def stream_resolution_index(self) -> int:
        """Return the resolution index of the whole stream; 0 is replaced by the device's default."""
        index = self.channels[0].resolution_index if self.channels else 0
        return index or DEFAULT_RESOLUTION_STREAM

    def most_samples_per_s(self) -> float:
        """Return the maximum published sample rate in samples/s for these channels and this resolution."""
        index = self.stream_resolution_index
        if not 1 <= index <= MOST_RESOLUTION_STREAM:
            return MOST_SAMPLES_PER_S
        smallest_v = min((c.range_v for c in self.channels), default=RANGES_V[0])
        row = STREAM_ONE if len(self.channels) <= 1 else STREAM_SEVERAL.get(smallest_v, ())
        return row[index - 1] if index <= len(row) else MOST_SAMPLES_PER_S

    def warnings(self) -> list[str]:
        """Return the settings that are allowed but doubtful, one line each."""
        return [
            f"channels[{i}] scaling {warning}"
            for i, channel in enumerate(self.channels)
            for warning in channel.scaling.warnings(channel.settling_us)
        ]


def resolution_index(channel: Channel, is_pro: bool) -> int:
    """Return the resolution index to write for sampling. Raise ConfigError if only a T7-Pro has it."""
    if channel.resolution_index > MOST_RESOLUTION and not is_pro:
        raise ConfigError(
            f"{channel.input} resolution_index: {channel.resolution_index} needs a T7-Pro,"
            f" this T7 has 0 to {MOST_RESOLUTION}"
        )
    return channel.resolution_index or (DEFAULT_RESOLUTION_PRO if is_pro else DEFAULT_RESOLUTION)
