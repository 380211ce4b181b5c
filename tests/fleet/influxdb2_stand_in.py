"""A stand-in for InfluxDB 2.x as the role's module meets it; standard library only, since it also runs on hosts.

Written from the vendor's API reference (openapi: paths/tasks.yml, TaskCreateRequest, TaskUpdateRequest, write, legacy
query) and from v1/authorization/http_server.go: it answers what `influxdb2` asks, in their forms, and refuses
everything else. It proves our side of the contract, not the vendor's. Run as a program it
listens on 127.0.0.1:8086 and forgets everything when it ends.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SETUP = {"username", "password", "org", "bucket", "retentionPeriodSeconds", "token"}
TASK = {"orgID", "org", "name", "description", "flux", "status"}
TASK_UPDATE = {"status", "flux", "name", "every", "cron", "offset", "description"}
OPTION = re.compile(r'^option task = \{name: "([^"]+)", every: \w+(, offset: \w+)?\}$', re.MULTILINE)
WRITES = ("/write", "/api/v2/write")


class Refusal(Exception):
    """Status and what is said."""


class Api:
    """What the server knows; `changes` are the requests that changed it."""

    def __init__(self) -> None:
        """Make a server that nobody has set up yet."""
        self.token = ""
        self.orgs: list[dict[str, Any]] = []
        self.buckets: list[dict[str, Any]] = []
        self.dbrps: list[dict[str, Any]] = []
        self.legacy: list[dict[str, Any]] = []
        self.passwords: dict[str, str] = {}
        self.tasks: list[dict[str, Any]] = []
        self.lines: dict[str, dict[tuple[str, str], str]] = {}
        self.changes: list[str] = []
        self._ids = itertools.count(1)

    def handle(self, method: str, path: str, query: dict[str, str], login: str, body: bytes) -> tuple[int, Any]:
        """Return status and answer."""
        content = json.loads(body) if body and path not in WRITES else {}
        if method != "GET" and path != "/write":
            self.changes.append(f"{method} {path}")
        match method, path.strip("/").split("/"):
            case "GET", ["health"]:
                return 200, {"status": "pass"}
            case "GET", ["api", "v2", "setup"]:
                return 200, {"allowed": not self.token}
            case "POST", ["api", "v2", "setup"]:
                return 201, self._set_up(content)
            case "POST", ["write"]:
                return self._write(query, login), {}
        if login != f"Token {self.token}" or not self.token:
            return 401, {"code": "unauthorized", "message": "unauthorized access"}
        if path == "/api/v2/write":
            return self._store(query, body.decode()), None
        return self._administer(method, path, query, content)

    def _administer(self, method: str, path: str, query: dict[str, str], content: dict[str, Any]) -> tuple[int, Any]:
        match method, path.strip("/").split("/"):
            case "GET", ["api", "v2", "orgs"]:
                return 200, {"orgs": [org for org in self.orgs if org["name"] == query["org"]]}
            case "GET", ["api", "v2", "buckets"]:
                return 200, {"buckets": [b for b in self.buckets if b["name"] == query["name"]]}
            case "POST", ["api", "v2", "buckets"]:
                return 201, self._bucket(content["name"], content["retentionRules"])
            case "PATCH", ["api", "v2", "buckets", bucket]:
                self._of(self.buckets, bucket)["retentionRules"] = content["retentionRules"]
                return 200, {}
            case "GET", ["api", "v2", "dbrps"]:
                return 200, {"content": self._mappings()}
            case "POST", ["api", "v2", "dbrps"]:
                self._of(self.buckets, content["bucketID"])
                self.dbrps.append({**content, "id": self._id(), "virtual": False})
                return 201, self.dbrps[-1]
            case "GET", ["api", "v2", "tasks"]:
                self._of(self.orgs, query["orgID"])
                return 200, {"tasks": [task for task in self.tasks if task["name"] == query["name"]]}
            case "POST", ["api", "v2", "tasks"]:
                self._of(self.orgs, content["orgID"])
                self.tasks.append({"id": self._id(), **self._task(content, TASK)})
                return 201, self.tasks[-1]
            case "PATCH", ["api", "v2", "tasks", number]:
                self._of(self.tasks, number).update(self._task(content, TASK_UPDATE))
                return 200, self._of(self.tasks, number)
            case "GET", ["query"]:
                return 200, {"results": [{"statement_id": 0, **self._select(query)}]}
            case "GET", ["private", "legacy", "authorizations"]:
                return 200, {"authorizations": self.legacy}
            case "POST", ["private", "legacy", "authorizations"]:
                return 201, self._authorize(content)
            case "POST", ["private", "legacy", "authorizations", number, "password"]:
                self._of(self.legacy, number)
                self.passwords[number] = content["password"]
                return 204, None
            case "DELETE", ["private", "legacy", "authorizations", number]:
                self.legacy.remove(self._of(self.legacy, number))
                return 204, None
        raise Refusal(404, f"the stand-in does not know {method} {path}")

    def _id(self) -> str:
        return f"{next(self._ids):016x}"

    @staticmethod
    def _of(things: list[dict[str, Any]], number: str) -> dict[str, Any]:
        for thing in things:
            if thing["id"] == number:
                return thing
        raise Refusal(404, f"no {number}")

    def _set_up(self, content: dict[str, Any]) -> dict[str, Any]:
        if self.token or content.keys() - SETUP:
            raise Refusal(422, f"already set up, or unknown keys: {sorted(content.keys() - SETUP)}")
        self.token = content["token"]
        self.orgs.append({"id": self._id(), "name": content["org"]})
        seconds = content["retentionPeriodSeconds"]
        self._bucket(content["bucket"], [{"type": "expire", "everySeconds": seconds}] if seconds else [])
        return {}

    def _bucket(self, name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
        self.buckets.append({"id": self._id(), "name": name, "retentionRules": rules})
        return self.buckets[-1]

    def _mappings(self) -> list[dict[str, Any]]:
        """Return explicit mappings, and the virtual ones of buckets called "database/policy" that have none."""
        explicit = {d["bucketID"] for d in self.dbrps}
        virtual = []
        for bucket in self.buckets:
            database, _, policy = bucket["name"].partition("/")
            if bucket["id"] not in explicit:
                names = {"database": database, "retention_policy": policy, "bucketID": bucket["id"]}
                virtual.append({**names, "id": bucket["id"], "virtual": True})
        return self.dbrps + virtual

    def _authorize(self, content: dict[str, Any]) -> dict[str, Any]:
        if not content["permissions"] or not content["token"] or content["orgID"] != self.orgs[0]["id"]:
            raise Refusal(400, "token, permissions and orgID are required")
        if any(a["token"] == content["token"] for a in self.legacy):
            raise Refusal(422, "token already exists")
        for permission in content["permissions"]:
            self._of(self.buckets, permission["resource"]["id"])
        self.legacy.append({**content, "id": self._id(), "status": "active"})
        return self.legacy[-1]

    @staticmethod
    def _task(content: dict[str, Any], known: set[str]) -> dict[str, Any]:
        """Return what is stored of a task: the text as it came, and the name that the text gives itself."""
        named = OPTION.search(content.get("flux", ""))
        if content.keys() - known or not named:
            raise Refusal(
                400, f"failed to decode request: {sorted(content.keys() - known) or 'missing flux or options'}"
            )
        return {**content, "name": named[1]}

    def _store(self, query: dict[str, str], text: str) -> int:
        """Keep lines, one of each series and time; the reference wants org, bucket, and the precision of the stamps."""
        if query["org"] != self.orgs[0]["name"] or query["precision"] not in ("ns", "us", "ms", "s"):
            raise Refusal(404, "organization not found, or no such precision")
        if query["bucket"] not in [bucket["name"] for bucket in self.buckets]:
            raise Refusal(404, f'bucket "{query["bucket"]}" not found')
        for line in text.splitlines():
            series, _, stamp = line.split(" ")
            self.lines.setdefault(query["bucket"], {})[series, stamp] = line
        return 204

    def _select(self, query: dict[str, str]) -> dict[str, Any]:
        """Return the one series that the module asks for, through an explicit mapping; columns in InfluxQL's order."""
        mapped = {(d["database"], d["retention_policy"]): d["bucketID"] for d in self.dbrps}
        bucket = self._of(self.buckets, mapped[query["db"], query["rp"]])["name"]
        measurement = query["q"].removeprefix('SELECT * FROM "').removesuffix('"')
        found = []
        for line in self.lines.get(bucket, {}).values():
            series, fields, stamp = line.split(" ")
            name, *tags = series.split(",")
            pairs = [pair.split("=", 1) for pair in tags + fields.split(",")]
            values = {k: float(v) if v[0].isdigit() else v.strip('"') for k, v in pairs}
            if name == measurement:
                found.append({"time": int(stamp)} | dict(sorted(values.items())))
        if not found:
            return {}
        return {"series": [{"name": measurement, "columns": [*found[0]], "values": [[*row.values()] for row in found]}]}

    def _write(self, query: dict[str, str], login: str) -> int:
        """Return 401 for a stranger, 403 for one who may not write there, 204 else."""
        for known in self.legacy:
            secret = f"{known['token']}:{self.passwords.get(known['id'])}".encode()
            if login == "Basic " + base64.b64encode(secret).decode():
                bucket = next(b["id"] for b in self.buckets if b["name"] == f"{query['db']}/{query['rp']}")
                allowed = [("write", bucket)]
                return 204 if [(p["action"], p["resource"]["id"]) for p in known["permissions"]] == allowed else 403
        return 401


def handler_of(api: Api) -> type[BaseHTTPRequestHandler]:
    """Return the class that speaks HTTP for this server."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            try:
                status, found = api.handle(self.command, parts.path, query, self.headers.get("Authorization", ""), body)
            except Refusal as refusal:
                status, found = refusal.args[0], {"message": refusal.args[1]}
            text = b"" if status == 204 else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8086), handler_of(Api())).serve_forever()
