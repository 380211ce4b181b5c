"""A stand-in for InfluxDB 2.x: set-up, users, buckets, DBRP mappings, tasks, writes, and simple InfluxQL.

Standard library only, since it also runs as a program on booted hosts: it then listens on 127.0.0.1:8086 and forgets
everything when it ends. It responds as a real InfluxDB OSS 2.7.12 does:
`tests/collectors/shipper/influxdb/test_contract.py` plays a recording of that server against it and names what is not
modelled. Such a request is refused with status 501. Of Flux it runs the two scripts of `battfleet-backup` alone.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

VERSION = "v2.7.12"
PAGE = 20
DAY_S = 86_400
PRECISIONS_NS = {"ns": 1, "n": 1, "us": 1_000, "u": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    422: "unprocessable entity",
    501: "not modelled",
}
TASK = {"orgID", "org", "name", "description", "flux", "status"}
TASK_UPDATE = {"status", "flux", "name", "every", "cron", "offset", "description"}
OPTION = re.compile(r'^option task = \{name: "([^"]+)", every: (\w+)(, offset: \w+)?\}$', re.MULTILINE)
STATEMENTS = "SELECT, DELETE, SHOW, CREATE, DROP, EXPLAIN, GRANT, REVOKE, ALTER, SET, KILL"
UNKNOWN = "unauthorized access"
Json = dict[str, Any]


class Refusal(Exception):
    """Status, message, and the vendor's code where it is not the status's usual one."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code or CODES[status]


class Point:
    """A parsed line of line protocol; `line` is its text before the stamp's precision is applied."""

    def __init__(self, line: str, scale_ns: int, now_ns: int) -> None:
        parts = re.findall(r'(?:[^ "\\]|\\.|"(?:[^"\\]|\\.)*")+', line)
        if len(parts) not in (2, 3):
            raise Refusal(400, f"unable to parse '{line}': missing fields")
        self.line = line
        self.series = parts[0]
        self.measurement, *tags = split(parts[0], ",")
        self.tags = dict(self._pair(tag, "missing tag value") for tag in tags)
        self.fields = {
            key: self._value(text) for key, text in (self._pair(f, "missing field value") for f in split(parts[1], ","))
        }
        self.stamp_ns = int(parts[2]) * scale_ns if len(parts) == 3 else now_ns

    def _pair(self, text: str, missing: str) -> tuple[str, str]:
        key, _, value = text.partition("=")
        if not value:
            raise Refusal(400, f"unable to parse '{self.line}': {missing}")
        return key, value

    def _value(self, text: str) -> float | int | bool | str:
        if text[0] == '"':
            return text[1:-1]
        if text in ("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"):
            return text[0] in "tT"
        if re.fullmatch(r"-?\d+i", text):
            return int(text[:-1])
        if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
            raise Refusal(400, f"unable to parse '{self.line}': invalid number")
        return float(text)


def split(text: str, by: str) -> list[str]:
    """Return the parts of a text between separators that are neither escaped nor quoted."""
    return re.findall(rf'(?:[^{by}"\\]|\\.|"(?:[^"\\]|\\.)*")+', text)


def shard_s(keep_s: int) -> int:
    """Return the shard group duration that the server chooses for a retention period; 0 keeps points without limit."""
    if not keep_s or keep_s >= 180 * DAY_S:
        return 7 * DAY_S
    return DAY_S if keep_s >= 2 * DAY_S else 3600


def go_duration(seconds: int) -> str:
    """Return seconds as Go writes them: "24h0m0s", "0s"."""
    return f"{seconds // 3600}h{seconds % 3600 // 60}m{seconds % 60}s" if seconds >= 3600 else f"{seconds}s"


def iso(stamp_ns: int) -> str:
    """Return a time as the server writes it."""
    return datetime.fromtimestamp(stamp_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + (
        f".{stamp_ns % 1_000_000_000:09d}Z" if stamp_ns % 1_000_000_000 else "Z"
    )


class Api:
    """What the server stores; `changes` are the requests that changed it. `clock` returns the time in s."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Create a server without any user."""
        self.url = ""
        self.token = ""
        self.user: Json = {}
        self.orgs: list[Json] = []
        self.buckets: list[Json] = []
        self.dbrps: list[Json] = []
        self.authorizations: list[Json] = []
        self.legacy: list[Json] = []
        self.passwords: dict[str, str] = {}
        self.tasks: list[Json] = []
        self.stored: dict[str, dict[tuple[str, int], Point]] = {}
        self.changes: list[str] = []
        self.clock = clock
        self.hides_tokens = False
        """As 2.9 does, which stores hashes: a token is shown once, when it is made."""
        self._defaults: dict[tuple[str, str], str] = {}
        self._ids = itertools.count(1)

    def onboard(self, org: str = "lab", bucket: str = "first") -> str:
        """Do the first set-up with a new operator token; return that token."""
        token = secrets.token_urlsafe(16)
        self._set_up(
            {"username": "admin", "password": secrets.token_urlsafe(12), "org": org, "bucket": bucket, "token": token}
        )
        return token

    def points(self, bucket: str) -> list[Point]:
        """Return the points in the bucket of this name, in order of time."""
        (found,) = (b for b in self.buckets if b["name"] == bucket)
        return sorted(self.stored.get(found["id"], {}).values(), key=lambda point: point.stamp_ns)

    def lines(self, bucket: str) -> list[str]:
        """Return the lines of the bucket of this name, in the order of their first write."""
        (found,) = (b for b in self.buckets if b["name"] == bucket)
        return [point.line for point in self.stored.get(found["id"], {}).values()]

    def handle(self, method: str, path: str, query: dict[str, str], login: str, body: bytes) -> tuple[int, Any]:
        """Return status and body; raise Refusal for an error."""
        parts = path.strip("/").split("/")
        match method, parts:
            case "GET", ["health"]:
                checks: Json = {"name": "influxdb", "message": "ready for queries and writes", "status": "pass"}
                return 200, checks | {"checks": [], "version": VERSION, "commit": "ec9dcde5d6"}
            case "GET", ["ping"]:
                return 204, None
            case "POST", ["write"]:
                return self._write_v1(query, login, body)
            case "POST", ["api", "v2", "write"]:
                return self._write_v2(query, login, body)
            case (("GET" | "POST"), ["query"]):
                return 200, self._influxql(method, {**query, **_form(body)}, login)
            case "POST", ["api", "v2", "query"]:
                return 200, self._flux(body.decode(), login)
        if method != "GET":
            self.changes.append(f"{method} {path}")
        content = json.loads(body) if body else {}
        match method, parts:
            case "GET", ["api", "v2", "setup"]:
                return 200, {"allowed": not self.token}
            case "POST", ["api", "v2", "setup"]:
                return 201, self._set_up(content)
        if not self.token or login != f"Token {self.token}":
            raise Refusal(401, UNKNOWN)
        found = self._administer(method, parts, query, content)
        return found if isinstance(found, tuple) else (200, found)

    def _administer(self, method: str, parts: list[str], query: dict[str, str], content: Json) -> Any:
        match parts:
            case ["api", "v2", "orgs", *number]:
                return self._orgs(method, number, query, content)
            case ["api", "v2", "buckets", *number]:
                return self._buckets(method, number, query, content)
            case ["api", "v2", "dbrps", *number]:
                return self._dbrps(method, number, query, content)
            case ["api", "v2", "authorizations", *number]:
                return self._rights(self.authorizations, method, number, content)
            case ["private", "legacy", "authorizations", number, "password"]:
                return self._password(number, content["password"])
            case ["private", "legacy", "authorizations", *number]:
                return self._rights(self.legacy, method, number, content)
            case ["api", "v2", "tasks", *number]:
                return self._tasks(method, number, query, content)
        raise Refusal(501, f"the stand-in does not model {method} /{'/'.join(parts)}")

    def _id(self) -> str:
        return f"{next(self._ids):016x}"

    @staticmethod
    def _of(things: list[Json], number: str) -> Json:
        for thing in things:
            if thing["id"] == number:
                return thing
        raise Refusal(404, f"no {number}")

    def _set_up(self, content: Json) -> Json:
        if self.token:
            raise Refusal(422, "onboarding has already been completed", "conflict")
        self.token = content.get("token") or secrets.token_urlsafe(16)
        self.user = {"id": self._id(), "name": content["username"], "status": "active"}
        org = self._add_org(content["org"])
        rules = [{"type": "expire", "everySeconds": content.get("retentionPeriodSeconds", 0)}]
        bucket = self._add_bucket({"orgID": org["id"], "name": content["bucket"], "retentionRules": rules})
        return {"user": self.user, "org": org, "bucket": bucket, "auth": {"token": self.token, "status": "active"}}

    def _orgs(self, method: str, number: list[str], query: dict[str, str], content: Json) -> Any:
        if (method, number) == ("POST", []):
            return 201, self._add_org(content["name"])
        if (method, number) != ("GET", []):
            raise Refusal(501, f"the stand-in does not model {method} of an organisation")
        found = [org for org in self.orgs if query.get("org") in (None, org["name"])]
        if "org" in query and not found:
            raise Refusal(404, f'organization name "{query["org"]}" not found')
        return {"orgs": _page(found, query)}

    def _add_org(self, name: str) -> Json:
        self.orgs.append({"id": self._id(), "name": name, "description": ""})
        return self.orgs[-1]

    def _buckets(self, method: str, number: list[str], query: dict[str, str], content: Json) -> Any:
        match method, number:
            case "GET", []:
                wanted = [("name", query.get("name")), ("orgID", query.get("orgID"))]
                found = [b for b in self.buckets if all(value in (None, b[key]) for key, value in wanted)]
                if not found and all(value for _, value in wanted):
                    raise Refusal(404, f'bucket "{query["name"]}" not found')
                return {"buckets": _page(found, query)}
            case "POST", []:
                return 201, self._add_bucket(content)
            case "PATCH", [one]:
                return self._change_bucket(self._of(self.buckets, one), content)
            case "DELETE", [one]:
                self.buckets.remove(self._of(self.buckets, one))
                self.stored.pop(one, None)
                for mapping in [d for d in self.dbrps if d["bucketID"] == one]:
                    self._drop_mapping(mapping)
                return 204, None
        raise Refusal(501, f"the stand-in does not model {method} of a bucket")

    def _add_bucket(self, content: Json) -> Json:
        org, name = self._of(self.orgs, content["orgID"])["id"], content["name"]
        if any((b["orgID"], b["name"]) == (org, name) for b in self.buckets):
            raise Refusal(422, f"bucket with name {name} already exists", "conflict")
        rule = (content.get("retentionRules") or [{}])[0]
        keep_s = rule.get("everySeconds", 0)
        made = {"id": self._id(), "orgID": org, "type": "user", "name": name}
        self.buckets.append(made)
        return self._keep(made, keep_s, rule.get("shardGroupDurationSeconds") or shard_s(keep_s))

    @staticmethod
    def _keep(bucket: Json, keep_s: int, group_s: int) -> Json:
        if 0 < keep_s < group_s:
            message = "shard-group duration must also be updated to be smaller than new retention duration"
            raise Refusal(422, message)
        rule = {"type": "expire", "everySeconds": keep_s, "shardGroupDurationSeconds": group_s}
        bucket["retentionRules"] = [rule]
        return bucket

    def _change_bucket(self, bucket: Json, content: Json) -> Json:
        if content.get("retentionRules"):  # an empty list changes nothing
            before, after = bucket["retentionRules"][0], content["retentionRules"][0]
            keep_s = after.get("everySeconds", before["everySeconds"])
            group_s = after.get("shardGroupDurationSeconds", before["shardGroupDurationSeconds"])
            self._keep(bucket, keep_s, group_s or shard_s(keep_s))
        bucket["name"] = content.get("name", bucket["name"])
        return bucket

    def _dbrps(self, method: str, number: list[str], query: dict[str, str], content: Json) -> Any:
        match method, number:
            case "GET", []:
                names = {"bucketID": "bucketID", "db": "database", "rp": "retention_policy"}
                asked = {names[key]: value for key, value in query.items() if key in names}
                return {"content": [d for d in self.mappings(asked) if all(d[k] == v for k, v in asked.items())]}
            case "POST", []:
                return 201, self._map(content)
            case "PATCH", [one]:
                mapping = self._of(self.dbrps, one)
                if content.get("default"):
                    self._defaults[mapping["orgID"], mapping["database"]] = one
                return {"content": self._shown(mapping)}
            case "DELETE", [one]:
                self._drop_mapping(self._of(self.dbrps, one))
                return 204, None
        raise Refusal(501, f"the stand-in does not model {method} of a mapping")

    def mappings(self, asked: Json | None = None) -> list[Json]:
        """Return explicit mappings, and the virtual ones that the buckets' own names make."""
        explicit = [self._shown(d) for d in self.dbrps if all(d[k] == v for k, v in (asked or {}).items())]
        shown = list(explicit)
        for bucket in self.buckets:
            database, cut, policy = bucket["name"].partition("/")
            names = {"database": database, "retention_policy": policy if cut else "autogen"}
            if any(all(d[k] == v for k, v in names.items()) for d in explicit):
                continue
            is_default = not cut and not any(d["default"] for d in explicit if d["database"] == database)
            place = {"orgID": bucket["orgID"], "bucketID": bucket["id"]}
            shown.append({"id": bucket["id"], **names, "default": is_default, "virtual": True, **place})
        return shown

    def _shown(self, mapping: Json) -> Json:
        is_default = self._defaults.get((mapping["orgID"], mapping["database"])) == mapping["id"]
        return {**mapping, "default": is_default, "virtual": False}

    def _map(self, content: Json) -> Json:
        self._of(self.buckets, content["bucketID"])
        keys = ("orgID", "database", "retention_policy")
        if any(all(d[key] == content[key] for key in keys) for d in self.dbrps):
            raise Refusal(422, "another DBRP mapping with same orgID, db, and rp exists", "conflict")
        mapping = {"id": self._id(), **{key: content[key] for key in (*keys, "bucketID")}}
        self.dbrps.append(mapping)
        database = (mapping["orgID"], mapping["database"])
        if content.get("default") or database not in self._defaults:
            self._defaults[database] = mapping["id"]
        return self._shown(mapping)

    def _drop_mapping(self, mapping: Json) -> None:
        self.dbrps.remove(mapping)
        database = (mapping["orgID"], mapping["database"])
        if self._defaults.get(database) == mapping["id"]:
            del self._defaults[database]
            for other in self.dbrps:
                if (other["orgID"], other["database"]) == database:
                    self._defaults.setdefault(database, other["id"])

    def _rights(self, things: list[Json], method: str, number: list[str], content: Json) -> Any:
        match method, number:
            case "GET", []:
                hidden = {"token": "REDACTED"} if self.hides_tokens and things is self.authorizations else {}
                return {"authorizations": [self._named(thing) | hidden for thing in things]}
            case "POST", []:
                return 201, self._named(self._authorize(things, content))
            case "PATCH", [one]:
                self._of(things, one)["status"] = content["status"]
                return self._named(self._of(things, one))
            case "DELETE", [one]:
                things.remove(self._of(things, one))
                return 204, None
        raise Refusal(501, f"the stand-in does not model {method} of an authorisation")

    def _authorize(self, things: list[Json], content: Json) -> Json:
        org = self._of(self.orgs, content["orgID"])
        if not content["permissions"] or (things is self.legacy and not content["token"]):
            raise Refusal(400, "token and permissions are required")
        if things is self.legacy and any(a["token"] == content["token"] for a in things):
            raise Refusal(422, "token already exists", "conflict")
        for permission in content["permissions"]:
            self._of(self.buckets, permission["resource"]["id"])
        made = {"id": self._id(), "token": secrets.token_urlsafe(32), "status": "active", "description": ""}
        things.append(made | content | {"org": org["name"], "userID": self.user["id"], "user": self.user["name"]})
        return things[-1]

    def _named(self, authorization: Json) -> Json:
        """Return an authorisation with the names of what it permits; a bucket that is gone has none."""
        shown = []
        for permission in authorization["permissions"]:
            resource = permission["resource"]
            names = [{"name": b["name"]} for b in self.buckets if b["id"] == resource["id"]]
            shown.append(
                {
                    "action": permission["action"],
                    "resource": {**resource, **(names or [{}])[0], "org": authorization["org"]},
                }
            )
        return {**authorization, "permissions": shown}

    def _password(self, number: str, password: str) -> tuple[int, Any]:
        self._of(self.legacy, number)
        if not 8 <= len(password) <= 72:
            raise Refusal(400, "passwords must be between 8 and 72 characters long")
        self.passwords[number] = password
        return 204, None

    def _tasks(self, method: str, number: list[str], query: dict[str, str], content: Json) -> Any:
        match method, number:
            case "GET", []:
                self._of(self.orgs, query["orgID"])
                return {"tasks": [task for task in self.tasks if query.get("name") in (None, task["name"])]}
            case "POST", []:
                org = self._of(self.orgs, content["orgID"])
                owner = {"orgID": org["id"], "org": org["name"], "ownerID": self.user["id"]}
                self.tasks.append({"id": self._id(), **owner, "status": "active", **self._task(content, TASK)})
                return 201, self.tasks[-1]
            case "PATCH", [one]:
                self._of(self.tasks, one).update(self._task(content, TASK_UPDATE))
                return self._of(self.tasks, one)
        raise Refusal(501, f"the stand-in does not model {method} of a task")

    @staticmethod
    def _task(content: Json, known: set[str]) -> Json:
        """Return what is stored of a task: the text as it came, and the name that the text gives itself."""
        flux = content.get("flux", "")
        last = flux.rstrip("\n").split("\n")
        if flux.count("(") > flux.count(")"):
            where = f"loc {len(last)}:1-{len(last)}:{len(last[-1]) + 1}"
            raise Refusal(400, f"invalid options: {where}: expected RPAREN, got EOF")
        named = OPTION.search(flux)
        if content.keys() - known or not named:
            unknown = sorted(content.keys() - known) or "missing flux or options"
            raise Refusal(400, f"failed to decode request: {unknown}")
        return {**content, "name": named[1], "every": named[2]}

    def _permitted(self, login: str) -> tuple[str, set[tuple[str, str]] | None]:
        """Return what a login may do: its status, and action and bucket; None may do everything. Refusal if unknown."""
        kind, _, secret = login.partition(" ")
        if kind == "Basic":
            user, _, secret = base64.b64decode(secret).decode().partition(":")
            for known in self.legacy:
                if known["token"] == user:
                    if known["status"] != "active" or self.passwords.get(known["id"]) != secret:
                        raise Refusal(401, "Unauthorized")
                    return "active", _rights_of(known)
        if self.token and secret == self.token:
            return "active", None
        for known in self.authorizations:
            if secret and known["token"] == secret:
                return known["status"], _rights_of(known)
        raise Refusal(401, UNKNOWN)

    def _write_v1(self, query: dict[str, str], login: str, body: bytes) -> tuple[int, Any]:
        rights = self._permitted(login)
        bucket = self._mapped(query["db"], query.get("rp", ""))
        if bucket is None:
            raise Refusal(404, "no dbrp mapping found")
        return self._write(self._of(self.buckets, bucket), rights, query, body)

    def _write_v2(self, query: dict[str, str], login: str, body: bytes) -> tuple[int, Any]:
        rights = self._permitted(login)
        org = next((org for org in self.orgs if query["org"] in (org["name"], org["id"])), None)
        if org is None:
            raise Refusal(404, f'organization name "{query["org"]}" not found')
        for bucket in self.buckets:
            if bucket["orgID"] == org["id"] and query["bucket"] in (bucket["name"], bucket["id"]):
                return self._write(bucket, rights, query, body)
        raise Refusal(404, f'bucket "{query["bucket"]}" not found')

    def _mapped(self, database: str, policy: str) -> str | None:
        """Return the bucket that InfluxQL's names mean; no policy means the database's default one."""
        for mapping in self.mappings():
            if mapping["database"] == database and (
                policy == mapping["retention_policy"] if policy else mapping["default"]
            ):
                return str(mapping["bucketID"])
        return None

    def _write(
        self, bucket: Json, rights: tuple[str, set[tuple[str, str]] | None], query: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        status, permitted = rights
        if status != "active":
            raise Refusal(403, "insufficient permissions for write: token is inactive")
        if permitted is not None and ("write", bucket["id"]) not in permitted:
            raise Refusal(403, "insufficient permissions for write")
        now_ns = int(self.clock() * 1e9)
        scale_ns = PRECISIONS_NS[query.get("precision", "ns")]
        points = [Point(line, scale_ns, now_ns) for line in body.decode().splitlines() if line]
        self._store(bucket, points, now_ns)
        return 204, None

    def _store(self, bucket: Json, points: list[Point], now_ns: int) -> None:
        """Store points, one for each series and time; raise Refusal for those that the server drops."""
        keep_s = bucket["retentionRules"][0]["everySeconds"]
        bound_ns = now_ns - keep_s * 1_000_000_000
        expired = [point for point in points if keep_s and point.stamp_ns < bound_ns]
        stored = self.stored.setdefault(bucket["id"], {})
        types = {(p.measurement, key): value for p in stored.values() for key, value in p.fields.items()}
        conflicts = []
        for point in points:
            if point in expired:
                continue
            wrong = [k for k, v in point.fields.items() if type(types.get((point.measurement, k), v)) is not type(v)]
            if wrong:
                conflicts.append((point, wrong[0]))
                continue
            types |= {(point.measurement, key): value for key, value in point.fields.items()}
            stored[point.series, point.stamp_ns] = point
        start, end = "failure writing points to database: partial write: ", f"for database: {bucket['id']}"
        if conflicts:
            point, field = conflicts[0]
            kinds = {float: "float", int: "integer", bool: "boolean", str: "string"}
            new, old = (kinds[type(value)] for value in (point.fields[field], types[point.measurement, field]))
            what = f'field type conflict: input field "{field}" on measurement "{point.measurement}" is type {new}, '
            raise Refusal(422, f"{start}{what}already exists as type {old} dropped={len(conflicts)}")
        if expired:
            violates = f"dropped because it violates a Retention Policy Lower Bound at {iso(bound_ns)}"
            ends = [f"{p.series} at {iso(p.stamp_ns)} {violates}" for p in sorted(expired, key=lambda p: p.stamp_ns)]
            what = f"dropped {len(expired)} points outside retention policy of duration {go_duration(keep_s)} - "
            what += f"oldest point {ends[0]}, newest point {ends[-1]} dropped={len(expired)} {end}"
            raise Refusal(422, f"{start}{what} for retention policy: autogen")

    def _influxql(self, method: str, query: dict[str, str], login: str) -> Json:
        _, permitted = self._permitted(login)
        statement = query["q"]
        first = statement.split()[0].upper()
        if first not in STATEMENTS.split(", "):
            raise Refusal(400, f"failed to parse query: found {first}, expected {STATEMENTS} at line 1, char 1")
        found = self._statement(statement, query, permitted)
        return {"results": [{"statement_id": 0, **found}]}

    def _statement(self, statement: str, query: dict[str, str], permitted: set[tuple[str, str]] | None) -> Json:
        for words in ("DROP DATABASE", "SHOW USERS", "CREATE CONTINUOUS QUERY"):
            if statement.startswith(words):
                return {"error": f"not implemented: {words}"}
        database = query.get("db", "")
        if statement == "SHOW DATABASES":
            names = dict.fromkeys(
                [
                    *(d["database"] for d in self.dbrps),
                    "_monitoring",
                    "_tasks",
                    *(d["database"] for d in self.mappings()),
                ]
            )
            return _series([[name] for name in names], ["name"], "databases")
        if statement.startswith("SHOW RETENTION POLICIES"):
            return self._policies(database)
        selected = re.fullmatch(
            r'SELECT (\*|[\w ,]+|count\(\*\)) FROM (?:"?(\w+)"?|/\.\*/)(?: WHERE time >= (\d+)s AND time < (\d+)s)?',
            statement,
        )
        values = re.fullmatch(r'SHOW TAG VALUES FROM "?(\w+)"? WITH KEY = "?(\w+)"?', statement)
        if "chunked" in query or not (selected or values or statement == "SHOW MEASUREMENTS"):
            raise Refusal(501, f"the stand-in does not model {statement}")
        if database not in [d["database"] for d in self.mappings()]:
            return {"error": f"database not found: {database}"}
        bucket = self._mapped(database, query.get("rp", ""))
        if bucket is None:
            return {"error": f"default retention policy not set for: {database}"} if selected else {}
        if permitted is not None and ("read", bucket) not in permitted:
            return {"error": f"insufficient permissions to read bucket {bucket}"}
        points = sorted(self.stored.get(bucket, {}).values(), key=lambda point: point.stamp_ns)
        if values:
            tags = dict.fromkeys(p.tags[values[2]] for p in points if p.measurement == values[1])
            return _series([[values[2], tag] for tag in sorted(tags)], ["key", "value"], values[1])
        if not selected:
            return _series([[name] for name in sorted({p.measurement for p in points})], ["name"], "measurements")
        columns, measurement, from_s, to_s = selected.groups()
        if from_s:
            points = [p for p in points if int(from_s) <= p.stamp_ns // 1_000_000_000 < int(to_s)]
        names = [measurement] if measurement else sorted({p.measurement for p in points})
        scale_ns = PRECISIONS_NS[query.get("epoch", "ns")]
        series = [_select(columns, name, [p for p in points if p.measurement == name], scale_ns) for name in names]
        return {"series": [one for each in series for one in each]} if any(series) else {}

    def _flux(self, script: str, login: str) -> str:
        """Return the CSV of a script that counts the values of a bucket, or copies them to another and counts them."""
        found = re.fullmatch(
            r'from\(bucketID: "(\w+)"\) \|> range\(start: ([\d:TZ-]+), stop: ([\d:TZ-]+)\)'
            r'( \|> to\(bucketID: "(\w+)", orgID: "\w+"\))? \|> count\(\)'
            r' \|> group\((columns: \["_measurement", "_field"\])?\) \|> sum\(\)',
            script,
        )
        if not found:
            raise Refusal(501, f"the stand-in does not run {script}")
        if self._permitted(login)[1] is not None:
            raise Refusal(401, UNKNOWN)
        source, start, stop, copies, target, each = found.groups()
        if any(number not in [b["id"] for b in self.buckets] for number in (source, target) if number):
            raise Refusal(404, f'failed to initialize execute state: could not find bucket "{source}"')
        from_s, to_s = (
            int(t) if t.isdigit() else datetime.fromisoformat(t.replace("Z", "+00:00")).timestamp()
            for t in (start, stop)
        )
        points = [p for p in self.stored.get(source, {}).values() if from_s <= p.stamp_ns / 1e9 < to_s]
        if copies:
            self.stored.setdefault(target, {}).update({(p.series, p.stamp_ns): p for p in points})
        numbers: dict[tuple[str, ...], int] = {}
        for point in points:
            for field in point.fields:
                key = (point.measurement, field) if each else ()
                numbers[key] = numbers.get(key, 0) + 1
        head = ["_measurement", "_field"] if each else []
        lines = [["", "result", "table", *head, "_value"]] if numbers else []
        lines += [["", "_result", str(n), *key, str(numbers[key])] for n, key in enumerate(sorted(numbers))]
        return "".join(",".join(line) + "\r\n" for line in lines) + "\r\n"

    def _policies(self, database: str) -> Json:
        """Return the policies; whatever a bucket's retention is, 2.x says that it keeps everything."""
        columns = ["name", "duration", "shardGroupDuration", "replicaN", "default"]
        found = [
            [mapping["retention_policy"], "0s", "168h0m0s", 1, mapping["default"]]
            for mapping in self.mappings()
            if mapping["database"] == database
        ]
        return {"series": [{"columns": columns, "values": found}]}


def _rights_of(authorization: Json) -> set[tuple[str, str]]:
    return {(p["action"], p["resource"]["id"]) for p in authorization["permissions"]}


def _series(values: list[list[Any]], columns: list[str], name: str) -> Json:
    return {"series": [{"name": name, "columns": columns, "values": values}]} if values else {}


def _select(columns: str, name: str, points: list[Point], scale_ns: int) -> list[Json]:
    """Return the series of a SELECT; columns stand in InfluxQL's order, by name."""
    if not points:
        return []
    fields = sorted({key for p in points for key in p.fields})
    if columns == "count(*)":
        counts = [sum(key in p.fields for p in points) for key in fields]
        return [{"name": name, "columns": ["time", *(f"count_{key}" for key in fields)], "values": [[0, *counts]]}]
    if columns == "*":
        wanted = sorted({*fields, *(key for p in points for key in p.tags)})
    else:
        wanted = [key.strip() for key in columns.split(",")]
    rows = []
    for point in points:
        found = [point.fields.get(key, point.tags.get(key)) for key in wanted]
        if any(value is not None for value in found):
            rows.append([point.stamp_ns // scale_ns, *found])
    return [{"name": name, "columns": ["time", *wanted], "values": rows}] if rows else []


def _page(found: list[Json], query: dict[str, str]) -> list[Json]:
    start = int(query.get("offset", 0))
    return found[start : start + int(query.get("limit", PAGE))]


def _form(body: bytes) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(body.decode()).items()}


def handler_of(api: Api) -> type[BaseHTTPRequestHandler]:
    """Return the class that serves HTTP for this server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            code = ""
            try:
                status, found = api.handle(self.command, parts.path, query, self.headers.get("Authorization", ""), body)
            except Refusal as refusal:
                status, code = refusal.status, refusal.code
                found = {"code": code, "message": refusal.message}
            self.send_response(status)
            self.send_header("X-Influxdb-Build", "OSS")
            self.send_header("X-Influxdb-Version", VERSION)
            if code:
                self.send_header("X-Platform-Error-Code", code)
            text = b"" if found is None else found.encode() if isinstance(found, str) else json.dumps(found).encode()
            if status != 204:
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the library looks for these names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    return Handler


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    """Listen on loopback, at `api.url`, until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(api)) as listener:
        listener.daemon_threads = True
        api.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield api
        finally:
            listener.shutdown()
            thread.join()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8086), handler_of(Api())).serve_forever()
