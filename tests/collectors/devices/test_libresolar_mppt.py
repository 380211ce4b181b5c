"""The charge controller: found without writing, read in all generations, written only when allowed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import signals, thingset
from collectors.devices._libresolar_objects import ITEMS, SETTINGS, by_measurement, canonical, catalogue, places
from collectors.devices._libresolar_write import Writer
from collectors.devices.libresolar_mppt import DEVICE, FAST, LIMITS, Controller, Options
from collectors.errors import ConfigError, NoReply, Refused, WrongDevice
from collectors.fakes import Out
from collectors.fakes.libresolar_mppt import FAKE, FakeMppt
from collectors.fakes.libresolar_mppt import Options as FakeOptions
from collectors.reading import Event, Reading
from collectors.thingset import GENERATIONS
from tests.collectors.conformance import Bench

BUILDS: Sequence[Mapping[str, Any]] = (
    {"generation": "0.2"},
    {"generation": "0.3"},
    {"generation": "0.4"},
    {"generation": "0.5"},
    {"generation": "0.5", "names_2022": True},
    {"generation": "0.6"},
)
every_build = pytest.mark.parametrize("build", BUILDS, ids=lambda b: " ".join(map(str, b.values())))
whether_on = pytest.mark.parametrize("on", [True, False], ids=["publishing", "silent"])
WORLD: Mapping[str, float | None] = {
    "battery.voltage_v": 12.85,
    "battery.current_a": -1.03,
    "battery.temperature_degc": 21.5,
    "battery.soc": 0.68,
    "solar.voltage_v": 18.05,
}


class Recorder:
    """A fake that remembers what it was asked."""

    def __init__(self, fake: FakeMppt) -> None:
        self.fake = fake
        self.asked: list[bytes] = []
        self.is_deaf = False

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        self.asked.append(data)
        return () if self.is_deaf else self.fake.receive(data, now_s, channel)

    def tick(self, now_s: float) -> Sequence[Out]:
        return self.fake.tick(now_s)

    def next_tick_s(self) -> float:
        return self.fake.next_tick_s()

    def connected(self, now_s: float, channel: str = "") -> None:
        self.fake.connected(now_s, channel)


class Rig:
    """A driver on a fake in simulated time."""

    def __init__(self, fake: Mapping[str, Any], world: Mapping[str, float | None] = WORLD, **options: Any) -> None:
        self.world = dict(world)
        self.fake = FakeMppt(lambda _: self.world, FakeOptions(**fake))
        self.recorder = Recorder(self.fake)
        self.bench = Bench(self.recorder, [""])
        self.driver = Controller(Options(**options))

    def open(self) -> Rig:
        self.identity = self.bench.carry(self.driver.open())
        return self

    def poll(self, times: int = 1) -> list[Reading | Event]:
        return [output for _ in range(times) for output in self.bench.carry(self.driver.poll())]

    def values(self, times: int = 1) -> dict[str, float | None]:
        """Return the last value of every signal in some polls."""
        return {
            f"{output.measurement}.{name}": value
            for output in self.poll(times)
            if isinstance(output, Reading)
            for name, value in output.values.items()
        }


def kinds(outputs: Sequence[Reading | Event]) -> list[str]:
    return [output.kind for output in outputs if isinstance(output, Event)]


# the table


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_name_means_one_thing(generation: thingset.Generation) -> None:
    found = [place for item in (*ITEMS, *SETTINGS) for place in places(item, generation)]
    assert len(found) == len(set(found))


def test_every_object_has_a_signal_of_the_vocabulary() -> None:
    assert all(signals.find(*item.signal.split(".")) for item in ITEMS)
    assert len({item.signal for item in ITEMS}) == len(ITEMS)
    assert set(LIMITS) | FAST <= {item.signal for item in ITEMS}


def test_a_value_of_another_kind_is_no_value() -> None:
    values, strange = canonical("0.3", {"Bat_V": "12", "Bat_A": True, "LoadEn": 1, "SOC_pct": None, "x": 1})
    assert strange == ["Bat_V", "Bat_A", "x"]
    assert values == {"load.enabled": 1.0, "battery.soc": None}


def test_nothing_is_minus_zero() -> None:
    values, _ = canonical("0.3", {"Solar_A": 0.0, "Dis_Ah": -0.0})
    assert [str(value) for value in values.values()] == ["0.0", "0.0"]


def test_builds_between_the_releases_are_read() -> None:
    assert catalogue("0.3")["Timestamp_s"].signal == "charger.uptime_s"
    assert catalogue("0.2")["MCU_degC"].signal == "charger.temperature_degc"


# finding it


@every_build
@whether_on
def test_it_is_found_and_nothing_but_the_switch_is_written(build: Mapping[str, Any], on: bool) -> None:
    rig = Rig({**build, "publications": on}).open()
    assert rig.identity.model == "MPPT-1210-HUS"
    assert rig.identity.serial == "FAKE0001"
    assert rig.identity.detail["generation"] == build["generation"]
    assert rig.driver.paced_by == "device"
    switched = [ask for ask in rig.recorder.asked if b"true" in ask]
    assert bool(switched) == (not on)
    reads = [ask for ask in rig.recorder.asked if ask not in switched]
    assert all(ask.startswith((b"?", b"!output", b"!info")) for ask in reads)


@every_build
@whether_on
def test_publications_are_left_as_they_were(build: Mapping[str, Any], on: bool) -> None:
    rig = Rig({**build, "publications": on}).open()
    assert isinstance(rig.poll()[0], Reading)
    rig.bench.carry(rig.driver.close())
    start_s, said = rig.bench.now_s, 0
    for second in range(1, 4):
        said += len(rig.fake.tick(start_s + second))
    assert bool(said) == on


def test_the_first_sample_comes_within_two_seconds() -> None:
    rig = Rig({}).open()
    rig.poll()
    assert rig.bench.now_s < 2.0


@pytest.mark.parametrize("fixed", GENERATIONS)
@every_build
def test_a_generation_that_was_configured_wrongly_is_refused(build: Mapping[str, Any], fixed: Any) -> None:
    if fixed == build["generation"]:
        Rig(build, generation=fixed).open()
        return
    for on in (True, False):
        with pytest.raises((WrongDevice, NoReply)):
            Rig({**build, "publications": on}, generation=fixed).open()


def test_nobody_there_is_no_reply() -> None:
    rig = Rig({"publications": False})
    rig.recorder.is_deaf = True
    with pytest.raises(NoReply):
        rig.open()
    assert rig.recorder.asked == [b"?output/\n", b"?meas/\n", b"?Battery/\n", b"!output\n"]


def test_another_model_is_refused() -> None:
    with pytest.raises(WrongDevice, match="MPPT-2420"):
        Rig({"model": "MPPT-2420-HC"}).open()


# reading it


@every_build
@whether_on
@pytest.mark.parametrize("mode", ["auto", "poll"])
def test_every_object_is_read_with_its_sign_and_unit(build: Mapping[str, Any], on: bool, mode: str) -> None:
    rig = Rig({**build, "publications": on, "external_sensor": True}, mode=mode).open()
    values = rig.values(8)
    here = {item.signal for item in ITEMS if places(item, build["generation"])}
    assert set(values) == here
    assert {key: values[key] for key in WORLD} == pytest.approx(WORLD)
    assert values["load.current_a"] == pytest.approx(1.03)
    assert values["load.power_w"] == pytest.approx(13.24)
    assert values["charger.target_current_a"] == 10.0
    assert values["load.state"] == 1.0


def test_the_sun_is_positive_where_the_device_says_minus() -> None:
    rig = Rig({}, {**WORLD, "battery.current_a": 2.0}).open()
    values = rig.values(4)
    assert values["solar.current_a"] == pytest.approx(12.85 * 2.0 / 18.05, abs=0.005)
    assert values["solar.power_w"] == pytest.approx(25.70)
    assert b'"Solar_A":-1.42' in rig.fake.tick(rig.bench.now_s + 1.0)[0].data


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 1600), st.integers(-1000, 1000), st.sampled_from(BUILDS))
def test_hundredths_come_back_exactly(centivolts: int, centiamps: int, build: Mapping[str, Any]) -> None:
    volts, amps = centivolts / 100, centiamps / 100
    fake = FakeMppt(lambda _: {"battery.voltage_v": volts, "battery.current_a": amps}, FakeOptions(**build))
    if build["generation"] == "0.2":
        fake.receive(b'!pub {"Serial_1s":true}\n', 0.0)
    driver = Controller(Options(generation=build["generation"], extra_period_s=0.0))
    outputs = Bench(fake, [""]).carry(driver.poll())
    battery = next(o for o in outputs if isinstance(o, Reading) and o.measurement == "battery")
    assert (battery.values["voltage_v"], battery.values["current_a"]) == (volts, amps)
    assert "power_imbalance" not in kinds(outputs)


def test_a_gap_in_the_world_is_a_gap_in_the_readings() -> None:
    rig = Rig({}, extra_period_s=0.0).open()
    rig.poll()
    before_s = rig.bench.now_s
    rig.world["battery.voltage_v"] = None
    with pytest.raises(NoReply):
        rig.poll()
    rig.world["battery.voltage_v"] = 12.9
    (first, *_) = [o for o in rig.poll() if isinstance(o, Reading) and o.measurement == "battery"]
    assert first.values["voltage_v"] == 12.9
    assert first.boottime_ns / 1e9 > before_s + 3.0


@pytest.mark.parametrize("build", [{"generation": "0.3"}, {"generation": "0.5"}], ids=["nan", "null"])
def test_what_the_device_does_not_know_is_none(build: Mapping[str, Any]) -> None:
    values = Rig(build, {**WORLD, "battery.soc": None}).open().values()
    assert values["battery.soc"] is None
    assert values["battery.voltage_v"] == 12.85


def test_without_a_sensor_there_is_no_battery_temperature() -> None:
    values = Rig({"external_sensor": False}).open().values(5)
    assert values["battery.temperature_sensor"] == 0.0
    assert "battery.temperature_degc" not in values


def test_debug_text_is_passed_over() -> None:
    rig = Rig({"debug_text": True}).open()
    assert {"battery.voltage_v", "battery.power_w", "solar.energy_total_wh"} <= set(rig.values(4))


def test_only_debug_text_is_no_reply() -> None:
    class Chatter(Recorder):
        def tick(self, now_s: float) -> Sequence[Out]:
            return [Out(b"[00:00:01] main: still here\n", out.at_s) for out in super().tick(now_s)]

    rig = Rig({})
    rig.bench = Bench(Chatter(rig.fake), [""])
    rig.driver = Controller(Options(generation="0.3", publications="leave"))
    with pytest.raises(NoReply, match="115200"):
        rig.poll()


def test_extras_are_fetched_once_a_period() -> None:
    rig = Rig({}, extra_period_s=10.0).open()
    rig.recorder.asked.clear()
    rig.poll(30)
    fetched = [ask for ask in rig.recorder.asked if ask.startswith(b"?rec [")]
    assert len(fetched) == 2 * 3  # two batches, three times
    assert not any(b'"Bat_V"' in ask for ask in rig.recorder.asked)


def test_lost_answers_cost_no_publication() -> None:
    rig = Rig({}, extra_period_s=10.0).open()
    rig.recorder.is_deaf = True
    outputs = rig.poll(4)
    stamps = [o.boottime_ns for o in outputs if isinstance(o, Reading) and o.measurement == "battery"]
    assert [round((b - a) / 1e9, 3) for a, b in pairwise(stamps)] == [1.0] * (len(stamps) - 1)
    assert "fetch_failed" in kinds(outputs)


# changes on the way


@whether_on
def test_a_restart_is_told_and_survived(on: bool) -> None:
    rig = Rig({"publications": on, "uptime_s": 1000}).open()
    rig.poll(5)
    rig.fake.restart(rig.bench.now_s)
    outputs = rig.poll(2)
    assert ("publications_enabled" in kinds(outputs)) == (not on)
    assert "device_restart" in kinds(outputs)
    assert any(isinstance(output, Reading) for output in outputs)


def test_beyond_the_hardware_is_missing_and_one_event_a_run() -> None:
    rig = Rig({}, extra_period_s=0.0).open()
    rig.poll()
    rig.world["battery.voltage_v"] = 16.5
    outputs = rig.poll(3)
    assert kinds(outputs) == ["out_of_range"]
    assert {o.values["voltage_v"] for o in outputs if isinstance(o, Reading) and o.measurement == "battery"} == {None}
    rig.world["battery.voltage_v"] = 12.0
    assert kinds(rig.poll()) == []
    rig.world["battery.voltage_v"] = 16.5
    assert kinds(rig.poll()) == ["out_of_range"]


def test_a_24_v_battery_is_a_setting() -> None:
    rig = Rig({}, {**WORLD, "battery.voltage_v": 26.4}, battery_limit_v=32.0).open()
    assert rig.values()["battery.voltage_v"] == 26.4


def test_power_that_does_not_balance_is_one_event() -> None:
    rig = Rig({}, {**WORLD, "solar.current_a": 5.0}, extra_period_s=0.0).open()
    assert kinds(rig.poll(3)) == ["power_imbalance"]


# asking instead of listening


def test_where_publications_stay_off_it_is_asked() -> None:
    rig = Rig({"publications": False}, publications="leave").open()
    assert rig.driver.paced_by == "grid"
    values = rig.values()
    assert set(values) >= FAST
    assert not any(b"Enable" in ask for ask in rig.recorder.asked)


def test_publications_that_must_come_and_do_not_are_refused() -> None:
    with pytest.raises(Refused, match="publications"):
        Rig({"publications": False}, mode="publications", publications="leave").open()


def test_a_slot_without_any_answer_is_no_reply_and_the_next_one_is_right() -> None:
    rig = Rig({"publications": False}, mode="poll", extra_period_s=0.0).open()
    assert rig.values()["battery.voltage_v"] == 12.85
    rig.recorder.is_deaf = True
    with pytest.raises(NoReply):
        rig.poll()
    rig.recorder.is_deaf = False
    rig.world["battery.voltage_v"] = 12.9
    assert rig.values()["battery.voltage_v"] == 12.9


@pytest.mark.parametrize(
    "wrong", [{"extra_period_s": 5.0}, {"extra_period_s": -1.0}, {"battery_limit_v": 0.0}], ids=lambda w: str(w)
)
def test_options_beyond_the_device_are_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)


# writing


def writing(fake: Mapping[str, Any] | None = None) -> tuple[Rig, Writer]:
    rig = Rig(fake or {}, allow_write=True).open()
    return rig, Writer(rig.driver)


def test_writing_is_off_unless_allowed() -> None:
    with pytest.raises(ConfigError, match="allow_write"):
        Writer(Rig({}).open().driver)


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


def test_a_setting_is_kept_once_and_not_worn_out() -> None:
    rig, writer = writing()
    assert rig.bench.carry(writer.write("conf/Topping_V", 14.25)) == 14.25
    rig.recorder.asked.clear()
    assert rig.bench.carry(writer.write("conf/Topping_V", 14.25)) == 14.25
    with pytest.raises(Refused, match="EEPROM"):
        rig.bench.carry(writer.write("conf/Topping_V", 14.3))
    assert not any(ask.startswith(b"=") for ask in rig.recorder.asked)
    rig.bench.now_s += 600.0
    assert rig.bench.carry(writer.write("conf/Topping_V", 14.3)) == 14.3


def test_a_setting_that_is_put_back_in_silence_is_noticed() -> None:
    rig, writer = writing()
    with pytest.raises(Refused, match=r"14\.4 is kept"):
        rig.bench.carry(writer.write("conf/Topping_V", 13.0))


def test_a_rounded_value_is_taken() -> None:
    rig, writer = writing()
    assert rig.bench.carry(writer.write("conf/BatNom_Ah", 99.96)) == 100.0


@every_build
def test_only_a_write_tells_a_wrong_password(build: Mapping[str, Any]) -> None:
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
def test_settings_are_read_by_our_names(build: Mapping[str, Any]) -> None:
    rig, writer = writing(build)
    found = rig.bench.carry(writer.read_settings())
    assert set(found) == {i.signal.split(".")[1] for i in SETTINGS if places(i, build["generation"])}
    assert found["topping_voltage_v"] == 14.4


# captures


def test_a_capture_is_explained_line_by_line() -> None:
    capture = [
        b'Received Request (15 bytes): ?output "Bat_V"\n# {"Uptime_s":11,"Bat_',
        b'V":12.80,"Bat_degC":25.0,"x":1}\n',
    ]
    capture += [b"\n:85 Content. 12.80\n:A4 Not Found.\n", b'# {"a":1} 00000000\n']
    noise, publication, charger, battery, empty, content, refused, error = DEVICE.decode(capture)
    assert noise["type"] == "noise"
    assert publication["generations"] == ["0.3"]
    assert publication["values"] == {"Uptime_s": 11, "Bat_V": 12.8, "Bat_degC": 25.0, "x": 1}
    assert publication["unknown"] == ["x"]
    assert (charger["measurement"], charger["values"]) == ("charger", {"uptime_s": 11.0})
    assert (battery["measurement"], battery["values"]) == ("battery", {"voltage_v": 12.8})
    assert empty["type"] == "empty"
    assert (content["code"], content["payload"]) == (0x85, 12.8)
    assert refused["refused"] == ":A4 Not Found"
    assert error["error"] == "BadChecksum"


def test_readings_are_grouped_by_what_is_measured() -> None:
    found = by_measurement({"battery.voltage_v": 1.0, "load.state": None, "battery.soc": 0.5}, 7)
    assert found == [Reading("battery", 7, {"voltage_v": 1.0, "soc": 0.5}), Reading("load", 7, {"state": None})]


# the fake's habits


@pytest.mark.parametrize(("generation", "answered"), [("0.3", True), ("0.5", False)])
def test_what_comes_while_it_works_is_lost(generation: Any, answered: bool) -> None:
    """Up to 0.4 the rest of a line is taken for a line of its own; from 0.5 on the whole line goes."""
    fake = FakeMppt(lambda _: WORLD, FakeOptions(generation=generation))
    group = "Battery" if generation == "0.5" else "output"
    (first,) = fake.receive(f"?{group}/\n".encode(), 0.0)
    assert fake.receive(b"=lost", 0.01) == ()
    assert bool(fake.receive(f"?{group}/\n".encode(), 1.0)) == answered
    assert fake.receive(f"?{group}/\n".encode(), 2.0)[0].data == first.data


def test_counters_run_with_the_devices_seconds_and_restart_with_its_day() -> None:
    rig = Rig({"period_s": 1 / 60}, {**WORLD, "battery.current_a": 6.0}, extra_period_s=0.0).open()
    values = rig.values(180)
    assert values["battery.charged_today_wh"] == pytest.approx(180 * 12.85 * 6.0 / 3600, rel=0.05)
    assert values["charger.uptime_s"] is not None
    assert values["charger.uptime_s"] >= 180
    assert rig.bench.now_s < 5.0
    rig.fake.restart(rig.bench.now_s)
    assert (rig.values()["battery.charged_today_wh"] or 0.0) < 0.1


def test_the_fake_kind_offers_its_options() -> None:
    assert FAKE.make(lambda _: {}, FAKE.options()).next_tick_s() == FAKE.period_s
