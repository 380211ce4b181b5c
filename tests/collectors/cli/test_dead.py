"""`collectors dead`: rejected lines are listed, shown, resent and deleted, and only the selected ones."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collectors.cli.dead import COMMAND
from collectors.shipper.config import SinkConfig
from collectors.shipper.cursors import ShipStore
from collectors.shipper.influxdb.client import InfluxClient
from collectors.shipper.retry import Refusal
from tests.testing.influx import Influx

NOW_NS = time.time_ns()


@pytest.fixture
def config(influx: Influx, tmp_path: Path) -> Path:
    """A shipper with two rejected lines, of which the database would accept one now, and an expired one."""
    database = influx.create_database(retention="1d")
    (tmp_path / "password").write_text(influx.password)
    path = tmp_path / "ship.toml"
    path.write_text(f"""
        [ship]
        bench = "bench-1"
        state_dir = "{tmp_path}"
        [[sink]]
        name = "lab"
        dialect = "influxdb1"
        url = "{influx.url}"
        database = "{database}"
        user = "writer"
        password_file = "password"
    """)
    store = ShipStore(tmp_path / "ship.db")
    store.set_types("lab", {("battery", "soc"): "i"})
    store.add_dead("lab", "mppt", 1, [Refusal(f"battery,device=mppt soc=0.5 {NOW_NS}", None, "type", "soc is float")])
    store.add_dead("lab", "load", 2, [Refusal("nonsense", 400, "refused", "unable to parse")])
    store.add_dead("lab", "load", 3, [Refusal("load,device=load power_w=1.0 1000", 400, "expired", "beyond")])
    store.close()
    return path


def run(command: str, config: Path, *arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(COMMAND, [command, str(config), *arguments], input=answer)


def ids(config: Path) -> list[int]:
    return [json.loads(line)["id"] for line in run("list", config, "--json").output.splitlines()]


def test_letters_are_listed_and_chosen(config: Path) -> None:
    assert ids(config) == [1, 2, 3]
    assert "unable to parse" in run("list", config).output
    assert len(run("list", config, "--collector", "load").output.splitlines()) == 2
    assert len(run("list", config, "--limit", "1").output.splitlines()) == 1
    assert run("list", config, "--reason", "fault").output == "no such dead letters\n"
    shown = run("show", config, "2").output
    assert "nonsense" in shown
    assert "battery" not in shown
    assert json.loads(run("show", config, "1", "--json").output)["seq"] == 1


def test_a_resend_removes_stored_lines_and_keeps_those_rejected_again(config: Path, influx: Influx) -> None:
    result = run("resend", config, "--json")
    assert json.loads(result.output) == {"stored": 1, "refused": 2}
    assert result.exit_code == 76
    store = ShipStore(config.parent / "ship.db")
    assert [(x.id, x.reason, x.tries) for x in store.dead()] == [(2, "refused", 2), (3, "expired", 2)]
    assert store.types("lab") == {}
    store.close()
    database = config.read_text().split('database = "')[1].split('"')[0]
    assert influx.count(database, "soc") == 1


def test_a_resend_without_a_server_keeps_everything(config: Path) -> None:
    config.write_text(config.read_text().replace("url = ", 'url = "http://127.0.0.1:9" #'))
    result = run("resend", config)
    assert "no answer" in str(result.exception)
    assert ids(config) == [1, 2, 3]


def test_nothing_is_deleted_without_confirmation(config: Path) -> None:
    assert run("delete", config, answer="n\n").exit_code == 1
    assert run("delete", config, "--json").exit_code == 2
    assert ids(config) == [1, 2, 3]
    assert json.loads(run("delete", config, "--reason", "expired", "--json", "--yes").output) == {"deleted": 1}
    assert ids(config) == [1, 2]
    assert run("delete", config, "2", answer="y\n").exit_code == 0
    assert ids(config) == [1]


def test_a_state_folder_where_nothing_was_shipped_is_named(config: Path) -> None:
    (config.parent / "ship.db").unlink()
    assert "nothing was ever shipped" in str(run("list", config).exception)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_tls_trusts_the_given_authority_and_no_other(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)

    class Stores(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Stores) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            url = f"https://localhost:{server.server_port}"
            with InfluxClient(SinkConfig("lab", "influxdb1", url, "bat", ca_file=str(certificate)), "") as trusting:
                assert trusting.ask(["m v=1 1"]).status == 204
            with InfluxClient(SinkConfig("lab", "influxdb1", url, "bat"), "") as wary:
                answer = wary.ask(["m v=1 1"])
            assert answer.status is None
            assert "CERTIFICATE_VERIFY_FAILED" in answer.text
        finally:
            server.shutdown()
            thread.join()
