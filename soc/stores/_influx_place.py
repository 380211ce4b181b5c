"""Parse an InfluxDB place.

    influx:http://host:8086/DATABASE?device=t7&bench=b1&battery=lfp-1&from=-2h&user=soc&password_file=pw

    rp                                 retention policy; default: the database's own
    user + password_file, token_file   files with secrets, or names of systemd credentials; token: InfluxDB 2.x
    ca_file                            certificate authority for https
    …                                  which signals: see `_select`

InfluxDB 2.x accepts the same InfluxQL under `/query` and the same lines under `/write`, for a bucket that has a
database/retention-policy mapping (DBRP); see its documentation on 1.x compatibility.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from soc.errors import FileError
from soc.files import shown, text_of
from soc.stores import _select
from soc.stores._errors import StoreError

WORDS = ("rp", "user", "password_file", "token_file", "ca_file", *_select.WORDS)


@dataclass(frozen=True)
class InfluxPlace:
    """The server, the credentials and the selection of an InfluxDB place."""

    url: str
    database: str
    rp: str
    selection: _select.Selection
    user: str
    ca_file: str
    secret: str = field(repr=False)
    """The password if there is a user, else the token; "" for none."""


def parse(text: str) -> InfluxPlace:
    """Return the place in this text. Raises `StoreError` for an unknown or wrong part; secrets are read here."""
    try:
        parts = urlsplit(text.removeprefix("influx:"))
        _ = parts.port
    except ValueError as error:
        raise StoreError(f"{shown(text)}: expected influx:http://HOST:8086/DATABASE?device=…: {error}") from error
    if parts.username or parts.password:
        raise StoreError("influx: no user or password in the address: give user= and password_file=")
    database = unquote(parts.path.strip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or not database or "/" in database:
        raise StoreError(f"{text}: expected influx:http://HOST:8086/DATABASE?device=…")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    _select.refuse_unknown(given, WORDS, text)
    if ("user" in given) != ("password_file" in given):
        raise StoreError(f"{text}: user, password_file: expected both or none")
    return InfluxPlace(
        url=f"{parts.scheme}://{parts.netloc}",
        database=database,
        rp=given.get("rp", ""),
        selection=_select.select(given, text),
        user=given.get("user", ""),
        ca_file=given.get("ca_file", ""),
        secret=_secret(given.get("password_file") or given.get("token_file") or "", text),
    )


def secret_files(text: str) -> list[Path]:
    """Return this place's files of secrets and certificates."""
    given = dict(parse_qsl(text.partition("?")[2], keep_blank_values=True))
    names = [given[word] for word in ("password_file", "token_file") if given.get(word)]
    return [*map(_secret_file, names), *([Path(given["ca_file"])] if given.get("ca_file") else [])]


def _secret_file(name: str) -> Path:
    """Return the file of a secret; a bare name is a systemd credential where the service has any."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) / name if folder and "/" not in name else Path(name)


def _secret(name: str, text: str) -> str:
    """Return the one line of a secret file."""
    if not name:
        return ""
    path = _secret_file(name)
    try:
        secret = text_of(path).strip()
    except UnicodeDecodeError as error:
        raise StoreError(f"{text}: secret file {path}: expected one line of UTF-8 text") from error
    except FileError as error:
        raise StoreError(f"{text}: secret file {error}") from error
    if not secret or "\n" in secret:
        raise StoreError(f"{text}: secret file {path}: expected one line")
    return secret
