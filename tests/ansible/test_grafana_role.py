"""Tasks of the role grafana that need no server: its minimum version, and the removal of contact points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from grafana import build
from tests.ansible.modules import ROOT

ROLE = ROOT / "ansible/roles/grafana"
PASSWORDS = {f"grafana_{name}": "x" for name in ("admin_password", "secret_key", "database_password")}


def play(folder: Path, tasks: Sequence[dict[str, Any]], variables: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run tasks on this host."""
    handlers = [{"name": "Restart", "listen": "Grafana changed", "ansible.builtin.debug": {"msg": "has restarted"}}]
    book = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks, "handlers": handlers}
    (folder / "play.yml").write_text(json.dumps([book | {"vars": variables}]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(folder / "play.yml")]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def tasks_of(name: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = yaml.safe_load((ROLE / "tasks" / name).read_text())
    return tasks


@pytest.mark.parametrize(("version", "is_taken"), [("12.1.9", False), ("9.4.7", False), ("12.2.0", True)])
def test_a_grafana_that_ignores_settings_of_the_alerts_is_rejected(
    version: str, is_taken: bool, tmp_path: Path
) -> None:
    checks = [task for task in tasks_of("preflight.yml") if "ansible.builtin.assert" in task]
    done = play(tmp_path, checks, PASSWORDS | {"grafana_version": version})
    assert (done.returncode == 0) == is_taken, done.stdout
    if not is_taken:
        assert f"grafana_version: expected 12.2.0 or newer, got {version}" in " ".join(done.stdout.split())


def test_the_version_that_is_installed_is_new_enough() -> None:
    stated = yaml.safe_load((ROLE / "defaults/main.yml").read_text())["grafana_version"]
    assert tuple(map(int, stated.split("."))) >= (12, 2, 0)


def test_contact_points_that_are_named_no_more_are_deleted_once(tmp_path: Path) -> None:
    """Their file stays until Grafana has read it and is then deleted, also after a play that was interrupted."""
    etc, built = tmp_path / "etc", tmp_path / "built"
    shipped = etc / "provisioning/alerting"
    for folder in (shipped, etc / "dashboards/battfleet"):
        folder.mkdir(parents=True)
    (tmp_path / "own.json").write_text('{"contact_points": ["mail"]}')
    names = ("Copy the alerts", "Look for what was shipped once", "Take away what is built no more")
    configure = [task for task in tasks_of("configure.yml") if task["name"] in (*names, CONFIGURE)]
    run = [task for task in tasks_of("run.yml") if task["name"] in ("Restart now what changed", RUN)]
    assert len(configure) == 4 and len(run) == 2

    def there(tasks: list[dict[str, Any]]) -> tuple[set[str], bool]:
        text = json.dumps(tasks).replace("/etc/grafana/", f"{etc}/")
        done = play(tmp_path, json.loads(text), {"grafana_built": str(built)})
        assert done.returncode == 0, done.stdout + done.stderr
        return {path.name for path in shipped.iterdir()}, "has restarted" in done.stdout

    assert build.main(["--out", str(built), "--settings", str(tmp_path / "own.json")]) == 0
    assert there([*configure, *run]) == ({"rules.yaml", "contact-points.yaml", "policies.yaml"}, True)
    assert there([*configure, *run])[1] is False
    assert build.main(["--out", str(built)]) == 0
    stopped = [*configure, {"name": "Stop", "ansible.builtin.meta": "end_play"}]
    assert there(stopped)[0] == {"rules.yaml", "contact-points.yaml"}
    request = yaml.safe_load((shipped / "contact-points.yaml").read_text())
    assert request["resetPolicies"] == [1] and len(request["deleteContactPoints"]) == 4
    assert there([*configure, *run]) == ({"rules.yaml"}, True)
    assert there([*configure, *run]) == ({"rules.yaml"}, False)


CONFIGURE = "Have it delete contact points that are named no more"
RUN = "Take away what told it to delete contact points"
