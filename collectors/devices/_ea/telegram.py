"""Object telegrams of EA Elektro-Automatik, as used by EL 3000 A, EL 9000 A and PS 2000 B.

    SD  DN  OBJ  DATA (0 to 16)  CS CS

    SD    bits 7-6  01 query, 10 answer, 11 send      bit 5  cast      bit 4  1 = from the computer
          bits 3-0  number of data bytes minus 1; a query carries no data and states the length that it expects
    DN    device node; a device addressed as 0 still answers with its own node, so it is not compared
    OBJ   object number; 0xFF is an error or acknowledgement, whose one data byte is the code
    CS    sum of all bytes before it modulo 65536, high byte first

Errors come with SD 0x80 (PS 2000 B guide) or 0xC0 (captured from an EL 3160-60A). For strings the device ignores the
length in a query; for numbers it answers a wrong length with error 08.
Sources: EA interface-card manual 2007, PS 2000 B programming guide 2014, captures of an EL 3160-60A; in this
repository: docs/protocols/ea_el3000a.md §2.
"""

from __future__ import annotations

from typing import NamedTuple

from collectors.errors import BadChecksum, FrameError
from collectors.protocols.checksums import sum16
from collectors.protocols.dialogue import Cut, Cutter

QUERY, ANSWER, SEND = 0b01, 0b10, 0b11
KINDS = {QUERY: "query", ANSWER: "answer", SEND: "send"}
CAST, FROM_PC = 0x20, 0x10
ERROR_OBJECT = 0xFF
OVERHEAD = 5
LONGEST = OVERHEAD + 16

ACKNOWLEDGE, CHECKSUM_WRONG, DELIMITER_WRONG, UNDEFINED, LENGTH_WRONG, NO_ACCESS, LOCKED = 0, 3, 4, 7, 8, 9, 0x0F
ERRORS = {
    ACKNOWLEDGE: "acknowledge, no error",
    CHECKSUM_WRONG: "checksum wrong",
    DELIMITER_WRONG: "start delimiter wrong",
    0x05: "output address wrong",
    UNDEFINED: "object not defined",
    LENGTH_WRONG: "data length incorrect",
    NO_ACCESS: "no access to the object",
    LOCKED: "device locked or in local mode",
    0x30: "above the upper limit",
    0x31: "below the lower limit",
}


class Telegram(NamedTuple):
    """One complete telegram with a correct checksum."""

    kind: int
    """QUERY, ANSWER or SEND."""
    from_pc: bool
    node: int
    obj: int
    length: int
    """Length of the data in bytes; in a query, the length expected in the answer."""
    data: bytes


def build(start: int, node: int, obj: int, data: bytes) -> bytes:
    """Return the telegram with its checksum; `start` is the SD byte."""
    body = bytes([start, node, obj]) + data
    return body + sum16(body).to_bytes(2, "big")


def query(obj: int, length: int = 1, node: int = 0) -> bytes:
    """Return the query for an object of `length` bytes."""
    return build(QUERY << 6 | CAST | FROM_PC | length - 1, node, obj, b"")


def answer(obj: int, data: bytes, node: int) -> bytes:
    """Return a device's answer."""
    return build(ANSWER << 6 | len(data) - 1, node, obj, data)


def take(buffer: bytes) -> Cut | None:
    """Return the first telegram of any kind and direction as a Telegram, or None while it is incomplete."""
    if not buffer:
        return None
    start = buffer[0]
    kind, length = start >> 6, (start & 0x0F) + 1
    if kind not in KINDS:
        raise FrameError(f"{start:02X} cannot start a telegram")
    size = OVERHEAD + (0 if kind == QUERY else length)
    if len(buffer) < size:
        return None
    expected, found = sum16(buffer[: size - 2]), int.from_bytes(buffer[size - 2 : size], "big")
    if found != expected:
        raise BadChecksum(f"telegram {buffer[:size].hex(' ')}: its bytes add up to {expected:04X}, it says {found:04X}")
    data = buffer[3 : size - 2]
    return Cut(Telegram(kind, bool(start & FROM_PC), buffer[1], buffer[2], length, data), size)


def answer_to(obj: int, length: int | None) -> Cutter:
    """Return a cutter that accepts an answer about the object (`length` None: any length) or an error telegram only.

    The header is compared before the checksum, so that noise that looks like a long telegram does not delay an answer.
    """

    def cut(buffer: bytes) -> Cut | None:
        if buffer and not _is_from_device(buffer[0]):
            raise FrameError(f"{buffer[0]:02X} cannot start an answer", _rubbish(buffer))
        if len(buffer) < 3:
            return None
        start, _, found = buffer[:3]
        is_error = found == ERROR_OBJECT and not start & 0x0F
        is_answer = found == obj and start >> 6 == ANSWER and length in (None, (start & 0x0F) + 1)
        if not is_error and not is_answer:
            bytes_ = "" if length is None else f" with {length} bytes"
            got = buffer[:3].hex(" ").upper()
            raise FrameError(f"expected an answer about object {obj}{bytes_}, got {got}", _rubbish(buffer))
        whole = take(buffer)
        if whole and is_error and whole.payload.data[0] == CHECKSUM_WRONG:
            raise FrameError("the device received our question garbled", whole.used)
        return whole

    return cut


def text(data: bytes) -> str:
    """Return a zero-terminated string."""
    return data.split(b"\0")[0].decode("latin-1").strip()


def _is_from_device(start: int) -> bool:
    return start >> 6 in (ANSWER, SEND) and not start & FROM_PC


def _rubbish(buffer: bytes) -> int:
    """Return the number of bytes before the next byte that can start an answer, at least 1."""
    return next((i for i in range(1, len(buffer)) if _is_from_device(buffer[i])), len(buffer))
