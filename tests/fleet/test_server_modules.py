"""The modules that make a database ready: 1.6 against a real one, 2.x against a stand-in written from its contract."""

from __future__ import annotations

import importlib.util
import re
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fleet.conftest import ROOT
from tests.fleet.hosts import await_true
from tests.fleet.influxdb2_stand_in import Api, handler_of
from tests.influx import CONFIG, INFLUXD, MISSING

LIBRARY = ROOT / "ansible/roles/influxdb/library"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, LIBRARY / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


influxdb1, influxdb2 = load("influxdb1"), load("influxdb2")
PASSWORDS = {user: secrets.token_urlsafe(18) for user in ("admin", "bench-1", "bench-2", "grafana", "token")}
COMMON: dict[str, Any] = {
    "admin": "admin",
    "admin_password": PASSWORDS["admin"],
    "database": "bat",
    "policies": [{"name": "raw", "keep": "26w"}, {"name": "long", "keep": "forever"}],
    "writers": {user: PASSWORDS[user] for user in ("bench-1", "bench-2")},
    "readers": {"grafana": PASSWORDS["grafana"]},
    "retired": [],
}
Run = Callable[..., list[str]]


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Run]:
    """A new InfluxDB 1.6 that nobody has set up; called with changes to COMMON it sets up and says what it did."""
    if INFLUXD is None:
        pytest.skip(MISSING)
    config, log = tmp_path / "influxdb.conf", tmp_path / "log"
    config.write_text(CONFIG.format(folder=tmp_path, port=0, index="inmem"))
    with log.open("wb") as output:
        process = subprocess.Popen([INFLUXD, "-config", str(config)], stderr=output, env={"HOME": str(tmp_path)})
    try:
        await_true("influxd listens", lambda: b"Listening on HTTP" in log.read_bytes(), 30)
        found = re.search(r"Listening on HTTP.*addr=(127\.0\.0\.1:\d+)", log.read_text())
        assert found is not None
        url = f"http://{found[1]}"

        def run(dry: bool = False, **changes: Any) -> list[str]:
            wanted = COMMON | {"url": url, "admin_password_old": ""} | changes
            changed: list[str] = influxdb1.SetUp(wanted, dry).run()
            return changed

        yield run
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def two() -> Iterator[tuple[Api, Run]]:
    """A new stand-in of InfluxDB 2 and how to set it up."""
    api = Api()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(api)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def run(dry: bool = False, **changes: Any) -> list[str]:
            url = f"http://127.0.0.1:{server.server_port}"
            wanted = COMMON | {"url": url, "admin_token": PASSWORDS["token"], "org": "lab"} | changes
            changed: list[str] = influxdb2.SetUp(wanted, dry).run()
            return changed

        yield api, run
        server.shutdown()
        thread.join()


def test_1x_is_made_once(one: Run) -> None:
    assert one(dry=True) == ["administrator"], "a rehearsal cannot look further"
    assert one(dry=True) == ["administrator"], "and has changed nothing"
    made = one()
    assert made[:3] == ["administrator", "database bat", "retention policy long: forever"]
    assert len(made) == 3 + 2 * 3
    assert one() == []


def test_1x_changes_only_what_differs(one: Run) -> None:
    one()
    new = {"bench-1": secrets.token_urlsafe(18)}
    assert one(writers=COMMON["writers"] | new, dry=True) == ["password of bench-1"]
    assert one(writers=COMMON["writers"] | new) == ["password of bench-1"]
    assert one() == ["password of bench-1"], "and back"
    shorter = [{"name": "raw", "keep": "30d"}, {"name": "long", "keep": "forever"}]
    assert one(policies=shorter) == ["retention policy raw: 30d"]
    assert one(policies=shorter) == []
    swapped = shorter[::-1]
    assert one(policies=swapped) == ["retention policy long: forever, the default"]
    assert one(policies=swapped) == []


def test_1x_a_bench_that_is_gone_is_not_let_in(one: Run) -> None:
    one()
    left = {"bench-2": PASSWORDS["bench-2"]}
    assert one(writers=left, retired=["bench-1"]) == ["user bench-1 is gone"]
    assert one(writers=left, retired=["bench-1"]) == []


def test_1x_the_administrators_password_changes_when_the_old_one_is_known(one: Run) -> None:
    one()
    new = secrets.token_urlsafe(18)
    with pytest.raises(influxdb1.Refused, match="vault_influxdb_admin_password_old") as refused:
        one(admin_password=new)
    assert new not in str(refused.value)
    changed = one(admin_password=new, admin_password_old=PASSWORDS["admin"])
    assert changed == ["administrator's password"]
    assert one(admin_password=new) == []


def test_1x_a_user_with_too_many_rights_loses_them(one: Run) -> None:
    one()
    changed = one(readers=COMMON["readers"] | {"bench-1": PASSWORDS["bench-1"]}, writers={})
    assert changed == ["bench-1: READ on bat"]


@pytest.mark.parametrize("keep", ["", "0d", "5", "5 d", "1y", "-3d"])
@pytest.mark.parametrize("module", [influxdb1, influxdb2], ids=["1.x", "2.x"])
def test_a_length_that_is_none_is_refused(module: ModuleType, keep: str) -> None:
    with pytest.raises(module.Refused, match="expected for example"):
        module.duration_s(keep)


def test_2x_is_made_once(two: tuple[Api, Run]) -> None:
    api, run = two
    assert run(dry=True) == ["administrator, organisation and first bucket"]
    assert api.changes == []
    assert run() == [
        "administrator, organisation and first bucket",
        "InfluxQL name bat.raw",
        "bucket bat/long: forever",
        "InfluxQL name bat.long",
        "user bench-1 may write",
        "user bench-2 may write",
        "user grafana may read",
    ]
    done = len(api.changes)
    assert run() == []
    assert len(api.changes) == done, "nothing is even asked to change"
    assert [d["default"] for d in api.dbrps] == [True, False]


def test_2x_each_credential_is_scoped(two: tuple[Api, Run]) -> None:
    api, run = two
    run()
    raw, long = (bucket["id"] for bucket in api.buckets)
    rights = {a["token"]: influxdb2.permission_set(a["permissions"]) for a in api.legacy}
    assert rights["bench-1"] == {("write", "buckets", raw)}
    assert rights["grafana"] == {("read", "buckets", raw), ("read", "buckets", long)}
    kept = {a["token"]: api.passwords[a["id"]] for a in api.legacy}
    assert kept == COMMON["writers"] | COMMON["readers"]
    assert api.token == PASSWORDS["token"]


def test_2x_changes_only_what_differs(two: tuple[Api, Run]) -> None:
    _, run = two
    run()
    new = COMMON["writers"] | {"bench-1": secrets.token_urlsafe(18)}
    assert run(writers=new, dry=True) == ["password of bench-1"]
    assert run(writers=new) == ["password of bench-1"]
    assert run(writers=new) == []
    shorter = [{"name": "raw", "keep": "30d"}, {"name": "long", "keep": "forever"}]
    assert run(writers=new, policies=shorter) == ["bucket bat/raw: 30d"]
    turned = {"writers": {}, "readers": COMMON["readers"] | new, "policies": shorter}
    changed = run(**turned)
    assert changed[0] == "user bench-1: other permissions"
    assert changed[1] == "user bench-1 may read"
    assert run(**turned) == []
    assert run(writers={}, policies=shorter, retired=["bench-2"]) == ["user bench-2 is gone"]


def test_2x_another_organisation_is_an_error(two: tuple[Api, Run]) -> None:
    _, run = two
    run()
    with pytest.raises(influxdb2.Refused, match="no organisation 'elsewhere'"):
        run(org="elsewhere")
