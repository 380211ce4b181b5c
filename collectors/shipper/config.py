"""The shipper's configuration, `ship.toml`. An unknown key is an error; all errors are reported at once.

    [ship]
    bench = "bench-1"
    state_dir = "/var/lib/collectors"     # the directory of the journals; default $STATE_DIRECTORY

    [[sink]]                              # InfluxDB 1.x
    name = "lab"
    dialect = "influxdb1"
    url = "http://192.0.2.10:8086"
    database = "bat"
    retention_policy = "raw"              # default: the database's own default policy
    user = "bench-1"
    password_file = "lab-password"

    [[sink]]                              # InfluxDB 2.x
    name = "cloud"
    dialect = "influxdb2"
    url = "https://influx.example.org"
    org = "lab"
    bucket = "bat/raw"
    token_file = "cloud-token"
    read_token_file = "cloud-read-token"  # for `collectors ship --verify`; of 1.x: read_user, read_password_file
    ca_file = "/etc/ssl/lab-ca.pem"

This file never contains secrets: a `…_file` is a path, or a bare name in systemd's $CREDENTIALS_DIRECTORY. Without
that variable, a bare name is looked up in the directory of the configuration.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from collectors.config import NAME, default_state_dir, load_dataclass, read_toml
from collectors.errors import ConfigError

OF_DIALECT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "influxdb1": (("database",), ("retention_policy", "user", "password_file", "read_user", "read_password_file")),
    "influxdb2": (("org", "bucket", "token_file"), ("read_token_file",)),
}
"""The required and the optional keys of each dialect."""


@dataclass(frozen=True, slots=True)
class Ship:
    """The [ship] table: what is shipped, and at which intervals."""

    bench: str = field(metadata={"help": "tag `bench` of the shipper's own points"})
    state_dir: Path = field(
        default_factory=default_state_dir,
        metadata={"help": "the folder of the journals", "default": "$STATE_DIRECTORY, else .state"},
    )
    interval_s: float = field(default=1.0, metadata={"help": "seconds between looks for new rows"})
    save_s: float = field(
        default=5.0, metadata={"help": "seconds between saves of the cursors; unless 20 000 lines come first"}
    )
    report_s: float = field(default=10.0, metadata={"help": "seconds between the shipper's reports on itself"})

    def __post_init__(self) -> None:
        """Reject intervals outside 0.01 s to 3600 s."""
        problems = [
            f"{key}: expected 0.01 to 3600, got {value:g}"
            for key in ("interval_s", "save_s", "report_s")
            if not 0.01 <= (value := getattr(self, key)) <= 3600
        ]
        if not NAME.fullmatch(self.bench):
            problems.append(f"bench: expected letters, digits, '.', '_' or '-' (at most 63), got {self.bench!r}")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """One [[sink]] table: a database that receives the rows of all journals."""

    name: str = field(metadata={"help": "unique; cursors and dead letters are kept under it"})
    dialect: Literal["influxdb1", "influxdb2"] = field(metadata={"help": "which InfluxDB"})
    url: str = field(metadata={"help": "http://host:port or https://host"})
    database: str = field(default="", metadata={"help": "1.x: database"})
    retention_policy: str = field(default="", metadata={"help": "1.x: retention policy; default the database's own"})
    user: str = field(default="", metadata={"help": "1.x: user"})
    password_file: str = field(default="", metadata={"help": "1.x: file, or systemd credential, with the password"})
    org: str = field(default="", metadata={"help": "2.x: organisation"})
    bucket: str = field(default="", metadata={"help": "2.x: bucket"})
    token_file: str = field(default="", metadata={"help": "2.x: file, or systemd credential, with the token"})
    read_user: str = field(default="", metadata={"help": "1.x: user that may read, for --verify; default `user`"})
    read_password_file: str = field(default="", metadata={"help": "1.x: file, or systemd credential, of `read_user`"})
    read_token_file: str = field(
        default="", metadata={"help": "2.x: file, or systemd credential, with a token that may read, for --verify"}
    )
    ca_file: str = field(default="", metadata={"help": "certificate authority for https; default the system's"})
    gzip_level: int = field(default=1, metadata={"help": "0 none, 1 fast (default), 6 for metered links, 9 smallest"})
    batch_lines: int = field(default=5000, metadata={"help": "most lines in one request"})
    connect_s: float = field(default=10.0, metadata={"help": "seconds to wait for a connection"})
    answer_s: float = field(default=30.0, metadata={"help": "seconds to wait for an answer"})

    def __post_init__(self) -> None:
        """Reject values with which no server can be reached."""
        needed, allowed = OF_DIALECT[self.dialect]
        foreign = {key for n, a in OF_DIALECT.values() for key in n + a} - {*needed, *allowed}
        problems = [f"{key}: missing; {self.dialect} needs it" for key in needed if not getattr(self, key)]
        problems += [f"{key}: {self.dialect} has no such thing" for key in sorted(foreign) if getattr(self, key)]
        problems += _url_problems(self.url)
        if not NAME.fullmatch(self.name):
            problems.append(f"name: expected letters, digits, '.', '_' or '-' (at most 63), got {self.name!r}")
        if bool(self.user) != bool(self.password_file):
            problems.append("user, password_file: expected both or none")
        if bool(self.read_user) != bool(self.read_password_file):
            problems.append("read_user, read_password_file: expected both or none")
        if self.ca_file and not self.url.startswith("https:"):
            problems.append("ca_file: only means something with an https url")
        limits = {"gzip_level": (0, 9), "batch_lines": (100, 50_000), "connect_s": (0.1, 600), "answer_s": (0.1, 600)}
        problems += [
            f"{key}: expected {low} to {high}, got {getattr(self, key)}"
            for key, (low, high) in limits.items()
            if not low <= getattr(self, key) <= high
        ]
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class ShipConfig:
    """The whole file, validated."""

    path: Path
    ship: Ship
    sinks: tuple[SinkConfig, ...]

    def secret(self, name: str) -> str:
        """Return the content of the file of a `…_file` key, without the line end; ConfigError when unreadable."""
        path = self.secret_path(name)
        try:
            secret = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"{self.path}: secret file {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.path}: secret file {path}: not UTF-8") from error
        if not secret or any(ord(letter) < 0x20 for letter in secret):
            raise ConfigError(f"{self.path}: secret file {path}: expected one line of text")
        return secret

    def secret_path(self, name: str) -> Path:
        """Return the secret's path: a bare name is a systemd credential, or a file beside the configuration."""
        base = Path(os.environ.get("CREDENTIALS_DIRECTORY", self.path.parent)) if "/" not in name else self.path.parent
        return base / name


def _url_problems(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return [f"url: expected http://host:port or https://host:port, got {url!r}"]
    if parts.username or parts.password:
        return ["url: a user or password in it would end in logs; use user and password_file, or token_file"]
    if not good or parts.query or parts.fragment:
        return [f"url: expected http://host:port or https://host:port, got {url!r}"]
    return []


def load(path: Path) -> ShipConfig:
    """Return the validated configuration; ConfigError lists every problem with file and key."""
    tables = read_toml(path)
    problems = [f"{path}: {key}: unknown; there are: [ship], [[sink]]" for key in tables if key not in ("ship", "sink")]
    ship, found = _table(Ship, tables.get("ship", {}), f"{path}: [ship]")
    problems += found
    entries = tables.get("sink", [])
    if not isinstance(entries, list):
        raise ConfigError([*problems, f"{path}: sink: expected [[sink]] tables, with double brackets"])
    sinks: list[SinkConfig] = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        sink, found = _table(SinkConfig, entry, f"{path}: [[sink]] {name or number}")
        problems += found
        sinks += [sink] if sink else []
    names = [sink.name for sink in sinks]
    problems += [
        f"{path}: [[sink]] {name}: two sinks of this name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    if not entries:
        problems.append(f"{path}: no [[sink]]: nothing to ship to")
    if problems or ship is None:
        raise ConfigError(problems)
    return ShipConfig(path, ship, tuple(sinks))


def _table(cls: type[Any], table: object, where: str) -> tuple[Any, list[str]]:
    if not isinstance(table, dict):
        return None, [f"{where}: expected a table with {', '.join(f.name for f in fields(cls))}"]
    return load_dataclass(cls, table, where)


def _refuse_public(path: Path, secret: Path) -> None:
    """Raise ConfigError if every user of this host may read or change the secret."""
    mode = secret.stat().st_mode & 0o777
    if mode & 0o007:
        raise ConfigError(f"{path}: secret file {secret}: mode {mode:04o} is everybody's; chmod 600")


def check(path: Path) -> list[str]:
    """Return every problem of the configuration and of the secret files it names, one line each."""
    try:
        config = load(path)
    except ConfigError as error:
        return error.problems
    problems: list[str] = []
    for sink in config.sinks:
        for key in ("password_file", "token_file", "read_password_file", "read_token_file"):
            if name := getattr(sink, key):
                try:
                    config.secret(name)
                    _refuse_public(path, config.secret_path(name))
                except ConfigError as error:
                    problems += [f"{line} ([[sink]] {sink.name} {key})" for line in error.problems]
        if sink.ca_file and not Path(sink.ca_file).is_file():
            problems.append(f"{path}: [[sink]] {sink.name} ca_file: no such file: {sink.ca_file}")
    return problems
