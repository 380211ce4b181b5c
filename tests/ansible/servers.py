"""Shared parts of the server's tests: a vault, a signed repository with stand-in packages, the database."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import secrets
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ansible.hosts import Host, shell

API = Path(__file__).parents[1] / "testing/influxdb2_stand_in.py"

GRAFANA = r"""import base64, http.server, json, os, pathlib, re, urllib.error, urllib.request
# As Grafana does, it reads provisioning when it starts, replaces variables by its environment, and asks the database
# what its health check asks (pkg/tsdb/influxdb/healthcheck.go). It believes every administrator.
folder = pathlib.Path("/etc/grafana/provisioning")
source = os.path.expandvars((folder / "datasources/battfleet.yaml").read_text())
rules = [{"uid": uid} for uid in re.findall(r"^  - uid: (\S+)", (folder / "alerting/rules.yaml").read_text(), re.M)]
def said(key):
    return re.search(rf"^ +{key}: (.*)$", source, re.M)[1]
def health():
    login = base64.b64encode(f"{said('basicAuthUser')}:{said('basicAuthPassword')}".encode()).decode()
    body = f"db={said('dbName')}&q=SHOW+MEASUREMENTS".encode()
    try:
        asked = urllib.request.Request(said("url") + "/query", body, {"Authorization": f"Basic {login}"})
        return 200, {"status": "OK", "message": urllib.request.urlopen(asked).read().decode()}
    except urllib.error.HTTPError as error:
        return 400, {"status": "ERROR", "message": f"{error.code} {error.read().decode()}"}
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        paths = {"/api/v1/provisioning/alert-rules": (200, rules)}
        if self.path == "/api/datasources/uid/battfleet/health":
            paths[self.path] = health()
        paths["/forwarded"] = (200, sorted(self.headers.items()))
        status, found = paths.get(self.path, (200, {"database": "ok"}))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Answer).serve_forever()
"""

PACKAGES: dict[str, tuple[str, str, str, str]] = {
    # name: (version, unit, user, program)
    "grafana": ("13.0.1", "grafana-server", "grafana", GRAFANA),
    "influxdb2": ("2.9.1-1", "influxdb", "influxdb", API.read_text(encoding="utf-8")),
    "influxdb2-cli": ("2.8.0-1", "", "", ""),
}


class Vault:
    """An encrypted vault in a checkout, with a password generated for the test."""

    def __init__(self, checkout: Path) -> None:
        """Write and encrypt it."""
        self.password_file = checkout / "vault-password"
        self.password_file.write_text(secrets.token_urlsafe(24))
        self.values: dict[str, str] = {}
        for group in ("all", "servers"):
            folder = checkout / "group_vars" / group
            names = [line.partition(":")[0] for line in (folder / "vault.example.yml").read_text().splitlines()]
            made = {name: secrets.token_urlsafe(24) for name in names if name.startswith("vault_")}
            self.values |= made
            (folder / "vault.yml").write_text(json.dumps(made))
            command = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", *self.arguments]
            shell(*command, str(folder / "vault.yml"))

    @property
    def arguments(self) -> list[str]:
        """Return the arguments that open it."""
        return ["--vault-password-file", str(self.password_file)]

    def leaked(self, output: str) -> list[str]:
        """Return the names of the secrets that occur in this text."""
        return [name for name, value in self.values.items() if value in output]


def deb(name: str, folder: Path) -> str:
    """Build a stand-in package; return its entry of the repository's list."""
    version, unit, user, program = PACKAGES[name]
    root = folder / f"{name}-root"
    (root / "DEBIAN").mkdir(parents=True)
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: test <test@example.org>\n"
        "Description: stand-in for tests\n"
    )
    if unit:
        (root / "usr/lib/stand-in").mkdir(parents=True)
        (root / f"usr/lib/stand-in/{unit}.py").write_text(program)
        (root / "lib/systemd/system").mkdir(parents=True)
        (root / f"lib/systemd/system/{unit}.service").write_text(
            f"[Service]\nUser={user}\nGroup={user}\nStateDirectory={user}\n"
            f"ExecStart=/usr/bin/python3 /usr/lib/stand-in/{unit}.py\n[Install]\nWantedBy=multi-user.target\n"
        )
        script = root / "DEBIAN/postinst"
        script.write_text(f"#!/bin/sh\nuseradd --system --user-group --no-create-home {user} || true\n")
        script.chmod(0o755)
    (root / "DEBIAN/control").write_text(control)
    package = folder / f"{name}.deb"
    shell("dpkg-deb", "--root-owner-group", "--build", str(root), str(package))
    shutil.rmtree(root)
    content = package.read_bytes()
    return f"{control}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"


@contextmanager
def key_ring() -> Iterator[dict[str, str]]:
    """Return an environment in which gpg has its own key; the folder's path must be short."""
    with tempfile.TemporaryDirectory(prefix="bf") as folder:
        environment = {**os.environ, "GNUPGHOME": folder}
        make = [
            "gpg",
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-gen-key",
            "vendor@example.org",
            "ed25519",
            "sign",
        ]
        subprocess.run(make, check=True, env=environment, capture_output=True)
        try:
            yield environment
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)


def vendor_repository(folder: Path, url: str) -> dict[str, str]:
    """Create a signed repository of stand-ins here; return how role vendor_apt finds it at this file:// url."""
    folder.mkdir(parents=True)
    packages = "\n".join(deb(name, folder) for name in PACKAGES)
    (folder / "Packages").write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    (folder / "Release").write_text(f"Origin: stand-in\nSHA256:\n {digest} {len(packages.encode())} Packages\n")
    with key_ring() as environment:
        sign = ["gpg", "--batch", "--clearsign", "--output", str(folder / "InRelease"), str(folder / "Release")]
        subprocess.run(sign, check=True, env=environment, capture_output=True)
        export = ["gpg", "--armor", "--export"]
        (folder / "key.asc").write_bytes(
            subprocess.run(export, check=True, env=environment, capture_output=True).stdout
        )
        command = ["gpg", "--with-colons", "--list-keys"]
        listed = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    return {
        "name": "stand-in",
        "url": url,
        "suite": "./",
        "key_url": f"{url.replace('file:', 'file://')}/key.asc",
        "fingerprint": fingerprint,
    }


def told_by_api(host: Host, token: str, path: str) -> Any:
    """Return the response of InfluxDB 2 on this host to a GET with a token."""
    ask = "import sys, urllib.request as u; url, token = sys.stdin.read().split(); "
    ask += "print(u.urlopen(u.Request(url, headers={'Authorization': 'Token ' + token})).read().decode())"
    return json.loads(host.run(f"python3 -c {shlex.quote(ask)}", f"http://127.0.0.1:8086{path} {token}"))


class Database:
    """The server's InfluxDB through its TLS endpoint, limited to the requests that the web server passes on."""

    def __init__(self, server: Host, user: str, password: str) -> None:
        """Send requests as this user."""
        self._address = server.address
        self._trust = ssl.create_default_context(cafile=server.root / "etc/battfleet/tls/authority.pem")
        self.login = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
        self._headers = {"Authorization": self.login, "Content-Type": "application/x-www-form-urlencoded"}

    def request(self, path: str, body: str) -> tuple[int, str]:
        """Return status and text of a POST to this path of the database."""
        return self._ask("POST", f"/influxdb{path}", body)

    def page(self, path: str) -> str:
        """Return the page that the web server sends to a browser."""
        return self._ask("GET", path, "")[1]

    def connect(self) -> http.client.HTTPSConnection:
        """Return a new connection to the endpoint."""
        return http.client.HTTPSConnection(self._address, context=self._trust, timeout=30)

    def _ask(self, method: str, path: str, body: str) -> tuple[int, str]:
        connection = self.connect()
        try:
            connection.request(method, path, body.encode(), self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def query(self, statement: str) -> Any:
        """Return the decoded result of an InfluxQL statement with stamps in ns, or its error."""
        status, text = self.request("/query", urllib.parse.urlencode({"db": "bat", "epoch": "ns", "q": statement}))
        answer = json.loads(text)
        return answer["results"][0] if status == 200 else answer
