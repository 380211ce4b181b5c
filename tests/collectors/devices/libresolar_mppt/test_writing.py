"""Writing to a charge controller: only when allowed, read back, never a function, never repeated without need."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from collectors.devices.libresolar_mppt.objects import SETTINGS, places
from collectors.devices.libresolar_mppt.writing import SettingWriter
from collectors.errors import ConfigError, NoReply, Refused
from collectors.fakes import Out
from tests.testing.mppt import Recorder, Rig, every_build


def writing(fake: Mapping[str, Any] | None = None) -> tuple[Rig, SettingWriter]:
    rig = Rig(fake or {}, allow_write=True).open()
    return rig, SettingWriter(rig.driver)


def test_writing_is_off_unless_allowed() -> None:
    with pytest.raises(ConfigError, match="allow_write"):
        SettingWriter(Rig({}).open().driver)


@every_build
def test_a_switch_is_written_and_read_back(build: Mapping[str, Any]) -> None:
    rig, writer = writing(build)
    path = "Load/wEnable" if build["generation"] in ("0.5", "0.6") else "input/LoadEn"
    assert rig.bench.carry(writer.write(path, False)) is False
    values = rig.values(8)
    assert values["load.enabled"] == 0.0


@pytest.mark.parametrize(
    "path", ["exec/reset", "rpc/x-reset", "Device/xReset", "DFU/xBootloaderSTM", "auth", "x-auth/P"]
)
def test_functions_are_never_called(path: str) -> None:
    rig, writer = writing()
    rig.recorder.asked.clear()
    with pytest.raises(Refused, match="never"):
        rig.bench.carry(writer.write(path, True))
    assert rig.recorder.asked == []


def test_unchanged_and_too_frequent_settings_are_not_written() -> None:
    rig, writer = writing()
    assert rig.bench.carry(writer.write("conf/Topping_V", 14.25)) == 14.25
    rig.recorder.asked.clear()
    assert rig.bench.carry(writer.write("conf/Topping_V", 14.25)) == 14.25
    with pytest.raises(Refused, match="EEPROM"):
        rig.bench.carry(writer.write("conf/Topping_V", 14.3))
    assert not any(ask.startswith(b"=") for ask in rig.recorder.asked)
    rig.bench.now_s += 600.0
    assert rig.bench.carry(writer.write("conf/Topping_V", 14.3)) == 14.3


def test_a_setting_that_the_device_resets_without_an_error_is_noticed() -> None:
    rig, writer = writing()
    with pytest.raises(Refused, match=r"14\.4 is kept"):
        rig.bench.carry(writer.write("conf/Topping_V", 13.0))


def test_a_rounded_value_is_taken() -> None:
    rig, writer = writing()
    assert rig.bench.carry(writer.write("conf/BatNom_Ah", 99.96)) == 100.0


@every_build
def test_a_wrong_password_shows_only_at_a_write(build: Mapping[str, Any]) -> None:
    right, wrong = secrets.token_hex(4), secrets.token_hex(4)
    rig, writer = writing({**build, "maker_password": right})
    path = "Battery/pFullChgCount" if build["generation"] in ("0.5", "0.6") else "rec/FullChgCount"
    if build["generation"] == "0.6":
        with pytest.raises(Refused, match="no known way"):
            rig.bench.carry(writer.authenticate(right))
        return
    for password in (wrong, right):
        try:
            rig.bench.carry(writer.authenticate(password))
        except Refused as error:
            assert (build["generation"], password, error.code) == ("0.2", wrong, 43)
        if password == wrong:
            with pytest.raises(Refused, match="authenticate") as refused:
                rig.bench.carry(writer.write(path, 7))
            assert refused.value.code in (0xA1, 38)
            rig.bench.now_s += 600.0
    assert rig.bench.carry(writer.write(path, 7)) == 7


def test_a_password_is_never_shown() -> None:
    rig, writer = writing()
    password = secrets.token_hex(8)
    with pytest.raises(Refused) as error:
        rig.bench.carry(writer.authenticate(password))
    assert password not in str(error.value)
    rig.recorder.is_deaf = True
    with pytest.raises(NoReply) as lost:
        rig.bench.carry(writer.authenticate(password[:8]))
    assert password[:8] not in str(lost.value)


@every_build
def test_settings_are_read_by_the_names_of_the_project(build: Mapping[str, Any]) -> None:
    rig, writer = writing(build)
    found = rig.bench.carry(writer.read_settings())
    assert set(found) == {i.signal.split(".")[1] for i in SETTINGS if places(i, build["generation"])}
    assert found["topping_voltage_v"] == 14.4


def test_settings_are_read_and_a_switch_is_written_through_a_shell() -> None:
    rig, writer = writing({"generation": "0.6", "shell": True})
    settings = rig.bench.carry(writer.read_settings())
    plain, plain_writer = writing({"generation": "0.6"})
    assert settings == plain.bench.carry(plain_writer.read_settings())
    assert rig.bench.carry(writer.write("Load/wEnable", False)) is False


def test_a_password_that_a_shell_echoes_is_in_no_error() -> None:
    rig, writer = writing({"generation": "0.5", "shell": True})
    password = secrets.token_hex(4)
    rig.recorder = Echo(rig.recorder.fake)
    rig.bench._fake = rig.recorder
    with pytest.raises(NoReply) as lost:
        rig.bench.carry(writer.authenticate(password))
    assert "xAuth" in str(lost.value)
    assert password not in str(lost.value)


class Echo(Recorder):
    """A shell that only echoes its input."""

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        return [Out(b"uart:~$ " + data.replace(b"\n", b"\r\n"), now_s)]
