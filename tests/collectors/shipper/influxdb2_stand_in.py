"""A stand-in for InfluxDB 2.x, written from the vendor's API reference: set-up, token check and writing.

No 2.x server could be had for these tests. The stand-in answers the requests that the shipper and its set-up make,
in the reference's forms, and refuses everything else loudly; it proves our side of the contract, not the vendor's.
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.line_protocol import Point, parse


@dataclass
class StandIn:
    """What the server knows, and what was done to it."""

    operator_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    url: str = ""
    orgs: list[dict[str, Any]] = field(default_factory=list)
    buckets: list[dict[str, Any]] = field(default_factory=list)
    dbrps: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[dict[str, Any]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def handle(self, method: str, path: str, query: dict[str, str], token: str, body: bytes) -> tuple[int, Any]:
        """Return status and answer."""
        if path == "/ping":
            return 204, None
        if path == "/api/v2/write":
            return self._write(query, token, body)
        if token != self.operator_token:
            return 401, {"code": "unauthorized", "message": "unauthorized access"}
        if method != "GET":
            self.changes.append(f"{method} {path}")
        match method, path.removeprefix("/api/v2/").split("/"):
            case "GET", ["orgs"]:
                return 200, {"orgs": self.orgs}
            case "GET", ["buckets"]:
                return 200, {"buckets": [b for b in self.buckets if b["name"] == query["name"]]}
            case "GET", ["dbrps"]:
                return 200, {"content": [d for d in self.dbrps if d["bucketID"] == query["bucketID"]]}
            case "GET", ["authorizations"]:
                return 200, {"authorizations": [{**a, "token": "redacted"} for a in self.authorizations]}
            case "POST", [("orgs" | "buckets" | "dbrps" | "authorizations") as kind]:
                return 201, self._create(kind, json.loads(body))
            case "PATCH", ["buckets", number]:
                (bucket,) = (b for b in self.buckets if b["id"] == number)
                bucket["retentionRules"] = json.loads(body)["retentionRules"]
                return 200, bucket
            case "DELETE", ["authorizations", number]:
                self.authorizations = [a for a in self.authorizations if a["id"] != number]
                return 204, None
        raise AssertionError(f"the stand-in does not know {method} {path}")

    def _create(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        made = {**body, "id": f"{next(self.ids):016x}"}
        if kind == "authorizations":
            made |= {"token": secrets.token_urlsafe(32), "status": "active"}
        store: list[dict[str, Any]] = getattr(self, kind)
        store.append(made)
        return made

    def _write(self, query: dict[str, str], token: str, body: bytes) -> tuple[int, Any]:
        rights = [a["permissions"] for a in self.authorizations if a["token"] == token]
        if not rights:
            return 401, {"code": "unauthorized", "message": "unauthorized access"}
        bucket = next((b for b in self.buckets if b["name"] == query["bucket"]), None)
        if bucket is None:
            return 404, {"code": "not found", "message": f'bucket "{query["bucket"]}" not found'}
        assert query["precision"] == "ns"
        assert [(p["action"], p["resource"]["id"]) for p in rights[0]] == [("write", bucket["id"])]
        self.points += parse(body.decode())
        return 204, None


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Give a stand-in that listens on loopback and ends with the block."""
    server = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            token = self.headers.get("Authorization", "").removeprefix("Token ")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = zlib.decompress(body, 31)
            status, said = server.handle(self.command, parts.path, query, token, body)
            text = b"" if said is None else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the library looks for these names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
