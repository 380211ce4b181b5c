"""The HTTP client against the framings that servers use: Content-Length on a kept connection, chunks, a lost body.

The bodies are those that InfluxDB OSS 2.7.12 sent to `/query` with `chunked=true` (recorded on 2026-11-30).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from soc import stores
from soc.stores import StoreDown, StoreError
from soc.stores._influx_http import InfluxConnection
from soc.stores._influx_place import parse

CHUNKED_QUERY = (
    b'{"results":[{"statement_id":0,"series":[{"name":"battery","columns":["time","voltage_v"],'
    b'"values":[[1796082823000,13.2]],"partial":true}],"partial":true}]}\n'
    b'{"results":[{"statement_id":0,"series":[{"name":"battery","columns":["time","voltage_v"],'
    b'"values":[[1796082826000,13.3]],"partial":true}],"partial":true}]}\n'
    b'{"results":[{"statement_id":0,"series":[{"name":"battery","columns":["time","voltage_v"],'
    b'"values":[[1796082827000,13.4]]}]}]}\n'
)
NO_DEFAULT = b'{"results":[{"statement_id":0,"error":"default retention policy not set for: bat"}]}\n'
NOTHING = b'{"results":[{"statement_id":0}]}\n'
HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nX-Influxdb-Version: v2.7.12\r\n"
VALUES = [[1796082823000, 13.2], [1796082826000, 13.3], [1796082827000, 13.4]]


def with_length(body: bytes, status: bytes = b"200 OK") -> bytes:
    return HEAD % status + b"Content-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(body: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in body.splitlines(keepends=True))
    return HEAD % status + b"Transfer-Encoding: chunked\r\n\r\n" + lines + b"0\r\n\r\n"


class Listener:
    """Sends each request the next of these responses and keeps the connection; `requests` by connection."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers, self.requests = answers, list[int]()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while self.answers:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.requests.append(0)
            with connection, connection.makefile("rb") as file:
                while self.answers and self._request(file.readline):
                    answer = self.answers.pop(0)
                    self.requests[-1] += 1
                    connection.sendall(answer)

    def _request(self, readline: Callable[[], bytes]) -> bool:
        line = first = readline()
        while line not in (b"\r\n", b""):
            line = readline()
        return bool(first)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@contextmanager
def listening(*answers: bytes) -> Iterator[tuple[Listener, InfluxConnection]]:
    listener = Listener(list(answers))
    server = InfluxConnection(parse(f"influx:{listener.url}/bat?device=t7"))
    try:
        yield listener, server
    finally:
        server.close()
        listener.close()


def values(server: InfluxConnection) -> list[list[float]]:
    return [row for series in server.query("SELECT voltage_v FROM battery") for row in series["values"]]


@pytest.mark.parametrize("framed", [with_length, in_chunks])
def test_queries_follow_each_other_on_one_connection(framed: Callable[[bytes], bytes]) -> None:
    with listening(*[framed(CHUNKED_QUERY)] * 3) as (listener, server):
        assert [values(server) for _ in range(3)] == [VALUES] * 3
        assert listener.requests == [3]


def test_a_recording_is_read_from_a_server_that_sends_content_length() -> None:
    row = b"[1796082823000000000,%s]"
    names = b'"columns":["time",%s]'

    def answer(columns: bytes, values: bytes) -> bytes:
        body = b'{"results":[{"statement_id":0,"series":[{"name":"battery",%s,"values":[%s]}]}]}\n'
        return with_length(body % (names % columns, row % values))

    fields = b'"current_a","voltage_v","temperature_degc"'
    with listening(answer(b'"current_a"', b"-1.5"), answer(fields, b"-1.5,13.2,20"), with_length(NOTHING)) as (
        listener,
        _,
    ):
        (chunk,) = stores.read(f"influx:{listener.url}/bat?device=t7").chunks
    assert {name: column.tolist() for name, column in chunk.items()} == {
        "time_s": [1796082823.0],
        "current_a": [-1.5],
        "voltage_v": [13.2],
        "temperature_degc": [20.0],
    }


def test_an_error_in_the_answer_leaves_the_connection_usable() -> None:
    with listening(with_length(NO_DEFAULT + CHUNKED_QUERY), with_length(CHUNKED_QUERY)) as (_, server):
        with pytest.raises(StoreError, match="default retention policy not set"):
            values(server)
        assert values(server) == VALUES


def test_an_answer_that_is_abandoned_leaves_the_connection_usable() -> None:
    with listening(with_length(CHUNKED_QUERY), with_length(CHUNKED_QUERY)) as (_, server):
        first = server.query("SELECT voltage_v FROM battery")
        assert next(iter(first))["values"] == VALUES[:1]
        first.close()  # type: ignore[attr-defined]
        assert values(server) == VALUES


@pytest.mark.parametrize("short", [with_length(CHUNKED_QUERY + b" " * 100)[:-100], in_chunks(CHUNKED_QUERY)[:-9]])
def test_a_body_shorter_than_announced_is_a_lost_answer(short: bytes) -> None:
    with listening(short) as (_, server), pytest.raises(StoreDown, match="no answer"):  # closes after its last response
        values(server)
