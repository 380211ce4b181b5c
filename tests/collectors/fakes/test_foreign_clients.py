"""Third-party clients read the fakes: the protocol that the drivers are tested against is the instruments' own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient
from python_thingset import ThingSetSerial

from collectors import devices, fakes
from collectors.fakes import World
from collectors.fakes.serve import Server, Station, serving
from collectors.fakes.wires import TcpWire

TRUE: Mapping[str, float | None] = {
    "battery.voltage_v": 12.85,
    "battery.current_a": -1.03,
    "battery.soc": 0.68,
    "solar.voltage_v": 18.05,
}


def world(_: float) -> Mapping[str, float | None]:
    return TRUE


@contextmanager
def served(kind: str, attach: Callable[[Server, Station], object], see: World, **options: Any) -> Iterator[Station]:
    """Serve a fake for the length of a with-block."""
    fake = fakes.load(kind)
    station = Station(kind, fake, see, fake.options(**options))
    server = Server()
    attach(server, station)
    with serving(server):
        yield station


@contextmanager
def shell_port(tmp_path: Path, **options: Any) -> Iterator[Path]:
    """Serve a charge controller behind a shell; give its port."""
    port = tmp_path / "tty"
    line = devices.load("libresolar_mppt").line
    with served(
        "libresolar_mppt",
        lambda server, station: server.add_pty(station, port, line),
        world,
        **{"generation": "0.6", "shell": True, **options},
    ):
        yield port


@pytest.mark.parametrize("log_lines", [False, True])
def test_thingsets_own_client_reads_and_writes_through_the_shell(tmp_path: Path, log_lines: bool) -> None:
    with shell_port(tmp_path, debug_text=log_lines, period_s=0.2) as port, ThingSetSerial(str(port)) as client:
        voltage = client.get("Battery/rVoltage_V")
        assert (voltage.status_code, voltage.data) == (0x85, 12.85)
        both = client.fetch("Battery", ["rVoltage_V", "rCurrent_A"])
        assert [value.value for value in both.values] == [12.85, -1.03]
        assert "rVoltage_V" in client.fetch("Battery", []).data
        assert client.get("Device/cType").data == "MPPT-1210-HUS"
        assert client.get("Battery/rNothing").status_code == 0xA4
        assert client.update("Load/wEnable", False).status_code == 0x84
        assert client.get("Load/wEnable").data is False
        assert client.update("Battery/rVoltage_V", 1).status_code == 0xA3
        assert client.exec("Device/xNothing", []).status_code == 0xA4


def test_thingsets_own_command_lists_the_whole_tree(tmp_path: Path) -> None:
    with shell_port(tmp_path) as port:
        command = [Path(sys.executable).with_name("thingset"), "schema", "Battery", "-p", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "Battery/rVoltage_V" in done.stdout.splitlines(), done
        command = [Path(sys.executable).with_name("thingset"), "fetch", "", "-p", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "Battery" in done.stdout
        assert "(CONTENT)" in done.stdout


def test_pymodbus_reads_and_writes_the_t7() -> None:
    def attach(server: Server, station: Station) -> None:
        server.add_tcp(station, {"": 0, "stream": 0})

    with served("labjack_t7", attach, world, noise=False) as station:
        assert isinstance(station.wire, TcpWire)
        with ModbusTcpClient("127.0.0.1", port=station.wire.ports[""], timeout=10) as client:

            def read(address: int, data_type: Any) -> Any:
                count = data_type.value[1]
                found = client.read_holding_registers(address, count=count, device_id=1)
                assert not found.isError(), found
                return client.convert_from_registers(found.registers, data_type)

            types = client.DATATYPE
            assert read(55100, types.UINT32) == 0x00112233
            assert read(60000, types.FLOAT32) == 7.0
            assert read(60028, types.UINT32) == 470012345
            ranges = client.convert_to_registers(10.0, types.FLOAT32)
            assert not client.write_registers(43900, ranges, device_id=1).isError()
            assert read(40000, types.FLOAT32) == 10.0
            assert read(0, types.FLOAT32) == pytest.approx(12.85 / 4, abs=1e-6)
            assert read(2, types.FLOAT32) == pytest.approx(-0.103, abs=1e-6)
            assert client.read_holding_registers(59999, count=1, device_id=1).exception_code == 2
