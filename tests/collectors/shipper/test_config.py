"""ship.toml: every mistake is reported at once, with file and key, and secrets stand only in their own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.errors import ConfigError
from collectors.shipper.config import SinkConfig, check, load
from collectors.shipper.influxdb.client import endpoint

GOOD = """
[ship]
bench = "bench-1"
state_dir = "/nowhere"
[[sink]]
name = "lab"
dialect = "influxdb1"
url = "http://192.0.2.10:8086/influx"
database = "bat"
retention_policy = "raw"
user = "bench-1"
password_file = "password"
[[sink]]
name = "cloud"
dialect = "influxdb2"
url = "https://influx.example.org"
org = "my lab"
bucket = "bat/raw"
token_file = "token"
gzip_level = 6
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "ship.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_is_loaded_with_its_defaults(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, GOOD))
    assert loaded.ship.interval_s == 1.0
    assert [(s.name, s.gzip_level, s.batch_lines) for s in loaded.sinks] == [("lab", 1, 5000), ("cloud", 6, 5000)]


def test_each_dialect_writes_to_the_url_and_with_the_headers_of_its_server(tmp_path: Path) -> None:
    old, new = load(written(tmp_path, GOOD)).sinks
    assert endpoint(old, "secret").path == "/influx/write?db=bat&rp=raw&precision=ns"
    assert endpoint(old, "secret").headers == {"Authorization": "Basic YmVuY2gtMTpzZWNyZXQ="}
    assert endpoint(new, "secret").path == "/api/v2/write?org=my+lab&bucket=bat%2Fraw&precision=ns"
    assert endpoint(new, "secret").headers == {"Authorization": "Token secret"}
    assert endpoint(SinkConfig("open", "influxdb1", "http://h:1", "bat"), "").headers == {}


def test_all_mistakes_are_reported_at_once_with_file_and_key(tmp_path: Path) -> None:
    text = GOOD.replace('bench = "bench-1"', 'bench = "bench 1"').replace("gzip_level = 6", "gzip_level = 10")
    text = text.replace('database = "bat"', 'databse = "bat"').replace('name = "cloud"', 'name = "lab"')
    path = written(tmp_path, text + "[shop]\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    problems = caught.value.problems
    assert all(problem.startswith(f"{path}: ") for problem in problems)
    for words in (
        "shop",
        "bench: expected letters",
        "databse: unknown key; did you mean 'database'?",
        "gzip_level: expected 0 to 9",
    ):
        assert [p for p in problems if words in p], words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('database = "bat"', "", "database: missing; influxdb1 needs it"),
        ('token_file = "token"', "", "token_file: missing; influxdb2 needs it"),
        ('org = "my lab"', 'org = "my lab"\ndatabase = "bat"', "database: influxdb2 has no such thing"),
        ('user = "bench-1"', "", "user, password_file: expected both or none"),
        ("http://192.0.2.10:8086/influx", "192.0.2.10:8086", "url: expected http://host:port"),
        ("http://192.0.2.10:8086/influx", "http://[::1", "url: expected http://host:port"),
        ("http://192.0.2.10:8086/influx", "http://u:p@h:1", "would end in logs"),
        ('user = "bench-1"', 'user = "bench-1"\nca_file = "/ca"', "ca_file: only means something with an https url"),
        ('name = "cloud"', 'name = "lab"', "[[sink]] lab: two sinks of this name"),
        ('dialect = "influxdb1"', 'dialect = "influxdb4"', "dialect: expected 'influxdb1' or 'influxdb2'"),
        ("[ship]", "[ship]\nsave_s = 0", "save_s: expected 0.01 to 3600"),
    ],
)
def test_an_unusable_address_is_rejected(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, GOOD.replace(old, new)))
    assert words in str(caught.value)


def test_no_sink_and_single_brackets_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to ship to"):
        load(written(tmp_path, '[ship]\nbench = "b"\n'))
    with pytest.raises(ConfigError, match="double brackets"):
        load(written(tmp_path, '[ship]\nbench = "b"\n[sink]\nname = "lab"\n'))
    with pytest.raises(ConfigError, match=r"ship\.toml"):
        load(tmp_path / "ship.toml.not_there")


def test_secrets_come_from_files_or_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(written(tmp_path, GOOD))
    (tmp_path / "password").write_text("beside\n")
    assert loaded.secret("password") == "beside"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "password").write_text("from systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert loaded.secret("password") == "from systemd"
    assert loaded.secret(str(tmp_path / "password")) == "beside"


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff"])
def test_an_invalid_secret_is_rejected_without_showing_it(tmp_path: Path, content: bytes) -> None:
    loaded = load(written(tmp_path, GOOD))
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        loaded.secret("password")
    assert "two" not in str(caught.value)
    assert str(tmp_path / "password") in str(caught.value)


def test_the_check_also_looks_for_secrets_and_certificates(tmp_path: Path) -> None:
    text = GOOD.replace('token_file = "token"', f'token_file = "token"\nca_file = "{tmp_path}/no-ca"')
    problems = check(written(tmp_path, text))
    assert [words for words in ("password_file", "token_file", "ca_file") if any(words in p for p in problems)] == [
        "password_file", "token_file", "ca_file",
    ]  # fmt: skip
    for name in ("password", "token", "no-ca"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o640)
    assert check(tmp_path / "ship.toml") == []
    assert check(written(tmp_path, "[ship")) != []


@pytest.mark.parametrize("mode", [0o644, 0o606, 0o602])
def test_the_check_rejects_a_secret_that_everybody_can_read(tmp_path: Path, mode: int) -> None:
    for name in ("password", "token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "token").chmod(mode)
    (problem,) = check(written(tmp_path, GOOD))
    assert f"secret file {tmp_path}/token: mode {mode:04o} is everybody's; chmod 600" in problem
    assert "token_file" in problem
