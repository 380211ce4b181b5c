"""The server on a booted Debian 12: InfluxDB 1.6 for real, Grafana as a stand-in package."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ansible.controller import recap
from tests.ansible.hosts import await_true
from tests.ansible.servers import Database
from tests.ansible.site import WholeSite

pytestmark = [pytest.mark.slow, pytest.mark.hosts, pytest.mark.xdist_group("fleet-site"), pytest.mark.timeout(1800)]
PLAYBOOK = "playbooks/server.yml"
SERVER = ("--limit", "servers", "--diff")


def test_a_bench_may_write_and_nothing_else(site: WholeSite) -> None:
    bench = site.as_user("bench")
    assert bench.request("/write?db=bat&rp=raw&precision=ns", "battery,bench=test voltage_v=13.2")[0] == 204
    assert "error" in bench.query("SELECT * FROM battery")
    assert "error" in bench.query("SHOW USERS")
    site.as_admin().query("CREATE DATABASE other")
    assert bench.request("/write?db=other", "x y=1")[0] == 403
    (series,) = site.as_user("grafana").query("SELECT voltage_v FROM battery WHERE bench='test'")["series"]
    assert series["values"][0][1] == 13.2


def test_grafana_may_read_and_nothing_else(site: WholeSite) -> None:
    grafana = site.as_user("grafana")
    assert grafana.request("/write?db=bat&rp=raw", "battery voltage_v=1")[0] == 403
    assert "error" in grafana.query("DROP DATABASE bat")


def test_the_server_reports_its_own_disk_as_a_bench_does(site: WholeSite) -> None:
    server = site.host("lab")
    server.run("systemctl start battfleet-disk-report.service")
    asked = "SELECT last(disk_free_bytes) FROM collector WHERE bench='lab' AND device='server'"
    (series,) = site.as_user("grafana").query(asked)["series"]
    blocks, size = server.run("stat -f -c '%a %S' /var/lib/influxdb").split()
    assert series["values"][0][1] == pytest.approx(int(blocks) * int(size), rel=0.2)
    assert server.run("systemctl is-active battfleet-disk-report.timer").strip() == "active"


def test_unknown_users_are_rejected(site: WholeSite) -> None:
    server = site.host("lab")
    assert Database(server, "bench", "guessed").request("/query", "q=SHOW+DATABASES")[0] == 401
    listening = server.run("ss -ltnH")
    assert "127.0.0.1:8086" in listening and "127.0.0.1:8088" in listening
    assert "policy drop" in server.run("nft list table inet battfleet")
    assert "*:8086" not in listening and "0.0.0.0:8086" not in listening


def test_only_root_reaches_the_port_for_backups_that_takes_no_password(site: WholeSite) -> None:
    server = site.host("lab")
    connect = 'python3 -c \'import socket; s = socket.socket(); s.connect(("127.0.0.1", 8088)); print("connected")\''
    assert server.run(connect).strip() == "connected"
    for user in ("admin", "www-data", "grafana", "tunnel"):
        refused = server.try_run(f"setpriv --reuid={user} --clear-groups {connect}")
        assert "Connection refused" in refused.stderr and refused.stdout == "", user


def test_the_endpoint_is_tls_and_serves_writes_queries_and_pages_only(site: WholeSite) -> None:
    bench, server = site.as_user("bench"), site.host("lab")
    assert bench.request("/debug/vars", "")[0] == 404
    plain = http.client.HTTPConnection(server.address, timeout=10)
    plain.request("POST", "/influxdb/write?db=bat", "x y=1")
    answer = plain.getresponse()
    assert (answer.status, answer.headers["Location"][:6]) == (301, "https:")
    plain.close()
    assert '{"database": "ok"}' in bench.page("/")
    assert "voltage" not in server.run("cat /var/log/nginx/battfleet.log")


def test_the_endpoint_replaces_the_forwarded_address_of_the_client(site: WholeSite) -> None:
    bench, server = site.as_user("bench"), site.host("lab")
    connection = bench.connect()
    lies = {"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66", "X-Real-IP": "192.0.2.66"}
    connection.request("GET", "/forwarded", headers={**lies, "X-Forwarded-Host": "evil.example"})
    answer = connection.getresponse()
    told = {name.lower(): value for name, value in json.load(answer)}
    connection.close()
    assert "192.0.2.66" not in str(told) and "evil" not in str(told)
    assert told["x-forwarded-for"] == site.controller.lab.gateway
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert server.run("nginx -t 2>&1").count("successful") == 1


def test_password_attempts_are_rate_limited(site: WholeSite) -> None:
    guess = Database(site.host("lab"), "bench", "guessed")

    def tried(_: int) -> int:
        return guess.request("/query", "q=SHOW+DATABASES")[0]

    with ThreadPoolExecutor(150) as pool:
        answers = Counter(pool.map(tried, range(300)))
    assert set(answers) == {401, 429} and answers[429] > 0
    # A bench's own sequential requests are delayed at most, and so are those of another user at the same address.
    await_true("room for the next", lambda: guess.request("/query", "q=SHOW+DATABASES")[0] == 401, 30)
    bench = site.as_user("bench")
    line = "battery,bench=test voltage_v=13.2"
    assert {bench.request("/write?db=bat&rp=raw", line)[0] for _ in range(60)} == {204}


def environment_of_grafana(site: WholeSite) -> list[str]:
    return site.host("lab").run("cat /proc/$(systemctl show -P MainPID grafana-server)/environ").split("\0")


def test_grafana_gets_its_secrets_from_systemd_only(site: WholeSite) -> None:
    server = site.host("lab")
    modes = server.run("stat -c %a /etc/battfleet/grafana /etc/battfleet/grafana/*").split()
    assert modes == ["700"] + ["600"] * (len(modes) - 1) and len(modes) > 3
    shown = server.run("grep -rh . /etc/grafana --include=*.ini --include=*.yaml; systemctl cat grafana-server")
    assert site.vault.leaked(shown) == []
    password = site.password("grafana")
    assert password not in shown
    assert f"BATTFLEET_INFLUXDB_PASSWORD={password}" in environment_of_grafana(site)


def test_limits_and_contact_points_of_the_site_are_applied_and_removed_by_tag(site: WholeSite) -> None:
    server, odd = site.host("lab"), 'a "quoted" $HOME, \\ # and ü'
    rules = "cat /etc/grafana/provisioning/alerting/rules.yaml"
    site.write(
        lab={
            "fleet_limits": {"soc_low": [0.42, 0.12]},
            "fleet_contact_points": ["mail", "ntfy"],
            "grafana_environment": {
                "BATTFLEET_MAIL_TO": "x@x",
                "BATTFLEET_NTFY_URL": "x",
                "BATTFLEET_NTFY_TOKEN": odd,
            },
            "grafana_smtp_host": "mail.example:587",
            "grafana_smtp_user": "fleet",
            "grafana_smtp_password": odd,
        }
    )
    short = (*SERVER, "--tags", "grafana_configure")
    rehearsal = site.play(PLAYBOOK, *short, "--check")
    assert odd not in rehearsal
    assert "0.42" not in server.run(rules)
    output = site.play(PLAYBOOK, *short)
    assert odd not in output and recap(output)["lab"]["changed"] > 0
    assert "- 0.42" in server.run(rules)
    assert f"BATTFLEET_NTFY_TOKEN={odd}" in environment_of_grafana(site)
    assert server.run("cat /run/credentials/grafana-server.service/smtp-password") == odd
    assert "quoted" not in server.run("cat /etc/grafana/grafana.ini")
    assert site.changed(PLAYBOOK, *short) == {"lab": 0}
    site.write()
    site.play(PLAYBOOK, *short)
    assert server.run("ls /etc/grafana/provisioning/alerting").split() == ["rules.yaml"]
    assert "smtp" not in server.run("cat /etc/grafana/grafana.ini")


def test_a_backup_restores_every_point(site: WholeSite) -> None:
    site.bench.stop()
    site.bench.pi.run("systemctl stop collectors-ship")
    server, bench, admin = site.host("lab"), site.as_user("bench"), site.as_admin()
    points = "\n".join(f"battery,bench=test,device=d{number} voltage_v={number}" for number in range(5))
    assert bench.request("/write?db=bat&rp=raw", points)[0] == 204
    output = site.play("playbooks/backup.yml")
    assert "none is missing" in output and ": 0 values" not in output
    assert "battfleet_restore_check" not in str(admin.query("SHOW DATABASES"))
    archive = server.run("ls /var/backups/battfleet/*.tar").split()[-1]
    assert server.run(f"stat -c %a {archive}").strip() == "600"
    before = admin.query("SELECT * FROM battery")
    admin.query("DROP DATABASE bat")
    server.run(f"battfleet-backup restore {archive}")
    assert admin.query("SELECT * FROM battery") == before
    site.play(PLAYBOOK, *SERVER)
    assert bench.request("/write?db=bat&rp=raw", points)[0] == 204, "the bench never noticed"
    site.bench.pi.run("systemctl start collectors-ship")
    site.bench.go_on()


def test_a_bench_s_password_is_rotated_by_one_command(site: WholeSite) -> None:
    before = site.as_user("bench")
    site.play("playbooks/rotate-token.yml", "-e", "rotate_bench=bench", "--diff")
    assert before.request("/write?db=bat", "x y=1")[0] == 401
    assert site.as_user("bench").request("/write?db=bat&rp=raw", "battery,bench=test voltage_v=13.2")[0] == 204
    seen = site.count("mppt")
    await_true("samples under the new password", lambda: site.count("mppt") > seen + 2, 60)
    assert set(site.changed("site.yml").values()) == {0}, "everything knows of it"
