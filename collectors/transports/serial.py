"""Serial ports: `serial:/dev/serial/by-id/…[?baud=…&parity=N|E|O&bits=…&stop=…]`.

pyserial configures the port; this module reads and writes the file descriptor itself. The port is locked in both ways
that Linux offers (flock and TIOCEXCL), because two programs on one tty take bytes from each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import time
from contextlib import suppress
from pathlib import Path

import serial

from collectors.device import Device, Line
from collectors.errors import ConfigError, LinkBusy, LinkDown
from collectors.transports import Address, Arrived

CHUNK_BYTES = 65536


def line_of(address: Address, device: Device) -> Line:
    """Return the line settings: the device's defaults, overridden by the link's options; ConfigError otherwise."""
    options = dict(address.options)
    own = device.line
    try:
        line = Line(
            baud=int(options.pop("baud", own.baud)),
            bits=int(options.pop("bits", own.bits)),
            parity=options.pop("parity", own.parity).upper(),
            stop=float(options.pop("stop", own.stop)),
        )
    except ValueError as error:
        raise ConfigError(f"link: serial options must be numbers, for example ?baud=9600&parity=O ({error})") from error
    problems = [f"link: unknown serial option {key!r}; there are: baud, bits, parity, stop" for key in options]
    if not 50 <= line.baud <= 4_000_000:
        problems.append(f"link: baud: expected 50 to 4000000, got {line.baud}")
    if line.bits not in (7, 8):
        problems.append(f"link: bits: expected 7 or 8, got {line.bits}")
    if line.parity not in ("N", "E", "O"):
        problems.append(f"link: parity: expected N, E or O, got {line.parity!r}")
    if line.stop not in (1, 1.5, 2):
        problems.append(f"link: stop: expected 1, 1.5 or 2, got {line.stop:g}")
    if problems:
        raise ConfigError(problems)
    return line


def check(address: Address, device: Device) -> list[str]:
    """Return the problems of this address, without opening it."""
    try:
        line_of(address, device)
    except ConfigError as error:
        return error.problems
    return []


def open_link(address: Address, device: Device) -> SerialLink:
    """Open the port; LinkBusy when another program holds it, LinkDown when it is absent or access is denied."""
    line = line_of(address, device)
    try:
        port = serial.Serial(
            address.where,
            baudrate=line.baud,
            bytesize=line.bits,
            parity=line.parity,
            stopbits=line.stop,
            exclusive=True,
            timeout=0,
        )
    except (serial.SerialException, OSError, ValueError, termios.error) as error:  # the last is not an OSError
        raise _explain(address.where, error) from error
    try:
        fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    except OSError as error:
        port.close()
        raise _explain(address.where, error) from error
    bits_per_byte = 1 + line.bits + (line.parity != "N") + line.stop
    return SerialLink(port, address.where, bits_per_byte / line.baud)


def _explain(where: str, error: Exception) -> LinkDown:
    """Return the error, with advice, for a port that could not be opened."""
    code = error.args[0] if isinstance(error, termios.error) else getattr(error, "errno", None)
    if code in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "exclusively lock" in str(error):
        return LinkBusy(f"{where}: another program holds this port; find it with: fuser -v {where}")
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        there = sorted(str(p) for p in Path("/dev/serial/by-id").glob("*"))
        found = f"ports here: {', '.join(there)}" if there else "no serial adapter is plugged in"
        return LinkDown(f"{where}: no such port; {found}")
    if code in (errno.EACCES, errno.EPERM):
        return LinkDown(f"{where}: permission denied; add this user to the group 'dialout'")
    return LinkDown(f"{where}: {error}")


class SerialLink:
    """An open serial port."""

    def __init__(self, port: serial.Serial, where: str, byte_time_s: float) -> None:
        self.byte_time_s = byte_time_s
        self._port = port
        self._where = where
        self._fd: int = port.fileno()

    def read(self, timeout_s: float, channel: str = "", linger_s: float = 0.0) -> Arrived:
        """Return the bytes that arrive within `timeout_s`, as soon as there are any; LinkDown when the port is gone."""
        del channel
        first = self._read_once(timeout_s)
        if first.data and linger_s:
            time.sleep(linger_s)
            return Arrived(first.data + self._read_once(0).data, first.boottime_ns)
        return first

    def _read_once(self, timeout_s: float) -> Arrived:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        try:
            ready = poll.poll(timeout_s * 1000)
            if not ready:
                return Arrived(b"", time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            data = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return Arrived(b"", time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        except OSError as error:  # EIO, ENXIO, ENODEV, EBADF: the port is gone
            raise LinkDown(f"{self._where}: lost while reading ({error.strerror})") from error
        if not data:
            raise LinkDown(f"{self._where}: unplugged")
        return Arrived(data, time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def write(self, data: bytes, channel: str = "") -> None:
        """Send all bytes; LinkDown when the port is gone or accepts no byte for a second."""
        del channel
        rest = memoryview(data)
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        try:
            while rest:
                if not poll.poll(1000):
                    raise LinkDown(f"{self._where}: takes no bytes")
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise LinkDown(f"{self._where}: lost while writing ({error.strerror})") from error

    def flush(self) -> None:
        """Drop the bytes that arrived and were not read."""
        try:
            termios.tcflush(self._fd, termios.TCIFLUSH)
        except termios.error as error:  # not an OSError
            raise LinkDown(f"{self._where}: lost while flushing ({error})") from error

    def close(self) -> None:
        """Close the port. Safe to call twice."""
        if not self._port.is_open:
            return
        # Closing an unplugged adapter fails in several ways (termios.error is not an OSError); it is gone in any case.
        with suppress(OSError, termios.error, serial.SerialException):
            fcntl.ioctl(self._fd, termios.TIOCNXCL)  # on a pseudo-terminal the lock would persist
        with suppress(OSError, termios.error, serial.SerialException):
            self._port.close()
