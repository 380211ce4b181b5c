"""LabJack's own library as a link: `ljm:USB:470012345`, `ljm:ETHERNET:192.0.2.7`, `ljm:ANY:ANY`.

The driver sends Modbus frames over every link. This link decodes each request, makes LJM read or write the registers as
bytes (`eReadAddressByteArray`, `eWriteAddressByteArray`: without types, so the codec gets the device's bytes), and
encodes the response as a frame. LJM must start a stream itself: the link keeps the values that the driver writes to the
stream's registers, calls `eStreamStart` when STREAM_ENABLE is written, requests raw codes (LJM_STREAM_AIN_BINARY), and
delivers them on channel "stream" in the device's own packets. LJM's placeholders for lost scans (-9999, -8888) are
converted back to the device's gap mark. Configuration and readings are the same as with `tcp:`.

Where the library is not installed, `ljm:USB:470012345?tcp=192.0.2.7` connects to that address by Modbus TCP instead;
without `tcp=` it is a configuration error that names what to install. Further options are those of `tcp:`.

Tests run the wrapper `labjack-ljm` over a substitute library; **the vendor's own library was never run with this
code**. The driver checks its byte order at every open by reading the register TEST.
Source: docs/protocols/labjack_t7.md, section 6; vendor's manual for LJM_STREAM_AIN_BINARY.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import struct
import time
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

import numpy as np

from collectors.device import Device
from collectors.errors import CollectorError, ConfigError, LinkBusy, LinkDown, NoReply, Refused, WrongDevice
from collectors.protocols import modbus
from collectors.transports import Address, Arrived, Link, tcp

LIBRARY = "libLabJackM.so"
CONNECTIONS = ("ANY", "USB", "TCP", "ETHERNET", "WIFI")
INSTALL = (
    f"LabJack's library LJM ({LIBRARY}) is not installed; the Python package labjack-ljm does not contain it."
    " Install it with the vendor's LJM installer for this machine, then run ldconfig;"
    " or reach the device over Ethernet with tcp:HOST, or add ?tcp=HOST to this link"
)

MODBUS_EXCEPTIONS = range(1201, 1212)
ERRORS: Mapping[int, type[CollectorError]] = {
    1224: LinkDown,  # device not open
    1226: LinkDown,  # disconnected
    1227: LinkDown,  # not found
    1230: LinkBusy,  # claimed by another process
    1231: LinkDown,  # cannot connect
    1233: LinkDown,  # socket
    1236: LinkDown,  # cannot open
    1239: LinkDown,  # reconnect failed
    1240: LinkDown,  # yielded, reconnect failed
    1241: LinkDown,  # USB failure
    1263: NoReply,  # no response bytes
    1264: NoReply,  # wrong number of response bytes
    1302: NoReply,  # stream could not start
    1303: NoReply,  # stream not running
    1306: NoReply,  # synchronisation timeout
    1307: WrongDevice,  # old firmware: a person must update it
    1309: NoReply,  # no scans returned
    1314: LinkDown,  # no devices
}
"""LJM error code to the error that the session handles; any other code becomes Refused, with its number."""
NO_HARM_ON_STOP = (1303, 2620)
STREAM_ENDINGS = {1301: 2945, 2942: 2942, 2943: 2943}
"""LJM error to packet status: LJM's buffer full, scan overlap, more lost scans than can be counted."""

ENABLE = 4990
SETUP = range(4002, 4030)
"""Registers that eStreamStart takes as arguments or writes itself, except the three of PASSED_ON."""
SCAN_LIST = range(4100, 4356)
PASSED_ON = (4008, 4010, 4012)
"""Settling, resolution, buffer size: the library does not set these."""
SCAN_RATE, CHANNELS = 4002, 4004
READS_PER_S = 10
PACKET_HEAD = struct.Struct(">HHHHHHHH")
UNIT_AND_FUNCTION, PACKET_TYPE = 0x014C, 0x1000
GAP_CODE, RECOVERED, MOST_LOST = 0xFFFF, 2941, 65535
DUMMIES = -8000.0
"""Values below this are placeholders: raw codes are ≥ 0; -9999 is a lost scan, -8888 one that was not read."""


def library() -> ModuleType | None:
    """Return the wrapper when the native library loads, else None.

    Without the library, importing the wrapper prints a line and succeeds, and its functions fail later. Therefore the
    library is loaded first.
    """
    try:
        ctypes.CDLL(LIBRARY)
        with contextlib.redirect_stdout(io.StringIO()):
            return import_module("labjack.ljm")
    except (OSError, ImportError):
        return None


def check(address: Address, device: Device) -> list[str]:
    """Return the problems of this address, without opening it; without tcp=, a missing library is one of them."""
    connection, colon, identifier = address.where.partition(":")
    if not colon or connection not in CONNECTIONS or not identifier:
        kinds = ", ".join(CONNECTIONS)
        return [f"link: expected ljm:KIND:IDENTIFIER, KIND one of {kinds}, got {'ljm:' + address.where!r}"]
    if "tcp" in address.options:
        return tcp.check(_fallback(address), device)
    if address.options:
        return [f"link: unknown ljm option {key!r}; there is: tcp" for key in address.options]
    return [] if library() else [f"link: {INSTALL}"]


def _fallback(address: Address) -> Address:
    """Return the `tcp:` address to use without the library."""
    others = {key: value for key, value in address.options.items() if key != "tcp"}
    return Address("tcp", address.options["tcp"], others)


def open_link(address: Address, device: Device) -> Link:
    """Open the device with the library; where there is none, by Modbus TCP at the address of tcp=."""
    problems = check(address, device)
    if problems:
        raise ConfigError(problems)
    ljm = library()
    if ljm is None:
        return tcp.open_link(_fallback(address), device)
    connection, _, identifier = address.where.partition(":")
    try:
        handle = ljm.openS("T7", connection, identifier)
    except ljm.LJMError as error:
        raise translate(error, f"ljm:{address.where}") from error
    return LjmLink(ljm, handle, f"ljm:{address.where}")


def translate(error: Exception, name: str) -> CollectorError:
    """Return the CollectorError that corresponds to an error of the wrapper."""
    code = int(getattr(error, "errorCode", 0) or 0)
    text = f"{name}: LJM error {code} {getattr(error, 'errorString', '')}".rstrip()
    kind = ERRORS.get(code, Refused)
    return Refused(text, code=code) if kind is Refused else kind(text)


class LjmLink:
    """One device opened by LJM, with the interface of a Modbus TCP connection."""

    byte_time_s = 0.0

    def __init__(self, ljm: ModuleType, handle: int, name: str) -> None:
        self._ljm = ljm
        self._handle: int | None = handle
        self._name = name
        self._answers = b""
        self._stream: LjmStream | None = None
        self._setup: dict[int, bytes] = {}

    def write(self, data: bytes, channel: str = "") -> None:
        """Execute the request with LJM; `read` returns the response."""
        if channel:
            raise Refused(f"{self._name}: nothing can be written to channel {channel!r}")
        taken = modbus.take(data)
        if taken is None:
            raise Refused(f"{self._name}: expected one whole Modbus request, got {data.hex(' ')}")
        frame, _ = taken
        try:
            body = self._execute(frame)
        except self._ljm.LJMError as error:
            if error.errorCode not in MODBUS_EXCEPTIONS:
                raise translate(error, self._name) from error
            code = error.errorCode - MODBUS_EXCEPTIONS.start + 1
            body, frame = bytes([code]), frame._replace(function=frame.function | modbus.EXCEPTION)
        self._answers += modbus.encode(frame.transaction, frame.function, body)

    def read(self, timeout_s: float, channel: str = "", linger_s: float = 0.0) -> Arrived:  # noqa: ARG002 - signature of Link
        """Return the responses, or the packets of the next tenth of a second of the stream."""
        data = b""
        if channel and self._stream:
            data = self._read_stream(self._stream)
        elif not channel:
            data, self._answers = self._answers, b""
        if not data:
            time.sleep(timeout_s)
        return Arrived(data, time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def flush(self) -> None:
        """Drop responses that were not read."""
        self._answers = b""

    def close(self) -> None:
        """Stop the stream and close the device. Safe to call twice."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        with contextlib.suppress(self._ljm.LJMError):
            if self._stream:
                self._ljm.eStreamStop(handle)
        with contextlib.suppress(self._ljm.LJMError):
            self._ljm.close(handle)

    def _execute(self, frame: modbus.Frame) -> bytes:
        """Return the body of the response."""
        if self._handle is None:
            raise LinkDown(f"{self._name}: closed")
        if frame.function == modbus.READ:
            address, count = struct.unpack(">HH", frame.body)
            data = bytes(self._ljm.eReadAddressByteArray(self._handle, address, 2 * count))
            return bytes([len(data)]) + data
        if frame.function != modbus.WRITE:
            raise Refused(f"{self._name}: function {frame.function} cannot be carried by LJM")
        address, _, _ = struct.unpack_from(">HHB", frame.body)
        self._write_registers(address, frame.body[5:])
        return frame.body[:4]

    def _write_registers(self, address: int, data: bytes) -> None:
        if address == ENABLE:
            self._switch_stream(any(data))
        elif address in SETUP or address in SCAN_LIST:
            for at in range(0, len(data), 4):
                self._setup[address + at // 2] = data[at : at + 4]
        else:
            self._ljm.eWriteAddressByteArray(self._handle, address, len(data), list(data))

    def _switch_stream(self, on: bool) -> None:
        """Start or stop the stream; stopping a stream that does not run is not an error."""
        try:
            self._ljm.eStreamStop(self._handle)
        except self._ljm.LJMError as error:
            if error.errorCode not in NO_HARM_ON_STOP:
                raise
        self._stream = None
        if not on:
            return
        for address in PASSED_ON:
            self._ljm.eWriteAddressByteArray(self._handle, address, 4, list(self._setup[address]))
        self._ljm.writeLibraryConfigS("LJM_STREAM_AIN_BINARY", 1)
        (rate_hz,) = struct.unpack(">f", self._setup[SCAN_RATE])
        channels = int.from_bytes(self._setup[CHANNELS])
        inputs = [int.from_bytes(self._setup[SCAN_LIST.start + 2 * i]) for i in range(channels)]
        scans = max(1, round(rate_hz / READS_PER_S))
        self._ljm.eStreamStart(self._handle, scans, channels, inputs, rate_hz)
        self._stream = LjmStream(channels)

    def _read_stream(self, stream: LjmStream) -> bytes:
        """Return the packets of one read; the end of a stream becomes a packet's status, as sent by the device."""
        try:
            data, device_backlog, _ = self._ljm.eStreamRead(self._handle)
        except self._ljm.LJMError as error:
            if error.errorCode in STREAM_ENDINGS:
                return stream.packet(np.empty(0), status=STREAM_ENDINGS[error.errorCode])
            raise translate(error, self._name) from error
        return stream.packets(np.array(data), device_backlog)


class LjmStream:
    """Converts the values of eStreamRead to the device's packets."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._transaction = 0
        self._lost = 0
        """Number of lost scans at the end of the last read: the gap may continue in the next read."""

    def packets(self, data: np.ndarray, backlog_scans: int) -> bytes:
        """Return packets for these values, flat in scan-list order; a run of placeholders becomes one gap mark."""
        scans = data.reshape(-1, self._channels)
        lost = scans[:, 0] < DUMMIES
        edges = np.flatnonzero(np.diff(lost)) + 1
        backlog_bytes = min(backlog_scans * self._channels * 2, 0xFFFF)
        sent = b""
        for part, is_lost in zip(np.split(scans, edges), lost[[0, *edges]], strict=True):
            if is_lost:
                self._lost += len(part)
                continue
            sent += self._gap() if self._lost else b""
            sent += self.packet(part.ravel(), backlog_bytes=backlog_bytes)
        return sent

    def _gap(self) -> bytes:
        sent = b""
        while self._lost:
            lost = min(self._lost, MOST_LOST)
            self._lost -= lost
            sent += self.packet(np.full(self._channels, float(GAP_CODE)), status=RECOVERED, additional=lost)
        return sent

    def packet(self, codes: np.ndarray, status: int = 0, additional: int = 0, backlog_bytes: int = 0) -> bytes:
        """Return one packet."""
        length = PACKET_HEAD.size - modbus.PREFIX_BYTES + 2 * len(codes)
        head = PACKET_HEAD.pack(
            self._transaction, 0, length, UNIT_AND_FUNCTION, PACKET_TYPE, backlog_bytes, status, additional
        )
        self._transaction = (self._transaction + 1) & 0xFFFF
        return head + codes.astype(">u2").tobytes()
