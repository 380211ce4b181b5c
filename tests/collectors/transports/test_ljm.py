"""The LJM link gives the readings that Modbus TCP gives, through the real wrapper over a stand-in library.

The vendor's own library is not run here, since it is not available where the tests run. These tests show that the calls
fit the real wrapper `labjack-ljm`, and that the driver reads the same values through them as over Modbus TCP.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors import transports
from collectors.devices import labjack_t7
from collectors.devices.labjack_t7 import stream_packets as stream
from collectors.errors import ConfigError, LinkBusy, LinkDown, NoReply, Refused, WrongDevice
from collectors.fakes import labjack_t7 as fake
from collectors.fakes.serve import Server, Station, serving
from collectors.fakes.wires import TcpWire
from collectors.transports import Address, ljm

STANDIN = Path(__file__).parents[2] / "ljm_standin"
LIMIT_S = 30.0
CHANNELS = [
    {"input": "AIN0", "signal": "battery.voltage_v", "scaling": {"divider": {"r1_ohm": 3000, "r2_ohm": 1000}}},
    {"input": "AIN1", "signal": "battery.current_a", "scaling": {"hall": {"burden_ohm": 100}}, "keep_raw": True},
]
SAMPLE = {"channels": CHANNELS}
STREAM = {"channels": CHANNELS, "mode": "stream", "scan_rate_hz": 5000, "bin_s": 0.05}


def has_vendor_library() -> bool:
    try:
        ctypes.CDLL(ljm.LIBRARY)
    except OSError:
        return False
    return True


without_vendor = pytest.mark.skipif(has_vendor_library(), reason="the vendor's LJM library is installed here")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the stand-in; return its folder."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the stand-in library with")
    folder = tmp_path_factory.mktemp("ljm")
    source = str(STANDIN / "ljm_standin.c")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(folder / ljm.LIBRARY), source]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    return folder


@pytest.fixture
def station() -> Iterator[Station]:
    server = Server()
    world = {"battery.voltage_v": 13.2, "battery.current_a": -4.5}
    station = Station("t7", fake.FAKE, lambda _time_s: world, fake.FakeT7Options(noise=False))
    server.add_tcp(station, {"": 0, "stream": 0})
    with serving(server):
        yield station


def ports_of(station: Station) -> Mapping[str, int]:
    assert isinstance(station.wire, TcpWire)
    return station.wire.ports


def link_of(station: Station) -> str:
    assert isinstance(station.wire, TcpWire)
    return station.wire.link


def collect(
    link: str, options: Mapping[str, Any], station: Station, library: Path | None, turns: int = 3, **env: str
) -> dict[str, Any]:
    ports = ports_of(station)
    env |= {"LJM_STANDIN_PORT": str(ports[""]), "LJM_STANDIN_STREAM_PORT": str(ports["stream"])}
    env |= {"LD_LIBRARY_PATH": str(library)} if library else {}
    command = [sys.executable, str(STANDIN / "collect.py"), link, json.dumps(options), str(turns)]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def values(found: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(o["measurement"], o["tags"], o["values"]) for o in found["outputs"] if "measurement" in o]


def test_sampling_through_the_library_equals_modbus_tcp(library: Path, station: Station) -> None:
    ours = collect("ljm:ETHERNET:127.0.0.1", SAMPLE, station, library)
    plain = collect(link_of(station), SAMPLE, station, None)
    assert (ours["link"], plain["link"]) == ("LjmLink", "TcpLink")
    assert ours["serial"] == plain["serial"] == "470012345"
    assert values(ours) == values(plain)
    assert values(ours)[-1][2] == pytest.approx({"voltage_v": 13.2, "current_a": -4.5}, abs=1e-5)


def test_streaming_through_the_library_equals_modbus_tcp(library: Path, station: Station) -> None:
    ours = collect("ljm:USB:470012345", STREAM, station, library)
    plain = collect(link_of(station), STREAM, station, None)
    assert values(ours)[:4] == values(plain)[:4]
    _, _, battery = values(ours)[0]
    assert battery["samples"] == 250
    assert battery["current_a"] == pytest.approx(-4.5, abs=0.004)


def test_a_device_claimed_by_another_process_is_a_busy_link(library: Path, station: Station) -> None:
    found = collect("ljm:USB:ANY", SAMPLE, station, library, LJM_STANDIN_OPEN_ERROR="1230")
    assert found["error"] == "LinkBusy"
    assert "1230" in found["text"]


def test_another_serial_number_than_the_configured_one_is_the_wrong_device(library: Path, station: Station) -> None:
    found = collect("ljm:ANY:ANY", {**SAMPLE, "serial_number": "470000001"}, station, library)
    assert found["error"] == "WrongDevice"
    assert "470012345" in found["text"]


@without_vendor
def test_without_the_library_the_error_names_the_package_to_install() -> None:
    with pytest.raises(ConfigError, match=r"libLabJackM\.so.*installer.*ldconfig.*tcp:HOST"):
        transports.open_link("ljm:USB:470012345", labjack_t7.DEVICE)
    assert transports.check("ljm:USB:470012345", labjack_t7.DEVICE)


@without_vendor
def test_without_the_library_the_tcp_address_is_used(station: Station) -> None:
    ports = ports_of(station)
    link = f"ljm:USB:470012345?tcp=127.0.0.1:{ports['']}&stream={ports['stream']}"
    assert transports.check(link, labjack_t7.DEVICE) == []
    opened = transports.open_link(link, labjack_t7.DEVICE)
    assert type(opened).__name__ == "TcpLink"
    opened.close()


def test_with_the_library_tcp_is_not_used(library: Path, station: Station) -> None:
    assert collect("ljm:USB:ANY?tcp=127.0.0.1:1", SAMPLE, station, library)["link"] == "LjmLink"


@pytest.mark.parametrize("link", ["ljm:USB", "ljm:SERIAL:1", "ljm:USB:", "ljm:USB:1?baud=9600", "ljm:USB:1?tcp=h:x"])
def test_a_bad_address_is_refused_before_anything_is_opened(link: str) -> None:
    assert len(transports.check(link, labjack_t7.DEVICE)) == 1


class _Error(Exception):
    def __init__(self, code: int) -> None:
        self.errorCode = code
        self.errorString = "NAME"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1227, LinkDown),
        (1230, LinkBusy),
        (1239, LinkDown),
        (1263, NoReply),
        (1307, WrongDevice),
        (1294, Refused),
        (203, Refused),
    ],
)
def test_a_code_of_the_library_becomes_its_exception(code: int, kind: type[Exception]) -> None:
    error = ljm.translate(_Error(code), "ljm:USB:ANY")
    assert type(error) is kind
    assert f"{code} NAME" in str(error)


class Scripted:
    """The wrapper as far as reading a stream requires it."""

    LJMError = _Error

    def __init__(self, *reads: list[float] | int) -> None:
        self.reads = list(reads)
        self.calls: list[str] = []

    def eStreamRead(self, handle: int) -> tuple[list[float], int, int]:
        read = self.reads.pop(0)
        if isinstance(read, int):
            raise _Error(read)
        return read, 3, 0

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append(name)


def streaming(*reads: list[float] | int) -> tuple[ljm.LjmLink, stream.Tracker]:
    link = ljm.LjmLink(Scripted(*reads), 1, "ljm:USB:1")  # type: ignore[arg-type]
    link._stream = ljm.LjmStream(2)
    return link, stream.Tracker(2)


def feed(link: ljm.LjmLink, tracker: stream.Tracker) -> tuple[list[stream.StreamSegment], list[str]]:
    cut = stream.cut_packets(link.read(0.0, "stream").data)
    assert cut is not None
    segments, events = tracker.feed(cut.payload)
    return segments, [e.kind for e in events]


def test_dummy_scans_are_a_gap_with_their_number_and_never_data() -> None:
    link, tracker = streaming([10, 11, -9999, -9999], [-9999, -9999, -8888, -8888, 20, 21])
    first, events = feed(link, tracker)
    assert [s.codes.tolist() for s in first] == [[[10, 11]]]
    assert events == []
    second, events = feed(link, tracker)
    assert events == ["stream_gap"]
    assert [(s.first, s.codes.tolist()) for s in second] == [(4, [[20, 21]])]
    assert tracker.lost == 3


def test_a_full_buffer_of_the_library_ends_the_stream_and_asks_for_a_restart() -> None:
    link, tracker = streaming(1301)
    assert feed(link, tracker) == ([], ["stream_ended"])
    assert tracker.ended == stream.BUFFER_FULL


def test_no_scans_in_time_is_no_reply() -> None:
    link, _ = streaming(1309)
    with pytest.raises(NoReply):
        link.read(0.0, "stream")


def test_a_modbus_exception_is_returned_as_the_devices_own_frame() -> None:
    link = ljm.LjmLink(Scripted(), 1, "ljm:USB:1")  # type: ignore[arg-type]

    def refuse(*arguments: int) -> list[int]:
        raise _Error(1202)

    link._ljm.eReadAddressByteArray = refuse  # type: ignore[attr-defined]
    link.write(bytes.fromhex("00 0D 00 00 00 06 01 03 00 00 00 02"))
    assert link.read(0.0).data == bytes.fromhex("00 0D 00 00 00 03 01 83 02")


def test_close_stops_the_stream_and_the_device_once() -> None:
    link, _ = streaming()
    link.close()
    link.close()
    assert link._ljm.calls == ["eStreamStop", "close"]
    with pytest.raises(LinkDown):
        link.write(bytes.fromhex("00 01 00 00 00 06 01 03 00 00 00 02"))


def test_packets_of_the_link_are_those_of_the_device() -> None:
    codes = np.array([1, 2, 65000, 4], dtype=np.uint16)
    assert ljm.LjmStream(2).packet(codes.astype(float), 2940, 7, 12) == stream.encode(0, codes, 2940, 7, 12)


def test_the_library_is_found_missing_before_the_wrapper_can_fail_on_none() -> None:
    assert (ljm.library() is None) == (not has_vendor_library())
    assert ljm._fallback(Address("ljm", "USB:1", {"tcp": "h:1", "stream": "2"})) == Address(
        "tcp", "h:1", {"stream": "2"}
    )
