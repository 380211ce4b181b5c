"""A fake LabJack T7 at the level of bytes: Modbus TCP on one port, stream packets on the other.

Options state what is connected to each input: the input carries one of the world's values through the inverse of a
scaling. So the world gives battery.current_a and the fake computes the hall sensor's volts. Settings have effects: the
range clips, the resolution index determines noise and step, and a power cycle resets them all. If the world has no
value (a gap in a recording), a read gets no response, and a stream loses its scans.

Facts: docs/protocols/labjack_t7.md; the noise is that of its §5.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from collectors.devices.labjack_t7.calibration import Calibration, nominal, to_flash
from collectors.devices.labjack_t7.options import SINGLE_ENDED, STREAM_ONE
from collectors.devices.labjack_t7.registers import Register, at, register, walk
from collectors.devices.labjack_t7.scaling import Divider, Hall, Scaling
from collectors.errors import FrameError
from collectors.fakes import FakeKind, Out, World
from collectors.fakes._labjack_t7_stream import StreamSource
from collectors.protocols import modbus

NOISE_UV = (316.0, 223.0, 158.0, 112.0, 84.6, 64.1, 45.3, 36.8, 26.0, 14.0, 8.0, 7.5)
"""RMS noise in µV at ±10 V, by resolution index 1 to 12."""
DEFAULT_INDEX, DEFAULT_INDEX_PRO = 8, 9
SATURATION = 1.02
"""Output of a saturated sensor, relative to its limit, at the input."""
CLIP_HIGH, CLIP_LOW = 1.0109575, -1.0586758
ADDRESS_ERROR, VALUE_ERROR, DEVICE_FAILURE = 2, 3, 4
STREAM_IS_ACTIVE, WRONG_VALUE = 2605, 2307
FLASH_CALIBRATION = 0x3C4000


@dataclass(frozen=True, slots=True)
class T7Wire:
    """What is connected to one analog input."""

    input: str = field(metadata={"help": "AIN0 to AIN13"})
    signal: str = field(metadata={"help": "what of the world it sees, for example battery.current_a"})
    scaling: Scaling = field(default=Scaling(), metadata={"help": "how the quantity becomes volts, backwards"})


USUAL_WIRES = (
    T7Wire("AIN0", "battery.voltage_v", Scaling(divider=Divider(r1_ohm=3000.0, r2_ohm=1000.0))),
    T7Wire("AIN1", "battery.current_a", Scaling(hall=Hall(burden_ohm=100.0))),
)


@dataclass(frozen=True, slots=True)
class FakeT7Options:
    """Model of the T7, and what is connected to it."""

    wires: tuple[T7Wire, ...] = field(default=USUAL_WIRES, metadata={"help": "what each input is connected to"})
    serial_number: int = field(default=470012345, metadata={"help": "what SERIAL_NUMBER says"})
    firmware: float = field(default=1.0425, metadata={"help": "what FIRMWARE_VERSION says"})
    pro: bool = field(default=False, metadata={"help": "a T7-Pro, with the high-resolution converter"})
    gain_error: float = field(default=0.0003, metadata={"help": "of the streaming converter; its flash knows it"})
    wifi: bool = field(default=False, metadata={"help": "reached over Wi-Fi: no stream packets come"})
    noise: bool = field(default=True, metadata={"help": "whether the converter is as noisy as the real one"})
    seed: int = field(default=0, metadata={"help": "of the noise"})


class FakeT7:
    """One device. `power_cycle`, `overflow`, `end_stream` and `lose_packets` inject faults."""

    def __init__(self, world: World, options: FakeT7Options) -> None:
        self._world = world
        self._options = options
        self._wires = {wire.input: wire for wire in options.wires}
        self._rng = np.random.default_rng(options.seed)
        self._buffers: dict[str, bytes] = {}
        self._started_s = 0.0
        self._memory: dict[int, float] = {}
        self._flash = to_flash({r: self._calibration(r) for r in (10.0, 1.0, 0.1, 0.01)})
        self._last_error = 0
        self._stream_start = 0
        self.stream = StreamSource(self._volts_over, self._calibration, options.seed)

    def _calibration(self, range_v: float) -> Calibration:
        """Return this device's own constants: they differ from the nominal ones by its gain error."""
        pslope, nslope, centre = nominal(range_v)
        gain = 1.0 + self._options.gain_error
        return Calibration(*(float(np.float32(x)) for x in (pslope * gain, nslope * gain, centre + 3.0)))

    def connected(self, now_s: float, channel: str = "") -> None:
        """Discard the incomplete request of an earlier connection."""
        self._buffers.pop(channel, None)

    def power_cycle(self, now_s: float) -> None:
        """Lose power and start again: settings are at their defaults, timers at 0, the stream is off."""
        self._memory.clear()
        self._started_s = now_s
        self.stream.stop()

    def overflow(self, scans: int) -> None:
        """Let the stream's buffer overflow: the next packet reports it, this many scans are lost, then it recovers."""
        self.stream.overflow(scans)

    def end_stream(self, status: int) -> None:
        """End the stream at the next packet with this status, for example 2945 (buffer full)."""
        self.stream.fail(status)

    def lose_packets(self, count: int) -> None:
        """Lose the next packets of the stream on the link."""
        self.stream.lose(count)

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        """Respond to whole requests; a connection that sends anything else gets no response."""
        buffer = self._buffers.get(channel, b"") + data
        outs: list[Out] = []
        try:
            while taken := modbus.take(buffer):
                frame, used = taken
                buffer = buffer[used:]
                answer = self._answer(frame, now_s)
                outs += [Out(answer)] if answer else []
        except FrameError:
            buffer = b""
        self._buffers[channel] = buffer
        return outs

    def tick(self, now_s: float) -> Sequence[Out]:
        """Return the stream packets that are complete by now."""
        data = self.stream.packets(now_s)
        return [Out(data, now_s, "stream")] if data and not self._options.wifi else []

    def next_tick_s(self) -> float | None:
        """Return when the next packets are complete; None without a stream."""
        return self.stream.next_s

    def _answer(self, frame: modbus.Frame, now_s: float) -> bytes:
        try:
            if frame.function == modbus.READ:
                address, count = struct.unpack(">HH", frame.body)
                data = self._read(address, count, now_s)
                return modbus.encode(frame.transaction, frame.function, bytes([len(data)]) + data) if data else b""
            if frame.function == modbus.WRITE:
                address, count, _ = struct.unpack_from(">HHB", frame.body)
                self._write(address, count, frame.body[5:], now_s)
                return modbus.encode(frame.transaction, frame.function, frame.body[:4])
            raise _Exception(1, 0)
        except _Exception as problem:
            self._last_error = problem.detail
            return modbus.encode(frame.transaction, frame.function | modbus.EXCEPTION, bytes([problem.code]))

    def _read(self, address: int, count: int, now_s: float) -> bytes:
        """Return the registers' bytes; empty if an input has no value, so that no response is sent."""
        if address == register("INTERNAL_FLASH_READ").address:
            start = int(self._memory.get(register("INTERNAL_FLASH_READ_POINTER").address, 0)) - FLASH_CALIBRATION
            return (self._flash[max(0, start) :] + b"\xff" * 2 * count)[: 2 * count]
        rows = walk(address, count)
        if sum(row.size for row in rows) != count:
            raise _Exception(ADDRESS_ERROR, 0)
        values = [self._value(row, now_s) for row in rows]
        return (
            b"" if None in values else b"".join(r.pack(v) for r, v in zip(rows, values, strict=True) if v is not None)
        )

    def _value(self, row: Register, now_s: float) -> float | None:
        if row.address < register("AIN13").address + 2:
            if self.stream.is_on:
                raise _Exception(DEVICE_FAILURE, STREAM_IS_ACTIVE)
            return self._sampled(row.name, now_s)
        up_s = now_s - self._started_s
        known: dict[str, float] = {
            "TEST": 0x00112233,
            "TEST_FLOAT32": -9999.0,
            "PRODUCT_ID": 7.0,
            "HARDWARE_VERSION": 1.35,
            "FIRMWARE_VERSION": self._options.firmware,
            "HARDWARE_INSTALLED": 0b1111 if self._options.pro else 0,
            "SERIAL_NUMBER": self._options.serial_number,
            "TEMPERATURE_DEVICE_K": 303.15,
            "TEMPERATURE_AIR_K": 298.15,
            "CORE_TIMER": int(up_s * 40e6) & 0xFFFFFFFF,
            "SYSTEM_TIMER_20HZ": int(up_s * 20),
            "LAST_ERR_DETAIL": self._last_error,
            "STREAM_ENABLE": int(self.stream.is_on),
            "STREAM_START_TIME_STAMP": self._stream_start,
            "ETHERNET_IP": 0 if self._options.wifi else 0xC0000207,
            "WIFI_IP": 0xC0000208 if self._options.wifi else 0,
            "STREAM_SCANRATE_HZ_ACTUAL": self.stream.rate_hz,
            "STREAM_RESOLUTION_INDEX_ACTUAL": self._memory.get(register("STREAM_RESOLUTION_INDEX").address, 0) or 1,
            "STREAM_SETTLING_US_ACTUAL": 10.0,
        }
        if row.name in known:
            return known[row.name]
        return self._memory.get(row.address, SINGLE_ENDED if row.name.endswith("_NEGATIVE_CH") else 0.0)

    def _write(self, address: int, count: int, data: bytes, now_s: float) -> None:
        rows = walk(address, count)
        if sum(row.size for row in rows) != count or any("W" not in row.access for row in rows):
            raise _Exception(ADDRESS_ERROR, 0)
        for row in rows:
            value = row.unpack(data[: 2 * row.size])
            data = data[2 * row.size :]
            if "RESOLUTION_INDEX" in row.name and value > (12 if self._options.pro else 8):
                raise _Exception(VALUE_ERROR, WRONG_VALUE)
            for one in self._targets(row):
                self._memory[one.address] = value
            if row.name == "STREAM_ENABLE":
                self._switch_stream(bool(value), now_s)
            elif row.name == "SYSTEM_REBOOT":
                self.power_cycle(now_s)

    def _targets(self, row: Register) -> list[Register]:
        """Return the registers that a write changes: AIN_ALL_… stands for all inputs."""
        if not row.name.startswith("AIN_ALL_"):
            return [row]
        return [row, *(register(row.name.replace("_ALL", str(n), 1)) for n in range(14))]

    def _setting(self, name: str) -> float:
        return self._memory.get(register(name).address, 0.0)

    def _range_v(self, name: str) -> float:
        return self._setting(f"{name}_RANGE") or 10.0

    def _volts(self, name: str, now_s: float) -> float | None:
        """Return the volts at an input's terminals; 0 if nothing is connected."""
        wire = self._wires.get(name)
        if wire is None:
            return 0.0
        value = self._world(now_s)[wire.signal]
        return None if value is None else saturated(wire.scaling, wire.scaling.invert(value))

    def _sampled(self, name: str, now_s: float) -> float | None:
        """Return the converted value of the input: with the noise of its resolution, clipped at its range."""
        volts = self._volts(name, now_s)
        if volts is None:
            return None
        range_v = self._range_v(name)
        index = int(self._setting(f"{name}_RESOLUTION_INDEX"))
        index = index or (DEFAULT_INDEX_PRO if self._options.pro else DEFAULT_INDEX)
        if self._options.noise:
            volts += self._rng.normal(0.0, NOISE_UV[index - 1] * 1e-6 * range_v / 10.0)
        return min(max(volts, CLIP_LOW * range_v), CLIP_HIGH * range_v)

    def _volts_over(self, name: str, start_s: float, end_s: float, scans: int) -> np.ndarray | None:
        """Return the volts of this many scans between two times, as a straight line; None if there is no value."""
        first, last = self._volts(name, start_s), self._volts(name, end_s)
        return None if first is None or last is None else np.linspace(first, last, scans, endpoint=False)

    def _switch_stream(self, on: bool, now_s: float) -> None:
        self.stream.stop()
        if not on:
            return
        channels = int(self._setting("STREAM_NUM_ADDRESSES"))
        rows = [at(int(self._setting(f"STREAM_SCANLIST_ADDRESS{i}"))) for i in range(channels)]
        names = [row.name for row in rows if row]
        samples = int(self._setting("STREAM_SAMPLES_PER_PACKET"))
        if not names or len(names) != channels or samples < channels or samples > 512:
            raise _Exception(DEVICE_FAILURE, 2618)
        index = int(self._setting("STREAM_RESOLUTION_INDEX")) or 1
        rate_hz = self._setting("STREAM_SCANRATE_HZ")
        if rate_hz * channels > STREAM_ONE[0] or not math.isfinite(rate_hz) or rate_hz <= 0:
            raise _Exception(DEVICE_FAILURE, 2608)
        noise_uv = NOISE_UV[index - 1] if self._options.noise else 0.0
        self._stream_start = int((now_s - self._started_s) * 40e6) & 0xFFFFFFFF
        self.stream.start(now_s, names, [self._range_v(n) for n in names], rate_hz, samples // channels, noise_uv)


def saturated(scaling: Scaling, volts: float) -> float:
    """Return the output of a divider's buffer and a hall sensor beyond their limits: slightly more than the limit."""
    divider, hall = scaling.divider, scaling.hall
    most_v = math.inf
    if divider and divider.limit_v is not None:
        most_v = SATURATION * divider.limit_v
    if hall and hall.range_a is not None:
        at_sensor_v = SATURATION * hall.range_a / hall.turns / abs(hall.gain)
        most_v = min(most_v, at_sensor_v / (divider.gain if divider else 1.0))
    return min(max(volts, -most_v), most_v)


class _Exception(Exception):
    """A Modbus exception: the device rejects the request."""

    def __init__(self, code: int, detail: int) -> None:
        self.code = code
        self.detail = detail
        super().__init__(code, detail)


FAKE = FakeKind(
    kind="labjack_t7",
    options=FakeT7Options,
    make=FakeT7,
    channels={"": 502, "stream": 702},
    period_s=1.0,
)
