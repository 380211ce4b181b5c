"""Booted hosts and their requirements, once for the session; only the tests marked `hosts` use them."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.ansible import hosts
from tests.ansible.benches import Bench
from tests.ansible.controller import Controller
from tests.ansible.hosts import CACHE, Lab
from tests.ansible.modules import ROOT
from tests.ansible.servers import vendor_repository
from tests.ansible.site import WholeSite


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A bridge for hosts."""
    if reason := hosts.why_not():
        pytest.skip(reason)
    with Lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """A folder with every wheel of the lock for Debian 13's Python: hosts of a lab without internet install from it."""
    folder = CACHE / f"wheels-{sha256((ROOT / 'requirements.txt').read_bytes()).hexdigest()[:12]}"
    with hosts.draft_of(folder) as draft:
        if draft is not None:
            command = [sys.executable, str(ROOT / "scripts/wheelhouse.py"), str(draft), "--machine", platform.machine()]
            subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session")
def site(lab: Lab, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> WholeSite:
    """A lab of three hosts, provisioned from nothing by the play of the whole lab: rehearsed, played, played again.

    The tests that use it are one group, so that there is one such lab in a run. Each leaves it as it found it.
    """
    server, pi = lab.start("lab", "bookworm"), lab.start("bench", "trixie")
    lab.start("desk", "bookworm")
    repository = vendor_repository(server.root / "srv/vendor", "file:/srv/vendor")
    bench = Bench(pi, wheelhouse)
    key = lab.key.with_suffix(".pub").read_text(encoding="ascii").strip()
    groups = {
        "benches": {
            "bench": bench.variables
            | {
                "access_users": [{"name": "ada", "keys": [key], "sudo": True}],
                "access_rollback_s": 20,
                "tunnel_gate": "lab",
                "tunnel_port": 2201,
            }
        },
        "servers": {"lab": {"vendor_apt_repositories": [repository], "grafana_version": "13.0.1"}},
        # Compilers are 1 GB, and the hosts of tests reach a mirror of Debian only.
        "workstations": {"desk": {"workstation_build_packages": [], "workstation_west_version": ""}},
    }
    made = WholeSite(Controller(tmp_path_factory.mktemp("controller"), lab), bench, groups)
    bench.start_fakes()
    made.rehearsal = made.play("site.yml", "--check", "--diff")
    made.play("site.yml", "--diff")
    made.second = made.play("site.yml", "--diff")
    return made
