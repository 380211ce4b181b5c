"""The modules that provision a database: 1.6 against a real one, 2.x against a stand-in that responds as recorded."""

from __future__ import annotations

import importlib.util
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from grafana.downsampling import H1, choices, policy
from tests.ansible.conftest import ROOT
from tests.ansible.hosts import await_true
from tests.testing.influx import CONFIG, INFLUXD, MISSING
from tests.testing.influxdb2_stand_in import Api, serving

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
    """A new, unprovisioned InfluxDB 1.6; called with changes to COMMON it provisions and returns the changes."""
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

        run.url = url  # type: ignore[attr-defined]
        yield run
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def two() -> Iterator[tuple[Api, Run]]:
    """A new stand-in of InfluxDB 2 and the function that provisions it."""
    with serving(Api()) as api:

        def run(dry: bool = False, **changes: Any) -> list[str]:
            none: dict[str, Any] = {"reduced": [], "tasks": [], "grain": None}
            wanted = COMMON | none | {"url": api.url, "admin_token": PASSWORDS["token"], "org": "lab"} | changes
            changed: list[str] = influxdb2.SetUp(wanted, dry).run()
            return changed

        yield api, run


def test_1x_is_provisioned_once(one: Run) -> None:
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


def test_1x_a_removed_bench_loses_access(one: Run) -> None:
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


def test_1x_a_bench_loses_administrator_rights(one: Run) -> None:
    one()
    admin = influxdb1.Influx(one.url, "admin", PASSWORDS["admin"])  # type: ignore[attr-defined]
    admin.ask('GRANT ALL PRIVILEGES TO "bench-1"')
    what = ["bench-1: no administrator"]
    assert one(dry=True) == one() == what
    assert one() == []
    assert {row["database"]: row["privilege"] for row in admin.ask('SHOW GRANTS FOR "bench-1"')} == {"bat": "WRITE"}


@pytest.mark.parametrize("keep", ["", "0d", "5", "5 d", "1y", "-3d"])
@pytest.mark.parametrize("module", [influxdb1, influxdb2], ids=["1.x", "2.x"])
def test_an_invalid_duration_is_rejected(module: ModuleType, keep: str) -> None:
    with pytest.raises(module.Refused, match="expected for example"):
        module.duration_s(keep)


def explicit(api: Api) -> dict[str, tuple[str, bool]]:
    """Return policy to bucket's name and whether it is the default, of the mappings that were made."""
    names = {bucket["id"]: bucket["name"] for bucket in api.buckets}
    made = [mapping for mapping in api.mappings() if not mapping["virtual"]]
    return {d["retention_policy"]: (names[d["bucketID"]], d["default"]) for d in made}


def rules(keep_s: int, group_s: int) -> list[dict[str, Any]]:
    return [{"type": "expire", "everySeconds": keep_s, "shardGroupDurationSeconds": group_s}]


def test_2x_is_provisioned_once(two: tuple[Api, Run]) -> None:
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
    assert explicit(api) == {"raw": ("bat/raw", True), "long": ("bat/long", False)}


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


@pytest.mark.parametrize(
    ("keep", "keep_s", "group_s"), [("12h", 43200, 3600), ("7d", 604800, 86400), ("forever", 0, 604800)]
)
def test_2x_retention_changes_together_with_the_shard_group_duration(
    two: tuple[Api, Run], keep: str, keep_s: int, group_s: int
) -> None:
    api, run = two
    run()
    changed = {"policies": [{"name": "raw", "keep": keep}, {"name": "long", "keep": "forever"}]}
    assert run(dry=True, **changed) == run(**changed) == [f"bucket bat/raw: {keep}"]
    assert api.buckets[0]["retentionRules"] == rules(keep_s, group_s)
    assert run(**changed) == []
    assert run() == ["bucket bat/raw: 26w"]
    assert run() == []


def test_2x_a_bucket_made_anew_gets_mapping_and_permissions(two: tuple[Api, Run]) -> None:
    api, run = two
    run()
    api.handle("DELETE", f"/api/v2/buckets/{api.buckets[0]['id']}", {}, f"Token {api.token}", b"")
    expected = [
        "bucket bat/raw: 26w",
        "InfluxQL name bat.raw",
        "user bench-1: other permissions",
        "user bench-1 may write",
        "user bench-2: other permissions",
        "user bench-2 may write",
        "user grafana: other permissions",
        "user grafana may read",
    ]
    assert run(dry=True) == run() == expected
    assert run() == []
    assert explicit(api)["raw"] == ("bat/raw", True)


def test_2x_a_mapping_to_another_bucket_is_replaced(two: tuple[Api, Run]) -> None:
    api, run = two
    run()
    api.dbrps[0]["bucketID"] = api.buckets[1]["id"]
    what = ["InfluxQL name bat.raw, of another bucket until now"]
    done = len(api.changes)
    assert run(dry=True) == what
    assert len(api.changes) == done
    assert run() == what
    assert run() == []
    assert explicit(api) == {"raw": ("bat/raw", True), "long": ("bat/long", False)}


def test_2x_a_moved_default_is_moved_back(two: tuple[Api, Run]) -> None:
    api, run = two
    run()
    (long,) = (d["id"] for d in api.dbrps if d["retention_policy"] == "long")
    api.handle("PATCH", f"/api/v2/dbrps/{long}", {}, f"Token {api.token}", b'{"default": true}')
    assert explicit(api)["raw"] == ("bat/raw", False)
    assert run(dry=True) == run() == ["InfluxQL name bat.raw, the default"]
    assert run() == []
    assert explicit(api) == {"raw": ("bat/raw", True), "long": ("bat/long", False)}


def test_2x_an_inactive_user_is_active_again(two: tuple[Api, Run]) -> None:
    api, run = two
    run()
    api.legacy[0]["status"] = "inactive"
    assert run(dry=True) == run() == ["user bench-1 is active again"]
    assert run() == []
    api.legacy[0]["status"] = "inactive"
    new = COMMON["writers"] | {"bench-1": secrets.token_urlsafe(18)}
    assert run(writers=new) == ["user bench-1 is active again", "password of bench-1"]
    assert run(writers=new) == []


def test_2x_an_organisation_beyond_the_first_page_is_found(two: tuple[Api, Run]) -> None:
    api, run = two
    run()
    for number in range(25):
        api.handle("POST", "/api/v2/orgs", {}, f"Token {api.token}", f'{{"name": "o{number}"}}'.encode())
    api.orgs.append(api.orgs.pop(0))
    assert run() == []


def test_2x_another_organisation_is_an_error(two: tuple[Api, Run]) -> None:
    _, run = two
    run()
    with pytest.raises(influxdb2.Refused, match="no organisation 'elsewhere'"):
        run(org="elsewhere")


TASKS = [
    f'import "date"\n\noption task = {{name: "bat m1_mean {run}", every: 1m, offset: 20s}}\n\nfrom(bucket: "bat/raw")\n'
    for run in ("live", "late")
]
REDUCED: dict[str, Any] = {
    "reduced": [{"name": "m1_mean", "keep": "104w"}, {"name": "h1_mean", "keep": "forever"}],
    "tasks": TASKS,
    "grain": {"policy": "h1_mean", "lines": "\n".join(choices("raw"))},
}


def test_2x_means_are_made_once_and_grafana_may_read_them(two: tuple[Api, Run]) -> None:
    api, run = two
    run()
    expected = [
        "bucket bat/m1_mean: 104w",
        "InfluxQL name bat.m1_mean",
        "bucket bat/h1_mean: forever",
        "InfluxQL name bat.h1_mean",
        "user grafana: other permissions",
        "user grafana may read",
        "task bat m1_mean live",
        "task bat m1_mean late",
        "choice of grains in h1_mean",
    ]
    done = len(api.changes)
    assert run(dry=True, **REDUCED) == expected
    assert len(api.changes) == done, "a rehearsal changes nothing"
    assert run(**REDUCED) == expected
    done = len(api.changes)
    assert run(**REDUCED) == run(dry=True, **REDUCED) == []
    assert len(api.changes) == done, "nothing is even asked to change"
    assert [b["retentionRules"] for b in api.buckets[2:]] == [rules(104 * 7 * 86400, 604800), rules(0, 604800)]
    assert [policy for policy, (_, default) in explicit(api).items() if default] == ["raw"]
    rights = {a["token"]: influxdb2.permission_set(a["permissions"]) for a in api.legacy}
    assert rights["grafana"] == {("read", "buckets", bucket["id"]) for bucket in api.buckets}
    assert rights["bench-1"] == {("write", "buckets", api.buckets[0]["id"])}
    assert [(task["flux"], task["status"]) for task in api.tasks] == [(flux, "active") for flux in TASKS]
    assert api.lines("bat/h1_mean") == choices("raw")


def test_2x_a_changed_task_gets_its_text_and_others_are_unchanged(two: tuple[Api, Run]) -> None:
    api, run = two
    run(**REDUCED)
    theirs = {"id": "f", "name": "somebody's own", "flux": "x"}
    api.tasks.append(theirs.copy())
    api.tasks[0]["flux"] = TASKS[0].replace("1m", "5m")
    api.tasks[1]["flux"] = TASKS[1].replace("\n\n", "\n")
    api.tasks[1]["status"] = "inactive"
    what = ["task bat m1_mean live: other text"]
    assert run(dry=True, **REDUCED) == what
    assert run(**REDUCED) == what
    assert run(**REDUCED) == []
    assert api.tasks[0]["flux"] == TASKS[0]
    assert api.tasks[1]["status"] == "inactive", "whether it is switched on is the person's business"
    assert api.tasks[2] == theirs
    assert len(api.tasks) == 3


def test_2x_another_name_of_raw_is_another_choice_of_resolutions(two: tuple[Api, Run]) -> None:
    api, run = two
    run(**REDUCED)
    other = REDUCED | {"grain": {"policy": "h1_mean", "lines": "\n".join(choices("long"))}}
    assert run(dry=True, **other) == ["choice of grains in h1_mean"]
    assert api.lines("bat/h1_mean") == choices("raw"), "a rehearsal changes nothing"
    assert run(**other) == ["choice of grains in h1_mean"]
    assert api.lines("bat/h1_mean") == choices("long")
    assert run(**other) == []


def test_2x_a_task_without_a_name_is_refused(two: tuple[Api, Run]) -> None:
    _, run = two
    with pytest.raises(influxdb2.Refused, match="a task without a name"):
        run(tasks=["from(bucket: 1)"])


def test_2x_accepts_the_built_files(two: tuple[Api, Run]) -> None:
    """The files that the role reads, in the number that `grafana.downsampling` gives."""
    api, run = two
    built = ROOT / "grafana/built/downsampling"
    tasks = [path.read_text() for path in sorted((built / "influxdb2").glob("*.flux"))]
    reduced = yaml.safe_load((built / "influxdb2/policies.yaml").read_text())
    grain = {"policy": policy(H1, "mean"), "lines": (built / "grain.lp").read_text()}
    assert run(reduced=reduced, tasks=tasks, grain=grain)
    assert run(reduced=reduced, tasks=tasks, grain=grain) == []
    assert len(api.tasks) == len(tasks) == 3 * len(reduced) == 30
    written = {re.findall(r'to\(bucket: "(.+)"\)', task["flux"])[0] for task in api.tasks}
    assert written == {f"bat/{each['name']}" for each in reduced}
    run_file = (ROOT / "ansible/roles/influxdb/tasks/run.yml").read_text()
    assert f"'policy': '{grain['policy']}'" in run_file, "the role writes them where dashboards look"
