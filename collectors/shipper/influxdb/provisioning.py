"""Provisions a database for the shipper, and returns the changes it made. A second run changes nothing.

    influxdb1   database, retention policy, a user that may write to this database and nothing else
    influxdb2   organisation, bucket, its mapping for InfluxQL (DBRP), a token that may write to this bucket only

New secrets are written to the sink's `…_file` with mode 0600, and are never displayed. Tests use Debian's real server
for 1.x, and for 2.x a substitute that responds as a recorded 2.7.12.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from collectors.errors import CollectorError, ConfigError, LinkDown
from collectors.shipper.config import ShipConfig, SinkConfig
from collectors.shipper.influxdb.client import basic, connect, endpoint
from collectors.shipper.influxdb.detect import detect

SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
FOREVER = 0


class Change(NamedTuple):
    """One item of the wanted state, and whether it had to be changed."""

    changed: bool
    what: str


class NotAllowed(CollectorError):
    """The database rejected a request that an administrator is allowed to make."""

    exit_code = 76


class Admin(NamedTuple):
    """The administrator's credentials: `user` for 1.x; the secret is a password or a token, "" for none."""

    user: str
    secret: str


def duration_s(text: str) -> int:
    """Return the seconds of "12h", "30d" or "52w", FOREVER for "forever"; ValueError otherwise."""
    if text == "forever":
        return FOREVER
    if not (found := re.fullmatch(r"([1-9]\d*)([hdw])", text)):
        raise ValueError(f"expected for example 12h, 30d, 52w or forever, got {text!r}")
    return int(found[1]) * SECONDS[found[2]]


def set_up(config: ShipConfig, sink: SinkConfig, admin: Admin, keep_s: int | None) -> list[Change]:
    """Provision the sink and return its items, changed or not. `keep_s`: retention; None: unchanged, forever if new.

    Raises LinkDown when the server cannot be reached, NotAllowed with its error text when it rejects a request,
    ConfigError when the dialect is not that of the server or the administrator's secret is missing.
    """
    if other := _other_generation(sink):
        raise ConfigError(f"{config.path}: [[sink]] {sink.name} dialect: {other}")
    if sink.dialect == "influxdb1":
        return _SetUp1(config, sink, admin).run(keep_s)
    if not admin.secret:
        raise ConfigError(_missing_secret(config, sink))
    from collectors.shipper.influxdb.provisioning_v2 import set_up_influxdb2

    return set_up_influxdb2(config, sink, admin, keep_s)


def _base(sink: SinkConfig) -> str:
    return urlsplit(sink.url).path.rstrip("/")


def _missing_secret(config: ShipConfig, sink: SinkConfig) -> str:
    kind = "administrator's password" if sink.dialect == "influxdb1" else "operator token"
    return f"{config.path}: [[sink]] {sink.name}: {sink.url} needs an {kind}: --admin-secret-file FILE"


def _other_generation(sink: SinkConfig) -> str:
    """Return advice when the server is of another generation than the dialect, "" when it is the same or unknown.

    1.8 has the write path of 2.x, but not the API that provisioning needs.
    """
    try:
        found = detect(sink.url, sink.ca_file)
    except LinkDown:  # neither generation; the next request reports the cause
        return ""
    if found.dialect == sink.dialect:
        return ""
    version = found.version or "of unknown version"
    if sink.dialect == "influxdb1":
        return (
            f"{sink.url} is an InfluxDB 2.x ({version}). It takes writes of influxdb1 only by a user, password and "
            "mapping (DBRP) that its administrator makes (server.yml, or `influx v1 auth create` and `influx v1 dbrp "
            "create`); `collectors sink setup` makes bucket and token for dialect influxdb2: org, bucket, token_file"
        )
    return f"{sink.url} is an InfluxDB 1.x ({version}): expected influxdb1 with database, user and password_file"


def write_secret(path: Path, secret: str, *, replace: bool = False) -> None:
    """Write a file that only this user can read; FileExistsError when it exists and `replace` is false."""
    target = path.with_name(f"{path.name}.new") if replace else path
    if replace:
        target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(file.fileno())
    if replace:
        target.replace(path)


class _SetUp1:
    """InfluxDB 1.x, by InfluxQL."""

    def __init__(self, config: ShipConfig, sink: SinkConfig, admin: Admin) -> None:
        self._config = config
        self._sink = sink
        self._admin = admin

    def run(self, keep_s: int | None) -> list[Change]:
        return [self._database(keep_s), *self._policy(keep_s), *(self._writer() if self._sink.user else [])]

    def _database(self, keep_s: int | None) -> Change:
        name = self._sink.database
        if name in self._column("SHOW DATABASES", "name"):
            return Change(False, f"database {name}")
        policy = self._sink.retention_policy or "autogen"
        self._ask(f"CREATE DATABASE {_name(name)} WITH DURATION {_duration(keep_s or FOREVER)} NAME {_name(policy)}")
        return Change(True, f"database {name}")

    def _policy(self, keep_s: int | None) -> list[Change]:
        on = f"ON {_name(self._sink.database)}"
        policies = {row["name"]: row for row in self._ask(f"SHOW RETENTION POLICIES {on}")}
        default = next((name for name, row in policies.items() if row["default"]), "autogen")
        name = self._sink.retention_policy or default
        what = f"retention policy {name}"
        if name not in policies:
            self._ask(
                f"CREATE RETENTION POLICY {_name(name)} {on} DURATION {_duration(keep_s or FOREVER)} REPLICATION 1"
            )
            return [Change(True, what)]
        if keep_s is None or _seconds(policies[name]["duration"]) == keep_s:
            return [Change(False, what)]
        change = f"DURATION {_duration(keep_s)} SHARD DURATION {_duration(shard_s(keep_s))}"
        self._ask(f"ALTER RETENTION POLICY {_name(name)} {on} {change}")
        return [Change(True, f"{what}: keeps {_duration(keep_s)}")]

    def _writer(self) -> list[Change]:
        user, database = self._sink.user, self._sink.database
        path = self._config.secret_path(self._sink.password_file)
        steps = []
        if not path.exists():
            write_secret(path, secrets.token_urlsafe(24))
            steps.append(Change(True, f"password file {path}"))
        password = self._config.secret(self._sink.password_file)
        if user not in self._column("SHOW USERS", "user"):
            self._ask(f"CREATE USER {_name(user)} WITH PASSWORD {_text(password)}")
            steps.append(Change(True, f"user {user}"))
        elif not self._lets_in(user, password):
            self._ask(f"SET PASSWORD FOR {_name(user)} = {_text(password)}")
            steps.append(Change(True, f"password of user {user}"))
        else:
            steps.append(Change(False, f"user {user}"))
        grants = {row["database"]: row["privilege"] for row in self._ask(f"SHOW GRANTS FOR {_name(user)}")}
        granted = grants.get(database) in ("WRITE", "ALL PRIVILEGES")
        if not granted:
            self._ask(f"GRANT WRITE ON {_name(database)} TO {_name(user)}")
        return [*steps, Change(not granted, f"user {user} may write to {database}")]

    def _lets_in(self, user: str, password: str) -> bool:
        try:
            self._ask("SHOW DATABASES", Admin(user, password))
        except NotAllowed:
            return False
        return True

    def _column(self, statement: str, column: str) -> list[str]:
        return [row[column] for row in self._ask(statement)]

    def _ask(self, statement: str, who: Admin | None = None) -> list[dict[str, Any]]:
        """Return the rows of a statement."""
        who = who or self._admin
        login = basic(who.user, who.secret) if who.secret else {}
        headers = {"Content-Type": "application/x-www-form-urlencoded", **login}
        status, text = request(self._sink, "POST", f"{_base(self._sink)}/query", urlencode({"q": statement}), headers)
        answer = _json(text)
        results = answer.get("results", [{}])
        error = answer.get("error") or results[0].get("error")
        if status == 401 and not who.secret:
            raise ConfigError(f"{_missing_secret(self._config, self._sink)} (it says: {error or text[:200]})")
        if status != 200 or error:
            raise NotAllowed(f"{self._sink.url}: {statement.split(' PASSWORD')[0]}: {status} {error or text[:200]}")
        return [
            dict(zip(series["columns"], row, strict=True))
            for series in results[0].get("series", [])
            for row in series.get("values", [])
        ]


class HttpResponse(NamedTuple):
    """A server's response."""

    status: int
    text: str


def request(
    sink: SinkConfig, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return the response to one request; LinkDown when there is none."""
    connection = connect(sink)
    try:
        connection.request(method, path, body.encode(), dict(headers or {}))
        response = connection.getresponse()
        return HttpResponse(response.status, response.read().decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException) as error:
        raise LinkDown(
            f"sink {sink.name}: {sink.url} does not answer: {error}; is it running, and the url right?"
        ) from error
    finally:
        connection.close()


def first_set_up_is_due(sink: SinkConfig) -> bool:
    """Return whether an InfluxDB 2.x has not been set up yet: it then rejects every token."""
    return _json(request(sink, "GET", f"{_base(sink)}/api/v2/setup").text).get("allowed") is True


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _name(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _duration(seconds: int) -> str:
    return f"{seconds}s" if seconds else "INF"


def shard_s(keep_s: int) -> int:
    """Return the server's default shard group duration; it rejects one longer than the retention."""
    if keep_s == FOREVER or keep_s >= 180 * SECONDS["d"]:
        return 7 * SECONDS["d"]
    return SECONDS["d"] if keep_s >= 2 * SECONDS["d"] else SECONDS["h"]


def _seconds(duration: str) -> int:
    """Return the seconds of a duration in the server's format: "720h0m0s", "0s"."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(\d+)s", duration)
    if not found:
        raise NotAllowed(f"the server speaks of a duration {duration!r}, which cannot be understood")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def check_sink(config: ShipConfig, sink: SinkConfig) -> list[tuple[bool, str]]:
    """Return for each check whether it succeeded and a message, with advice where it did not.

    Writes no points: the server responds to an empty body only after it has checked credentials and destination.
    """
    try:
        secret_name = sink.password_file or sink.token_file
        opened = endpoint(sink, config.secret(secret_name) if secret_name else "")
    except ConfigError as error:
        return [(False, str(error))]
    try:
        ping = request(sink, "GET", f"{_base(sink)}/ping")
        answers = ping.status == 204
        found = [(answers, f"{sink.url} answers" if answers else f"{sink.url}: /ping says {ping.status}, not 204")]
        write = request(sink, "POST", opened.path, "", opened.headers)
    except LinkDown as error:
        return [(False, str(error))]
    return [*found, _judge_write(sink, write)]


ADVICE = {
    401: "the user or token is not known: look at the secret's file, or run `collectors sink setup`",
    403: "the user or token may not write there: run `collectors sink setup`",
    500: "if it is the retention policy that is missing: run `collectors sink setup`",
    404: "there is no such database, organisation or bucket: run `collectors sink setup`",
}


def _judge_write(sink: SinkConfig, write: HttpResponse) -> tuple[bool, str]:
    place, text = sink.database or sink.bucket, write.text.strip()
    if write.status in (204, 400) or (write.status == 200 and not text):  # 400: empty body, but access granted
        return True, f"may write to {place}"
    advice = _other_generation(sink) or ADVICE.get(write.status, "this does not look like InfluxDB")
    return False, f"write to {place}: {write.status} {text[:200]}; {advice}"
