"""Detection of the InfluxDB generation: recorded responses, builds without a version, other servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from collectors.errors import ConfigError, LinkDown
from collectors.shipper.influxdb.detect import Detected, detect
from tests.testing.influx import Influx

Response = tuple[int, Mapping[str, str], bytes]

PING_2, SETUP_2 = {"X-Influxdb-Build": "OSS", "X-Influxdb-Version": "v2.7.12"}, b'{\n\t"allowed": false\n}'
RECORDED_2: Mapping[str, Response] = {"/ping": (204, PING_2, b""), "/api/v2/setup": (200, PING_2, SETUP_2)}


@contextmanager
def serving(responses: Mapping[str, Response]) -> Iterator[str]:
    """Serve these responses to GET by path, 404 for others; give the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = responses.get(self.path, (404, {}, b"404 page not found\n"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_recorded_2_is_detected() -> None:
    with serving(RECORDED_2) as url:
        assert detect(url) == Detected("influxdb2", "2.7.12")


def test_a_2_without_a_version_header_is_detected_by_its_api() -> None:
    with serving({"/ping": (204, {"X-Influxdb-Version": "dev"}, b""), "/api/v2/setup": (200, {}, SETUP_2)}) as url:
        assert detect(url) == Detected("influxdb2", "dev")
    with serving({"/ping": (204, {}, b""), "/api/v2/setup": (200, {}, SETUP_2)}) as url:
        assert detect(url) == Detected("influxdb2", "")


def test_a_2_behind_a_path_is_detected() -> None:
    with serving({f"/influx{path}": response for path, response in RECORDED_2.items()}) as url:
        assert detect(f"{url}/influx/").dialect == "influxdb2"


def test_a_2_behind_a_web_server_that_hides_its_api_is_detected_by_its_version() -> None:
    with serving({"/ping": (204, PING_2, b"")}) as url:
        assert detect(url) == Detected("influxdb2", "2.7.12")


def test_a_real_1_is_detected(influx: Influx) -> None:
    found = detect(influx.url)
    assert found.dialect == "influxdb1" and found.version.startswith("1.") and found.has_users


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b'"allowed"', b"[" * 5000, b"\xff"])
def test_another_server_is_not_taken_for_one(body: bytes) -> None:
    pages = {"/ping": (200, {}, body), "/api/v2/setup": (200, {}, body)}
    with serving(pages) as url, pytest.raises(LinkDown, match=r"expected InfluxDB 1\.x or 2\.x"):
        detect(url)


def test_an_absent_server_is_reported_with_its_address() -> None:
    with pytest.raises(LinkDown, match=r"127\.0\.0\.1:1: no response"):
        detect("http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["ftp://x", "influx.example.org:8086", "http://", "http://a:99999", "http://[::1"])
def test_a_wrong_address_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        detect(url)
