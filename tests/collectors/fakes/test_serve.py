"""Fakes on real pseudo-terminals and sockets: connection, faults, disconnection and return."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from collectors.device import Line
from collectors.errors import ConfigError, LinkBusy
from collectors.fakes import FakeKind, Out, World
from collectors.fakes.faults import Fault
from collectors.fakes.serve import Server, Station, serving
from collectors.fakes.wires import MAX_UNSENT

PATIENCE_S = 5.0
FAST = Line(baud=115200)


@dataclass(frozen=True)
class Habits:
    period_s: float | None = None


class Parrot:
    """Replies to `v` with the simulated voltage, to anything else with an echo; sends the voltage every period."""

    def __init__(self, world: World, habits: Habits) -> None:
        self.world, self.period_s, self.next_s = world, habits.period_s, 0.0
        self.connections: list[str] = []

    def voltage(self, now_s: float) -> list[Out]:
        volts = self.world(now_s)["battery.voltage_v"]
        return [] if volts is None else [Out(f"{volts}\n".encode())]

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        return self.voltage(now_s) if data == b"v" else [Out(data, channel=channel)]

    def tick(self, now_s: float) -> Sequence[Out]:
        self.next_s = now_s + (self.period_s or 0)
        return self.voltage(now_s)

    def next_tick_s(self) -> float | None:
        return self.next_s if self.period_s else None

    def connected(self, now_s: float, channel: str = "") -> None:
        self.connections.append(channel)


class Flood(Parrot):
    """Sends 64 KiB at every opportunity."""

    def tick(self, now_s: float) -> Sequence[Out]:
        return [Out(bytes(65536))]

    def next_tick_s(self) -> float | None:
        return 0.0


PARROT = FakeKind("parrot", Habits, Parrot)


def world(_: float) -> Mapping[str, float | None]:
    return {"battery.voltage_v": 12.8}


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.005)


def read_until(fd: int, end: bytes) -> bytes:
    got = b""
    deadline = time.monotonic() + PATIENCE_S
    while not got.endswith(end):
        assert time.monotonic() < deadline, got
        if select.select([fd], [], [], 0.1)[0]:
            got += os.read(fd, 4096)
    return got


@contextmanager
def opened(path: Path, baud: int = termios.B115200) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(fd)
        settings = termios.tcgetattr(fd)
        settings[4] = settings[5] = baud
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


def put_on_pty(server: Server, path: Path, habits: Habits = Habits(), see: World = world) -> Station:
    return on_server(server, lambda: server.add_pty(Station("p", PARROT, see, habits), path, FAST))


def on_server(server: Server, make: Callable[[], Station]) -> Station:
    made: list[Station] = []
    server.call(lambda: made.append(make()))
    await_that(lambda: bool(made))
    return made[0]


def test_bytes_go_both_ways_through_a_pty_untouched(server: Server, tmp_path: Path) -> None:
    put_on_pty(server, tmp_path / "ttyP")
    message = bytes(range(256))
    with opened(tmp_path / "ttyP") as fd:
        for _ in range(3):
            os.write(fd, message)
            assert read_until(fd, message[-1:]) == message


def test_the_link_string_opens_it_with_the_real_transport(server: Server, tmp_path: Path) -> None:
    from collectors import transports
    from collectors.device import Device

    station = put_on_pty(server, tmp_path / "ttyP")
    device = Device("parrot", "", ("serial",), Habits, None, {}, None, line=FAST)  # type: ignore[arg-type]
    link = transports.open_link(station.wire.link, device)
    try:
        link.write(b"v")
        assert link.read(PATIENCE_S).data == b"12.8\n"
    finally:
        link.close()


def test_the_fake_is_notified_of_every_opening(server: Server, tmp_path: Path) -> None:
    station = put_on_pty(server, tmp_path / "ttyP")
    for count in (1, 2):
        with opened(tmp_path / "ttyP"):
            await_that(partial(lambda wanted: len(station.sent.connected_ns) == wanted, count))
        await_that(lambda: not station.wire.is_open())


def test_a_message_takes_its_transmission_time(server: Server, tmp_path: Path) -> None:
    slow = Line(baud=300)
    on_server(server, lambda: server.add_pty(Station("p", PARROT, world, Habits()), tmp_path / "ttyP", slow))
    with opened(tmp_path / "ttyP", termios.B300) as fd:
        began = time.monotonic()
        os.write(fd, b"0123456789\n")
        read_until(fd, b"\n")
        assert time.monotonic() - began > 0.9 * 11 * 10 / 300


def test_another_baud_rate_gives_random_bytes(server: Server, tmp_path: Path) -> None:
    put_on_pty(server, tmp_path / "ttyP")
    with opened(tmp_path / "ttyP", termios.B9600) as fd:
        os.write(fd, b"hello, is anybody there?")
        await_that(lambda: bool(select.select([fd], [], [], 0.1)[0]))
        assert b"hello" not in os.read(fd, 4096)


def test_output_without_a_reader_is_not_counted_as_sent(server: Server, tmp_path: Path) -> None:
    station = put_on_pty(server, tmp_path / "ttyP", Habits(period_s=0.01))
    time.sleep(0.1)
    assert not station.sent.boottime_ns
    with opened(tmp_path / "ttyP") as fd:
        assert read_until(fd, b"12.8\n").endswith(b"12.8\n")
    assert station.sent.boottime_ns


def test_a_message_under_way_at_the_opening_counts_from_the_opening(server: Server, tmp_path: Path) -> None:
    slow = Line(baud=300)  # a message takes 0.17 s of every 0.2
    station = on_server(
        server, lambda: server.add_pty(Station("p", PARROT, world, Habits(period_s=0.2)), tmp_path / "ttyP", slow)
    )
    for count in range(1, 5):
        before = len(station.sent.boottime_ns)
        with opened(tmp_path / "ttyP", termios.B300) as fd:
            read_until(fd, b"\n")
            await_that(partial(lambda known: len(station.sent.boottime_ns) > known, before))
        await_that(lambda: not station.wire.is_open())
        assert len(station.sent.connected_ns) == count
        assert station.sent.boottime_ns[before] >= station.sent.connected_ns[-1]
        time.sleep(0.05)


def test_sent_samples_are_those_with_values(server: Server, tmp_path: Path) -> None:
    station = put_on_pty(server, tmp_path / "ttyP")
    with opened(tmp_path / "ttyP") as fd:
        for message in (b"v", b"x\n", b"v"):
            os.write(fd, message)
            read_until(fd, b"\n")
    await_that(lambda: len(station.sent.boottime_ns) == 2)
    assert not any(station.sent.harmed)


def test_a_fault_changes_its_message_and_the_next(server: Server, tmp_path: Path) -> None:
    station = put_on_pty(server, tmp_path / "ttyP")
    with opened(tmp_path / "ttyP") as fd:
        for number in range(4):
            if number == 1:
                server.misbehave("p", Fault("noise", server.now_s(), 0.2, 1.0))
            if number == 2:
                time.sleep(0.25)
            os.write(fd, b"v")
            read_until(fd, b"12.8\n")
    await_that(lambda: list(station.sent.harmed) == [0, 1, 1, 0])


def test_an_unplugged_port_disappears_and_returns_under_its_name(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "ttyP"
    put_on_pty(server, path)
    with opened(path) as fd:
        server.misbehave("p", Fault("unplug", server.now_s(), 0.2, 0.0))
        await_that(lambda: not path.is_symlink())
        try:
            assert os.read(fd, 1) == b""
        except OSError as error:
            assert error.strerror
    await_that(path.exists)
    with opened(path) as fd:
        os.write(fd, b"v")
        assert read_until(fd, b"\n") == b"12.8\n"


def test_a_port_held_by_another_process_is_busy_and_free_afterwards(server: Server, tmp_path: Path) -> None:
    from collectors import transports
    from collectors.device import Device

    path = tmp_path / "ttyP"
    station = put_on_pty(server, path)
    device = Device("parrot", "", ("serial",), Habits, None, {}, None, line=FAST)  # type: ignore[arg-type]
    server.misbehave("p", Fault("hold", server.now_s(), 0.3, 0.0))
    time.sleep(0.05)
    with pytest.raises(LinkBusy, match="ttyP"):
        transports.open_link(station.wire.link, device)

    def is_free() -> bool:
        try:
            transports.open_link(station.wire.link, device).close()
        except LinkBusy:
            return False
        return True

    await_that(is_free)


def test_silence_split_and_delay_reach_the_wire(server: Server, tmp_path: Path) -> None:
    put_on_pty(server, tmp_path / "ttyP")
    with opened(tmp_path / "ttyP") as fd:
        server.misbehave("p", Fault("split", server.now_s(), 60.0, 0.01))
        os.write(fd, b"abcdef\n")
        assert select.select([fd], [], [], PATIENCE_S)[0]
        assert len(os.read(fd, 100)) < 7
        assert read_until(fd, b"\n")
        server.misbehave("p", Fault("silence", server.now_s(), 60.0, 1.0))
        time.sleep(0.05)
        os.write(fd, b"v")
        assert not select.select([fd], [], [], 0.1)[0]


def put_on_tcp(server: Server, habits: Habits = Habits()) -> Station:
    return on_server(server, lambda: server.add_tcp(Station("t", PARROT, world, habits), {"": 0, "stream": 0}))


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def ports(station: Station) -> Mapping[str, int]:
    from collectors.fakes.wires import TcpWire

    assert isinstance(station.wire, TcpWire)
    return station.wire.ports


def test_each_channel_has_a_port_of_its_own(server: Server) -> None:
    found = ports(put_on_tcp(server))
    with connect(found[""]) as main, connect(found["stream"]) as stream:
        main.sendall(b"main")
        stream.sendall(b"stream")
        assert (main.recv(100), stream.recv(100)) == (b"main", b"stream")


def test_a_new_connection_replaces_the_one_before(server: Server) -> None:
    port = ports(put_on_tcp(server))[""]
    with connect(port) as first:
        first.sendall(b"a")
        assert first.recv(10) == b"a"
        with connect(port) as second:
            second.sendall(b"b")
            assert second.recv(10) == b"b"
            assert first.recv(10) == b""


def test_an_unplugged_network_device_does_not_listen_and_returns_on_the_same_port(server: Server) -> None:
    port = ports(put_on_tcp(server))[""]
    with connect(port) as link:
        link.sendall(b"a")
        assert link.recv(10) == b"a"
        server.misbehave("t", Fault("unplug", server.now_s(), 0.2, 0.0))
        assert link.recv(10) == b""
    with pytest.raises(ConnectionError):
        connect(port)

    def answers() -> bool:
        try:
            connect(port).close()
        except ConnectionError:
            return False
        return True

    await_that(answers)


def test_a_network_device_cannot_be_held(server: Server) -> None:
    station = put_on_tcp(server)
    with pytest.raises(ConfigError, match="cannot be held"):
        station.wire.hold()


def test_a_taken_port_is_named() -> None:
    server = Server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LinkBusy, match=str(port)):
            server.add_tcp(Station("t", PARROT, world, Habits()), {"": port})
    server.close()


def test_more_than_the_kernel_takes_waits_and_arrives_whole(server: Server) -> None:
    port = ports(put_on_tcp(server))[""]
    with connect(port) as link:
        sent = os.urandom(4096) * 100
        threading.Thread(target=link.sendall, args=(sent,)).start()
        time.sleep(0.2)
        got = b""
        while len(got) < len(sent):
            got += link.recv(65536)
    assert got == sent


def test_an_exception_in_a_fake_is_not_swallowed(tmp_path: Path) -> None:
    def broken(_: float) -> Mapping[str, float | None]:
        raise RuntimeError("this fake is broken")

    with pytest.raises(RuntimeError, match="this fake is broken"), serving(Server()) as server:
        put_on_pty(server, tmp_path / "ttyP", Habits(period_s=0.01), broken)
        time.sleep(0.2)


def test_a_fake_whose_output_is_not_read_stops_sending(server: Server) -> None:
    """The collector is connected and does not read: the waiting output stays bounded."""
    big = FakeKind("big", Habits, Flood)
    station = on_server(server, lambda: server.add_tcp(Station("b", big, world, Habits()), {"": 0}))
    with connect(ports(station)[""]):
        await_that(lambda: station.wire.unsent() > 0)
        time.sleep(0.3)
        assert station.wire.unsent() <= MAX_UNSENT
        assert station.lost_bytes == 0


def test_the_lock_of_the_holder_is_given_back(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "ttyP"
    put_on_pty(server, path)
    server.misbehave("p", Fault("hold", server.now_s(), 0.1, 0.0))
    time.sleep(0.3)
    with opened(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
