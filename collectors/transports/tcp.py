"""TCP connections: `tcp:HOST[:PORT][?<channel>=PORT]`.

The main channel is connected at once, a named channel (a T7 streams on "stream") when it is first read or written.
"""

from __future__ import annotations

import re
import select
import socket
import time
from contextlib import suppress

from collectors.device import Device
from collectors.errors import ConfigError, LinkDown
from collectors.transports import Address, Arrived

CHUNK_BYTES = 1024 * 1024
CONNECT_S = 3.0
LONGEST_HOST = 253
PORT = re.compile(r"[0-9]{1,5}")


def ports_of(address: Address, device: Device) -> tuple[str, dict[str, int]]:
    """Return the host and the port of each channel ("" is the main one); ConfigError otherwise."""
    host, port = address.where, str(device.channels.get("", ""))
    if address.where.startswith("["):  # [2001:db8::7]:502
        host, _, rest = address.where[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif ":" in address.where:
        host, _, port = address.where.rpartition(":")
    texts = {channel: str(number) for channel, number in device.channels.items()} | {"": port}
    problems = [
        f"link: unknown tcp option {key!r}; there are: {', '.join(c for c in device.channels if c) or 'none'}"
        for key in address.options
        if key not in texts
    ]
    texts |= address.options
    problems += [
        f"link: {channel or 'port'}: expected 1 to 65535, {f'got {text[:20]!r}' if text else 'it is missing'}"
        for channel, text in texts.items()
        if not (PORT.fullmatch(text) and 1 <= int(text) <= 65535)
    ]
    if not host:
        problems.append("link: expected tcp:HOST[:PORT], the host is missing")
    elif not _is_host(host):
        problems.append(f"link: expected the name or address of a host, got {host[:80]!r}")
    if problems:
        raise ConfigError(problems)
    return host, {channel: int(text) for channel, text in texts.items()}


def _is_host(host: str) -> bool:
    """Return whether the name can be looked up at all; for some invalid names the resolver raises no OSError."""
    try:
        return host.isprintable() and len(host.encode("idna")) <= LONGEST_HOST
    except UnicodeError:
        return False


def check(address: Address, device: Device) -> list[str]:
    """Return the problems of this address, without connecting."""
    try:
        ports_of(address, device)
    except ConfigError as error:
        return error.problems
    return []


def open_link(address: Address, device: Device) -> TcpLink:
    """Connect the main channel; LinkDown when that fails."""
    host, ports = ports_of(address, device)
    link = TcpLink(host, ports)
    link.connect("")
    return link


class TcpLink:
    """One or more open connections to one instrument."""

    byte_time_s = 0.0

    def __init__(self, host: str, ports: dict[str, int]) -> None:
        self._host = host
        self._ports = ports
        self._sockets: dict[str, socket.socket] = {}

    def connect(self, channel: str) -> socket.socket:
        """Return the channel's connection, opening it if necessary."""
        if channel in self._sockets:
            return self._sockets[channel]
        try:
            sock = socket.create_connection((self._host, self._ports[channel]), timeout=CONNECT_S)
        except OSError as error:
            raise LinkDown(f"{self._name(channel)}: cannot connect ({error.strerror or error})") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sockets[channel] = sock
        return sock

    def _name(self, channel: str) -> str:
        return f"{self._host}:{self._ports[channel]}"

    def read(self, timeout_s: float, channel: str = "", linger_s: float = 0.0) -> Arrived:
        """Return the bytes that arrive within `timeout_s`, as soon as there are any (then collect for `linger_s`)."""
        first = self._read_once(timeout_s, channel)
        if not (first.data and linger_s):
            return first
        parts = [first.data]
        time.sleep(linger_s)
        while more := self._read_once(0, channel).data:
            parts.append(more)
            if len(more) < CHUNK_BYTES:
                break
        return Arrived(b"".join(parts), first.boottime_ns)

    def _read_once(self, timeout_s: float, channel: str) -> Arrived:
        sock = self.connect(channel)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return Arrived(b"", time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        try:
            data = sock.recv(CHUNK_BYTES)
        except OSError as error:
            raise LinkDown(f"{self._name(channel)}: lost while reading ({error.strerror or error})") from error
        if not data:
            raise LinkDown(f"{self._name(channel)}: the instrument closed the connection")
        return Arrived(data, time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def write(self, data: bytes, channel: str = "") -> None:
        """Send all bytes; LinkDown when the connection is lost."""
        try:
            self.connect(channel).sendall(data)
        except OSError as error:
            raise LinkDown(f"{self._name(channel)}: lost while writing ({error.strerror or error})") from error

    def flush(self) -> None:
        """Drop the bytes that arrived on the main channel and were not read."""
        while self._read_once(0, "").data:
            pass

    def close(self) -> None:
        """Close every channel. Safe to call twice."""
        for sock in self._sockets.values():
            with suppress(OSError):
                sock.close()
        self._sockets.clear()
