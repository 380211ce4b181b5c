"""A fake EL 3000 A: responds to object telegrams by using the driver's field tables in reverse."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from collectors.devices._ea.telegram import (
    CHECKSUM_WRONG,
    DELIMITER_WRONG,
    ERROR_OBJECT,
    FROM_PC,
    LENGTH_WRONG,
    LOCKED,
    QUERY,
    UNDEFINED,
    Telegram,
    answer,
    build,
    take,
)
from collectors.devices.ea_el3000a import (
    ACTUAL,
    ARTICLE,
    CHARGE,
    CHARGE_FIELDS,
    FIRMWARE,
    FULL_SCALE,
    NOMINAL_A,
    NOMINAL_V,
    NOMINAL_W,
    SERIAL,
    SIZES,
    STATUS,
    STATUS_FIELDS,
    TYPE,
    Nominal,
    actual_fields,
)
from collectors.errors import BadChecksum, FrameError
from collectors.fakes import FakeKind, Out, World
from collectors.fakes._ea_load import OnlyAnswers, Terminals
from collectors.protocols.fields import encode

PARTIAL_S = 0.2
"""A telegram that stays incomplete for this long (in s) is discarded."""


@dataclass(frozen=True, slots=True)
class FakeEl3000AOptions:
    """The unit and its behaviour; the default is the unit of the captures."""

    model: str = field(default="EL 3160-60A", metadata={"help": "device type, object 0"})
    serial: str = field(default="1234567890", metadata={"help": "serial number, object 1"})
    firmware: str = field(default="V2.01 09.08.06", metadata={"help": "firmware version, object 9"})
    article: str = field(default="35320200", metadata={"help": "article number, object 6"})
    nominal_v: float = field(default=160.0, metadata={"help": "nominal voltage"})
    nominal_a: float = field(default=60.0, metadata={"help": "nominal current"})
    nominal_w: float = field(default=400.0, metadata={"help": "nominal power"})
    node: int = field(default=1, metadata={"help": "device node that its answers carry"})
    error_start: int = field(default=0xC0, metadata={"help": "SD byte of its error telegrams: 0xC0 or 0x80"})
    min_pause_s: float = field(default=0.0, metadata={"help": "a question sooner than this after an answer is lost"})
    has_charge: bool = field(default=True, metadata={"help": "knows object 69"})
    has_status: bool = field(default=True, metadata={"help": "knows object 70"})


MOST_RAW = 0xFFFF
"""Range of a word; the display stays at its limits."""


class FakeEl3000A(OnlyAnswers):
    """One load at the level of bytes; see `collectors.fakes.Fake`."""

    def __init__(self, world: World, options: FakeEl3000AOptions) -> None:
        super().__init__()
        self._options = options
        self._terminals = Terminals(world)
        self._nominal = Nominal(options.nominal_v, options.nominal_a, options.nominal_w)
        self._heard_s = self._deaf_until_s = float("-inf")
        self._fixed: dict[int, bytes] = {
            **{obj: _string(text) for obj, text in self._texts().items()},
            NOMINAL_V: struct.pack(">f", options.nominal_v),
            NOMINAL_A: struct.pack(">f", options.nominal_a),
            NOMINAL_W: struct.pack(">f", options.nominal_w),
        }

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        """Respond to every whole telegram; to anything else with the error telegram that names the reason."""
        if now_s < self._deaf_until_s:
            return []
        if now_s - self._heard_s > PARTIAL_S:
            self._buffer = b""
        self._heard_s = now_s
        self._buffer += data
        outs = []
        while reply := self._next(now_s):
            outs.append(Out(reply))
            self._deaf_until_s = now_s + self._options.min_pause_s
        return outs

    def _texts(self) -> Mapping[int, str]:
        options = self._options
        return {TYPE: options.model, SERIAL: options.serial, ARTICLE: options.article, FIRMWARE: options.firmware}

    def _next(self, now_s: float) -> bytes:
        """Return the response to the first telegram in the buffer; empty if there is no telegram or no response."""
        try:
            cut = take(self._buffer)
        except BadChecksum:
            self._buffer = b""
            return self._error(CHECKSUM_WRONG)
        except FrameError:
            self._buffer = b""
            return self._error(DELIMITER_WRONG)
        if cut is None:
            return b""
        self._buffer = self._buffer[cut.used :]
        return self._reply(cut.payload, now_s)

    def _reply(self, asked: Telegram, now_s: float) -> bytes:
        if not asked.from_pc:
            return self._error(DELIMITER_WRONG)
        if asked.kind != QUERY:
            return self._error(LOCKED)  # this fake cannot be set
        if asked.obj in SIZES and asked.length != SIZES[asked.obj]:
            return self._error(LENGTH_WRONG)
        if asked.obj == ACTUAL and not self._terminals.look(now_s):
            return b""
        data = self._fixed.get(asked.obj) or self._measured(asked.obj)
        return answer(asked.obj, data, self._options.node) if data else self._error(UNDEFINED)

    def _measured(self, obj: int) -> bytes:
        values = self._terminals.values
        if obj == ACTUAL:
            most = [value * MOST_RAW / FULL_SCALE for value in self._nominal]
            shown = {name: min(values[name], top) for name, top in zip(Nominal._fields, most, strict=True)}
            return encode(actual_fields(self._nominal), shown, SIZES[ACTUAL])
        if obj == CHARGE and self._options.has_charge:
            return encode(CHARGE_FIELDS, {"charge_ah": 0.0, **values}, SIZES[CHARGE])
        if obj == STATUS and self._options.has_status:
            return encode(STATUS_FIELDS, values, SIZES[STATUS])
        return b""

    def _error(self, code: int) -> bytes:
        return build(self._options.error_start & ~FROM_PC, self._options.node, ERROR_OBJECT, bytes([code]))


def _string(text: str) -> bytes:
    return text.encode("latin-1", "replace")[:15] + b"\0"


FAKE = FakeKind("ea_el3000a", FakeEl3000AOptions, FakeEl3000A)
