"""InfluxDB write client: one keep-alive connection in either dialect. Sends lines, returns a `WriteResponse`.

    influxdb1   POST /write?db=…&rp=…&precision=ns                  Authorization: Basic
    influxdb2   POST /api/v2/write?org=…&bucket=…&precision=ns      Authorization: Token

The precision is always sent, because 1.x silently treats an unknown one as nanoseconds. Source: InfluxDB API reference
of both generations; 1.6.7 has no /api/v2 and accepts only Basic.
"""

from __future__ import annotations

import base64
import http.client
import socket
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode, urlsplit

from collectors.shipper.config import SinkConfig
from collectors.shipper.influxdb.responses import WriteResponse

GZIP_WINDOW = 31  # zlib's number for "gzip header and trailer"
MOST_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Path and authentication headers of the write interface."""

    path: str
    headers: Mapping[str, str]


def endpoint(sink: SinkConfig, secret: str) -> Endpoint:
    """Return the write path and headers of the sink's dialect; `secret` is the password or token, "" for none."""
    base = urlsplit(sink.url).path.rstrip("/")
    if sink.dialect == "influxdb1":
        query = {"db": sink.database, "rp": sink.retention_policy, "precision": "ns"}
        return Endpoint(f"{base}/write?{_query(query)}", basic(sink.user, secret) if sink.user else {})
    query = {"org": sink.org, "bucket": sink.bucket, "precision": "ns"}
    return Endpoint(f"{base}/api/v2/write?{_query(query)}", {"Authorization": f"Token {secret}"})


def _query(parts: Mapping[str, str]) -> str:
    return urlencode({key: value for key, value in parts.items() if value})


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def body_of(lines: Sequence[str], gzip_level: int) -> bytes:
    """Return the request's body; the same lines always give the same bytes."""
    raw = ("\n".join(lines) + "\n").encode()
    return zlib.compress(raw, gzip_level, GZIP_WINDOW) if gzip_level else raw


class InfluxClient:
    """Sends requests and returns responses without interpreting them. Not thread-safe, except `abort`."""

    def __init__(self, sink: SinkConfig, secret: str) -> None:
        self._sink = sink
        self._door = endpoint(sink, secret)
        self._connection: http.client.HTTPConnection | None = None
        encoding = {"Content-Encoding": "gzip"} if sink.gzip_level else {}
        self._headers = {"Content-Type": "text/plain; charset=utf-8", **encoding, **self._door.headers}

    def pack(self, lines: Sequence[str]) -> bytes:
        """Return the body of a request with these lines, compressed at the sink's `gzip_level`."""
        return body_of(lines, self._sink.gzip_level)

    def ask(self, lines: Sequence[str]) -> WriteResponse:
        """Send these lines and return the response."""
        return self.send(self.pack(lines)) or self.answer()

    def send(self, body: bytes) -> WriteResponse | None:
        """Send the body; return None when it was sent, or a WriteResponse without status when that failed."""
        sending = False
        try:
            connection = self._connected()
            sending = True
            connection.request("POST", self._door.path, body, self._headers)
        except (OSError, http.client.HTTPException) as error:
            return self._lost(error, sent_whole=not sending, timed_out=sending and isinstance(error, TimeoutError))
        return None

    def answer(self) -> WriteResponse:
        """Return the server's response to the body that was sent; without status when it is missing or incomplete."""
        assert self._connection is not None
        try:
            return self._answer(self._connection)
        except (OSError, http.client.HTTPException) as error:
            return self._lost(error, sent_whole=True, timed_out=isinstance(error, TimeoutError))

    def _lost(self, error: Exception, *, sent_whole: bool, timed_out: bool) -> WriteResponse:
        self.close()
        return WriteResponse(None, f"{self._sink.url}: {_words(error)}", sent_whole=sent_whole, timed_out=timed_out)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            connection = connect(self._sink)
            self._connection = connection
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock.settimeout(self._sink.answer_s)
        return self._connection

    def _answer(self, connection: http.client.HTTPConnection) -> WriteResponse:
        response = connection.getresponse()
        text = response.read(MOST_ANSWER_BYTES).decode("utf-8", "replace")
        retry_after = response.headers.get("Retry-After", "")
        if not response.isclosed():  # the rest of a long response must not be read as the next one
            self.close()
        return WriteResponse(response.status, text.strip(), float(retry_after) if retry_after.isdecimal() else None)

    def __enter__(self) -> Self:
        """Return itself; closed at the block's end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def abort(self) -> None:
        """Abort the request that another thread waits for: that thread gets the response of a lost connection."""
        connection = self._connection
        sock = None if connection is None else connection.sock
        if sock is not None:
            with suppress(OSError):  # closed already
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next `send` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def connect(sink: SinkConfig) -> http.client.HTTPConnection:
    """Return a connection that is not open yet; the TLS library is loaded only for an https URL."""
    parts = urlsplit(sink.url)
    assert parts.hostname is not None
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=sink.connect_s)
    import ssl

    context = ssl.create_default_context(cafile=sink.ca_file or None)
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=sink.connect_s, context=context)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
