"""`collectors sink` creates what is missing, once, and reports what is wrong with a remedy."""

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
from collectors.shipper.influxdb.provisioning import duration_s
from collectors.shipper.service import open_post
from tests.testing.influx import INFLUXD, MISSING, Influx, running
from tests.testing.influxdb2_stand_in import Api, serving

LINE = "battery,device=d voltage_v=12.5 1795000000000000000"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(COMMAND, [str(argument) for argument in arguments])


def steps(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.output.splitlines()]


@pytest.fixture
def old(influx: Influx, tmp_path: Path) -> Path:
    """A configuration for the real 1.6; nothing of it exists on the server yet."""
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


def test_influxdb1_is_provisioned_once_and_then_left_unchanged(old: Path, influx: Influx) -> None:
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


def test_influxdb1_is_corrected_where_it_differs(old: Path) -> None:
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


def test_a_wrong_administrator_gets_the_servers_message(old: Path) -> None:
    (old.parent / "admin").write_text("wrong")
    result = set_up(old)
    assert "authorization failed" in str(result.exception)
    assert getattr(result.exception, "exit_code", None) == 76


def test_an_absent_server_is_reported(old: Path) -> None:
    old.write_text(old.read_text().replace("url = ", 'url = "http://127.0.0.1:9" #'))
    (old.parent / "writer-password").write_text("x")
    checked = run("check", old)
    assert checked.exit_code == 69
    assert "does not answer" in checked.output
    assert getattr(set_up(old).exception, "exit_code", None) == 69


@pytest.fixture
def new(tmp_path: Path) -> Iterator[tuple[Path, Api]]:
    """A configuration for the 2.x stand-in."""
    with serving(Api()) as server:
        (tmp_path / "admin").write_text(server.onboard(org="first organisation"))
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


def made(server: Api) -> dict[str, tuple[str, bool]]:
    """Map each policy to its bucket's name and whether it is the default, for the mappings created in database bat."""
    names = {bucket["id"]: bucket["name"] for bucket in server.buckets}
    found = [mapping for mapping in server.mappings() if not mapping["virtual"] and mapping["database"] == "bat"]
    return {d["retention_policy"]: (names[d["bucketID"]], d["default"]) for d in found}


def changes(result: Result) -> list[str]:
    return [step["what"] for step in steps(result) if step["changed"]]


def ask(server: Api, method: str, path: str, **content: Any) -> Any:
    """Change something as another administrator would; return the server's response."""
    return server.handle(method, path, {}, f"Token {server.token}", json.dumps(content).encode())[1]


TOKEN = "token 'battfleet: bench-1 writes to bat/raw' in "


def test_influxdb2_is_provisioned_once_and_then_left_unchanged(new: tuple[Path, Api]) -> None:
    path, server = new
    first = steps(set_up(path, "--keep", "52w", "--json"))
    assert [step["changed"] for step in first] == [True] * 4
    rule = {"type": "expire", "everySeconds": 52 * 7 * 86_400, "shardGroupDurationSeconds": 7 * 86_400}
    assert server.buckets[-1]["retentionRules"] == [rule]
    assert made(server) == {"raw": ("bat/raw", True)}
    token = path.parent / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text().strip() == server.authorizations[0]["token"]
    done = list(server.changes)
    assert set_up(path, "--keep", "52w").output.endswith("nothing to change\n")
    assert server.changes == done
    assert run("check", path).exit_code == 0
    with open_post(load(path), "cloud") as post:
        assert post.ask([LINE]).status == 204
    assert server.points("bat/raw")[0].fields == {"voltage_v": 12.5}


@pytest.mark.parametrize(
    ("keep", "keep_s", "group_s"), [("12h", 43_200, 3_600), ("1d", 86_400, 3_600), ("7d", 604_800, 86_400)]
)
def test_influxdb2_retention_changes_together_with_the_shard_group_duration(
    new: tuple[Path, Api], keep: str, keep_s: int, group_s: int
) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    assert changes(set_up(path, "--keep", keep, "--json")) == [f"bucket bat/raw: keeps {keep_s} s"]
    (rule,) = server.buckets[-1]["retentionRules"]
    assert (rule["everySeconds"], rule["shardGroupDurationSeconds"]) == (keep_s, group_s)
    assert changes(set_up(path, "--keep", "forever", "--json")) == ["bucket bat/raw: keeps everything"]
    assert changes(set_up(path, "--keep", "forever", "--json")) == []


def test_influxdb2_a_lost_token_is_replaced(new: tuple[Path, Api]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    (path.parent / "token").unlink()
    (old_id,) = (a["id"] for a in server.authorizations)
    assert changes(set_up(path, "--json")) == [f"{TOKEN}{path.parent}/token"]
    assert [a["id"] != old_id for a in server.authorizations] == [True]
    assert run("check", path).exit_code == 0


@pytest.mark.parametrize("hides_tokens", [False, True])
def test_influxdb2_a_token_of_a_deleted_bucket_is_replaced(new: tuple[Path, Api], hides_tokens: bool) -> None:
    path, server = new
    server.hides_tokens = hides_tokens
    steps(set_up(path, "--json"))
    ask(server, "DELETE", f"/api/v2/buckets/{server.buckets[-1]['id']}")
    old = (path.parent / "token").read_text()
    expected = ["bucket bat/raw", "InfluxQL database bat, policy raw"]
    found = changes(set_up(path, "--json"))
    assert found == [*expected, f"{TOKEN}{path.parent}/token, instead of one that could not write there"]
    assert (path.parent / "token").read_text() != old
    assert stat.S_IMODE((path.parent / "token").stat().st_mode) == 0o600
    assert len(server.authorizations) == 1
    assert changes(set_up(path, "--json")) == []
    assert run("check", path).exit_code == 0


def test_influxdb2_an_inactive_token_is_active_again(new: tuple[Path, Api]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    old = (path.parent / "token").read_text()
    server.authorizations[0]["status"] = "inactive"
    assert run("check", path).exit_code == 69
    assert changes(set_up(path, "--json")) == [f"{TOKEN}{path.parent}/token is active again"]
    assert (path.parent / "token").read_text() == old
    assert run("check", path).exit_code == 0
    assert changes(set_up(path, "--json")) == []


def test_influxdb2_never_overwrites_a_token_that_it_did_not_create(new: tuple[Path, Api]) -> None:
    path, server = new
    (path.parent / "token").write_text("somebody's own")
    result = set_up(path)
    assert "move it away" in str(result.exception)
    assert (path.parent / "token").read_text() == "somebody's own"
    assert server.authorizations == []


@pytest.mark.parametrize("of", ["another server", "another bucket of this server"])
def test_influxdb2_never_overwrites_a_token_of_another_writer(new: tuple[Path, Api], of: str) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    org, first = server.buckets[0]["orgID"], server.buckets[0]["id"]
    permission = {"action": "write", "resource": {"type": "buckets", "id": first, "orgID": org}}
    foreign = ask(server, "POST", "/api/v2/authorizations", orgID=org, permissions=[permission])["token"]
    secret = "unknown" if of == "another server" else foreign
    (path.parent / "token").write_text(secret)
    done = list(server.changes)
    result = set_up(path)
    assert getattr(result.exception, "exit_code", None) == 78
    assert "move it away" in str(result.exception)
    assert (path.parent / "token").read_text() == secret
    assert server.changes == done


def test_influxdb2_keeps_a_token_that_fits_whoever_made_it(new: tuple[Path, Api]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    server.authorizations[0]["description"] = "made by hand"
    done = list(server.changes)
    last = steps(set_up(path, "--json"))[-1]
    assert last["what"] == f"token in {path.parent}/token, which may write to bat/raw"
    assert not last["changed"]
    assert server.changes == done


def test_influxdb2_a_virtual_mapping_is_not_taken_for_one_that_was_made(new: tuple[Path, Api]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    ask(server, "DELETE", f"/api/v2/dbrps/{server.dbrps[0]['id']}")
    assert made(server) == {}
    assert changes(set_up(path, "--json")) == ["InfluxQL database bat, policy raw"]
    assert made(server) == {"raw": ("bat/raw", True)}


def test_influxdb2_a_mapping_to_another_bucket_is_replaced(new: tuple[Path, Api]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    server.dbrps[0]["bucketID"] = server.buckets[0]["id"]
    assert changes(set_up(path, "--json")) == ["InfluxQL database bat, policy raw, of another bucket until now"]
    assert made(server) == {"raw": ("bat/raw", True)}
    assert changes(set_up(path, "--json")) == []


def test_influxdb2_a_moved_default_is_moved_back(new: tuple[Path, Api]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    org = server.buckets[-1]["orgID"]
    means = ask(server, "POST", "/api/v2/buckets", orgID=org, name="bat/m1_mean")["id"]
    names = {"database": "bat", "retention_policy": "m1_mean", "default": True}
    ask(server, "POST", "/api/v2/dbrps", orgID=org, bucketID=means, **names)
    assert made(server)["raw"] == ("bat/raw", False)
    assert changes(set_up(path, "--json")) == ["InfluxQL database bat, policy raw, the default"]
    assert made(server) == {"raw": ("bat/raw", True), "m1_mean": ("bat/m1_mean", False)}
    assert changes(set_up(path, "--json")) == []


def test_influxdb2_two_sinks_of_one_database_agree_on_its_default(new: tuple[Path, Api]) -> None:
    path, server = new
    sink = path.read_text()[path.read_text().index("[[sink]]") :]
    second = sink.replace("cloud", "other").replace("bat/raw", "bat/copy").replace('"token"', '"other-token"')
    path.write_text(path.read_text() + second)
    steps(set_up(path, "--json"))
    assert made(server) == {"raw": ("bat/raw", True), "copy": ("bat/copy", False)}
    assert changes(set_up(path, "--json")) == []


def test_influxdb2_an_organisation_beyond_the_first_page_is_found(new: tuple[Path, Api]) -> None:
    path, server = new
    steps(set_up(path, "--json"))
    for number in range(25):
        ask(server, "POST", "/api/v2/orgs", name=f"o{number}")
    server.orgs.append(server.orgs.pop(1))
    assert server.orgs[-1]["name"] == "lab"
    assert changes(set_up(path, "--json")) == []


def test_influxdb2_refuses_a_wrong_operator_token(new: tuple[Path, Api]) -> None:
    path, _ = new
    (path.parent / "admin").write_text("wrong")
    result = set_up(path)
    assert getattr(result.exception, "exit_code", None) == 76
    assert "unauthorized" in str(result.exception)


def test_influxdb2_requires_an_operator_token(new: tuple[Path, Api]) -> None:
    path, _ = new
    result = run("setup", path)
    assert getattr(result.exception, "exit_code", None) == 78
    assert "--admin-secret-file" in str(result.exception)


def test_influxdb2_without_a_first_user_is_reported(new: tuple[Path, Api]) -> None:
    path, server = new
    server.token = ""
    result = set_up(path)
    assert getattr(result.exception, "exit_code", None) == 76
    assert "influx setup" in str(result.exception)


@pytest.mark.parametrize("secret", ["wrong", ""], ids=["known database", "no secret"])
def test_influxdb1_dialect_on_a_2x_server_is_reported_with_a_remedy(new: tuple[Path, Api], secret: str) -> None:
    path, server = new
    login = f'user = "bench-1"\npassword_file = "{path.parent}/password"' if secret else ""
    (path.parent / "password").write_text(secret or "x")
    sink = f'[[sink]]\nname = "lab"\ndialect = "influxdb1"\nurl = "{server.url}"\ndatabase = "bat"\n{login}'
    path.write_text(path.read_text()[: path.read_text().index("[[sink]]")] + sink)
    checked = run("check", path)
    assert checked.exit_code == 69
    assert "is an InfluxDB 2.x (2.7.12)" in checked.output
    assert "run `collectors sink setup`" not in checked.output
    result = set_up(path)
    assert getattr(result.exception, "exit_code", None) == 78
    assert "is an InfluxDB 2.x (2.7.12)" in str(result.exception)
    assert server.changes == []


def test_influxdb2_dialect_on_a_1x_server_is_reported_with_a_remedy(old: Path, influx: Influx) -> None:
    (old.parent / "token").write_text("x")
    sink = f'[[sink]]\nname = "lab"\ndialect = "influxdb2"\nurl = "{influx.url}"\n'
    sink += 'org = "lab"\nbucket = "bat/raw"\ntoken_file = "token"\n'
    old.write_text(old.read_text()[: old.read_text().index("[[sink]]")] + sink)
    checked = run("check", old)
    assert checked.exit_code == 69
    assert "expected influxdb1" in checked.output
    assert "sink setup" not in checked.output
    result = set_up(old)
    assert getattr(result.exception, "exit_code", None) == 78
    assert "expected influxdb1" in str(result.exception)


def test_influxdb1_with_users_requires_the_administrators_password(old: Path) -> None:
    result = run("setup", old)
    assert getattr(result.exception, "exit_code", None) == 78
    assert "--admin-secret-file" in str(result.exception)


def test_influxdb1_without_users_needs_no_secret(tmp_path: Path) -> None:
    if INFLUXD is None:
        pytest.skip(MISSING)
    with running(tmp_path / "server", auth=False) as server:
        path = tmp_path / "ship.toml"
        path.write_text(
            f'[ship]\nbench = "bench-1"\nstate_dir = "{tmp_path}"\n'
            f'[[sink]]\nname = "lab"\ndialect = "influxdb1"\nurl = "{server.url}"\ndatabase = "bat"\n'
        )
        checked = run("check", path)
        assert checked.exit_code == 69
        assert "run `collectors sink setup`" in checked.output
        assert changes(run("setup", path, "--json")) == ["database bat"]
        assert changes(run("setup", path, "--json")) == []
        assert run("check", path).exit_code == 0


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800), ("forever", 0)])
def test_durations(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "1m", "1d "])
def test_an_invalid_duration_is_rejected(text: str, old: Path) -> None:
    result = set_up(old, "--keep", text)
    assert result.exit_code == 2
    assert "--keep" in result.output
