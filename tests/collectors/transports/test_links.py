"""Links transfer bytes, and raise LinkDown whichever way the other end disconnects."""

from __future__ import annotations

import os
import pty
import socket
import threading
import tty
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from collectors import transports
from collectors.device import Line
from collectors.errors import ConfigError, LinkBusy, LinkDown

DEVICE: Any = SimpleNamespace(
    kind="acme", links=("serial", "tcp"), line=Line(57600, 8, "O", 1), channels={"": 502, "stream": 702}
)


@pytest.fixture
def terminal() -> Iterator[SimpleNamespace]:
    master, slave = pty.openpty()
    tty.setraw(master)
    ends = SimpleNamespace(master=master, slave=slave, path=os.ttyname(slave))
    yield ends
    for fd in {ends.master, ends.slave} - {-1}:
        os.close(fd)


def unplug(ends: SimpleNamespace) -> None:
    os.close(ends.slave)
    os.close(ends.master)
    ends.master = ends.slave = -1


def open_link(link: str) -> transports.Link:
    return transports.open_link(link, DEVICE)


def test_serial_carries_bytes_both_ways(terminal: SimpleNamespace) -> None:
    link = open_link(f"serial:{terminal.path}")
    link.write(b"\x00\x11\x13\xff\n")  # XON/XOFF and newline must pass untouched
    assert os.read(terminal.master, 100) == b"\x00\x11\x13\xff\n"
    os.write(terminal.master, b"\x00\r\n\x11\x7f")
    assert link.read(1.0).data == b"\x00\r\n\x11\x7f"
    assert link.read(0.0).data == b""
    link.close()
    link.close()


def test_serial_computes_the_time_of_a_byte(terminal: SimpleNamespace) -> None:
    link = open_link(f"serial:{terminal.path}?baud=9600&parity=N")
    assert link.byte_time_s == pytest.approx(10 / 9600)
    link.close()


def test_flush_drops_what_was_not_read(terminal: SimpleNamespace) -> None:
    link = open_link(f"serial:{terminal.path}")
    os.write(terminal.master, b"old")
    assert link.read(1.0).data == b"old"
    os.write(terminal.master, b"older")
    link.flush()
    os.write(terminal.master, b"new")
    assert link.read(1.0).data == b"new"
    link.close()


def test_a_port_has_one_reader(terminal: SimpleNamespace) -> None:
    link = open_link(f"serial:{terminal.path}")
    with pytest.raises(LinkBusy, match=r"another program holds this port; find it with: fuser"):
        open_link(f"serial:{terminal.path}")
    link.close()


def test_an_absent_port_is_reported_with_the_present_ports() -> None:
    with pytest.raises(LinkDown, match=r"/dev/tty-not-there: no such port; "):
        open_link("serial:/dev/tty-not-there")


def test_an_unplugged_port_is_link_down(terminal: SimpleNamespace) -> None:
    link = open_link(f"serial:{terminal.path}")
    unplug(terminal)
    with pytest.raises(LinkDown):
        link.read(1.0)
    with pytest.raises(LinkDown):
        link.write(b"x")
    link.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


def test_tcp_opens_named_channels_when_they_are_used(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    link = open_link(f"tcp:127.0.0.1:{port}?stream={port}")
    main, _ = listener.accept()
    link.write(b"start")
    assert main.recv(10) == b"start"
    link.write(b"s", "stream")
    stream, _ = listener.accept()
    assert stream.recv(10) == b"s"
    stream.sendall(b"data")
    assert link.read(1.0, "stream").data == b"data"
    assert link.read(0.0).data == b""
    link.close()
    main.close()
    stream.close()


def test_tcp_waits_to_collect_many_packets(listener: socket.socket) -> None:
    link = open_link(f"tcp:127.0.0.1:{listener.getsockname()[1]}")
    peer, _ = listener.accept()

    def send_in_parts() -> None:
        for part in (b"a", b"b", b"c"):
            peer.sendall(part)
            threading.Event().wait(0.02)

    sender = threading.Thread(target=send_in_parts)
    sender.start()
    assert link.read(1.0, linger_s=0.5).data == b"abc"
    sender.join()
    link.close()
    peer.close()


def test_tcp_closed_by_the_other_end_is_link_down(listener: socket.socket) -> None:
    link = open_link(f"tcp:127.0.0.1:{listener.getsockname()[1]}")
    listener.accept()[0].close()
    with pytest.raises(LinkDown, match="closed the connection"):
        link.read(1.0)
    link.close()


def test_a_tcp_port_without_a_listener_is_link_down(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(LinkDown, match=rf"127.0.0.1:{port}: cannot connect"):
        open_link(f"tcp:127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("tcp:10.0.0.1:x", "port: expected 1 to 65535, got 'x'"),
        ("tcp:10.0.0.1:70000", "port: expected 1 to 65535"),
        ("tcp::502", "the host is missing"),
        ("tcp:10.0.0.1?streem=1", "unknown tcp option 'streem'"),
        ("tcp:10.0.0.1?stream=0", "stream: expected 1 to 65535"),
        ("serial:/dev/x?bits=9", "bits: expected 7 or 8"),
        ("serial:/dev/x?stop=3", "stop: expected 1, 1.5 or 2"),
        ("serial:/dev/x?speed=3", "unknown serial option 'speed'"),
        ("usb:1", "expected one of"),
        ("ljm:ANY:ANY", "reached by serial or tcp, not by 'ljm'"),
    ],
)
def test_a_wrong_link_string_names_what_was_expected(link: str, says: str) -> None:
    problems = transports.check(link, DEVICE)
    assert any(says in p for p in problems), problems


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert transports.check("tcp:[2001:db8::7]:502", DEVICE) == []
    assert transports.check("tcp:[2001:db8::7]", DEVICE) == []


def test_opening_a_wrong_link_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError):
        open_link("tcp:10.0.0.1:x")
