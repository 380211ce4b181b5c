"""An InfluxDB place taken apart.

    influx:http://host:8086/DATABASE?device=t7&bench=b1&battery=lfp-1&from=-2h&user=soc&password_file=pw

    rp, measurement                    retention policy; measurement (default `battery`)
    device, bench, battery, cell       tags that choose the series, and mark what is written
    current_a, voltage_v,              where a signal comes from, if not as above: [MEASUREMENT.]FIELD[@DEVICE],
    temperature_degc                   for example voltage_v=load.voltage_v@el3000
    voltage_age_s, temperature_age_s   how old a value may be that is joined to a current (2 s, 600 s)
    from, to                           -2h, -1d, 2026-11-21T08:00:00Z or seconds since 1970; default: all there is
    user + password_file, token_file   files with secrets, or names of systemd credentials; token: InfluxDB 2.x
    ca_file                            certificate authority for https

InfluxDB 2.x answers the same InfluxQL under `/query` and takes the same lines under `/write`, for a bucket that has a
database/retention-policy mapping (DBRP); see its documentation on 1.x compatibility.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from soc.stores._errors import StoreError

TAGS = ("bench", "device", "battery", "cell")
SIGNALS = ("current_a", "voltage_v", "temperature_degc")
SECRETS = ("user", "password_file", "token_file", "ca_file")
AGES = {"voltage_age_s": 2.0, "temperature_age_s": 600.0}
WORDS = ("rp", "measurement", *TAGS, *SIGNALS, *AGES, "from", "to", *SECRETS)
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
SIGNAL = re.compile(r"(?:(?P<measurement>[^.@]+)\.)?(?P<field>[^.@]+)(?:@(?P<device>.+))?")


@dataclass(frozen=True)
class Signal:
    """One field of one measurement of the series with these tags."""

    measurement: str
    field: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where to ask, as whom, and for what."""

    text: str
    url: str
    database: str
    rp: str
    signals: Mapping[str, Signal]
    ages_s: Mapping[str, float]
    tags: Mapping[str, str]
    since_s: float | None
    until_s: float | None
    user: str = ""
    ca_file: str = ""
    secret: str = field(default="", repr=False)
    """The password where there is a user, else the token; "" for none."""


def parse(text: str) -> Place:
    """The place that this text means. Raises `StoreError` for an unknown or wrong part; secrets are read here."""
    parts = urlsplit(text.removeprefix("influx:"))
    database = unquote(parts.path.strip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or not database or "/" in database:
        raise StoreError(f"{text}: expected influx:http://HOST:8086/DATABASE?device=…")
    if parts.username or parts.password:
        raise StoreError("influx: no user or password in the address: give user= and password_file=")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(given) - set(WORDS))
    if unknown:
        raise StoreError(f"{text}: {', '.join(unknown)}: no such parameter; there are {', '.join(WORDS)}")
    if bool(given.get("user")) != bool(given.get("password_file")):
        raise StoreError(f"{text}: user, password_file: expected both or none")
    tags = {name: given[name] for name in TAGS if name in given}
    return Place(
        text=text,
        url=f"{parts.scheme}://{parts.netloc}",
        database=database,
        rp=given.get("rp", ""),
        signals={name: _signal(name, given, tags, text) for name in SIGNALS},
        ages_s={name: _number(given.get(name, default), name, text) for name, default in AGES.items()},
        tags=tags,
        since_s=instant(given["from"], text) if "from" in given else None,
        until_s=instant(given["to"], text) if "to" in given else None,
        user=given.get("user", ""),
        ca_file=given.get("ca_file", ""),
        secret=_secret(given.get("password_file") or given.get("token_file") or "", text),
    )


def _signal(name: str, given: Mapping[str, str], tags: Mapping[str, str], text: str) -> Signal:
    match = SIGNAL.fullmatch(given.get(name, name))
    if match is None:
        raise StoreError(f"{text}: {name}={given[name]}: expected [MEASUREMENT.]FIELD[@DEVICE]")
    own = {"device": match["device"]} if match["device"] else {}
    return Signal(match["measurement"] or given.get("measurement", "battery"), match["field"], {**tags, **own})


def _number(value: str | float, name: str, text: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise StoreError(f"{text}: {name}: expected a number of seconds, got {value!r}") from error


def instant(word: str, text: str) -> float:
    """Seconds since 1970 of `-2h`, an ISO 8601 time or a number; a time without zone is UTC. Raises `StoreError`."""
    relative = re.fullmatch(r"-(\d+(?:\.\d+)?)([smhdw])", word)
    if relative:
        return time.time() - float(relative[1]) * UNITS_S[relative[2]]
    if word == "now":
        return time.time()
    try:
        return float(word)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(word)
    except ValueError as error:
        raise StoreError(f"{text}: {word!r} is no time; expected -2h, 2026-11-21T08:00:00Z or seconds") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _secret(name: str, text: str) -> str:
    """The first line of a secret file; a bare name is a systemd credential where there are any."""
    if not name:
        return ""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / name if folder and "/" not in name else Path(name)
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StoreError(f"{text}: secret file {path}: {error.strerror}") from error
    if not secret or "\n" in secret:
        raise StoreError(f"{text}: secret file {path}: expected one line")
    return secret
