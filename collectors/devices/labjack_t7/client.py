"""Client of one T7: numbered requests, registers to values, and errors with the device's own error number."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import NamedTuple

from collectors.devices.labjack_t7.registers import Register, blocks, register, unpack
from collectors.errors import NoReply, Refused, WrongDevice
from collectors.protocols import modbus
from collectors.protocols.dialogue import Ask, Dialogue, Reply

LJM_MODBUS_ERROR = 1200
"""LJM numbers Modbus exceptions from here; these numbers are used over both carriers."""
TEST_VALUE = 0x00112233
T7_PRODUCT_ID = 7.0
HIGH_RESOLUTION = 1
"""Bit 0 of HARDWARE_INSTALLED: the high-resolution converter of the T7-Pro."""


class Values(NamedTuple):
    """The result of one or more reads."""

    by_name: Mapping[str, float | int]
    boottime_ns: int
    """When the first response arrived."""


class Who(NamedTuple):
    """The identity that the device reports."""

    serial: str
    firmware: str
    hardware: str
    is_pro: bool


class T7Client:
    """The requests of one connection. Transactions count from 1 and wrap."""

    def __init__(self) -> None:
        self._count = count(1)

    def read(self, *names: str) -> Dialogue[Values]:
        """Return the registers' values; adjacent ones share a request. Raise Refused if the device rejects it."""
        by_name: dict[str, float | int] = {}
        first_ns: int | None = None
        for rows in blocks([register(name) for name in names], modbus.MOST_READ):
            size = rows[-1].address + rows[-1].size - rows[0].address
            reply = yield from self.read_raw(rows[0], size)
            by_name |= zip((row.name for row in rows), unpack(rows, reply.payload.body), strict=True)
            first_ns = reply.boottime_ns if first_ns is None else first_ns
        return Values(by_name, first_ns or 0)

    def read_raw(self, row: Register, size: int) -> Dialogue[Reply]:
        """Return the reply with `size` 16-bit registers, starting at this register."""
        transaction = next(self._count) & 0xFFFF
        send = modbus.read_request(transaction, row.address, size)
        reply: Reply = yield Ask(send, modbus.read_cutter(transaction, size))
        yield from self._refuse(reply.payload, f"reading {row.name}", row.address)
        return reply

    def write(self, values: Mapping[str, float]) -> Dialogue[None]:
        """Write the registers in this order; adjacent ones share a request."""
        for rows in blocks([register(name) for name in values], modbus.MOST_WRITE):
            data = b"".join(row.pack(values[row.name]) for row in rows)
            transaction = next(self._count) & 0xFFFF
            send = modbus.write_request(transaction, rows[0].address, data)
            cutter = modbus.write_cutter(transaction, rows[0].address, len(data) // 2)
            reply: Reply = yield Ask(send, cutter)
            what = rows[0].name if len(rows) == 1 else f"{rows[0].name} to {rows[-1].name}"
            yield from self._refuse(reply.payload, f"writing {what}", rows[0].address)

    def _refuse(self, frame: modbus.Frame, doing: str, address: int) -> Dialogue[None]:
        """Raise Refused if the frame is an exception, with the device's own error number if it reports one."""
        if frame.exception is None:
            return
        transaction = next(self._count) & 0xFFFF
        detail = register("LAST_ERR_DETAIL")
        try:
            reply = yield Ask(modbus.read_request(transaction, detail.address, 1), modbus.read_cutter(transaction, 1))
            number = detail.unpack(reply.payload.body) if reply.payload.exception is None else None
        except NoReply:
            number = None
        told = "no detail" if number is None else f"device error {number}"
        meaning = modbus.EXCEPTIONS.get(frame.exception, "unknown")
        raise Refused(
            f"{doing} (address {address}): exception {frame.exception}, {meaning}; {told}",
            code=LJM_MODBUS_ERROR + frame.exception,
        )

    def identify(self) -> Dialogue[Who]:
        """Return the identity of the device. Raise WrongDevice if it is not a T7 or its byte order is another."""
        try:
            test = (yield from self.read("TEST")).by_name["TEST"]
            about = (yield from self.read("PRODUCT_ID", "HARDWARE_VERSION", "FIRMWARE_VERSION")).by_name
        except Refused as error:
            raise WrongDevice(f"expected a LabJack T7, something else speaks Modbus here: {error}") from error
        if test != TEST_VALUE:
            raise WrongDevice(f"register TEST: expected {TEST_VALUE:#010x} (a T7, big-endian), got {test:#010x}")
        if about["PRODUCT_ID"] != T7_PRODUCT_ID:
            raise WrongDevice(f"register PRODUCT_ID: expected {T7_PRODUCT_ID:g} (T7), got {about['PRODUCT_ID']:g}")
        installed = (yield from self.read("HARDWARE_INSTALLED")).by_name["HARDWARE_INSTALLED"]
        serial = (yield from self.read("SERIAL_NUMBER")).by_name["SERIAL_NUMBER"]
        return Who(
            str(serial),
            f"{about['FIRMWARE_VERSION']:.4f}",
            f"{about['HARDWARE_VERSION']:.2f}",
            bool(int(installed) & HIGH_RESOLUTION),
        )
