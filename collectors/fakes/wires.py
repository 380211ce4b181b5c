"""The wire of a fake: a pseudo-terminal under a stable name, or TCP ports on loopback.

A wire can be unplugged and plugged in again. It never blocks, and holds at most MAX_UNSENT bytes per channel that the
collector has not read; bytes beyond that are lost and counted, as in a real adapter.
"""

from __future__ import annotations

import fcntl
import os
import select
import selectors
import socket
import termios
import tty
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from collectors.device import Line
from collectors.errors import ConfigError, LinkBusy

MAX_UNSENT = 1 << 20
READ_SIZE = 65536

OnConnect = Callable[[str], None]
"""Called with the channel when a collector opens it."""
OnBytes = Callable[[bytes, str], None]
"""Called with the bytes that arrived, and the channel."""


class Wire(Protocol):
    """One way to reach a fake."""

    byte_time_s: float
    """Transmission time of one byte in s."""

    @property
    def link(self) -> str:
        """The link string for a collector's configuration."""
        ...

    def plug(self) -> None:
        """Make it reachable; no effect if it is reachable."""
        ...

    def unplug(self) -> None:
        """Make it unreachable, like a pulled cable; no effect if it is unreachable."""
        ...

    def hold(self) -> None:
        """Let another program open it."""
        ...

    def release(self) -> None:
        """End what `hold` began."""
        ...

    def look(self) -> bool:
        """Detect new connections; return whether `look` must be called again soon."""
        ...

    def is_open(self, channel: str = "") -> bool:
        """Return whether a collector has it open."""
        ...

    def is_clear(self) -> bool:
        """Return whether line settings agree on both ends."""
        ...

    def write(self, data: bytes, channel: str = "") -> int:
        """Write bytes for the collector; return how many of them were lost because the buffer was full."""
        ...

    def unsent(self) -> int:
        """Return how many bytes wait."""
        ...


class _Pipe:
    """One open file descriptor in the selector, with the bytes that could not be written yet."""

    def __init__(self, selector: selectors.BaseSelector, fd: int, on_ready: Callable[[], None]) -> None:
        self.fd = fd
        self.unsent = bytearray()
        self._selector = selector
        self._on_ready = on_ready
        selector.register(fd, selectors.EVENT_READ, self._ready)

    def _ready(self) -> None:
        self.flush()
        self._on_ready()

    def write(self, data: bytes) -> int:
        """Write the bytes that fit; return how many did not."""
        room = MAX_UNSENT - len(self.unsent)
        self.unsent += data[:room]
        self.flush()
        return max(0, len(data) - room)

    def flush(self) -> None:
        """Write what the kernel accepts now; wait for the selector to write the rest."""
        try:
            while self.unsent:
                del self.unsent[: os.write(self.fd, self.unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the collector closed it; the next read reports that
            self.unsent.clear()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
        if self._selector.get_key(self.fd).events != events:
            self._selector.modify(self.fd, events, self._ready)

    def read(self) -> bytes | None:
        """Return the bytes that arrived, b"" if there are none, None if the other end has closed."""
        try:
            return os.read(self.fd, READ_SIZE) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def drop(self) -> None:
        """Unregister from the selector."""
        self._selector.unregister(self.fd)


class PtyWire:
    """A serial line: a raw pseudo-terminal under a symbolic link that stays the same."""

    def __init__(
        self, path: Path, line: Line, selector: selectors.BaseSelector, on_connect: OnConnect, on_bytes: OnBytes
    ) -> None:
        self.path = path
        self.byte_time_s = (1 + line.bits + (line.parity != "N") + line.stop) / line.baud
        self._speed: int | None = getattr(termios, f"B{line.baud}", None)
        self._selector = selector
        self._on_connect = on_connect
        self._on_bytes = on_bytes
        self._master: int | None = None
        self._pipe: _Pipe | None = None
        self._holder: int | None = None

    @property
    def link(self) -> str:
        """The link string for a collector's configuration."""
        return f"serial:{self.path}"

    def plug(self) -> None:
        """Create a new pseudo-terminal under the name."""
        if self._master is not None:
            return
        self._master, slave = os.openpty()
        tty.setraw(self._master)  # on Linux the master's settings are the slave's
        os.set_blocking(self._master, False)
        fresh = self.path.with_name(f".{self.path.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(slave))
        fresh.replace(self.path)
        os.close(slave)  # after one open and close, the master reports a hang-up until a collector opens the slave

    def unplug(self) -> None:
        """Close the pseudo-terminal and remove the name."""
        if self._master is None:
            return
        self._hang_up()
        self.path.unlink(missing_ok=True)
        os.close(self._master)
        self._master = None

    def hold(self) -> None:
        """Plug it in again and open it before a collector can, exclusively and with a lock, as good programs do."""
        if self._holder is not None:
            return
        self.unplug()
        self.plug()
        self._holder = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        fcntl.flock(self._holder, fcntl.LOCK_EX)
        fcntl.ioctl(self._holder, termios.TIOCEXCL)

    def release(self) -> None:
        """Close it as the other program."""
        if self._holder is None:
            return
        fcntl.ioctl(self._holder, termios.TIOCNXCL)
        os.close(self._holder)
        self._holder = None

    def look(self) -> bool:
        """Detect whether a collector has opened it; return True while none has."""
        if self._master is None or self._holder is not None or self._pipe is not None:
            return self._holder is not None
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            return True
        self._pipe = _Pipe(self._selector, self._master, self._ready)
        self._on_connect("")
        return False

    def is_open(self, channel: str = "") -> bool:
        """Return whether a collector has it open."""
        return channel == "" and self._pipe is not None

    def is_clear(self) -> bool:
        """Return whether the collector's speed is the line's. (A pseudo-terminal does not keep the parity.)"""
        return self._master is None or self._speed is None or termios.tcgetattr(self._master)[5] == self._speed

    def write(self, data: bytes, channel: str = "") -> int:
        """Write bytes for the collector; return how many were lost."""
        return self._pipe.write(data) if self._pipe and channel == "" else len(data)

    def unsent(self) -> int:
        """Return how many bytes wait."""
        return len(self._pipe.unsent) if self._pipe else 0

    def _ready(self) -> None:
        assert self._pipe is not None
        data = self._pipe.read()
        if data is None:
            self._hang_up()
        elif data:
            self._on_bytes(data, "")

    def _hang_up(self) -> None:
        self.release()
        if self._pipe:
            self._pipe.drop()
            self._pipe = None
            self._forget_settings()

    def _forget_settings(self) -> None:
        """Reset the line settings, so that the next collector must make its own.

        It could not always repeat the earlier ones: with a parity, which a pseudo-terminal does not keep, setting what
        is set already is an error (EINVAL from tcsetattr, glibc 2.36).
        """
        assert self._master is not None
        settings = termios.tcgetattr(self._master)
        settings[4] = settings[5] = termios.B50
        termios.tcsetattr(self._master, termios.TCSANOW, settings)


class TcpWire:
    """Loopback TCP, one port per channel. A new connection replaces the previous one."""

    byte_time_s = 0.0

    def __init__(
        self, ports: Mapping[str, int], selector: selectors.BaseSelector, on_connect: OnConnect, on_bytes: OnBytes
    ) -> None:
        self.ports = dict(ports)
        """Channel to port; 0 selects a free one, which then stays the same."""
        self._selector = selector
        self._on_connect = on_connect
        self._on_bytes = on_bytes
        self._listeners: dict[str, socket.socket] = {}
        self._sockets: dict[str, socket.socket] = {}
        self._pipes: dict[str, _Pipe] = {}

    @property
    def link(self) -> str:
        """The link string for a collector's configuration."""
        extra = "&".join(f"{channel}={port}" for channel, port in self.ports.items() if channel)
        return f"tcp:127.0.0.1:{self.ports['']}" + (f"?{extra}" if extra else "")

    def plug(self) -> None:
        """Listen on every port. Raise LinkBusy if one is in use."""
        for channel, port in self.ports.items():
            if channel in self._listeners:
                continue
            try:
                listener = socket.create_server(("127.0.0.1", port))
            except OSError as error:
                raise LinkBusy(f"tcp port {port} (channel {channel!r}) cannot be served: {error.strerror}") from error
            listener.setblocking(False)
            self.ports[channel] = listener.getsockname()[1]
            self._listeners[channel] = listener
            self._selector.register(listener, selectors.EVENT_READ, lambda channel=channel: self._accept(channel))

    def unplug(self) -> None:
        """Stop listening, then close every connection, so that no client can reconnect in between."""
        for listener in self._listeners.values():
            self._selector.unregister(listener)
            listener.close()
        self._listeners.clear()
        for channel in list(self._sockets):
            self._hang_up(channel)

    def hold(self) -> None:
        """Raise ConfigError: a network device serves several programs at once."""
        raise ConfigError(f"{self.link}: a TCP port cannot be held by another program; use unplug or silence")

    def release(self) -> None:
        """Do nothing: a TCP wire is never held."""

    def look(self) -> bool:
        """Return False: the selector reports new connections."""
        return False

    def is_open(self, channel: str = "") -> bool:
        """Return whether a collector is connected."""
        return channel in self._pipes

    def is_clear(self) -> bool:
        """Return True: there are no line settings."""
        return True

    def write(self, data: bytes, channel: str = "") -> int:
        """Write bytes for the collector; return how many were lost."""
        pipe = self._pipes.get(channel)
        return pipe.write(data) if pipe else len(data)

    def unsent(self) -> int:
        """Return how many bytes wait on the fullest channel."""
        return max((len(pipe.unsent) for pipe in self._pipes.values()), default=0)

    def _accept(self, channel: str) -> None:
        try:
            connection, _ = self._listeners[channel].accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client closed the connection before it was accepted
            return
        self._hang_up(channel)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[channel] = connection
        self._pipes[channel] = _Pipe(self._selector, connection.fileno(), lambda: self._ready(channel))
        self._on_connect(channel)

    def _ready(self, channel: str) -> None:
        data = self._pipes[channel].read()
        if data is None:
            self._hang_up(channel)
        elif data:
            self._on_bytes(data, channel)

    def _hang_up(self, channel: str) -> None:
        if channel in self._pipes:
            self._pipes.pop(channel).drop()
            self._sockets.pop(channel).close()
