"""Detects which InfluxDB responds at an address, without a user or a token.

    GET /ping             both generations: 204 and the header X-Influxdb-Version; a build from source may give
                          "dev", a proxy may remove the header
    GET /api/v2/setup     2.x: 200 with {"allowed": …}; 1.x: 404
    GET /query            1.x with users: 401

Source: recorded responses of InfluxDB 1.6.7 and 2.7.12.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Literal
from urllib.parse import urlsplit

from collectors.errors import ConfigError, LinkDown

TIMEOUT_S = 5.0
MAX_BODY_BYTES = 64 * 1024
SUCCESS = 200, 204

Dialect = Literal["influxdb1", "influxdb2"]


@dataclass(frozen=True, slots=True)
class Detected:
    """The server at an address."""

    dialect: Dialect
    version: str
    """Without a leading "v", for example "1.6.7"; empty when the server does not report it."""
    has_users: bool = False
    """1.x: whether the server requires a user and a password."""


def detect(url: str, ca_file: str = "") -> Detected:
    """Return the server that responds at the URL; LinkDown when there is none, or it is not InfluxDB 1.x or 2.x."""
    status, version, _ = _get(url, "/ping", ca_file)
    if version.startswith("1."):
        return _version_1(url, version, ca_file)
    if version.startswith("2."):  # a reverse proxy may pass only /ping, /write and /query
        return Detected("influxdb2", version)
    setup_status, _, body = _get(url, "/api/v2/setup", ca_file)
    if setup_status == 200 and _is_setup(body):
        return Detected("influxdb2", version)
    if status in SUCCESS and version:
        return _version_1(url, version, ca_file)
    raise LinkDown(f"{url}: expected InfluxDB 1.x or 2.x, got status {status} for /ping and no version")


def _version_1(url: str, version: str, ca_file: str) -> Detected:
    status, _, _ = _get(url, "/query?q=SHOW+DATABASES", ca_file)
    return Detected("influxdb1", version, has_users=status == 401)


def _is_setup(body: bytes) -> bool:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "allowed" in found


def _get(url: str, path: str, ca_file: str) -> tuple[int, str, bytes]:
    """Return status, version and the beginning of the body."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url}: expected http://HOST:PORT or https://HOST:PORT ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url}: expected http://HOST:PORT or https://HOST:PORT")
    try:
        connection: HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file or None)
            connection = HTTPSConnection(parts.hostname, port, timeout=TIMEOUT_S, context=context)
        else:
            connection = HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", parts.path.rstrip("/") + path)
            response = connection.getresponse()
            version = response.headers.get("X-Influxdb-Version", "").removeprefix("v")
            return response.status, version, response.read(MAX_BODY_BYTES)
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        raise LinkDown(f"{url}: no response: {error}") from error
