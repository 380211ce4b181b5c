"""Rules for every role: one structure, declared variables, hardened services, no finding of the linter."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.ansible.modules import ROOT

ROLES = sorted(path.parent for path in (ROOT / "ansible/roles").glob("*/tasks"))
HARDENED = {
    # unit: template, relative to the roles
    "collector@mppt.service": "collectors/templates/collector@.service.j2",
    "collectors-ship.service": "collectors/templates/collectors-ship.service.j2",
    "collectors-verify.service": "collectors/templates/collectors-verify.service.j2",
    "battfleet-disk-report.service": "disk_report/templates/battfleet-disk-report.service.j2",
    "battfleet-tunnel.service": "tunnel/templates/battfleet-tunnel.service.j2",
}
MOST_EXPOSED = 20  # systemd-analyze counts tenths: 2.0


def read(path: Path) -> Any:
    """Return a YAML file's content."""
    return DataLoader().load_from_file(str(path))


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_setting_is_declared_and_has_a_default(role: Path) -> None:
    options = read(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options", {})
    defaults = read(role / "defaults/main.yml") or {}
    required = {name for name, option in options.items() if option.get("required")}
    assert set(defaults) == set(options) - required
    assert all(name.startswith(f"{role.name}_") for name in options)


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_setting_is_used(role: Path) -> None:
    files = [path for path in role.rglob("*") if path.suffix in (".yml", ".j2", ".py", ".sh", ".service", ".conf")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.parent.name not in ("defaults", "meta")]
    unused = [name for name in read(role / "defaults/main.yml") or {} if not any(name in text for text in texts)]
    assert not unused


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_no_role_uses_a_world_writable_folder(role: Path) -> None:
    """Another user may own a name in /tmp or /var/tmp, as a file or link that root would then write or run."""
    tasks = [path for path in role.rglob("*") if path.suffix in (".yml", ".j2", ".sh", ".service")]
    wrong = [str(path) for path in tasks if re.search(r"/(var/)?tmp(/|\b(?!files))", code(path))]
    assert wrong == []


def code(path: Path) -> str:
    """Return a file's lines without comments."""
    return "\n".join(
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    )


def test_a_vendor_s_key_is_fetched_whatever_its_date() -> None:
    """An If-Modified-Since of the last download would skip a rotated key whose file is older than that."""
    tasks = read(ROOT / "ansible/roles/vendor_apt/tasks/install.yml")
    (fetch,) = [task["ansible.builtin.get_url"] for task in tasks if "ansible.builtin.get_url" in task]
    assert fetch["force"] is True


def test_the_vendor_s_installer_lies_in_a_folder_of_root_only() -> None:
    (task,) = read(ROOT / "ansible/roles/ljm/tasks/install.yml")
    _, folder, copied, ran = (
        next(value for name, value in step.items() if name.startswith("ansible.builtin.")) for step in task["block"][:4]
    )
    assert (folder["owner"], folder["mode"]) == ("root", "0700")
    assert copied["dest"].startswith(folder["path"]) and ran["chdir"] == folder["path"]
    assert task["block"][3]["environment"] == {"TMPDIR": folder["path"]}, "the installer unpacks itself there"
    assert task["always"][0]["ansible.builtin.file"]["state"] == "absent"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, of Debian's systemd")
@pytest.mark.parametrize("unit", HARDENED)
def test_services_are_hardened(unit: str, tmp_path: Path) -> None:
    template = ROOT / "ansible/roles" / HARDENED[unit]
    defaults = read(template.parents[1] / "defaults/main.yml")
    environment = Environment(
        loader=FileSystemLoader(template.parent), trim_blocks=True, autoescape=False, undefined=StrictUndefined
    )
    text = environment.get_template(template.name).render(
        defaults | {"ansible_managed": "", "collectors_secrets": {"lab": ""}, "tunnel_address": "gate.example"}
    )
    (tmp_path / unit).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(tmp_path / unit)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ignoring" not in done.stderr, "a line that systemd does not understand protects nothing"


@pytest.mark.slow
def test_the_linter_finds_nothing(tmp_path: Path) -> None:
    linter = str(Path(sys.executable).with_name("ansible-lint"))
    command = [linter, "--offline", "--profile", "production", "--nocolor", "ansible"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
