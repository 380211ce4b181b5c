"""`collectors sink`: what is missing is made, once; what is wrong is said, with what to do."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from collectors.cli.sink import COMMAND
from collectors.shipper.config import load
from collectors.shipper.service import open_post
from collectors.shipper.setting_up import duration_s
from tests.collectors.shipper.influxdb2_stand_in import StandIn, stand_in
from tests.influx import Influx

LINE = "battery,device=d voltage_v=12.5 1795000000000000000"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(COMMAND, [str(argument) for argument in arguments])


def steps(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.output.splitlines()]


@pytest.fixture
def old(influx: Influx, tmp_path: Path) -> Path:
    """A configuration for the real 1.6; nothing of it is there yet."""
    (tmp_path / "admin").write_text(influx.password)
    (tmp_path / "ship.toml").write_text(f"""
        [ship]
        bench = "bench-1"
        state_dir = "{tmp_path}"
        [[sink]]
        name = "lab"
        dialect = "influxdb1"
        url = "{influx.url}"
        database = "bat {tmp_path.name}"
        retention_policy = "raw"
        user = "bench 1's {tmp_path.name}"
        password_file = "writer-password"
    """)
    return tmp_path / "ship.toml"


def set_up(path: Path, *more: str) -> Result:
    return run("setup", path, "--admin-secret-file", path.parent / "admin", *more)


def test_influxdb1_is_made_once_and_then_left_alone(old: Path, influx: Influx) -> None:
    checked = run("check", old)
    assert checked.exit_code == 69
    assert "secret file" in checked.output
    first = steps(set_up(old, "--keep", "30d", "--json"))
    assert [step["changed"] for step in first] == [True, False, True, True, True]
    secret = old.parent / "writer-password"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text().strip() not in json.dumps(first)
    second = set_up(old, "--keep", "30d")
    assert second.exit_code == 0
    assert second.output.endswith("nothing to change\n")
    assert run("check", old).exit_code == 0
    with open_post(load(old), "lab") as post:
        assert post.ask([LINE]).status == 204
    (policies,) = influx.query(f'SHOW RETENTION POLICIES ON "bat {old.parent.name}"')
    assert [row[:2] for row in policies["values"]] == [["raw", "720h0m0s"]]


def test_influxdb1_is_put_right_where_it_is_wrong(old: Path) -> None:
    steps(set_up(old, "--json"))
    (old.parent / "writer-password").write_text("another one\n")
    checked = run("check", old)
    assert checked.exit_code == 69
    assert "look at the secret's file" in checked.output
    changed = [step["what"] for step in steps(set_up(old, "--keep", "2d", "--json")) if step["changed"]]
    assert changed == ["retention policy raw: keeps 172800s", f"password of user bench 1's {old.parent.name}"]
    assert run("check", old).exit_code == 0


def test_a_missing_policy_is_found_by_the_check(old: Path) -> None:
    steps(set_up(old, "--json"))
    old.write_text(old.read_text().replace('"raw"', '"fine"'))
    checked = run("check", old)
    assert checked.exit_code == 69
    assert "retention policy not found" in checked.output
    assert "retention policy fine" in [step["what"] for step in steps(set_up(old, "--json")) if step["changed"]]
    assert run("check", old).exit_code == 0


def test_a_wrong_administrator_is_told_the_servers_words(old: Path) -> None:
    (old.parent / "admin").write_text("wrong")
    result = set_up(old)
    assert "authorization failed" in str(result.exception)
    assert getattr(result.exception, "exit_code", None) == 76


def test_nobody_there_is_said_so(old: Path) -> None:
    old.write_text(old.read_text().replace("url = ", 'url = "http://127.0.0.1:9" #'))
    (old.parent / "writer-password").write_text("x")
    checked = run("check", old)
    assert checked.exit_code == 69
    assert "does not answer" in checked.output
    assert getattr(set_up(old).exception, "exit_code", None) == 69


@pytest.fixture
def new(tmp_path: Path) -> Iterator[tuple[Path, StandIn]]:
    """A configuration for the 2.x stand-in."""
    with stand_in() as server:
        (tmp_path / "admin").write_text(server.operator_token)
        (tmp_path / "ship.toml").write_text(f"""
            [ship]
            bench = "bench-1"
            state_dir = "{tmp_path}"
            [[sink]]
            name = "cloud"
            dialect = "influxdb2"
            url = "{server.url}"
            org = "lab"
            bucket = "bat/raw"
            token_file = "token"
        """)
        yield tmp_path / "ship.toml", server


def test_influxdb2_is_made_once_and_then_left_alone(new: tuple[Path, StandIn]) -> None:
    path, server = new
    first = steps(set_up(path, "--keep", "52w", "--json"))
    assert [step["changed"] for step in first] == [True] * 4
    assert server.buckets[0]["retentionRules"] == [{"type": "expire", "everySeconds": 52 * 7 * 86_400}]
    assert (server.dbrps[0]["database"], server.dbrps[0]["retention_policy"]) == ("bat", "raw")
    token = path.parent / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text().strip() == server.authorizations[0]["token"]
    done = list(server.changes)
    assert set_up(path, "--keep", "52w").output.endswith("nothing to change\n")
    assert server.changes == done
    assert run("check", path).exit_code == 0
    with open_post(load(path), "cloud") as post:
        assert post.ask([LINE]).status == 204
    assert server.points[0].fields == {"voltage_v": 12.5}


def test_influxdb2_retention_follows_and_a_lost_token_is_replaced(new: tuple[Path, StandIn]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    (path.parent / "token").unlink()
    (old_id,) = (a["id"] for a in server.authorizations)
    changed = [step["what"] for step in steps(set_up(path, "--keep", "1d", "--json")) if step["changed"]]
    assert changed[0] == "bucket bat/raw: keeps 86400 s"
    assert changed[1].startswith("token 'battfleet: bench-1 writes to bat/raw'")
    assert [a["id"] != old_id for a in server.authorizations] == [True]
    assert run("check", path).exit_code == 0


def test_influxdb2_keeps_a_token_that_it_did_not_make(new: tuple[Path, StandIn]) -> None:
    path, _ = new
    (path.parent / "token").write_text("somebody's own")
    result = set_up(path)
    assert "move it away" in str(result.exception)
    assert (path.parent / "token").read_text() == "somebody's own"


def test_influxdb2_refuses_a_wrong_operator_token(new: tuple[Path, StandIn]) -> None:
    path, _ = new
    (path.parent / "admin").write_text("wrong")
    result = set_up(path)
    assert getattr(result.exception, "exit_code", None) == 76
    assert "unauthorized" in str(result.exception)


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800), ("forever", 0)])
def test_durations(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "1m", "1d "])
def test_a_duration_that_is_none_is_refused(text: str, old: Path) -> None:
    result = set_up(old, "--keep", text)
    assert result.exit_code == 2
    assert "--keep" in result.output
