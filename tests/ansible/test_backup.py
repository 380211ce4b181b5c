"""`battfleet-backup`: its backups are restored on the same server, on a new one, and beside the real database.

InfluxDB 2 is the stand-in with a stand-in of its command line, or the vendor's two programs where they are installed.
Backups of InfluxDB 1.6 are tried on a booted host: test_server.py.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import sqlite3
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ansible.modules import load
from tests.testing import influx, influx2
from tests.testing.influxdb2_stand_in import Api, Point, serving

backup = load("ansible/roles/backup/files/battfleet_backup.py")
NOW_S = int(time.time())
POLICIES = ("h1_mean", "raw")
RAW = [f'battery,bench=a,device=d{n % 3} voltage_v={n},state="on" {NOW_S - 10 - 60 * n}' for n in range(300)]
MEANS = [f"battery,bench=a,device=d0 voltage_v={n} {NOW_S - 10 - 3600 * n}" for n in range(48)]
Server = Any


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep backups in a folder of the test; there is no Grafana and no certificate authority."""
    for name, folder in (("FOLDER", "backups"), ("GRAFANA", "grafana.db"), ("TLS", "tls")):
        monkeypatch.setattr(backup, name, tmp_path / folder)
    (tmp_path / "backups").mkdir()
    return tmp_path


class CommandLine:
    """`influx backup` and `influx restore` for the stand-ins at some URLs."""

    def __init__(self) -> None:
        self.servers: dict[str, Api] = {}
        self.fails_at = ""
        """The new bucket whose restore fails."""

    def __call__(self, server: Server, folder: Path, action: str, *arguments: str) -> None:
        api, place = self.servers[server.url], Path(arguments[-1])
        if action == "backup":
            orgs = {org["id"]: org["name"] for org in api.orgs}
            saved = [
                {
                    "organizationName": orgs[bucket["orgID"]],
                    "bucketName": bucket["name"],
                    "points": [[point.line, point.stamp_ns] for point in api.stored.get(bucket["id"], {}).values()],
                }
                for bucket in api.buckets
            ]
            (place / "20260101T000000Z.manifest").write_text(json.dumps({"buckets": saved}))
            return
        asked = dict(zip(arguments[:-1:2], arguments[1:-1:2], strict=True))
        if asked["--new-bucket"] == self.fails_at:
            raise backup.Failed("influx restore: no space left on device")
        names = [org["name"] for org in api.orgs]
        if asked["--new-org"] not in names:
            api.handle(
                "POST", "/api/v2/orgs", {}, f"Token {api.token}", json.dumps({"name": asked["--new-org"]}).encode()
            )
        (org,) = (org["id"] for org in api.orgs if org["name"] == asked["--new-org"])
        (file,) = place.glob("*.manifest")
        for bucket in json.loads(file.read_text())["buckets"]:
            if (bucket["organizationName"], bucket["bucketName"]) == (asked["--org"], asked["--bucket"]):
                content = json.dumps({"orgID": org, "name": asked["--new-bucket"]}).encode()
                _, made = api.handle("POST", "/api/v2/buckets", {}, f"Token {api.token}", content)
                for line, stamp_ns in bucket["points"]:
                    point = Point(line, 1, stamp_ns)
                    point.stamp_ns = stamp_ns
                    api.stored.setdefault(made["id"], {})[point.series, stamp_ns] = point


New = Callable[..., Server]


@pytest.fixture(params=["stand-in", "vendor's"])
def new(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[New]:
    """Return a function that creates a server with an organisation that has no bucket of the database yet."""
    numbers = iter(range(9))
    command_line = CommandLine()
    opened: list[Any] = []

    def enter(context: Any) -> Any:
        opened.append(context)
        return context.__enter__()

    def stand_in(org: str = "lab") -> Server:
        api = enter(serving(Api()))
        command_line.servers[api.url] = api
        return backup.Server("vendor", api.url, "bat", "admin", api.onboard(org), org)

    def real(org: str = "lab") -> Server:
        folder = tmp_path / f"server-{next(numbers)}"
        folder.mkdir()
        url = enter(influx2.running(folder))
        token = f"token-{os.urandom(8).hex()}"
        first = {"username": "admin", "password": os.urandom(8).hex(), "org": org, "bucket": "first", "token": token}
        ask(url, "", "POST", "/api/v2/setup", json.dumps(first))
        return backup.Server("vendor", url, "bat", "admin", token, org)

    if request.param == "stand-in":
        monkeypatch.setattr(backup, "influx", command_line)
    else:
        programs = tmp_path / "programs"
        programs.mkdir()
        (programs / "influx").symlink_to(influx2.program("BATTFLEET_INFLUX2_CLI", "influx"))
        influx2.program("BATTFLEET_INFLUXD2", "influxd")
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    try:
        make = stand_in if request.param == "stand-in" else real
        make.command_line = command_line  # type: ignore[attr-defined]
        yield make
    finally:
        for context in reversed(opened):
            context.__exit__(None, None, None)


def ask(url: str, token: str, method: str, path: str, body: str = "") -> Any:
    headers = {"Authorization": f"Token {token}"} if token else {}
    request = urllib.request.Request(url + path, body.encode() if body else None, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        text = response.read()
    return json.loads(text) if text else None


def fill(server: Server, policy: str, lines: list[str]) -> None:
    """Write lines, with stamps in s, into the bucket of a policy; create and map it where it is missing."""
    name = f"{server.database}/{policy}"
    org = server.org_id()
    if name not in [bucket["name"] for bucket in server.buckets()]:
        bucket = server.api("POST", "/api/v2/buckets", orgID=org, name=name)["id"]
        names = {"database": server.database, "retention_policy": policy, "default": policy == "raw"}
        server.api("POST", "/api/v2/dbrps", orgID=org, bucketID=bucket, **names)
    query = urlencode({"org": server.org, "bucket": name, "precision": "s"})
    ask(server.url, server.secret, "POST", f"/api/v2/write?{query}", "\n".join(lines))


def filled(new: New) -> Server:
    server = new()
    fill(server, "h1_mean", MEANS)
    fill(server, "raw", RAW)
    return server


def everything(server: Server, database: str = "") -> Any:
    return server.counts(0, NOW_S + 86_400, database)


ALL = {
    "raw": {"battery": {"voltage_v": 300, "state": 300}},
    "h1_mean": {"battery": {"voltage_v": 48}},
}


def names_of(server: Server) -> list[str]:
    return sorted(bucket["name"] for bucket in server.buckets() if not bucket["name"].startswith(("_", "first")))


def default_of(server: Server) -> list[str]:
    query = urlencode({"orgID": server.org_id(), "db": server.database})
    mappings = server.api("GET", f"/api/v2/dbrps?{query}")["content"]
    assert not any(mapping["virtual"] for mapping in mappings)
    return [mapping["retention_policy"] for mapping in mappings if mapping["default"]]


def test_2x_check_restores_every_policy_and_leaves_nothing(new: New) -> None:
    server = filled(new)
    backup.make(server, 3)
    words = backup.check(server)
    assert "648 values" not in words, "of the last day only"
    assert f"{2 * 300 + 24} values of its last day came back in 2 retention policies, none is missing" in words
    assert names_of(server) == ["bat/h1_mean", "bat/raw"]
    assert everything(server) == ALL


def test_2x_check_counts_everything_where_the_last_day_is_empty(new: New) -> None:
    server = new()
    fill(server, "raw", [f"battery,bench=a voltage_v={n} {NOW_S - 10 * 86_400 - n}" for n in range(20)])
    backup.make(server, 3)
    assert "20 values of it came back" in backup.check(server)


def test_2x_check_names_what_was_not_restored(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    server = filled(new)
    (name,) = [backup.make(server, 3)]
    manifest = backup.read_manifest(name)
    manifest["fields"]["h1_mean"]["battery"]["voltage_v"] += 2
    monkeypatch.setattr(backup, "read_manifest", lambda _: manifest)
    with pytest.raises(backup.Failed, match=r"values are missing: h1_mean\.battery\.voltage_v 2 of 26"):
        backup.check(server)
    assert names_of(server) == ["bat/h1_mean", "bat/raw"], "what was restored is gone again"


def test_2x_check_works_where_the_organisation_is_missing(new: New) -> None:
    server = filled(new)
    backup.make(server, 3)
    other = backup.Server("vendor", server.url, "bat", "admin", server.secret, "another")
    assert "none is missing" in backup.check(other)
    assert names_of(other) == []


def test_2x_restore_onto_a_new_server(new: New) -> None:
    saved = backup.make(filled(new), 3)
    other = new()
    assert backup.restore(other, saved, "bat") == []
    assert everything(other) == ALL
    assert default_of(other) == ["raw"]


def test_2x_restore_into_another_organisation(new: New) -> None:
    saved = backup.make(filled(new), 3)
    other = new("field")
    backup.restore(other, saved, "bat")
    assert everything(other) == ALL
    assert default_of(other) == ["raw"]


def test_2x_restore_keeps_rows_that_benches_have_already_sent_to_the_new_server(new: New) -> None:
    saved = backup.make(filled(new), 3)
    other = new()
    fill(other, "raw", [f"battery,bench=a,device=d0 voltage_v=1 {NOW_S + n}" for n in range(7)])
    fill(other, "h1_mean", ['grain,bench=a step="1h" 0'])
    words = backup.restore(other, saved, "bat")
    assert sorted(words) == [
        "bat/h1_mean: 1 values that it held already were kept",
        "bat/raw: 7 values that it held already were kept",
    ]
    assert everything(other) == {
        "raw": {"battery": {"voltage_v": 307, "state": 300}},
        "h1_mean": {"battery": {"voltage_v": 48}, "grain": {"step": 1}},
    }
    assert names_of(other) == ["bat/h1_mean", "bat/raw"]
    assert default_of(other) == ["raw"]


def test_2x_a_restore_that_fails_changes_nothing(new: New) -> None:
    server = filled(new)
    saved = backup.make(server, 3)
    command_line = new.command_line  # type: ignore[attr-defined]
    if server.url not in command_line.servers:
        pytest.skip("the vendor's command line cannot be made to fail half-way")
    before = {bucket["id"]: bucket["name"] for bucket in server.buckets()}
    for fails_at in ("bat/raw", "bat/h1_mean"):
        command_line.fails_at = fails_at
        with pytest.raises(backup.Failed, match="no space left"):
            backup.restore(server, saved, "bat")
        assert {bucket["id"]: bucket["name"] for bucket in server.buckets()} == before
        assert everything(server) == ALL


def test_2x_a_bucket_that_cannot_be_deleted_stops_no_restore(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    server = filled(new)
    saved = backup.make(server, 3)
    ask_api = backup.Server.api

    def refuse(self: Server, method: str, path: str, **content: Any) -> Any:
        if method == "DELETE" and "/buckets/" in path:
            raise backup.Failed("does not answer: timed out")
        return ask_api(self, method, path, **content)

    monkeypatch.setattr(backup.Server, "api", refuse)
    words = backup.restore(server, saved, "bat")
    assert [line for line in words if "were kept" in line] == words[:2]
    assert [line.partition(":")[0] for line in words if "can be deleted after a restart" in line] == [
        line.partition(":")[0] for line in words[:2]
    ]
    assert everything(server) == ALL
    assert default_of(server) == ["raw"]


def test_2x_a_backup_without_list_of_policies_is_counted_by_measurement(
    new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = filled(new)
    saved = backup.make(server, 3)
    old = {key: backup.read_manifest(saved)[key] for key in ("to_s", "database", "counts")}
    assert old["counts"] == {"battery": 600}
    monkeypatch.setattr(backup, "read_manifest", lambda _: old)
    assert "none is missing" in backup.check(server)
    old["counts"]["battery"] = 601
    with pytest.raises(backup.Failed, match="battery 1 of 601"):
        backup.check(server)


def command(server: Server, *arguments: str) -> int:
    place = ["--variant", "vendor", "--url", server.url, "--org", server.org]
    return int(backup.main([*arguments, *place]))


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path / "admin"


COUNTED = st.dictionaries(
    st.sampled_from(["raw", "h1_mean"]),
    st.dictionaries(
        st.sampled_from(["battery", "cell"]), st.dictionaries(st.sampled_from("vi"), st.integers(1, 9), min_size=1)
    ),
)


@given(COUNTED, COUNTED)
def test_counts_below_those_of_the_backup_are_reported(wanted: Any, found: Any) -> None:
    missing = backup.missing_in(found, {"fields": wanted, "counts": {}}, [])
    less = [
        f"{policy}.{measurement}.{field}"
        for policy, measurements in wanted.items()
        for measurement, fields in measurements.items()
        for field, number in fields.items()
        if found.get(policy, {}).get(measurement, {}).get(field, 0) < number
    ]
    assert [words.partition(" ")[0] for words in missing] == less


def test_2x_by_its_command(new: New, credential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = filled(new)
    credential.write_text(server.secret)
    assert command(server, "make") == 0
    saved = capsys.readouterr().out.strip()
    assert command(server, "check") == 0
    assert command(server, "restore", saved) == 0
    assert everything(server) == ALL
    assert f"bat is back from {saved}" in capsys.readouterr().out
    credential.write_text("wrong")
    for action in (["make"], ["check"], ["restore", saved]):
        assert command(server, *action) == 1
        assert "unauthorized access" in capsys.readouterr().err


def test_1x_restores_every_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if influx.INFLUXD is None:
        pytest.skip(influx.MISSING)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = influx.CONFIG.replace('bind-address = "127.0.0.1:0"', f'bind-address = "127.0.0.1:{port}"', 1)
    monkeypatch.setattr(influx, "CONFIG", config)
    monkeypatch.setattr(backup, "PORT_1X", f"127.0.0.1:{port}")
    with influx.running(tmp_path / "server", "tsi1") as database:
        database.query('CREATE DATABASE "bat" WITH DURATION INF NAME "raw"')
        database.query('CREATE RETENTION POLICY "h1_mean" ON "bat" DURATION INF REPLICATION 1')
        server = backup.Server("debian", database.url, "bat", "admin", database.password)
        login = "Basic " + base64.b64encode(f"admin:{database.password}".encode()).decode()
        for policy, lines in (("raw", RAW), ("h1_mean", MEANS)):
            query = urlencode({"db": "bat", "rp": policy, "precision": "s"})
            server._send("POST", f"/write?{query}", "\n".join(lines).encode(), {"Authorization": login})
        saved = backup.make(server, 3)
        assert f"{2 * 300 + 24} values of its last day came back in 2 retention policies" in backup.check(server)
        assert everything(server) == ALL
        database.query('DROP DATABASE "bat"')
        backup.restore(server, saved, "bat")
        assert everything(server) == ALL
        assert list(server.policies()) == ["raw", "h1_mean"]


def test_an_invalid_backup_is_rejected_with_a_message(
    tmp_path: Path, credential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credential.write_text("x")
    server = backup.Server("vendor", "http://127.0.0.1:9", "bat", "admin", "x", "lab")
    assert command(server, "check") == 1
    assert "there is no backup" in capsys.readouterr().err
    file = tmp_path / "backups/2026-01-01T000000Z.tar"
    file.write_bytes(b"no archive")
    assert command(server, "restore", str(file)) == 1
    for content in ("", "no JSON"):
        with tarfile.open(file, "w") as archive:
            if content:
                (tmp_path / "manifest.json").write_text(content)
                archive.add(tmp_path / "manifest.json", "./manifest.json")
        assert command(server, "check") == 1
        assert "manifest.json" in capsys.readouterr().err
    assert command(server, "restore", str(tmp_path / "none.tar")) == 1
    assert command(server, "make") == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_truncated_response_is_an_error_with_a_message() -> None:
    def cut_off(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=cut_off, args=(server,))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(backup.Failed, match="does not answer: IncompleteRead"):
            backup.Server("vendor", url, "bat", "admin", "x", "lab").org_id()
        thread.join()


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(backup.Failed, match="influx is not installed"):
        backup.run("influx", "backup")


def test_too_little_space_stops_it_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "backups/2026-01-01T000000Z.tar"
    file.write_bytes(bytes(4 * 2**20))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda _: usage._replace(free=11 * 2**20))
    with pytest.raises(backup.Failed, match=r"11 MiB are free, expected 3 times the 4 MiB"):
        backup.need_space(file)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda _: usage._replace(free=12 * 2**20))
    backup.need_space(file)


def test_grafana_s_database_and_the_authority_are_in_it(new: New, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "grafana.db")) as database, database:
        database.execute("CREATE TABLE dashboard (title)")
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/authority.pem").write_text("certificate")
    server = filled(new)
    with tarfile.open(backup.make(server, 3)) as archive:
        assert {"./grafana.db", "./manifest.json", "tls/authority.pem"} <= set(archive.getnames())


def test_1x_a_database_that_is_still_written_to_is_dropped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = "unlinkat /var/lib/influxdb/data/x: directory not empty"
    answers = [
        backup.Failed(busy),
        backup.Failed(busy),
        None,
        backup.Failed("another thing"),
        *[backup.Failed(busy)] * 99,
    ]

    def answer(*_: object) -> None:
        if (found := answers.pop(0)) is not None:
            raise found

    monkeypatch.setattr(backup.Server, "query", answer)
    monkeypatch.setattr(backup.time, "sleep", lambda _: None)
    server = backup.Server("debian", "http://127.0.0.1:9", "bat", "admin", "x")
    backup.drop(server, "x")
    with pytest.raises(backup.Failed, match="another thing"):
        backup.drop(server, "x")
    with pytest.raises(backup.Failed, match="not empty"):
        backup.drop(server, "x")
    assert len(answers) == 99 - backup.DROPS
