"""The server on a booted Debian 12: InfluxDB 1.6 for real, Grafana as a stand-in package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fleet.conftest import ROOT, Controller, recap
from tests.fleet.hosts import Host, Lab
from tests.fleet.servers import Database, Vault, copy_of, vendor_repository

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet"), pytest.mark.timeout(900)]
PLAYBOOK = "playbooks/server.yml"


def password_of(user: str, seed: str) -> str:
    """Return the password that the filter makes."""
    spec = importlib.util.spec_from_file_location("fleet_secrets", ROOT / "ansible/plugins/filter/fleet_secrets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.user_secret(seed, user, {}))


@dataclass
class Server:
    """A booted server and who provisions it."""

    controller: Controller
    host: Host
    vault: Vault
    variables: dict[str, Any]
    output: str = ""

    def write(self, **changes: Any) -> None:
        """Write the inventory: the server, and two benches that only their names are needed of."""
        groups = {"servers": {self.host.name: self.variables | changes}}
        path = self.controller.write(groups, "server")
        text = path.read_text().removesuffix("}") + ', "benches": {"hosts": {"bench-1": {}, "bench-2": {}}}}'
        path.write_text(text)

    def play(self, *arguments: str, playbook: str = PLAYBOOK) -> str:
        """Return what the play says; it must not tell a secret."""
        limit = ["--limit", "servers", *self.vault.arguments, "--diff", *arguments]
        output = self.controller.play(playbook, *limit, inventory="server")
        assert self.vault.leaked(output) == []
        return output

    def counts(self, *arguments: str) -> dict[str, int]:
        """Return how many tasks of a play did what on the server."""
        return recap(self.play(*arguments))[self.host.name]

    def as_user(self, user: str) -> Database:
        """Return the database as this bench or as Grafana sees it."""
        return Database(self.host, user, password_of(user, self.vault.values["vault_seed"]))

    def as_admin(self) -> Database:
        """Return the database as its administrator sees it."""
        return Database(self.host, "admin", self.vault.values["vault_influxdb_admin_password"])


@pytest.fixture(scope="module")
def server(lab: Lab, controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server, rehearsed on the fresh host and then provisioned."""
    host = lab.start("serv", "bookworm")
    repository = vendor_repository(host.root / "srv/vendor", "file:/srv/vendor")
    variables = {"vendor_apt_repositories": [repository], "grafana_version": "13.0.1"}
    own = copy_of(controller, tmp_path_factory.mktemp("server"))
    made = Server(own, host, Vault(own.checkout), variables)
    made.write()
    rehearsal = made.counts("--check")
    assert (rehearsal["failed"], rehearsal["unreachable"]) == (0, 0)
    assert made.host.try_run("test -e /etc/influxdb").returncode, "a rehearsal changes nothing"
    made.output = made.play()
    return made


def test_a_second_run_changes_nothing(server: Server) -> None:
    counts = server.counts()
    assert (counts["changed"], counts["failed"]) == (0, 0)


def test_a_bench_may_write_and_nothing_else(server: Server) -> None:
    bench = server.as_user("bench-1")
    assert bench.request("/write?db=bat&rp=raw&precision=ns", "battery,bench=bench-1 voltage_v=13.2")[0] == 204
    assert "error" in bench.query("SELECT * FROM battery")
    assert "error" in bench.query("SHOW USERS")
    server.as_admin().query("CREATE DATABASE other")
    assert bench.request("/write?db=other", "x y=1")[0] == 403
    (series,) = server.as_user("grafana").query("SELECT voltage_v FROM battery")["series"]
    assert series["values"][0][1] == 13.2


def test_grafana_may_read_and_nothing_else(server: Server) -> None:
    grafana = server.as_user("grafana")
    assert grafana.request("/write?db=bat&rp=raw", "battery voltage_v=1")[0] == 403
    assert "error" in grafana.query("DROP DATABASE bat")


def test_strangers_are_not_let_in(server: Server) -> None:
    assert Database(server.host, "bench-1", "guessed").request("/query", "q=SHOW+DATABASES")[0] == 401
    listening = server.host.run("ss -ltnH")
    assert "127.0.0.1:8086" in listening and "127.0.0.1:8088" in listening
    assert "policy drop" in server.host.run("nft list table inet battfleet")
    assert "*:8086" not in listening and "0.0.0.0:8086" not in listening


def test_the_database_is_hardened(server: Server) -> None:
    for unit in ("influxdb", "downsampling", "battfleet-backup"):
        server.host.run(f"systemd-analyze security --threshold=20 {unit}.service")


def test_the_door_is_tls_and_leads_to_writing_asking_and_pages_only(server: Server) -> None:
    bench, door = server.as_user("bench-1"), f"https://{server.host.address}"
    server.host.run(
        "cp /etc/battfleet/tls/authority.pem /usr/local/share/ca-certificates/lab.crt && update-ca-certificates"
    )
    assert bench.request("/influxdb/write?db=bat&rp=raw", "battery,bench=bench-1 voltage_v=13.3", door)[0] == 204
    assert bench.request("/influxdb/debug/vars", "", door)[0] == 404
    assert bench.request("/influxdb/write?db=bat", "x y=1", f"http://{server.host.address}")[0] != 204
    page = f"import urllib.request; print(urllib.request.urlopen('{door}/').read().decode())"
    assert '{"database": "ok"}' in server.host.run(f'python3 -c "{page}"')
    assert "voltage" not in server.host.run("cat /var/log/nginx/battfleet.log")


def environment_of_grafana(server: Server) -> list[str]:
    return server.host.run("cat /proc/$(systemctl show -P MainPID grafana-server)/environ").split("\0")


def test_grafana_gets_its_secrets_from_systemd_only(server: Server) -> None:
    assert (
        server.host.run("stat -c %a /etc/battfleet/grafana /etc/battfleet/grafana/*").split() == ["700"] + ["600"] * 4
    )
    shown = server.host.run("grep -rh . /etc/grafana --include=*.ini --include=*.yaml; systemctl cat grafana-server")
    assert server.vault.leaked(shown) == []
    password = password_of("grafana", server.vault.values["vault_seed"])
    assert password not in shown
    assert f"BATTFLEET_INFLUXDB_PASSWORD={password}" in environment_of_grafana(server)


def test_a_backup_brings_every_point_back(server: Server) -> None:
    bench, admin = server.as_user("bench-1"), server.as_admin()
    points = "\n".join(f"battery,bench=bench-1,device=d{number} voltage_v={number}" for number in range(5))
    assert bench.request("/write?db=bat&rp=raw", points)[0] == 204
    output = server.play(playbook="playbooks/backup.yml")
    assert "none is missing" in output and ": 0 values" not in output
    assert "battfleet_restore_check" not in str(admin.query("SHOW DATABASES"))
    archive = server.host.run("ls /var/backups/battfleet/*.tar").split()[-1]
    assert server.host.run(f"stat -c %a {archive}").strip() == "600"
    before = admin.query("SELECT * FROM battery")
    admin.query("DROP DATABASE bat")
    server.host.run(f"battfleet-backup restore {archive}")
    assert admin.query("SELECT * FROM battery") == before
    server.play()
    assert bench.request("/write?db=bat&rp=raw", points)[0] == 204, "the bench never noticed"


def test_a_rotated_bench_gets_in_with_the_new_password_only(server: Server) -> None:
    before = server.as_user("bench-2")
    counts = server.counts("-e", '{"fleet_generations": {"bench-2": 2}}')
    assert counts["changed"] == 1
    assert before.request("/write?db=bat", "x y=1")[0] == 401
    assert server.counts()["changed"] == 1, "and back"
    assert before.request("/write?db=bat", "x y=1")[0] == 204


def test_limits_and_contact_points_of_the_site_arrive_by_the_short_way_and_go_again(server: Server) -> None:
    odd = 'a "quoted" $HOME, \\\\ # and ü'
    server.write(
        fleet_limits={"soc_low": [0.42, 0.12]},
        fleet_contact_points=["mail", "ntfy"],
        grafana_environment={"BATTFLEET_MAIL_TO": "x@x", "BATTFLEET_NTFY_URL": "x", "BATTFLEET_NTFY_TOKEN": odd},
        grafana_smtp_host="mail.example:587",
        grafana_smtp_user="fleet",
        grafana_smtp_password=odd,
    )
    short = ["--tags", "grafana_configure"]
    rehearsal = server.play("--check", *short)
    assert odd not in rehearsal
    assert "0.42" not in server.host.run("cat /etc/grafana/provisioning/alerting/rules.yaml")
    output = server.play(*short)
    assert odd not in output and recap(output)[server.host.name]["changed"] > 0
    assert "- 0.42" in server.host.run("cat /etc/grafana/provisioning/alerting/rules.yaml")
    assert f"BATTFLEET_NTFY_TOKEN={odd}" in environment_of_grafana(server)
    assert server.host.run("cat /run/credentials/grafana-server.service/smtp-password") == odd
    assert "quoted" not in server.host.run("cat /etc/grafana/grafana.ini")
    assert server.counts(*short)["changed"] == 0
    server.write()
    server.play(*short)
    assert server.host.run("ls /etc/grafana/provisioning/alerting").split() == ["rules.yaml"]
    assert "smtp" not in server.host.run("cat /etc/grafana/grafana.ini")
    assert server.counts()["changed"] == 0
