"""Serial ports, from a copy of /sys, /dev and /proc with two adapters and a UART that has no device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.host.serial_ports import Port, User, ports

FTDI = {"idVendor": "0403", "idProduct": "6001", "manufacturer": "FTDI", "product": "FT232R USB UART", "serial": "A1B2"}
CH340 = {"idVendor": "1a86", "idProduct": "7523", "product": "USB Serial"}
BY_ID = "serial/by-id/usb-FTDI_FT232R_USB_UART_A1B2-if00-port0"
BY_PATH = "serial/by-path/platform-usb-0:1.3:1.0-port0"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A Pi with an FTDI adapter, a CH340 without a serial number, and two UARTs of the mainboard."""
    adapter(tmp_path, "ttyUSB0", "1-1.1", "ftdi_sio", FTDI)
    adapter(tmp_path, "ttyUSB1", "1-1.3", "ch341-uart", CH340)
    uart(tmp_path, "ttyAMA0", "2")
    uart(tmp_path, "ttyS3", "0")
    (tmp_path / "sys/class/tty/tty0").mkdir()  # a console has no device
    for name, target in ((BY_ID, "ttyUSB0"), (BY_PATH, "ttyUSB1")):
        link = tmp_path / "dev" / name
        link.parent.mkdir(parents=True)
        link.symlink_to(os.path.relpath(tmp_path / "dev" / target, link.parent))
    process(tmp_path, 41, "collectors\0run\0mppt.toml\0", "ttyUSB0")
    process(tmp_path, 42, "", "ttyUSB0", "ttyAMA0")
    return tmp_path


def adapter(root: Path, name: str, at: str, driver: str, facts: dict[str, str]) -> None:
    usb = root / "sys/devices/usb1" / at
    port = usb / f"{at}:1.0" / name
    port.mkdir(parents=True)
    (root / "sys/bus/drivers" / driver).mkdir(parents=True)
    (port / "driver").symlink_to(root / "sys/bus/drivers" / driver)
    for key, value in facts.items():
        (usb / key).write_text(f"{value}\n")
    tty(root, name, port)


def uart(root: Path, name: str, kind: str) -> None:
    device = root / "sys/devices/platform" / name
    device.mkdir(parents=True)
    tty(root, name, device)
    (root / "sys/class/tty" / name / "type").write_text(f"{kind}\n")


def tty(root: Path, name: str, device: Path) -> None:
    entry = root / "sys/class/tty" / name
    entry.mkdir(parents=True)
    (entry / "device").symlink_to(device)
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / name).touch()


def process(root: Path, pid: int, command: str, *opened: str) -> None:
    folder = root / "proc" / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "cmdline").write_text(command)
    (folder / "comm").write_text("minicom\n")
    for number, name in enumerate(opened):
        (folder / "fd" / str(number)).symlink_to(root / "dev" / name)


def found(host: Path) -> dict[str, Port]:
    return {Path(port.device).name: port for port in ports(host / "dev", host / "sys", host / "proc")}


def test_only_ports_with_something_behind_them_are_listed(host: Path) -> None:
    assert list(found(host)) == ["ttyAMA0", "ttyUSB0", "ttyUSB1"]


def test_the_link_is_the_persistent_name(host: Path) -> None:
    there = found(host)
    assert there["ttyUSB0"].link == f"serial:{host}/dev/{BY_ID}"
    assert there["ttyUSB1"].link == f"serial:{host}/dev/{BY_PATH}"
    assert there["ttyAMA0"].link == f"serial:{host}/dev/ttyAMA0" and there["ttyAMA0"].names == ()


def test_the_facts_of_usb_are_those_of_the_adapter(host: Path) -> None:
    port, bare = found(host)["ttyUSB0"], found(host)["ttyUSB1"]
    assert (port.vendor_id, port.product_id, port.vendor, port.product) == ("0403", "6001", "FTDI", "FT232R USB UART")
    assert (port.serial, port.driver) == ("A1B2", "ftdi_sio")
    assert (bare.vendor_id, bare.vendor, bare.serial) == ("1a86", "", "")


def test_the_process_that_has_a_port_open_is_named_by_command(host: Path) -> None:
    assert set(found(host)["ttyUSB0"].users) == {User(41, "collectors run mppt.toml"), User(42, "minicom")}
    assert found(host)["ttyUSB1"].users == ()


def test_permission_is_that_of_this_user(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("ttyUSB1"))
    assert found(host)["ttyUSB0"].is_allowed and not found(host)["ttyUSB1"].is_allowed


def test_a_host_without_any_of_it_has_no_ports(tmp_path: Path) -> None:
    assert ports(tmp_path / "dev", tmp_path / "sys", tmp_path / "proc") == []


def test_a_process_that_ends_during_the_scan_is_left_out(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterdir = Path.iterdir

    def ended(path: Path) -> Iterator[Path]:
        if path.parts[-2:] == ("41", "fd"):
            raise ProcessLookupError(3, "No such process")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", ended)
    assert found(host)["ttyUSB0"].users == (User(42, "minicom"),)
