"""The rights of a bench's tunnel key at the gate: a real sshd with the role's files, and every kind of forwarding."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from tests.ansible.modules import ROOT
from tests.ansible.test_roles import read

ROLE = ROOT / "ansible/roles/tunnel"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
USER = "nobody" if os.geteuid() == 0 else getpass.getuser()
"""An account that is not locked; sshd that is not root's lets only its own user in."""
GREETING = b"SECRET BEHIND THE GATE\n"

pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None,
    reason="needs sshd and ssh: apt-get install openssh-server openssh-client",
)


class Greeter(socketserver.BaseRequestHandler):
    """A service that only the gate should reach: it sends a greeting to every connection."""

    def handle(self) -> None:
        self.request.sendall(GREETING)


@contextmanager
def service(folder: Path) -> Iterator[tuple[int, Path]]:
    """Serve greetings on a loopback port and on a unix socket; yield both."""
    path = folder / "service"
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeter) as by_port,
        socketserver.ThreadingUnixStreamServer(str(path), Greeter) as by_path,
    ):
        path.chmod(0o777)
        for server in (by_port, by_path):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield by_port.server_address[1], path
        by_port.shutdown()
        by_path.shutdown()


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


def heard(port: int, within_s: float = 10.0, socks_to: int = 0) -> bytes:
    """Return what a loopback port sends (with `socks_to`: through SOCKS5 to that port); nothing without a listener."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(5)
                if socks_to:
                    connection.sendall(b"\x05\x01\x00")
                    connection.recv(2)
                    connection.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + socks_to.to_bytes(2, "big"))
                    answer = connection.recv(10)
                    return connection.recv(100) if answer[1:2] == b"\x00" else b""
                return connection.recv(100)
        except ConnectionRefusedError:
            time.sleep(0.05)
        except OSError:
            return b""
    return b""


@dataclass
class Gate:
    """A gate's sshd, the services behind it, and a bench that has the key."""

    folder: Path
    port: int
    listen: int
    """The one port that the bench may have."""
    secret_port: int
    secret_path: Path

    def command(self, *arguments: str) -> list[str]:
        options = (
            "BatchMode=yes", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "StrictHostKeyChecking=accept-new",
            "ExitOnForwardFailure=yes", "IdentitiesOnly=yes", "ConnectTimeout=10", "ForwardX11Timeout=0",
        )  # fmt: skip
        chosen = [word for option in options for word in ("-o", option)]
        return [
            "ssh", "-F", "none", "-i", str(self.folder / "key"), "-p", str(self.port), *chosen, *arguments,
            f"{USER}@127.0.0.1",
        ]  # fmt: skip

    def ssh(self, *arguments: str, command: str = "", within_s: float = 10.0) -> subprocess.CompletedProcess[bytes]:
        """Run ssh to its end; TimeoutExpired if it stays connected."""
        words = [*self.command(*arguments), *([command] if command else [])]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=within_s)

    @contextmanager
    def connected(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Keep ssh connected for this block."""
        process = subprocess.Popen(self.command("-N", *arguments), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def render_config(listen: int) -> str:
    """Return the role's Match block for this user."""
    environment = Environment(loader=FileSystemLoader(ROLE / "templates"), trim_blocks=True, autoescape=False)
    known = {"ansible_managed": "", "tunnel_gate_user": USER, "tunnel_ports": [listen]}
    return environment.get_template("gate.conf.j2").render(known)


def rights(listen: int) -> str:
    """Return the options that the role gives the key."""
    text = str(read(ROLE / "vars/main.yml")["tunnel_rights"])
    return Environment(autoescape=False).from_string(text).render(tunnel_port=listen)


@pytest.fixture(params=["both", "key's options alone", "Match block alone"], scope="module")
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """A gate that has both of the role's limits, or only one: each must suffice."""
    # pytest's own folders are closed to the login user, as whom sshd reads the key.
    with tempfile.TemporaryDirectory(prefix="battfleet-gate-") as folder:
        Path(folder).chmod(0o755)
        with running_gate(Path(folder), str(request.param)) as made:
            yield made


@contextmanager
def running_gate(folder: Path, limits: str) -> Iterator[Gate]:
    """Start a gate with some of the role's limits."""
    port, listen = free_port(), free_port()
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    public = " ".join((folder / "key.pub").read_text().split()[:2])
    options = "" if limits == "Match block alone" else f"{rights(listen)} "
    (folder / "authorized_keys").write_text(f"{options}{public} bench\n")
    (folder / "authorized_keys").chmod(0o644)
    text = render_config(listen) if limits != "key's options alone" else ""
    text = text.replace("/etc/ssh/battfleet-gate.keys", str(folder / "authorized_keys"))
    # All that sshd allows by default, and more; the limits that follow must disable it.
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nPermitTunnel yes\nX11Forwarding yes\nGatewayPorts yes\n"
        f"AllowAgentForwarding yes\nSubsystem sftp internal-sftp\nPermitUserRC yes\n{text}"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with service(folder) as (secret_port, secret_path):
        command = [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")]
        with (folder / "sshd.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                assert heard(port).startswith(b"SSH-"), (folder / "sshd.log").read_text()
                yield Gate(folder, port, listen, secret_port, secret_path)
            finally:
                process.terminate()


def test_the_one_port_works(gate: Gate) -> None:
    inside = f"localhost:{gate.listen}:127.0.0.1:{gate.secret_port}"  # the bench's own end, as its port 22 would be
    with gate.connected("-R", inside):
        assert heard(gate.listen) == GREETING


@pytest.mark.parametrize(
    "bind", ["localhost:{other}", "127.0.0.1:{other}", "*:{listen}", "0.0.0.0:{listen}", "localhost:0"]
)
def test_no_other_port_is_opened_at_the_gate(gate: Gate, bind: str) -> None:
    wanted = bind.format(other=free_port(), listen=gate.listen)
    done = gate.ssh("-N", "-R", f"{wanted}:127.0.0.1:{gate.secret_port}")
    assert done.returncode == 255
    assert b"remote port forwarding failed" in done.stderr


def test_no_proxy_is_opened_at_the_gate(gate: Gate) -> None:
    assert b"remote port forwarding failed" in gate.ssh("-N", "-R", str(free_port())).stderr


def test_no_socket_is_opened_at_the_gate(gate: Gate) -> None:
    path = gate.folder / "opened"
    done = gate.ssh("-N", "-R", f"{path}:127.0.0.1:{gate.secret_port}")
    assert done.returncode == 255
    assert not path.exists()


def test_nothing_behind_the_gate_is_reached_by_standard_input(gate: Gate) -> None:
    done = gate.ssh("-W", f"127.0.0.1:{gate.secret_port}")
    assert done.returncode == 255
    assert GREETING not in done.stdout
    assert b"administratively prohibited" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nothing_behind_the_gate_is_reached_by_a_local_port(gate: Gate, host: str) -> None:
    local = free_port()
    with gate.connected("-L", f"{local}:{host}:{gate.secret_port}") as ssh:
        assert heard(local) == b""
        assert ssh.poll() is None, "it was let in, so the answer is the gate's"


def test_nothing_behind_the_gate_is_reached_by_a_proxy(gate: Gate) -> None:
    local = free_port()
    with gate.connected("-D", str(local)) as ssh:
        assert heard(local, socks_to=gate.secret_port) == b""
        assert ssh.poll() is None, "it was let in, so the answer is the gate's"


def test_no_socket_behind_the_gate_is_reached(gate: Gate) -> None:
    local = free_port()
    with gate.connected("-L", f"{local}:{gate.secret_path}") as ssh:
        assert heard(local) == b""
        assert ssh.poll() is None, "it was let in, so the answer is the gate's"


@pytest.mark.parametrize(
    "arguments",
    [["-T"], ["-tt"], ["-A"], ["-X"], ["-Y"], ["-s"]],
    ids=["command", "terminal", "agent", "X11", "trusted X11", "subsystem"],
)
def test_no_session_is_opened(gate: Gate, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", "127.0.0.1:99")
    done = gate.ssh(*arguments, command="sftp" if "-s" in arguments else "echo done; env; tty")
    assert done.returncode != 0
    assert b"done" not in done.stdout and b"SSH_AUTH_SOCK" not in done.stdout


def test_no_file_is_copied(gate: Gate) -> None:
    command = gate.command()
    sftp = ["sftp", "-b", "-", *command[1:-1], command[-1]]
    sftp[sftp.index("-p")] = "-P"
    done = subprocess.run(sftp, input=b"ls /\n", capture_output=True, check=False, timeout=10)
    assert done.returncode != 0 and b"etc" not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun")
def test_no_network_device_is_opened(gate: Gate) -> None:
    assert gate.ssh("-N", "-w", "any:any").returncode == 255


def effective(folder: Path, user: str) -> dict[str, str]:
    """Return sshd's effective settings for this user, with the role's file before settings that allow everything."""
    (folder / "gate.conf").write_text(render_config(2201))
    (folder / "main").write_text(f"Include {folder / 'gate.conf'}\nPermitTunnel yes\nX11Forwarding yes\n")
    command = [str(SSHD), "-T", "-f", str(folder / "main"), "-C", f"user={user},host=localhost,addr=127.0.0.1"]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / f"host-{user}")], check=True)
    command += ["-h", str(folder / f"host-{user}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_sshd_applies_every_limit_to_the_tunnel_s_user_and_none_to_others(tmp_path: Path) -> None:
    limited = {
        "allowtcpforwarding": "remote", "permitopen": "none", "permitlisten": "localhost:2201", "gatewayports": "no",
        "allowstreamlocalforwarding": "no", "allowagentforwarding": "no", "x11forwarding": "no", "permittunnel": "no",
        "permittty": "no", "permituserrc": "no", "maxsessions": "0", "forcecommand": "/bin/false",
        "authenticationmethods": "publickey",
    }  # fmt: skip
    found = effective(tmp_path, USER)
    assert {key: found[key] for key in limited} == limited
    other = effective(tmp_path, "somebody-else")
    assert (other["permittunnel"], other["x11forwarding"], other["maxsessions"]) == ("yes", "yes", "10")
    assert other["allowtcpforwarding"] == "yes"


def test_the_options_of_the_key_open_nothing_by_themselves() -> None:
    """RFC 6761: names below .invalid never resolve; without `permitopen` every address would be open."""
    assert 'permitopen="nowhere.invalid:1"' in rights(2201)
    assert 'permitlisten="localhost:2201"' in rights(2201)


@pytest.mark.parametrize("bench", ["bench.1", "bench-1"])
def test_a_name_in_the_gate_s_file_is_no_pattern(tmp_path: Path, bench: str) -> None:
    """The task itself, played for a bench whose name, taken for a pattern, would be that of another one, too."""
    (block,) = [task["block"] for task in read(ROLE / "tasks/configure.yml") if "block" in task]
    (own,) = [task for task in block if task["name"] == "Let the key open one port there and nothing else"]
    keys = tmp_path / "keys"
    other = "bench-1" if bench == "bench.1" else "bench.1"
    keys.write_text(f"options ssh-ed25519 OLD {bench}\noptions ssh-ed25519 AAAA {other}\n", encoding="ascii")
    arguments = {**own["ansible.builtin.lineinfile"], "path": str(keys)}
    command = [str(Path(sys.executable).with_name("ansible")), bench, "-i", f"{bench},", "-c", "local"]
    command += ["-m", "ansible.builtin.lineinfile", "-a", json.dumps(arguments)]
    command += ["-e", json.dumps({"tunnel_line": f"options ssh-ed25519 NEW {bench}"})]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert keys.read_text(encoding="ascii").splitlines() == [
        f"options ssh-ed25519 NEW {bench}",
        f"options ssh-ed25519 AAAA {other}",
    ]
