"""Files of a site are built on the controller, or rejected there; no host is needed or contacted."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from grafana.alerts.settings import load as settings_of
from tests.ansible.modules import ROOT

VAULT = [
    line.partition(":")[0]
    for group in ("all", "servers")
    for line in (ROOT / "group_vars" / group / "vault.example.yml").read_text().splitlines()
    if line.startswith("vault_")
]
NTFY = {"BATTFLEET_NTFY_URL": "https://ntfy.example.org/x", "BATTFLEET_NTFY_TOKEN": "tk_1"}


def play(folder: Path, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run server.yml with these variables, on a server without ssh; the files are built into the folder."""
    (folder / "group_vars").unlink(missing_ok=True)
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    unreachable = {"ansible_host": "127.0.0.1", "ansible_port": 9}
    own = {name: secrets.token_urlsafe(24) for name in VAULT} | {"_built": str(folder / "built")} | variables
    (folder / "hosts.yml").write_text(json.dumps({"servers": {"hosts": {"server": unreachable}}}))
    (folder / "own.json").write_text(json.dumps(own))
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")), "ansible/playbooks/server.yml",
        "-i", str(folder / "hosts.yml"), "-e", f"@{folder / 'own.json'}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=ROOT)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    # the mistake: (variables, the whole message)
    "a mistyped limit": ({"fleet_limits": {"soc_lov": [0.3, 0.1]}}, ["limits.soc_lov: unknown key; expected one of"]),
    "a battery without limits": (
        {"fleet_batteries": {"b-1": {"chemistry": "lto", "cells": 4, "capacity_ah": 40}}},
        ["batteries.b-1.chemistry: 'lto' has no limits; expected one of lfp, nmc"],
    ),
    "contact points without what they need": (
        {"fleet_contact_points": ["webhook", "ntfy", "mail"], "vault_webhook_url": "example-x", "vault_ntfy_url": "x"},
        [
            "contact_points: webhook needs BATTFLEET_WEBHOOK_URL, BATTFLEET_WEBHOOK_TOKEN in Grafana",
            "contact_points: ntfy needs BATTFLEET_NTFY_TOKEN in Grafana",
            "contact_points: mail needs BATTFLEET_MAIL_TO in Grafana",
            "contact_points: mail needs grafana_smtp_host",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", REFUSED)
def test_wrong_settings_are_refused_by_name_before_any_host(tmp_path: Path, title: str) -> None:
    variables, words = REFUSED[title]
    done = play(tmp_path, **variables)
    assert done.returncode != 0
    assert done.stdout.count("PLAY [") == 1, done.stdout
    said = " ".join(done.stdout.split())
    assert [line for line in words if line not in said] == []
    assert not (tmp_path / "built").exists()


def test_a_site_gets_its_own_rules_each_time_the_same_and_in_a_rehearsal_too(tmp_path: Path) -> None:
    variables: dict[str, Any] = {
        "fleet_database": "lab",
        "fleet_limits": {"soc_low": [0.42, 0.12]},
        "fleet_contact_points": ["ntfy"],
        "grafana_environment": NTFY,
    }
    done = play(tmp_path, "--check", **variables)
    assert "unreachable=1" in done.stdout and "failed=0" in done.stdout and "changed=0" in done.stdout
    built = content(tmp_path / "built")
    assert {"alerting/contact-points.yaml", "alerting/policies.yaml"} < built.keys()
    rules = {
        rule["uid"]: rule for group in yaml.safe_load(built["alerting/rules.yaml"])["groups"] for rule in group["rules"]
    }
    (limit,) = rules["bf-soc-low-warning"]["data"][2]["model"]["conditions"]
    assert limit["evaluator"]["params"] == [0.42]
    committed = yaml.safe_load((ROOT / "grafana/built/alerting/rules.yaml").read_text())["groups"]
    assert rules.keys() == {rule["uid"] for group in committed for rule in group["rules"]}, "ids never move"
    assert yaml.safe_load(built["provisioning/influxdb.yaml"])["datasources"][0]["jsonData"]["dbName"] == "lab"
    assert 'from(bucket: "lab/raw")' in built["downsampling/influxdb2/m1_mean-live.flux"]
    assert NTFY["BATTFLEET_NTFY_TOKEN"] not in str(built)
    play(tmp_path, **variables)
    assert content(tmp_path / "built") == built
    play(tmp_path, **(variables | {"fleet_contact_points": []}))
    assert [path.name for path in (tmp_path / "built/alerting").iterdir()] == ["rules.yaml"]


def test_built_files_are_ignored_by_git() -> None:
    command = ["git", "check-ignore", "build/grafana/server/alerting/rules.yaml"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, cwd=ROOT, capture_output=True, text=True, check=False)
    if "not a git repository" in done.stderr:
        pytest.skip("this copy of the sources is not a git checkout")
    assert done.returncode == 0
    assert "/../../build/grafana/" in yaml.safe_load((ROOT / "group_vars/servers/main.yml").read_text())["_built"]


def test_the_example_lab_lists_the_batteries_of_its_instruments() -> None:
    hosts = [yaml.safe_load(path.read_text()) for path in (ROOT / "inventory/host_vars").glob("*.yml")]
    named = {instrument["battery"] for host in hosts for instrument in host["bench_instruments"]}
    site = yaml.safe_load((ROOT / "group_vars/servers/main.yml").read_text())
    assert {battery.name for battery in settings_of({"batteries": site["fleet_batteries"]}).batteries} == named


def test_every_variable_of_a_contact_point_is_in_the_vault() -> None:
    site = yaml.safe_load((ROOT / "group_vars/servers/main.yml").read_text())
    example = (ROOT / "group_vars/servers/vault.example.yml").read_text()
    for name, value in site["grafana_environment"].items():
        in_vault = "vault_" + name.removeprefix("BATTFLEET_").lower()
        assert f"{in_vault} |" in value
        assert f"\n# {in_vault}: example-" in example
