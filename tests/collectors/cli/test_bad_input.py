"""User mistakes, end to end: a clear message that names the cause, the right exit code, and no row stored."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from collectors import config, devices, fakes, transports
from collectors.acquisition.poller import Poller
from collectors.acquisition.session import Session, identify
from collectors.cli import cli, main
from collectors.device import Output
from collectors.errors import CollectorError, ConfigError, FrameError, NoReply, NotUnderstood, WrongDevice
from collectors.fakes import Fake
from collectors.host.clock import FakeClock
from collectors.reading import Event, Reading
from collectors.transports import Arrived
from tests.testing.conformance import all_cases

TRUE = {"battery.voltage_v": 13.2, "battery.current_a": -4.5, "load.voltage_v": 13.2, "load.current_a": 4.5}
DEVICE_TABLES = {"labjack_t7": '[[device.channels]]\ninput = "AIN0"\nsignal = "battery.voltage_v"\n'}
PAIRS = [(served, asked) for served in devices.KINDS for asked in devices.KINDS if served != asked]


@dataclass
class FakeLink:
    """A fake instrument on a link that takes its time from the clock."""

    fake: Fake
    clock: FakeClock
    byte_time_s: float = 0.0
    due: list[fakes.Out] = field(default_factory=list)

    def write(self, data: bytes, channel: str = "") -> None:
        self.due += self.fake.receive(data, self.clock.monotonic_s(), channel)

    def read(self, timeout_s: float, channel: str = "", linger_s: float = 0.0) -> Arrived:
        end_s = self.clock.monotonic_s() + timeout_s
        tick_s = self.fake.next_tick_s()
        moments = [out.at_s for out in self.due] + ([] if tick_s is None else [tick_s])
        until_s = min([end_s, *moments])
        self.clock.sleep_s(max(0.0, until_s - self.clock.monotonic_s()))
        if tick_s is not None and tick_s <= self.clock.monotonic_s():
            self.due += self.fake.tick(self.clock.monotonic_s())
        here = [out for out in self.due if out.at_s <= self.clock.monotonic_s()]
        self.due = [out for out in self.due if out not in here]
        return Arrived(b"".join(out.data for out in here if out.channel == channel), self.clock.boottime_ns())

    def flush(self) -> None:
        self.due = [out for out in self.due if out.at_s > self.clock.monotonic_s()]

    def close(self) -> None:
        """Close nothing: no resource is held."""


@dataclass
class Kept:
    items: list[Output] = field(default_factory=list)

    def put(self, item: Output) -> None:
        self.items.append(item)


def plugged(served: str, clock: FakeClock) -> FakeLink:
    kind = fakes.load(served)
    fake = kind.make(lambda _: TRUE, kind.options())
    fake.connected(clock.monotonic_s())
    return FakeLink(fake, clock)


def config_of(kind: str, tmp_path: Path, link: str = "tcp:192.0.2.1:502", more: str = "") -> Path:
    path = tmp_path / f"{kind}.toml"
    path.write_text(
        f'[collector]\nname = "x"\nbench = "b"\nkind = "{kind}"\nlink = "{link}"\nstate_dir = "{tmp_path}/state"\n'
        + (more or DEVICE_TABLES.get(kind, ""))
    )
    return path


@pytest.mark.parametrize(("served", "asked"), PAIRS)
def test_a_device_of_another_kind_is_never_taken_for_the_expected_one(served: str, asked: str, tmp_path: Path) -> None:
    loaded = config.load(config_of(asked, tmp_path))
    clock = FakeClock()
    link = plugged(served, clock)
    with pytest.raises((NoReply, WrongDevice)) as caught:
        identify(Session(link, clock), loaded.device.driver(loaded.options), loaded.device)
    assert clock.monotonic_s() < 12
    text = str(caught.value)
    assert ("EA electronic load" if isinstance(caught.value, WrongDevice) else loaded.device.title) in text
    if type(caught.value) is NoReply:
        assert caught.value.exit_code == 69
    else:
        assert caught.value.exit_code == 76
        assert any(quote in text for quote in ("heard ", "only text", "answers here"))


@pytest.mark.parametrize(("served", "asked"), PAIRS)
def test_a_collector_on_the_wrong_port_stores_no_reading_and_reports_it_once(
    served: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = config.load(config_of(asked, tmp_path))
    clock = FakeClock()
    kept = Kept()
    monkeypatch.setattr(transports, "open_link", lambda *_: plugged(served, clock))
    poller = Poller(loaded, kept, clock, lambda: clock.monotonic_s() > 60)
    try:
        poller.run()
    except WrongDevice as error:
        assert loaded.collector.link in str(error)
    else:
        losses = [item for item in kept.items if isinstance(item, Event) and item.kind == "link_down"]
        assert 1 <= len(losses) <= 2  # no reply, and noise bytes
        assert loaded.device.title in losses[0].detail
    assert not [item for item in kept.items if isinstance(item, Reading)]


def test_bytes_of_an_unknown_device_are_shown(tmp_path: Path) -> None:
    loaded = config.load(config_of("ea_el3000a", tmp_path))
    clock = FakeClock()
    link = plugged("libresolar_mppt", clock)
    clock.sleep_s(1.5)  # a publication is due
    with pytest.raises(NotUnderstood, match=r"expected EA .*heard '# \{"):
        identify(Session(link, clock), loaded.device.driver(loaded.options), loaded.device)


CAPTURES = {
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "one huge line": b"A" * 200_000,
    "not UTF-8": b"\xff\xfe\n\xc3(\n",
    "deep": b'# {"a":' + b"[" * 5000 + b"\n",
    "huge number": b'# {"Bat_V":' + b"9" * 5000 + b"}\n",
    "cut short": bytes.fromhex("850147084040"),
}


@pytest.mark.parametrize("raw", [[], ["--raw"]])
@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("kind", devices.KINDS)
def test_decode_makes_no_reading_of_random_bytes(kind: str, capture: str, raw: list[str]) -> None:
    result = CliRunner().invoke(cli, ["decode", kind, *raw], input=CAPTURES[capture])
    assert result.exception is None or isinstance(result.exception, SystemExit | CollectorError), result.exception
    found = [json.loads(line) for line in result.stdout.splitlines()]
    values = [value for item in found if "measurement" in item for value in item["values"].values()]
    assert all(value is None for value in values), found


def frames_of(kind: str) -> list[bytes]:
    """Return every question and answer in the kind's cases, once."""
    exchanges = [e for case in all_cases() if case.kind == kind for e in (*case.opening, *case.exchanges)]
    return list(dict.fromkeys(frame for e in exchanges for frame in (e.ask, e.reply) if frame))


def capture_of(kind: str) -> bytes:
    """Return the kind's frames as its `decode` reads them: lines of text or of hex."""
    frames = frames_of(kind)
    return b"".join(frames) if devices.load(kind).text else "\n".join(f.hex(" ") for f in frames).encode() + b"\n"


@pytest.mark.parametrize("form", ["as its own", "raw", "hex"])
@pytest.mark.parametrize(("served", "asked"), PAIRS)
def test_decode_takes_no_frame_of_another_kind(served: str, asked: str, form: str) -> None:
    frames = frames_of(served)
    raw = ["--raw"] if form == "raw" else []
    hex_lines = "\n".join(frame.hex(" ") for frame in frames).encode() + b"\n"
    stdin = {"as its own": capture_of(served), "raw": b"".join(frames), "hex": hex_lines}[form]
    result = CliRunner().invoke(cli, ["decode", asked, *raw], input=stdin)
    assert isinstance(result.exception, SystemExit | FrameError), result.exception
    assert getattr(result.exception, "exit_code", result.exit_code) == 76
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert not [item for item in found if any(v is not None for v in item.get("values", {}))], found
    assert not [item for item in found if "model" in item or "payload" in item], found


@pytest.mark.parametrize("kind", devices.KINDS)
def test_decode_takes_the_frames_of_its_own_kind(kind: str) -> None:
    result = CliRunner().invoke(cli, ["decode", kind], input=capture_of(kind))
    assert any("values" in json.loads(line) for line in result.stdout.splitlines())


def test_decode_reports_text_that_belongs_to_no_kind() -> None:
    result = CliRunner().invoke(cli, ["decode", "libresolar_mppt"], input=b"[00:00:01] <inf> main: up\n")
    assert (result.exit_code, result.stderr) == (76, "there is no frame of a libresolar_mppt in it\n")


def test_decode_reports_an_empty_capture() -> None:
    result = CliRunner().invoke(cli, ["decode", "ea_el3000a"], input=b"# only a comment\n")
    assert (result.exit_code, result.stderr) == (0, "there is no frame of a ea_el3000a in it\n")


def test_random_bytes_on_a_link_without_checksum_are_an_error_and_no_reply() -> None:
    result = CliRunner().invoke(cli, ["decode", "ea_el3000b"], input=b"MEAS:ARR?\n\x00\x9f\x13\n")
    assert result.exit_code == 76
    assert "wrong baud rate" in json.loads(result.stdout)["message"]


UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")
"""Root without the rights that pass by file modes."""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("command", ["check", "run", "once", "ship"])
def test_a_configuration_that_may_not_be_read_is_named(command: str, tmp_path: Path) -> None:
    path = config_of("ea_el3000a", tmp_path)
    path.chmod(0)
    arguments = [*UNPRIVILEGED, sys.executable, "-m", "collectors", command, str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30)
    assert done.returncode == 78, done.stderr
    assert f"{path}: Permission denied" in done.stderr


def run_command(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collectors", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=30)


def test_output_that_cannot_be_written_is_one_line_not_a_trace() -> None:
    with Path("/dev/full").open("wb") as full:
        done = run_command("devices", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (74, "collectors: the output: No space left on device\n")


def test_a_closed_output_pipe_ends_the_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run_command("devices", "--markdown", stdout=writer)
    os.close(writer)
    assert done.stderr == ""


def test_a_bug_has_its_own_exit_code_and_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "main", broken)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 70
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_a_command_without_a_trace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "collectors", "decode", "libresolar_mppt"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"# {}\n")
        process.stdin.flush()
        process.stdout.readline()  # the command is running
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr
        assert process.stderr.read() == b""


class Portal(BaseHTTPRequestHandler):
    """An HTTP server that answers every request with 200 and a page, as a hotel's network does."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        page = b"<html>Welcome</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_a_captive_portal_is_not_taken_for_a_database(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as portal:
        threading.Thread(target=portal.serve_forever, daemon=True).start()
        path = tmp_path / "ship.toml"
        path.write_text(
            f'[ship]\nbench = "b"\nstate_dir = "{tmp_path}"\n'
            f'[[sink]]\nname = "main"\ndialect = "influxdb1"\ndatabase = "x"\n'
            f'url = "http://127.0.0.1:{portal.server_port}"\n'
        )
        result = CliRunner().invoke(cli, ["sink", "check", str(path)])
        portal.shutdown()
    assert result.exit_code == 69
    assert "ok:" not in result.output
    assert "does not look like InfluxDB" in result.output


def test_an_unknown_key_hides_no_other_mistake(tmp_path: Path) -> None:
    path = config_of("ea_el3000a", tmp_path, more="period_s = -1\nperiods = 1\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert [problem.removeprefix(f"{path}: [collector] ").partition(":")[0] for problem in caught.value.problems] == [
        "periods",
        "period_s",
    ]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = config_of("ea_el3000a", tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert config.load(path).collector.name == "x"
