"""EA EL 3000 A electronic load (about 2005 to 2016) with an IF-R1 or IF-U1 card: binary object telegrams.

    obj  size  content                         obj  size  content
     0    16   device type, string              4     4   nominal power, float
     1    13   serial number, string            6    16   article number, string
     2     4   nominal voltage, float           9    16   firmware version, string
     3     4   nominal current, float

    69   AAAA AAAA              consumed ampere-hours, float
    70   ......cc aaaammi       control c; alarms a, regulation m, input i
    71   UUUU IIII PPPP         actual values in 1/25600 of the nominal value

Line: 57600 baud, 8 data bits, odd parity, 1 stop bit; 50 ms between telegrams (documented for PS 2000 B).
Objects 0 to 9 and 71 are documented. Object 69, and object 70 with control, regulation and input, are known from field
code only. That the alarm bits are those of a PS 2000 B is an assumption; `status` keeps the whole word. If the device
rejects object 69 or 70, the driver leaves it out and writes one event. When the Ah counter restarts is not documented:
a decrease is an event, never a negative step. Watt-hours and time have no known object. The load is only read: object
54 is never sent.
Sources: EA interface-card manual 2007, captures of an EL 3160-60A, an EL 9000 driver (docs/protocols/ea_el3000a.md).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from collectors.device import Device, Line, Output
from collectors.devices._ea.load import LoadOptions, LoadReport, insist
from collectors.devices._ea.telegram import (
    ACKNOWLEDGE,
    ERROR_OBJECT,
    ERRORS,
    KINDS,
    LENGTH_WRONG,
    LONGEST,
    NO_ACCESS,
    QUERY,
    UNDEFINED,
    Telegram,
    answer_to,
    query,
    take,
    text,
)
from collectors.errors import FrameError, NoReply, Refused, WrongDevice
from collectors.protocols.dialogue import Ask, Dialogue, Reply
from collectors.protocols.fields import Field, decode
from collectors.reading import Event, Identity

TYPE, SERIAL, NOMINAL_V, NOMINAL_A, NOMINAL_W, ARTICLE, FIRMWARE, CHARGE, STATUS, ACTUAL = (
    0,
    1,
    2,
    3,
    4,
    6,
    9,
    69,
    70,
    71,
)
TEXTS = {
    TYPE: "device type",
    SERIAL: "serial number",
    ARTICLE: "article number",
    8: "manufacturer",
    FIRMWARE: "firmware version",
    10: "interface card type",
    11: "interface card serial number",
}
NOMINALS = {NOMINAL_V: "nominal voltage", NOMINAL_A: "nominal current", NOMINAL_W: "nominal power"}
NAMES = {**TEXTS, **NOMINALS, CHARGE: "consumed ampere-hours", STATUS: "status", ACTUAL: "actual values"}
FULL_SCALE = 25600

CHARGE_FIELDS = (Field("charge_ah", at=0, kind=">f"),)
STATUS_FIELDS = (
    Field("control", at=0, kind=">B", mask=0b11),
    Field("input_on", at=1, kind=">B", mask=0b1),
    Field("mode", at=1, kind=">B", shift=1, mask=0b11),
    Field("alarms", at=1, kind=">B", shift=4, mask=0b1111),
    Field("status", at=0, kind=">H"),
)
SIZES = {NOMINAL_V: 4, NOMINAL_A: 4, NOMINAL_W: 4, CHARGE: 4, STATUS: 2, ACTUAL: 6}
NEVER = (UNDEFINED, LENGTH_WRONG, NO_ACCESS)
"""Errors that repeating the request does not change."""


class Nominal(NamedTuple):
    """The nominal values of this unit, which are 100 %."""

    voltage_v: float
    current_a: float
    power_w: float


def actual_fields(nominal: Nominal) -> tuple[Field, ...]:
    """Return the layout of object 71 of a load. (A PS 2000 B has two status bytes first.)"""
    return (
        Field("voltage_v", at=0, kind=">H", scale=nominal.voltage_v, full=FULL_SCALE),
        Field("current_a", at=2, kind=">H", scale=nominal.current_a, full=FULL_SCALE),
        Field("power_w", at=4, kind=">H", scale=nominal.power_w, full=FULL_SCALE),
    )


class El3000ADriver:
    """Reads one load; see `collectors.device.Driver`."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._actual: Sequence[Field] = ()
        self._extras: dict[int, Sequence[Field]] = {CHARGE: CHARGE_FIELDS}
        if options.status:
            self._extras[STATUS] = STATUS_FIELDS
        self._report = LoadReport(options)

    def open(self) -> Dialogue[Identity]:
        """Return the identity of the load, after reading the nominal values that scale its actual values."""
        model = yield from self._model()
        serial = yield from self._text(SERIAL)
        firmware = yield from self._text(FIRMWARE)
        detail: dict[str, str] = {}
        try:
            detail["article"] = yield from self._text(ARTICLE)
        except Refused as error:
            if error.code not in NEVER:
                raise
        nominal = Nominal(*(yield from self._nominals()))
        if not all(math.isfinite(value) and value > 0 for value in nominal):
            raise WrongDevice(f"{model}: nominal values {tuple(nominal)} cannot be used to scale what it measures")
        self._actual = actual_fields(nominal)
        detail["nominal"] = f"{nominal.voltage_v:g} V, {nominal.current_a:g} A, {nominal.power_w:g} W"
        return Identity(model, serial, firmware, detail)

    def poll(self) -> Dialogue[list[Output]]:
        """Return the load's values at the time of object 71, and an event if its counter decreased."""
        actual = yield from self._object(ACTUAL)
        values = decode(self._actual, actual.payload.data)
        events: list[Event] = []
        for obj, fields in list(self._extras.items()):
            try:
                reply = yield from self._object(obj)
            except Refused as error:
                if error.code not in NEVER:
                    raise
                del self._extras[obj]
                events.append(Event("object_refused", f"{error}; left out until the next connection"))
            else:
                values |= decode(fields, reply.payload.data)
        return self._report.outputs(values, actual.boottime_ns, events)

    def close(self) -> Dialogue[None]:
        """Do nothing: `open` has changed nothing."""
        yield from ()

    def _model(self) -> Dialogue[str]:
        """Return the device type of a load; for anything else raise an error that names the likely cause."""
        try:
            model = yield from self._text(TYPE)
        except (NoReply, FrameError) as error:
            raise NoReply(
                "no object telegram came. Is the load on, the cable in its IF-R1 or IF-U1 card, and the line at "
                "57600 baud, 8 data bits, odd parity, 1 stop bit? A wrong baud rate or parity looks like this, "
                f"and so does an EL 3000 B (kind ea_el3000b). {error}"
            ) from error
        if not _is_load(model):
            raise WrongDevice(f"expected an EA electronic load (EL …), but {model!r} answers here")
        return model

    def _object(self, obj: int) -> Dialogue[Reply]:
        """Return the answer about an object. Raise Refused if it is an error telegram of the device."""
        size = SIZES.get(obj)
        ask = Ask(
            query(obj, size or 1),
            answer_to(obj, size),
            timeout_s=self._options.timeout_s,
            pause_s=self._options.pause_s,
            flush=True,
        )
        reply = yield from insist(ask, self._options.retries)
        telegram: Telegram = reply.payload
        if telegram.obj == ERROR_OBJECT:
            code = telegram.data[0]
            meaning = ERRORS.get(code, "a code without a known meaning")
            raise Refused(f"object {obj} ({NAMES[obj]}): the load answers error {code:02X}, {meaning}", code)
        return reply

    def _text(self, obj: int) -> Dialogue[str]:
        reply = yield from self._object(obj)
        return text(reply.payload.data)

    def _nominals(self) -> Dialogue[list[float]]:
        values = []
        for obj in NOMINALS:
            reply = yield from self._object(obj)
            values.append(_float(reply.payload.data))
        return values


def _is_load(model: str) -> bool:
    return model.upper().startswith("EL ")


def _float(data: bytes) -> float:
    (value,) = struct.unpack(">f", data)
    return float(value)


def decode_capture(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Yield every telegram of a capture, in both directions, and every run of bytes that is not a telegram.

    Object 71 is decoded only after the nominal values (objects 2 to 4) appeared in the capture, and not after another
    kind of device reported its type, because only a load has them in this order.
    """
    reader = _CaptureReader()
    buffer, rubbish, why = bytearray(), bytearray(), ""
    for chunk in chain(chunks, (None,)):
        buffer += chunk or b""
        while buffer:
            try:
                cut = take(bytes(buffer[:LONGEST]))
                if cut is None and chunk is not None:
                    break
                if cut is None:
                    raise FrameError(f"the capture ends within a telegram that starts with {buffer[0]:02X}")
            except FrameError as error:
                why = why or f"{type(error).__name__}: {error}"
                rubbish.append(buffer[0])
                del buffer[:1]  # fast at the front of a bytearray, unlike pop(0)
                continue
            if rubbish:
                yield _rubbish_record(bytes(rubbish), why)
                rubbish, why = bytearray(), ""
            yield reader.describe(cut.payload, bytes(buffer[: cut.used]))
            del buffer[: cut.used]
    if rubbish:
        yield _rubbish_record(bytes(rubbish), why)


def _rubbish_record(rubbish: bytes, why: str) -> dict[str, Any]:
    name, _, message = why.partition(": ")
    return {"error": name, "message": message, "hex": rubbish.hex(" ")}


class _CaptureReader:
    """Keeps what the telegrams of a capture state about its device."""

    def __init__(self) -> None:
        self.model = ""
        self.nominals: dict[int, float] = {}

    def describe(self, telegram: Telegram, frame: bytes) -> dict[str, Any]:
        """Return the telegram as a JSON-able object."""
        record: dict[str, Any] = {
            "type": KINDS[telegram.kind],
            "node": telegram.node,
            "object": telegram.obj,
            "length": telegram.length,
            "hex": frame.hex(" "),
        }
        if telegram.obj in NAMES:
            record["name"] = NAMES[telegram.obj]
        if telegram.kind == QUERY:
            return record
        if telegram.obj == ERROR_OBJECT and not telegram.from_pc:
            return record | self._error(telegram.data[0])
        return record | self._content(telegram.obj, telegram.data)

    @staticmethod
    def _error(code: int) -> dict[str, Any]:
        meaning = ERRORS.get(code, "a code without a known meaning")
        return {"code": code, "meaning": meaning} | ({} if code == ACKNOWLEDGE else {"error": "Refused"})

    def _content(self, obj: int, data: bytes) -> dict[str, Any]:
        if obj in TEXTS:
            if obj == TYPE:
                self.model = text(data)
            return {"text": text(data)}
        if len(data) != SIZES.get(obj):
            return {"data": data.hex(" ")}
        if obj in NOMINALS:
            self.nominals[obj] = _float(data)
            return {"value": self.nominals[obj] if math.isfinite(self.nominals[obj]) else None}
        if self.model and not _is_load(self.model):
            return {"data": data.hex(" ")}
        if obj == ACTUAL:
            return self._actual(data)
        return {"measurement": "load", "values": decode(CHARGE_FIELDS if obj == CHARGE else STATUS_FIELDS, data)}

    def _actual(self, data: bytes) -> dict[str, Any]:
        raw = {"raw": list(struct.unpack(">3H", data))}
        if len(self.nominals) < len(NOMINALS) or not all(map(math.isfinite, self.nominals.values())):
            return raw | {"note": "not scaled: nominal values (objects 2, 3, 4) were not seen before"}
        nominal = Nominal(*(self.nominals[obj] for obj in NOMINALS))
        return raw | {"measurement": "load", "values": decode(actual_fields(nominal), data)}


DEVICE = Device(
    kind="ea_el3000a",
    title="EA Elektro-Automatik EL 3000 A electronic load",
    links=("serial", "tcp"),
    options=LoadOptions,
    driver=El3000ADriver,
    signals={
        "load": (
            *("voltage_v", "current_a", "power_w", "charge_ah", "charge_step_ah"),
            *(field.signal for field in STATUS_FIELDS),
        ),
        "battery": ("voltage_v", "current_a"),
    },
    decode=decode_capture,
    line=Line(baud=57600, bits=8, parity="O", stop=1),
    notes="Read only. Needs the IF-R1 or IF-U1 card; the meaning of status bits and Ah counter is from field code.",
)
