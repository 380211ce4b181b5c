"""Real Debian hosts for tests: systemd-nspawn containers with an overlay each, on a bridge of their own.

    with Lab(tmp_path) as lab:
        pi = lab.start("pi", "trixie")            # boots, waits for ssh
        pi.run("systemctl is-system-running")     # as the user `admin`, who has sudo, over ssh
        pi.cut(); pi.join()                       # the network cable
        pi.reboot()

Needs root, systemd-nspawn, debootstrap, nft, overlayfs. The root file systems are made once and kept in
$XDG_CACHE_HOME/battfleet (else ~/.cache/battfleet), as are the packages that hosts fetch. Hosts share the
controller's kernel: no udev events, no hardware watchdog, no time setting, and on cgroup v1 no enforced limits.
A host's clock counts as synchronised, as the container has no say in it.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "battfleet"
PACKAGES = (
    "systemd,systemd-sysv,dbus,libpam-systemd,netbase,openssh-server,python3,python3-apt,iproute2,ca-certificates,"
    "sudo,udev,procps"
)
TOOLS = ("systemd-nspawn", "debootstrap", "nft", "ip", "mount", "ssh", "ssh-keygen")
BOOT_S = 60.0
STOP_S = 20.0
USER = "admin"

IMAGE_SETUP = """
set -eu
export DEBIAN_FRONTEND=noninteractive
rm -f /etc/ssh/ssh_host_*
systemctl enable -q systemd-networkd ssh
systemctl mask -q console-getty.service getty.target
printf '127.0.0.1 localhost\\n::1 localhost\\n' >/etc/hosts
cat >/etc/systemd/system/host-keys.service <<'UNIT'
[Unit]
Description=Make this host's ssh keys
Before=ssh.service
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
UNIT
systemctl enable -q host-keys.service
cat >/etc/tmpfiles.d/synchronised.conf <<'CONF'
d /run/systemd/timesync 0755 root root -
f /run/systemd/timesync/synchronized 0644 root root -
CONF
useradd --create-home --shell /bin/bash --groups sudo admin
printf 'admin ALL=(ALL) NOPASSWD: ALL\\n' >/etc/sudoers.d/admin
chmod 0440 /etc/sudoers.d/admin
# On cgroup v1 the end of a login session is not always noticed in a container, and a reboot would wait for it.
sed -i '/pam_systemd/d' /etc/pam.d/common-session
"""
"""What a freshly flashed card has beyond Debian's minimum: a user with sudo, ssh, a network, a clock."""

NSPAWN_LOOP = """
root=$1 machine=$2 bridge=$3 stop=''
trap 'stop=1; kill -TERM $child' TERM
while :; do
  systemd-nspawn -q -D "$root" -M "$machine" --boot --register=no --keep-unit --network-bridge="$bridge" \\
    --resolv-conf=copy-host --link-journal=no </dev/null &
  child=$!
  wait $child; code=$?
  while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
  [ -n "$stop" ] || [ $code = 0 ] && break
  rm -rf "/run/systemd/nspawn/propagate/$machine"
  sleep 0.2
done
"""
"""systemd-nspawn ends with 133 when the guest reboots and cannot start it again by itself without machined."""


def why_not() -> str | None:
    """Return why hosts cannot be booted here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "booting hosts needs root on Linux"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return (
            f"booting hosts needs {', '.join(missing)}: apt-get install systemd-container debootstrap nftables "
            "openssh-client iproute2"
        )
    return None


def shell(*command: str, text: str | None = None) -> str:
    """Return the standard output of a local command; an error holds its whole output."""
    done = subprocess.run(command, input=text or "", capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def draft_of(whole: Path) -> Iterator[Path | None]:
    """Yield the path to create a part of the cache at, or None when it exists; a lock keeps other processes out.

    The draft gets its final name when the with-block ends without an error; a failed draft is removed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with whole.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if whole.exists():
            yield None
            return
        draft = whole.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            yield draft
            draft.rename(whole)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def image(suite: str) -> Path:
    """Return the root file system of this Debian release, created when it is not in the cache yet."""
    whole = CACHE / f"image-{suite}-2"
    with draft_of(whole) as draft:
        if draft is not None:
            shell("debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(draft))
            mirror = (draft / "etc/apt/sources.list").read_text().split()[1]  # the one that debootstrap used
            sources = f"deb {mirror} {suite} main\ndeb {mirror}-security {suite}-security main\n"
            (draft / "etc/apt/sources.list").write_text(sources)
            shell("chroot", str(draft), "/bin/sh", "-c", IMAGE_SETUP)
    return whole


def await_true(what: str, holds: Callable[[], bool], within_s: float, every_s: float = 0.2) -> None:
    """Return when the condition holds; TimeoutError naming the condition otherwise."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(every_s)


class Host:
    """One booted host."""

    def __init__(self, lab: Lab, name: str, suite: str, address: str) -> None:
        """Configure the host; `start` boots it."""
        self.name, self.suite, self.address = name, suite, address
        self.machine = f"{lab.bridge}-{name[:5]}"
        self.folder = lab.folder / name
        self._lab = lab
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        """Return where its file system is mounted on the controller."""
        return self.folder / "root"

    def start(self) -> None:
        """Mount and boot it; return when ssh answers."""
        upper = self.folder / "upper"
        network = upper / "etc/systemd/network"
        for folder in (network, self.folder / "work", self.root):
            folder.mkdir(parents=True, exist_ok=True)
        gateway = self._lab.gateway
        (network / "10-host0.network").write_text(
            f"[Match]\nName=host0\n[Network]\nAddress={self.address}/24\nGateway={gateway}\n"
        )
        (upper / "etc/hostname").write_text(f"{self.name}\n")
        (upper / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.name}\n")
        layers = f"lowerdir={image(self.suite)},upperdir={upper},workdir={self.folder / 'work'}"
        shell("mount", "-t", "overlay", f"battfleet-{self.name}", "-o", layers, str(self.root))
        keys = self.root / "home" / USER / ".ssh"
        keys.mkdir(mode=0o700)
        (keys / "authorized_keys").write_text(self._lab.key.with_suffix(".pub").read_text())
        shell("chown", "-R", "--reference", str(keys.parent), str(keys))
        self._copy_packages(self.packages, self._archives)
        self.boot()

    @property
    def packages(self) -> Path:
        """Return where packages of its release are kept from run to run."""
        return CACHE / f"packages-{self.suite}"

    @property
    def _archives(self) -> Path:
        return self.root / "var/cache/apt/archives"

    @staticmethod
    def _copy_packages(source: Path, target: Path) -> None:
        """Copy missing packages. apt would lock a folder that hosts share."""
        target.mkdir(parents=True, exist_ok=True)
        for package in source.glob("*.deb"):
            if not (target / package.name).exists():
                draft = target / f"{package.name}.{os.getpid()}"
                shutil.copy(package, draft)
                draft.rename(target / package.name)

    def boot(self) -> None:
        """Boot it, or boot it again after `pull_the_plug`."""
        with (self.folder / "console.log").open("ab") as console:
            arguments = ["bash", "-c", NSPAWN_LOOP, "_", str(self.root), self.machine, self._lab.bridge]
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )
        self.await_ssh()

    def await_ssh(self, within_s: float = BOOT_S) -> None:
        """Return when its ssh server sends its banner."""
        await_true(f"ssh of {self.name} ({self.folder / 'console.log'})", self._greets, within_s, 0.1)

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        """Shut it down, and unmount its file system."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None
        if self._archives.exists():
            self._copy_packages(self._archives, self.packages)
        subprocess.run(["umount", "-l", str(self.root)], check=False, capture_output=True)
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{self.machine}", ignore_errors=True)

    def ssh(self, *command: str) -> list[str]:
        """Return the command line that runs this on the host as the user `admin`."""
        return ["ssh", *self._lab.ssh_options, f"{USER}@{self.address}", *command]

    def try_run(self, command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root on the host; return its result whether it fails or not."""
        return subprocess.run(
            self.ssh("sudo", "sh", "-c", shlex.quote(command)),
            input=text or "",  # never our own standard input: ssh would make it non-blocking, which Ansible refuses
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, command: str, text: str | None = None) -> str:
        """Return the standard output of a shell command run as root on the host; RuntimeError when it fails."""
        done = self.try_run(command, text)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def boot_started(self) -> str:
        """Return a value that differs from boot to boot: the start time of its service manager."""
        return self.run("systemctl show --value -p UserspaceTimestampMonotonic")

    def reboot(self) -> None:
        """Reboot it; return when ssh answers again."""
        before = self.boot_started()
        self.try_run("systemctl reboot")

        def is_back() -> bool:
            done = self.try_run("systemctl show --value -p UserspaceTimestampMonotonic")
            return done.returncode == 0 and done.stdout != before

        await_true(f"{self.name} back after its reboot", is_back, BOOT_S)

    @property
    def cable(self) -> str:
        """Return the port of the bridge that leads to it."""
        return f"vb-{self.machine}"[:15]

    def cut(self) -> None:
        """Disconnect its network cable."""
        shell("ip", "link", "set", self.cable, "down")

    def join(self) -> None:
        """Reconnect its network cable."""
        shell("ip", "link", "set", self.cable, "up")

    def slow_down(self, rate: str) -> None:
        """Limit the rate of traffic to it over the cable: "64kbit"."""
        shell(
            "tc", "qdisc", "replace", "dev", self.cable, "root", "tbf", "rate", rate, "burst", "1600", "latency", "5s"
        )

    def speed_up(self) -> None:
        """Remove the limit of the cable's rate."""
        shell("tc", "qdisc", "del", "dev", self.cable, "root")


class Lab:
    """A bridge with hosts. After the with-block nothing remains but the files in the folder."""

    def __init__(self, folder: Path) -> None:
        """Configure the lab; entering the with-block creates the network."""
        self.folder = folder
        taken = {path.name for path in Path("/sys/class/net").glob("bf*")}
        number = secrets.choice([n for n in range(250) if f"bf{n}" not in taken])
        self.bridge = f"bf{number}"
        self.network = ipaddress.ip_network(f"10.231.{number}.0/24")
        self.gateway = str(self.network[1])
        self.key = folder / "key"
        self.hosts: dict[str, Host] = {}
        self._stack = ExitStack()

    @property
    def ssh_options(self) -> list[str]:
        """Return the options that make ssh prompt for nothing and write no files of the user."""
        return [
            "-i", str(self.key), "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR",
            "-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=3",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        """Create the bridge, give hosts access to the package mirror, and create a key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shell("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        with ExitStack() as stack:
            shell("ip", "link", "add", self.bridge, "type", "bridge")
            stack.callback(shell, "ip", "link", "del", self.bridge)
            shell("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
            shell("ip", "link", "set", self.bridge, "up")
            # Forwarding stays on afterwards: another lab of another test run may need it.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            rule = f'ip saddr {self.network} oifname != "{self.bridge}" masquerade'
            table = f"table ip {self.bridge} {{ chain post {{ type nat hook postrouting priority srcnat; {rule}; }}; }}"
            shell("nft", "-f", "-", text=table)
            stack.callback(shell, "nft", "delete", "table", "ip", self.bridge)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every host and remove the network."""
        self._stack.close()

    def start(self, name: str, suite: str) -> Host:
        """Return a new host, booted."""
        host = Host(self, name, suite, str(self.network[11 + len(self.hosts)]))
        self.hosts[name] = host
        self._stack.callback(host.stop)
        host.start()
        return host
