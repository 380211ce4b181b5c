"""One keep-alive connection to InfluxDB: it reads rows by InfluxQL and writes line protocol, on 1.x and 2.x.

    GET  /query?db=…&q=…&epoch=ns&chunked=true          one JSON object per chunk
    POST /write?db=…&rp=…&precision=ns                  line protocol

Source: InfluxDB 1.8 API reference and "InfluxDB 1.x compatibility API" of 2.x.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from soc.stores._errors import StoreDown, StoreError
from soc.stores._influx_place import InfluxPlace

CONNECT_S = 10.0
ANSWER_S = 60.0
CHUNK_ROWS = 10_000
AGAIN = (408, 429)  # the retryable responses besides all 5xx


class InfluxConnection:
    """Queries and writes; opens the connection when it is needed, and again after it broke."""

    def __init__(self, place: InfluxPlace) -> None:
        self._place = place
        self._connection: http.client.HTTPConnection | None = None
        self._headers = _authorisation(place)

    def query(self, statement: str) -> Iterator[Mapping[str, Any]]:
        """Yield the series (`tags`, `columns`, `values`) of an InfluxQL statement; times in ns; a series may be split.

        Raises `StoreDown` if the server does not respond, `StoreError` with its message if it rejects the statement.
        """
        parts = {"db": self._place.database, "q": statement, "epoch": "ns"}
        path = "/query?" + urlencode({**parts, "chunked": "true", "chunk_size": str(CHUNK_ROWS)})
        response = self._ask("GET", path, None)
        is_complete = False
        try:
            for line in response:
                yield from self._series(line, statement)
            # InfluxDB 2.x sends Content-Length even when chunks are requested. Then readline() does not end the
            # response and does not detect a body that is shorter than announced.
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            response.close()
            is_complete = True
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        finally:
            if not is_complete:
                self.close()

    def _series(self, line: bytes, statement: str) -> Iterator[Mapping[str, Any]]:
        if not line.strip():
            return
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise StoreDown(f"{self._place.url}: the answer broke off: {error}") from error
        for result in _tables(answer, "results", [answer]):
            if "error" in result:
                raise StoreError(f"{self._place.url}: {result['error']} (asked: {statement})")
            for series in _tables(result, "series", []):
                if not isinstance(series.get("tags", {}), dict) or not isinstance(series.get("values"), list):
                    raise StoreError(f"{self._place.url}: expected series with values, got {str(series)[:80]}")
                yield series

    def write(self, lines: Sequence[str]) -> None:
        """Write these lines. Raises `StoreDown` or `StoreError` with the server's message."""
        parts = {"db": self._place.database, "rp": self._place.rp, "precision": "ns"}
        path = "/write?" + urlencode({key: value for key, value in parts.items() if value})
        self._ask("POST", path, "\n".join(lines).encode()).read()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        """Return the response with its body unread; an old connection that was closed meanwhile is opened once more."""
        for fresh in (self._connection is None, True):
            try:
                connection = self._connected()
                connection.request(method, path, body, self._headers)
                response = connection.getresponse()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                self.close()
                if fresh:
                    raise self._lost(error) from error
            except (OSError, http.client.HTTPException) as error:
                raise self._lost(error) from error
        if response.status >= 300:
            self._refused(response)
        return response

    def _refused(self, response: http.client.HTTPResponse) -> None:
        try:
            words = response.read(4096).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        self.close()
        text = f"{self._place.url}, database {self._place.database}: {response.status} {response.reason}: {words}"
        if response.status >= 500 or response.status in AGAIN:
            raise StoreDown(text)
        raise StoreError(text)

    def _lost(self, error: Exception) -> StoreDown:
        self.close()
        return StoreDown(f"{self._place.url}: no answer: {error or type(error).__name__}")

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            parts = urlsplit(self._place.url)
            assert parts.hostname is not None, "the place was checked"
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=self._place.ca_file or None)
                self._connection = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=CONNECT_S, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=CONNECT_S)
            self._connection.connect()
            self._connection.sock.settimeout(ANSWER_S)
        return self._connection


def _tables(answer: Any, key: str, default: list[Any]) -> list[dict[str, Any]]:
    """Return the objects listed under this key. Raises `StoreError` if the response has another form."""
    found = answer.get(key, default) if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise StoreError(f"expected an answer of InfluxDB with {key}, got {str(answer)[:80]}; is it another server?")
    return found


def _authorisation(place: InfluxPlace) -> dict[str, str]:
    """Return the authorization header: Basic for a user, Token for a token, none for neither."""
    if place.user:
        return {"Authorization": "Basic " + base64.b64encode(f"{place.user}:{place.secret}".encode()).decode()}
    return {"Authorization": f"Token {place.secret}"} if place.secret else {}
