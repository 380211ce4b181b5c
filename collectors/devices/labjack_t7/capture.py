"""Decode a capture of a T7's traffic, both directions and both ports in one file, to JSON-able objects.

The length of a frame shows its direction: requests of function 3 and responses of function 16 have an even length, the
others an odd one. A response carries no address: the request of the same transaction states what it means. If the
capture does not contain that request, the response's bytes are given undecoded. A value that is not a measurement (the
ends of the scale, the mark of a gap, the placeholders of LJM) is null, and "marks" states the reason.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from collectors.devices.labjack_t7 import calibration as volts
from collectors.devices.labjack_t7 import stream_packets as stream
from collectors.devices.labjack_t7.client import LJM_MODBUS_ERROR
from collectors.devices.labjack_t7.registers import Register, unpack, walk
from collectors.devices.labjack_t7.sampler import DUMMY_V
from collectors.errors import FrameError
from collectors.protocols import modbus

KELVIN = 273.15
MEASURED = re.compile(r"AIN\d+(_EF_READ_[A-D])?$")
Object = dict[str, Any]


def decode(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Yield one object per frame or per error; an incomplete frame at the end is also an error."""
    capture = Capture()
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while buffer:
            try:
                taken = capture.take(buffer)
            except FrameError as error:
                yield {"error": type(error).__name__, "detail": str(error)}
                buffer = _resynchronise(buffer)
                continue
            if taken is None:
                break
            found, used = taken
            buffer = buffer[used:]
            yield found
    if buffer:
        yield {"error": "FrameError", "detail": f"{len(buffer)} bytes of an unfinished frame: {buffer[:32].hex(' ')}"}


def _resynchronise(buffer: bytes) -> bytes:
    """Return the buffer from the next position that can start a frame: any transaction, then protocol 0."""
    at = buffer.find(b"\0\0", 3)
    return buffer[at - 2 :] if at > 0 else b""


def _numbers(body: bytes) -> tuple[int, int]:
    """Return address and count. Raise FrameError if the body has any other length."""
    if len(body) != 4:
        raise FrameError(f"expected address and count, 4 bytes, got {len(body)}")
    address, count = struct.unpack(">HH", body)
    return address, count


def _plain(values: Sequence[float | int]) -> list[float | int | None]:
    """Return the values with null for numbers that JSON does not have."""
    return [value if math.isfinite(value) else None for value in values]


def _mark(row: Register, value: float) -> str | None:
    """Return why a register's value is not a measurement, or None."""
    if not math.isfinite(value):
        return "not a number"
    if MEASURED.match(row.name) and value < DUMMY_V:
        return f"{value:g} stands for no value"
    return None


def _mark_of_code(code: int, *, is_after_gap: bool) -> str | None:
    """Return why a stream's code is not a voltage, or None."""
    if code == stream.GAP_CODE and is_after_gap:
        return "gap"
    return "overrange" if code in volts.OVERRANGE_CODES else None


class Capture:
    """State of the decoder: what earlier frames of the capture state about later ones."""

    def __init__(self) -> None:
        self._asked: dict[int, list[Register]] = {}
        self._channels: int | None = None

    def take(self, buffer: bytes) -> tuple[Object, int] | None:
        """Return the first frame as an object and its length, None while incomplete; FrameError for other bytes."""
        if len(buffer) >= 9 and buffer[6:9] == b"\x01\x4c\x10":
            return self._packet(buffer)
        taken = modbus.take(buffer)
        if taken is None:
            return None
        frame, used = taken
        found: Object = {"transaction": frame.transaction, "fc": frame.function & ~modbus.EXCEPTION}
        return found | self._content(frame, is_even=used % 2 == 0), used

    def _content(self, frame: modbus.Frame, is_even: bool) -> Object:
        if frame.exception is not None:
            meaning = modbus.EXCEPTIONS.get(frame.exception, "unknown")
            return {"exception": frame.exception, "ljm_code": LJM_MODBUS_ERROR + frame.exception, "meaning": meaning}
        if frame.function == modbus.READ:
            return self._question(frame) if is_even else self._answer(frame)
        if frame.function == modbus.WRITE:
            return self._confirmed(frame) if is_even else self._order(frame)
        return {"body": frame.body.hex(" ")}

    def _question(self, frame: modbus.Frame) -> Object:
        address, count = _numbers(frame.body)
        rows = self._asked[frame.transaction] = walk(address, count)
        return {"address": address, "count": count, "names": [row.name for row in rows]}

    def _answer(self, frame: modbus.Frame) -> Object:
        data = frame.body[1:]
        rows = self._asked.pop(frame.transaction, None)
        if frame.body[0] != len(data):
            raise FrameError(f"answer says {frame.body[0]} bytes and has {len(data)}")
        if rows is None:
            return {
                "data": data.hex(" "),
                "note": "not decoded: the question with this transaction was not seen before",
            }
        if 2 * sum(row.size for row in rows) != len(data):
            return {"data": data.hex(" "), "note": "not decoded: the question was about registers of another length"}
        raw = unpack(rows, data)
        marks = [_mark(row, value) for row, value in zip(rows, raw, strict=True)]
        values = [None if mark else value for value, mark in zip(raw, marks, strict=True)]
        found: Object = {"types": [row.type for row in rows], "values": values}
        if any(marks):
            found["marks"] = marks
        if [row.name for row in rows] == ["TEMPERATURE_DEVICE_K"] and values[0] is not None:
            found["degC"] = round(values[0] - KELVIN, 3)
        return found

    def _order(self, frame: modbus.Frame) -> Object:
        address, count = _numbers(frame.body[:4])
        size, data = len(frame.body) - 5, frame.body[5:]
        if size != 2 * count or frame.body[4] != size:
            raise FrameError(f"write of {count} registers: expected {2 * count} bytes, got {size}")
        rows = walk(address, count)
        if sum(row.size for row in rows) != count:
            return {"address": address, "data": data.hex(" ")}
        values = unpack(rows, data)
        names = [row.name for row in rows]
        if "STREAM_NUM_ADDRESSES" in names:
            self._channels = int(values[names.index("STREAM_NUM_ADDRESSES")])
        return {"address": address, "names": names, "types": [row.type for row in rows], "values": _plain(values)}

    def _confirmed(self, frame: modbus.Frame) -> Object:
        address, count = _numbers(frame.body)
        return {"address": address, "count": count}

    def _packet(self, buffer: bytes) -> tuple[Object, int] | None:
        size = stream.UNCOUNTED_BYTES + int.from_bytes(buffer[4:6])
        if len(buffer) < size:
            return None
        cut = stream.cut_packets(buffer[:size])
        if cut is None:
            raise FrameError(f"stream packet of {size} bytes without a whole head")
        packet: stream.Packets = cut.payload[0]
        codes = packet.codes[0]
        measured = volts.nominal(10.0).volts(codes.astype(float))
        is_after_gap = packet.status[0] == stream.RECOVERED
        marks = [_mark_of_code(int(code), is_after_gap=is_after_gap) for code in codes]
        found: Object = {
            "transaction": int(packet.transaction[0]),
            "backlog_bytes": int(packet.backlog_bytes[0]),
            "status": int(packet.status[0]),
            "additional": int(packet.additional[0]),
            "raw": codes.tolist(),
            "volts_nominal_10V": [None if m else round(float(v), 6) for v, m in zip(measured, marks, strict=True)],
        }
        if any(marks):
            found["marks"] = marks
        return (found if self._channels is None else found | {"channels": self._channels}), size
