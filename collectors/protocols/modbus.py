"""Modbus TCP frames: encodes requests, decodes responses. No I/O.

    byte   0-1          2-3       4-5      6      7          8..
           transaction  protocol  length   unit   function   body
                        0         bytes from byte 6 on

All numbers are big-endian. Function 3 reads registers, 16 writes them; a response with function + 128 is an exception,
whose body is one code. TCP protects the bytes, and the frame has no checksum of its own: a flipped bit is detected only
where it violates one of these rules: protocol, unit, length against content, transaction against the request.

Facts: Modbus Application Protocol 1.1b3 and Modbus Messaging on TCP/IP 1.0b (modbus.org).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from collectors.errors import FrameError
from collectors.protocols.dialogue import Cut, Cutter

READ, WRITE, EXCEPTION = 3, 16, 0x80
PREFIX_BYTES = 6
"""Transaction, protocol and length, which `length` does not count."""
UNIT = 1
MOST_LENGTH = 254
"""Unit, function and 252 bytes of body: the longest application frame."""
MOST_READ, MOST_WRITE = 125, 123
"""Registers in one request."""

EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target did not respond",
}


class Frame(NamedTuple):
    """One complete frame, in either direction."""

    transaction: int
    function: int
    body: bytes
    """The bytes after the function code."""

    @property
    def exception(self) -> int | None:
        """Return the exception code of an exception response, else None."""
        return self.body[0] if self.function & EXCEPTION else None


Shape = Callable[[Frame], Frame]


def encode(transaction: int, function: int, body: bytes) -> bytes:
    """Return the frame's bytes."""
    return struct.pack(">HHHBB", transaction, 0, len(body) + 2, UNIT, function) + body


def read_request(transaction: int, address: int, count: int) -> bytes:
    """Return the request to read `count` registers from `address` on."""
    if not 1 <= count <= MOST_READ:
        raise ValueError(f"count: expected 1 to {MOST_READ} registers in one read, got {count}")
    return encode(transaction, READ, struct.pack(">HH", address, count))


def write_request(transaction: int, address: int, data: bytes) -> bytes:
    """Return the request to write these registers (two bytes each) from `address` on."""
    count, odd = divmod(len(data), 2)
    if odd or not 1 <= count <= MOST_WRITE:
        raise ValueError(f"data: expected 1 to {MOST_WRITE} registers of two bytes in one write, got {len(data)} bytes")
    return encode(transaction, WRITE, struct.pack(">HHB", address, count, len(data)) + data)


def take(buffer: bytes, most: int = MOST_LENGTH) -> tuple[Frame, int] | None:
    """Return the first frame and its length in bytes; None while it is incomplete; FrameError when it is invalid."""
    if len(buffer) >= 4 and buffer[2:4] != b"\0\0":
        raise FrameError(f"protocol: expected 00 00, got {buffer[2:4].hex(' ')}")
    if len(buffer) < PREFIX_BYTES:
        return None
    transaction, _, length = struct.unpack_from(">HHH", buffer)
    if not 3 <= length <= most:
        raise FrameError(f"length: expected 3 to {most}, got {length}")
    if len(buffer) > PREFIX_BYTES and buffer[PREFIX_BYTES] != UNIT:
        raise FrameError(f"unit: expected {UNIT}, got {buffer[PREFIX_BYTES]}")
    used = PREFIX_BYTES + length
    if len(buffer) < used:
        return None
    return Frame(transaction, buffer[7], bytes(buffer[8:used])), used


def read_cutter(transaction: int, count: int) -> Cutter:
    """Return the cutter for the response to this read: a Frame whose body is the registers' bytes, or an exception."""

    def shape(frame: Frame) -> Frame:
        if len(frame.body) != 2 * count + 1 or frame.body[0] != 2 * count:
            raise FrameError(f"answer to a read of {count} registers: expected {2 * count} bytes of data")
        return frame._replace(body=frame.body[1:])

    return lambda buffer: _cut(buffer, transaction, READ, shape)


def write_cutter(transaction: int, address: int, count: int) -> Cutter:
    """Return the cutter for the response to this write: it repeats address and count, or is an exception."""
    expected = struct.pack(">HH", address, count)

    def shape(frame: Frame) -> Frame:
        if frame.body != expected:
            raise FrameError(f"answer to a write: expected {expected.hex(' ')}, got {frame.body.hex(' ')}")
        return frame

    return lambda buffer: _cut(buffer, transaction, WRITE, shape)


def _cut(buffer: bytes, transaction: int, function: int, shape: Shape) -> Cut | None:
    """Return the response to the request; a late response to an earlier one is dropped completely, as an error."""
    taken = take(buffer)
    if taken is None:
        return None
    frame, used = taken
    if frame.transaction != transaction:
        message = f"transaction: expected {transaction}, got {frame.transaction} (a late answer is dropped)"
        raise FrameError(message, drop=used)
    if frame.function == function | EXCEPTION and len(frame.body) == 1:
        return Cut(frame, used)
    if frame.function != function:
        raise FrameError(f"function: expected {function}, got {frame.function}", drop=used)
    try:
        return Cut(shape(frame), used)
    except FrameError as error:
        error.drop = used
        raise
