"""InfluxDB query client: sends one InfluxQL statement by `POST /query`, in either dialect. Times are in ns.

    influxdb1   Authorization: Basic, of `read_user` or else of `user`
    influxdb2   Authorization: Token, of `read_token_file` or else of `token_file`; bucket "bat/raw" is database bat,
                policy raw, bucket "bat" is database bat, policy autogen: the server creates this mapping itself

Source: InfluxDB API reference of both generations, and responses of 1.6.7 and 2.7.12: a 2.x token without read
permission gets 200 with "database not found".
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from collectors.errors import CollectorError, LinkDown
from collectors.shipper.config import ShipConfig, SinkConfig
from collectors.shipper.influxdb.client import basic, connect

LEAST_ANSWER_S = 120.0
"""A query over a day may take longer than a write."""


class NotReadable(CollectorError):
    """The database does not permit these credentials to read; the message names the missing right."""

    exit_code = 69


class QueryFailed(CollectorError):
    """The database rejected the statement, or returned an incomplete result."""

    exit_code = 76


class Rows(NamedTuple):
    """One series of a result."""

    tags: Mapping[str, str]
    """Only those with a value."""
    columns: Sequence[str]
    values: Sequence[Sequence[Any]]


class QueryClient:
    """Queries one sink's database. Not thread-safe."""

    def __init__(self, config: ShipConfig, sink: SinkConfig) -> None:
        """Raise ConfigError when a secret cannot be read."""
        self._sink = sink
        if sink.dialect == "influxdb1":
            user, name = (
                (sink.read_user, sink.read_password_file) if sink.read_user else (sink.user, sink.password_file)
            )
            self._headers = basic(user, config.secret(name)) if user else {}
            self.database, self.policy = sink.database, sink.retention_policy
        else:
            self._headers = {"Authorization": f"Token {config.secret(sink.read_token_file or sink.token_file)}"}
            self.database, _, policy = sink.bucket.partition("/")
            self.policy = policy or "autogen"
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        """Return itself; closed at the block's end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def select(self, columns: str, measurement: str, where: str, group: str) -> list[Rows]:
        """Return the series of one measurement; all parts but the measurement's name are InfluxQL. Raises as `ask`."""
        place = ".".join(quoted(part) if part else "" for part in (self.database, self.policy, measurement))
        return self.ask(f"SELECT {columns} FROM {place} WHERE {where} GROUP BY {group}")  # noqa: S608 - names are quoted

    def ask(self, statement: str) -> list[Rows]:
        """Return the statement's series.

        Raises LinkDown without a response, NotReadable, QueryFailed with the server's error text.
        """
        status, text = self._post(statement)
        result = _result(text)
        words = str(result.get("error", ""))
        if status in (401, 403) or words.startswith(("database not found", "default retention policy not set")):
            raise NotReadable(self._advice(f"{status} {words or text.strip()[:200]}"))
        if status != 200 or words:
            raise QueryFailed(f"sink {self._sink.name}: {status} {words or text.strip()[:200]}: {statement[:200]}")
        series = result.get("series", [])
        if result.get("partial") or any(rows.get("partial") for rows in series):
            raise QueryFailed(f"sink {self._sink.name}: the server limits the rows of a query; raise its max-row-limit")
        return [
            Rows(
                {key: value for key, value in rows.get("tags", {}).items() if value}, rows["columns"],
                rows.get("values", []),
            )
            for rows in series
        ]  # fmt: skip

    def keeps_s(self) -> int | None:
        """Return the retention of the sink's policy in s; None when it is infinite or not known."""
        found = self.ask(f"SHOW RETENTION POLICIES ON {quoted(self.database)}")
        for rows in found:
            for row in rows.values:
                policy = dict(zip(rows.columns, row, strict=True))
                if policy.get("name") == self.policy or (not self.policy and policy.get("default")):
                    return _seconds(str(policy.get("duration", ""))) or None
        return None

    def _post(self, statement: str) -> tuple[int, str]:
        path = f"{urlsplit(self._sink.url).path.rstrip('/')}/query"
        parts = {"db": self.database, "rp": self.policy, "epoch": "ns", "q": statement}
        body = urlencode({key: value for key, value in parts.items() if value})
        headers = {"Content-Type": "application/x-www-form-urlencoded", **self._headers}
        try:
            if self._connection is None:
                self._connection = connect(self._sink)
                self._connection.connect()
                self._connection.sock.settimeout(max(self._sink.answer_s, LEAST_ANSWER_S))
            self._connection.request("POST", path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            words = str(error) or type(error).__name__
            raise LinkDown(f"sink {self._sink.name}: {self._sink.url} does not answer: {words}") from error

    def _advice(self, words: str) -> str:
        sink = self._sink
        if sink.dialect == "influxdb1":
            who = sink.read_user or sink.user or "nobody"
            return (
                f"sink {sink.name}: user {who} may not read database {sink.database} ({words}); either GRANT READ ON "
                f'"{sink.database}" TO a user of its own, and name it in [[sink]] as read_user and read_password_file, '
                f'or GRANT ALL ON "{sink.database}" TO "{sink.user or "…"}"'
            )
        return (
            f"sink {sink.name}: the token may not read bucket {sink.bucket}, or there is no such bucket ({words}); "
            f"make one that may (influx auth create --org {sink.org} --read-bucket ID, with the ID that `influx bucket "
            "list` shows), write it to a file of mode 0600, and name that in [[sink]] as read_token_file"
        )


def _result(text: str) -> dict[str, Any]:
    """Return the only result of a response, or its error; an empty dict when the text is not an InfluxDB response."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    if "results" in found:
        results = found["results"]
        return results[0] if isinstance(results, list) and results and isinstance(results[0], dict) else {}
    words = found.get("error") or found.get("message")
    return {"error": words} if words else {}


def quoted(name: str) -> str:
    """Return an InfluxQL identifier."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def text(value: str) -> str:
    """Return an InfluxQL string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _seconds(duration: str) -> int:
    """Return the seconds of a duration such as 168h0m0s; 0 for none, or for another form."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(\d+)s", duration)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return hours * 3600 + minutes * 60 + seconds
