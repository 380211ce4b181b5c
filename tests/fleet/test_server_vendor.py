"""The vendor's InfluxDB 2 on a booted Debian 12: packages and API are stand-ins; repository, key and pin are real."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.fleet.conftest import Controller
from tests.fleet.hosts import Lab
from tests.fleet.servers import Vault, copy_of, told_by_api, vendor_repository
from tests.fleet.test_server import PLAYBOOK, Server

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(lab: Lab, controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server of the vendor's variant, not provisioned yet, with the vendor's repository on its own disk."""
    host = lab.start("vend", "bookworm")
    repository = vendor_repository(host.root / "srv/vendor", "file:/srv/vendor")
    variables: dict[str, Any] = {
        "influxdb_variant": "vendor",
        "influxdb_version": "2.9.1-1",
        "vendor_apt_repositories": [repository],
        "grafana_enabled": False,
    }
    own = copy_of(controller, tmp_path_factory.mktemp("vendor"))
    return Server(own, host, Vault(own.checkout), variables)


def test_a_key_with_another_fingerprint_is_refused_and_never_trusted(server: Server) -> None:
    (repository,) = server.variables["vendor_apt_repositories"]
    server.write(vendor_apt_repositories=[repository | {"fingerprint": "0" * 40}])
    arguments = ["--limit", "servers", *server.vault.arguments]
    done = server.controller.try_play(PLAYBOOK, *arguments, inventory="server")
    assert done.returncode != 0
    assert f"holds the primary key {repository['fingerprint']}, expected {'0' * 40}" in done.stdout.replace("\n", " ")
    assert "stand-in.asc" not in server.host.run("ls /etc/apt/keyrings")
    assert "influxdb2" not in server.host.run("dpkg -l")


def test_the_right_key_brings_exactly_the_held_version_and_a_database_that_is_set_up_once(server: Server) -> None:
    server.write()
    rehearsal = server.counts("--check")
    assert (rehearsal["failed"], rehearsal["unreachable"]) == (0, 0)
    server.play()
    assert server.host.run("dpkg-query -W -f '${Version}' influxdb2") == "2.9.1-1"
    assert "1001" in server.host.run("apt-cache policy influxdb2")
    counts = server.counts()
    assert (counts["changed"], counts["failed"]) == (0, 0)
    bench = server.as_user("bench-1")
    assert bench.request("/write?db=bat&rp=raw", "x y=1")[0] == 204
    assert server.as_user("grafana").request("/write?db=bat&rp=raw", "x y=1")[0] == 403
    server.host.run("systemd-analyze security --threshold=20 influxdb.service")
    token = server.vault.values["vault_influxdb_admin_token"]
    (org,) = told_by_api(server.host, token, "/api/v2/orgs?org=lab")["orgs"]
    built = [path.read_text() for path in (server.controller.checkout / "build/grafana").rglob("*.flux")]
    assert len(built) == 24
    for flux in built:
        name = quote(flux.partition('{name: "')[2].partition('"')[0])
        (task,) = told_by_api(server.host, token, f"/api/v2/tasks?orgID={org['id']}&name={name}")["tasks"]
        assert (task["flux"].strip(), task["status"]) == (flux.strip(), "active")
