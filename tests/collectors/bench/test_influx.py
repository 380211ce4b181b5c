"""The bench on an existing server: databases it creates are announced and dropped; 2.x needs a token."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from collectors.bench.influx import DATABASE, Access, Influx, Influx2, PrivateInflux, Unreachable, find
from collectors.errors import ConfigError

needs_influxd = pytest.mark.skipif(shutil.which("influxd") is None, reason="needs Debian's package influxdb")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateInflux]:
    """A server without users, as a laboratory often has it."""
    influx = PrivateInflux(tmp_path / "influxdb")
    influx.start()
    yield influx
    influx.stop()


def run(*arguments: str) -> tuple[dict[str, Any], str]:
    """Return the JSON summary of a short run and its other output."""
    command = [sys.executable, "-m", "collectors", "bench", "--json", "--for", "6", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout), done.stderr


def databases(influx: Influx) -> set[str]:
    return {row[0] for series in influx.query("SHOW DATABASES") for row in series.get("values", [])}


@needs_influxd
def test_the_database_is_announced_and_dropped_unless_it_is_kept_on_request(server: PrivateInflux) -> None:
    summary, said = run("--influx", server.url)
    assert DATABASE in said and "dropped at its end" in said
    assert summary["database"] == f"{DATABASE} on {server.url}, dropped"
    assert summary["read_back"]["rows"] > 0 and summary["problems"] == []
    assert DATABASE not in databases(server)

    summary, _ = run("--influx", server.url, "--keep-database")
    assert "stays: --keep-database" in summary["database"] and DATABASE in databases(server)

    summary, said = run("--influx", server.url)
    assert "was there before and stays" in said and DATABASE in databases(server)


class Api:
    """The part of a 2.x API that the bench uses, in the forms recorded with 2.7.12."""

    def __init__(self, orgs: dict[str, str]) -> None:
        self.token = secrets.token_urlsafe(12)
        self.orgs = orgs
        self.buckets: dict[str, str] = {}

    def respond(self, method: str, path: str, token: str | None, body: Any) -> tuple[int, Any]:
        if path == "/ping":
            return 204, None
        if path == "/api/v2/setup":
            return 200, {"allowed": False}
        if token != f"Token {self.token}":
            return 401, {"code": "unauthorized", "message": "unauthorized access"}
        if path.startswith("/api/v2/orgs"):
            return 200, {"orgs": [{"name": name, "id": number} for name, number in self.orgs.items()]}
        if method == "POST":
            self.buckets[body["name"]] = body["orgID"]
            return 201, {"id": "7e329b03ddb92f59", "name": body["name"]}
        if method == "DELETE":
            self.buckets.clear()
            return 204, None
        if self.buckets:
            return 200, {"buckets": [{"id": "7e329b03ddb92f59"}]}
        return 404, {"code": "not found", "message": f'bucket "{DATABASE}" not found'}


@pytest.fixture
def api() -> Api:
    return Api({"lab": "1fe5ca778b0803a9"})


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            status, body = api.respond(self.command, self.path, self.headers.get("Authorization"), sent)
            self.send_response(status)
            self.send_header("X-Influxdb-Version", "v2.7.12")
            self.end_headers()
            if body is not None:
                self.wfile.write(json.dumps(body).encode())

        do_GET = do_POST = do_DELETE = respond  # noqa: N815 - the names that the base class calls

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def found(url: str, api: Api, tmp_path: Path, org: str = "") -> Influx2:
    influx = find(url, tmp_path, Access(lambda asked: api.token if asked == url else "", org))
    assert isinstance(influx, Influx2)
    return influx


def test_a_bucket_is_created_once_and_deleted(url: str, api: Api, tmp_path: Path) -> None:
    influx = found(url, api, tmp_path)
    assert influx.prepare(DATABASE) and api.buckets == {DATABASE: "1fe5ca778b0803a9"}
    assert not influx.prepare(DATABASE)
    influx.drop(DATABASE)
    assert api.buckets == {}


def test_the_shipper_gets_the_token_in_a_file_for_its_owner(url: str, api: Api, tmp_path: Path) -> None:
    sink = found(url, api, tmp_path).sink(DATABASE, tmp_path)
    file = Path(sink.pop("token_file"))
    assert sink == {"dialect": "influxdb2", "url": url, "org": "lab", "bucket": DATABASE}
    assert file.read_text() == api.token and file.stat().st_mode & 0o777 == 0o600


def test_without_a_token_the_message_says_how_to_give_one(url: str, tmp_path: Path) -> None:
    for access in (None, Access(lambda _: "")):
        with pytest.raises(ConfigError, match="--influx-token-file or INFLUX_TOKEN"):
            find(url, tmp_path, access)


def test_a_rejected_token_is_reported_with_the_servers_message(url: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"401 .*unauthorized access"):
        find(url, tmp_path, Access(lambda _: "wrong"))


def test_of_several_organisations_one_must_be_named(url: str, api: Api, tmp_path: Path) -> None:
    api.orgs["test"] = "2fe5ca778b0803a9"
    with pytest.raises(ConfigError, match="--influx-org; this token sees: lab, test"):
        found(url, api, tmp_path)
    with pytest.raises(ConfigError, match="no organisation 'none'"):
        found(url, api, tmp_path, "none")
    assert found(url, api, tmp_path, "test").sink(DATABASE, tmp_path)["org"] == "test"
