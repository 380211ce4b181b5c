"""The vendor's InfluxDB 2 on a booted Debian 12: packages and API are stand-ins; repository, key and pin are real."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.ansible.controller import Controller, recap
from tests.ansible.hosts import Host, Lab
from tests.ansible.servers import told_by_api, vendor_repository
from tests.ansible.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-vendor"), pytest.mark.timeout(1800)]
PLAYBOOK = "playbooks/server.yml"
SERVER = ("--limit", "servers", "--diff")


@pytest.fixture(scope="module")
def repository(lab: Lab) -> dict[str, str]:
    """Boot a server and put a vendor's repository on its disk; return the variables of role vendor_apt for it."""
    return vendor_repository(lab.start("vend", "bookworm").root / "srv/vendor", "file:/srv/vendor")


@pytest.fixture(scope="module")
def site(lab: Lab, repository: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A server of the vendor's variant, not provisioned yet; its bench needs only a name."""
    variables = {
        "influxdb_variant": "vendor",
        "influxdb_version": "2.9.1-1",
        "vendor_apt_repositories": [repository],
        "grafana_enabled": False,
    }
    groups = {"servers": {"vend": variables}, "benches": {"bench": {"bench_instruments": []}}}
    return Site(Controller(tmp_path_factory.mktemp("vendor"), lab), groups)


@pytest.fixture
def host(site: Site) -> Host:
    """The server."""
    return site.host("vend")


def test_a_key_with_another_fingerprint_is_refused_and_never_trusted(
    site: Site, host: Host, repository: dict[str, str]
) -> None:
    site.write(vend={"vendor_apt_repositories": [repository | {"fingerprint": "0" * 40}]})
    done = site.try_play(PLAYBOOK, *SERVER)
    site.write()
    assert done.returncode != 0
    assert f"holds the primary key {repository['fingerprint']}, expected {'0' * 40}" in done.stdout.replace("\n", " ")
    assert "stand-in.asc" not in host.run("ls /etc/apt/keyrings")
    assert "influxdb2" not in host.run("dpkg -l")


def test_the_right_key_installs_exactly_the_held_version_and_provisions_the_database_once(
    site: Site, host: Host
) -> None:
    rehearsal = recap(site.play(PLAYBOOK, *SERVER, "--check"))["vend"]
    assert (rehearsal["failed"], rehearsal["unreachable"]) == (0, 0)
    site.play(PLAYBOOK, *SERVER)
    assert host.run("dpkg-query -W -f '${Version}' influxdb2") == "2.9.1-1"
    assert "1001" in host.run("apt-cache policy influxdb2")
    assert site.changed(PLAYBOOK, *SERVER) == {"vend": 0}
    assert site.as_user("bench").request("/write?db=bat&rp=raw", "x y=1")[0] == 204
    assert site.as_user("grafana").request("/write?db=bat&rp=raw", "x y=1")[0] == 403
    host.run("systemd-analyze security --threshold=20 influxdb.service")
    token = site.vault.values["vault_influxdb_admin_token"]
    (org,) = told_by_api(host, token, "/api/v2/orgs?org=lab")["orgs"]
    built = [path.read_text() for path in (site.controller.checkout / "build/grafana").rglob("*.flux")]
    assert len(built) == 30
    for flux in built:
        name = quote(flux.partition('{name: "')[2].partition('"')[0])
        (task,) = told_by_api(host, token, f"/api/v2/tasks?orgID={org['id']}&name={name}")["tasks"]
        assert (task["flux"].strip(), task["status"]) == (flux.strip(), "active")
