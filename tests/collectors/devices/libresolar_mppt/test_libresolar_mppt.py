"""The charge controller: identified without writing, read in all generations, captures decoded."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import signals
from collectors.cli import cli
from collectors.devices.libresolar_mppt import DEVICE, FAST, LIMITS, Controller, MpptOptions
from collectors.devices.libresolar_mppt.objects import ITEMS, SETTINGS, by_measurement, canonical, catalogue, places
from collectors.errors import LinkDown, NoReply, NotUnderstood, Refused, WrongDevice
from collectors.fakes import Out
from collectors.fakes.libresolar_mppt import FakeMppt
from collectors.fakes.libresolar_mppt import FakeMpptOptions as FakeOptions
from collectors.protocols import thingset
from collectors.protocols.dialogue import DialogueStopped, Reply
from collectors.protocols.thingset import GENERATIONS
from collectors.reading import Reading
from tests.testing.conformance import Bench
from tests.testing.mppt import BUILDS, WORLD, Recorder, Rig, Scripted, every_build, kinds, scripted, whether_on

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


def test_an_absent_device_is_no_reply() -> None:
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


def test_solar_power_is_positive_where_the_device_reports_it_negative() -> None:
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
    driver = Controller(MpptOptions(generation=build["generation"], extra_period_s=0.0))
    outputs = Bench(fake, [""]).carry(driver.poll())
    battery = next(o for o in outputs if isinstance(o, Reading) and o.measurement == "battery")
    assert (battery.values["voltage_v"], battery.values["current_a"]) == (volts, amps)
    assert "power_imbalance" not in kinds(outputs)


def test_a_gap_of_the_simulated_values_is_a_gap_in_the_readings() -> None:
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
def test_an_object_that_the_device_does_not_have_is_none(build: Mapping[str, Any]) -> None:
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
    rig.driver = Controller(MpptOptions(generation="0.3", publications="leave"))
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


ENDS = pytest.mark.parametrize("end", [LinkDown("pulled"), DialogueStopped()], ids=["pulled", "stopped"])


class Ends(Recorder):
    """A fake whose link is lost, or whose collector is stopped, after a given number of requests."""

    end: Exception | None = None
    after = 0

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        if self.end and self.after == 0:
            raise self.end
        self.after -= 1
        return super().receive(data, now_s, channel)


def ending(end: Exception, after: int) -> Rig:
    """A charger whose slot takes several requests."""
    rig = Rig({"generation": "0.5"}, mode="poll", extra_period_s=0.0)
    rig.recorder = ends = Ends(rig.fake)
    rig.bench = Bench(ends, [""])
    rig.open().poll(2)
    ends.end, ends.after = end, after
    return rig


@ENDS
def test_published_values_are_kept_when_polling_ends(end: Exception) -> None:
    poll = Rig({}, extra_period_s=10.0).open().driver.poll()
    assert next(poll).send.startswith(b"?"), "it has heard something, and asks for what is not published"
    assert poll.send(Reply(thingset.parse(b'# {"Bat_V":12.60}'), 10**12)).send == b"", "heard while it waits"
    with pytest.raises(StopIteration) as done:
        poll.throw(end)
    found = [o.values["voltage_v"] for o in done.value.value if isinstance(o, Reading) and "voltage_v" in o.values]
    assert found[0] == WORLD["battery.voltage_v"]
    assert found[-1] == 12.6


@ENDS
def test_values_received_in_a_slot_are_kept_and_an_end_without_any_is_raised(end: Exception) -> None:
    whole = sum(isinstance(output, Reading) for output in ending(end, -1).poll())
    part = sum(isinstance(output, Reading) for output in ending(end, 1).poll())
    assert 0 < part < whole
    with pytest.raises(type(end)):
        ending(end, 0).poll()


def test_after_a_lost_reply_no_request_is_sent_until_the_next_period() -> None:
    """A late reply must not be taken for the reply to the next request."""
    rig = Rig({}, extra_period_s=10.0).open()
    rig.recorder.is_deaf = True
    rig.poll(2)
    rig.recorder.is_deaf = False
    asked = len(rig.recorder.asked)
    rig.poll(3)
    assert len(rig.recorder.asked) == asked
    assert "solar.energy_total_wh" in rig.values(12)


@pytest.mark.parametrize(
    "answers",
    [{b"?output/": b":85 Content. 1\n"}, {b"?output [": b":85 Content. [1]\n"}, {b"?output [": b":85 Content. null\n"}],
    ids=["names", "values", "nothing"],
)
def test_a_reply_of_another_form_is_no_reading(answers: Mapping[bytes, bytes]) -> None:
    rig = scripted(answers, [b'# {"Bat_V":12.80}\n'] * 3).open()
    outputs = rig.poll()
    assert kinds(outputs) == ["fetch_failed"]
    assert [o.values for o in outputs if isinstance(o, Reading)] == [{"voltage_v": 12.8}]


def test_a_duplicate_member_is_reported_once() -> None:
    rig = scripted({}, [b'# {"Bat_V":12.80,"Bat_V":12.90}\n'] * 3, generation="0.3", extra_period_s=0.0)
    outputs = rig.poll(2)
    assert kinds(outputs) == ["duplicate_member"]
    assert [o.values for o in outputs if isinstance(o, Reading)] == [{"voltage_v": 12.9}] * 2


def test_a_group_that_fails_leaves_the_others() -> None:
    rig = Rig({"generation": "0.4"}, mode="poll", extra_period_s=0.0)
    rig.recorder = Scripted(rig.fake, {b"?state/": b":C0 Internal Server Error.\n"})
    rig.bench = Bench(rig.recorder, [""])
    outputs = rig.open().poll()
    assert kinds(outputs) == ["fetch_failed"]
    assert any(isinstance(o, Reading) and o.measurement == "battery" for o in outputs)


def test_an_ambiguous_publication_is_resolved_by_a_request() -> None:
    rig = scripted({}, [b'# {"Bat_V":12.80}\n'] * 9).open()
    assert rig.identity.detail["generation"] == "0.3"
    assert rig.recorder.asked[0] == b"?output/\n"


def test_another_thingset_device_is_refused() -> None:
    nothing = dict.fromkeys((b"?", b"!"), b":A4 Not Found.\n")
    with pytest.raises(WrongDevice, match="not as a charge controller"):
        scripted(nothing).open()
    with pytest.raises(WrongDevice, match="nothing in 'Device'"):
        scripted({b"?": b":A4\n"}).open()


def test_a_model_that_was_garbled_once_is_requested_again_at_the_next_opening() -> None:
    rig = Rig({})
    rig.recorder = OnceGarbled(rig.fake)
    rig.bench = Bench(rig.recorder, [""])
    with pytest.raises(Refused, match="MPPT-1610"):
        rig.open()


class OnceGarbled(Recorder):
    """Corrupts the first reply about its model."""

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        first = data not in self.asked
        outs = super().receive(data, now_s, channel)
        return [Out(out.data.replace(b"1210", b"1610"), out.at_s) if first else out for out in outs]


def test_one_wrong_bit_in_a_name_is_not_taken_for_another_generation() -> None:
    rig = scripted({}, [b'#serial {"Bat_V":12.80,"S/lar_V":17.4,"Bat_A":0.1}\n'] * 9, extra_period_s=0.0)
    assert kinds(rig.poll()) == ["unknown_member"]


def test_a_charger_whose_every_reply_is_an_error_is_retried() -> None:
    with pytest.raises(Refused, match="nothing in 'info'"):
        scripted({b"?": b":C0 Internal Server Error.\n"}, [b'# {"SOC_pct":12}\n'] * 9).open()


def test_a_garbled_line_does_not_flood_the_journal() -> None:
    garbled = [f'# {{"Bat_V":12.80,"x{i}":1}}\n'.encode() for i in range(150)]
    rig = scripted({}, garbled, generation="0.3", extra_period_s=0.0)
    assert kinds(rig.poll(150)).count("unknown_member") == 100


def test_a_device_whose_publications_cannot_be_enabled_is_polled() -> None:
    rig = scripted({b"=": b":A4 Not Found.\n"}).open()
    assert rig.driver.paced_by == "grid"
    rig.bench.carry(rig.driver.close())
    assert not any(b"false" in ask for ask in rig.recorder.asked)


# changes on the way


@whether_on
def test_a_restart_of_the_device_is_reported_and_reading_continues(on: bool) -> None:
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


# polling instead of listening


def test_the_device_is_polled_where_publications_stay_off() -> None:
    rig = Rig({"publications": False}, publications="leave").open()
    assert rig.driver.paced_by == "grid"
    values = rig.values()
    assert set(values) >= FAST
    assert not any(b"Enable" in ask for ask in rig.recorder.asked)


def test_required_publications_that_do_not_arrive_are_an_error() -> None:
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
        MpptOptions(**wrong)


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


# behind a shell


@pytest.mark.parametrize("shell", [None, True], ids=["found out", "configured"])
@pytest.mark.parametrize("log_lines", [False, True])
@pytest.mark.parametrize("build", [{"generation": "0.6"}, {"generation": "0.5"}, {"generation": "0.4"}])
def test_a_charger_behind_a_shell_is_read(build: dict[str, Any], log_lines: bool, shell: bool | None) -> None:
    rig = Rig({**build, "shell": True, "debug_text": log_lines}, shell=shell, extra_period_s=10.0).open()
    assert rig.identity.model == "MPPT-1210-HUS"
    assert rig.identity.detail["generation"] == build["generation"]
    assert rig.driver.paced_by == "grid"
    values = rig.values(times=20)
    assert values["battery.voltage_v"] == 12.85
    assert values["battery.current_a"] == -1.03
    assert {"solar.energy_total_wh", "charger.mosfet_temperature_degc", "load.enabled"} <= values.keys()
    commands = [sent for sent in rig.recorder.asked if sent.lstrip(b"\x15").startswith(b"thingset ")]
    assert commands and all(len(sent.strip()) <= thingset.MAX_COMMAND for sent in commands)
    assert not [sent for sent in commands if b"=" in sent], "nothing is written while it is asked"


def test_text_of_another_program_in_the_shell_does_not_corrupt_the_first_command() -> None:
    rig = Rig({"generation": "0.6", "shell": True}, shell=True, generation="0.6")
    rig.recorder.fake.receive(b"thingset ?Bat", 0.0)
    assert rig.open().identity.serial == "FAKE0001"


def test_reports_in_a_shell_are_listened_to() -> None:
    rig = Rig({"generation": "0.6", "shell": True, "publications": True}).open()
    assert rig.driver.paced_by == "device"
    assert rig.values(times=3)["battery.voltage_v"] == 12.85


def test_a_shell_without_thingset_is_shown() -> None:
    rig = Rig({"generation": "0.6", "shell": True}, shell=False)
    with pytest.raises(NotUnderstood, match="command not found"):
        rig.open()


# which generation a report may be of


@pytest.mark.parametrize(
    ("line", "generations", "unknown"),
    [
        ('#serial {"Bat_V":13.4,"Bat_A":2.0}', ["0.4", "0.5"], None),
        ('#mReport {"t_s":1,"rBat_V":14.1}', ["0.4", "0.5"], ["t_s", "rBat_V"]),
        ('#mReport {"t_s":12345678,"rBat_V":14.10,"rBat_A":5.13,"rAmbient_degC":22} C6BB8C1E', ["0.4", "0.5"], ...),
        ('#mSerial {"Battery/rVoltage_V":13.4}', ["0.4", "0.5"], None),
        ('#mSerial {"Battery":{"rVoltage_V":13.4}}', ["0.5"], None),
        ('#mLive_ {"Battery":{"rVoltage_V":13.4}}', ["0.6"], None),
        ('# {"Uptime_s":1,"Bat_V":13.4}', ["0.3"], None),
        ('# {"Bat_V":13.4}', ["0.2", "0.3"], None),
    ],
)
def test_decode_names_every_generation_that_can_report_so(line: str, generations: list[str], unknown: Any) -> None:
    publication, *readings = DEVICE.decode([line.encode() + b"\n"])
    assert publication["generations"] == generations
    if unknown is not ...:
        assert publication.get("unknown") == unknown
        assert bool(readings) == (unknown is None)


@pytest.mark.parametrize("line", ['?meas ["Bat_V"]', '=conf {"Bat_V":1}', '+pub/serial/IDs "Bat_W"', "?output/"])
def test_the_checksum_of_a_request_is_checked(line: str) -> None:
    crc = zlib.crc32(line.encode())
    (right,) = DEVICE.decode([f"{line} {crc:08X}\n".encode()])
    assert right["type"] == "echo"
    for end in ("", "#", "\r"):
        (wrong,) = DEVICE.decode([f"{line} {crc ^ 1:08X}{end}\n".encode()])
        assert wrong["error"] == "BadChecksum"


def test_eight_digits_may_be_an_argument() -> None:
    (number,) = DEVICE.decode([b"!rpc/x-set 12345678\n"])
    assert number["type"] == "echo"


@pytest.mark.parametrize("cut", ['# {"Bat_V":13', 'at_V":13.2}', ":85 Cont", "Received Requ", "?outp"])
def test_a_cut_last_line_is_an_error(cut: str) -> None:
    *_, last = DEVICE.decode([b'# {"Bat_V":13.2}\n', cut.encode()])
    assert last["error"] == "FrameError"
    assert last["text"] == cut
    result = CliRunner().invoke(cli, ["decode", "libresolar_mppt"], input=f'# {{"Bat_V":13.2}}\n{cut}')
    assert result.exit_code == 76


SESSION = (
    b'\x1b[1;32muart:~$ \x1b[mthingset ?Battery [\\"rVoltage_V\\"]\r\n:85 [12.90]\r\n'
    b"\x1b[1;32muart:~$ \x1b[m\x1b[8D\x1b[J[00:00:01.234,000] \x1b[0m<inf> main: up\x1b[0m\r\n"
    b'\x1b[1;32muart:~$ \x1b[m\x1b[8D\x1b[J#mLive_ {"Battery":{"rVoltage_V":12.9}}\x1b[0m\r\n'
    b"\x1b[1;32muart:~$ \x1b[m"
)


def test_decode_reads_a_session_with_a_shell() -> None:
    for pieces in ([SESSION], [SESSION[i : i + 1] for i in range(len(SESSION))]):
        echo, answer, asked, log, report, reading = DEVICE.decode(pieces)
        assert (echo["type"], answer["payload"], log["type"]) == ("echo", [12.9], "noise")
        assert asked["values"] == {"voltage_v": 12.9}
        assert (report["path"], reading["values"]) == ("mLive_", {"voltage_v": 12.9})


@pytest.mark.parametrize(
    ("request_", "answer", "readings"),
    [
        ('?output ["Bat_V","Solar_A"]', ":85 Content. [14.10,-2.5]", [{"voltage_v": 14.1}, {"current_a": 2.5}]),
        ('?output ["Bat_V"] 5E9A1155#', ":85 Content. [14.10]", [{"voltage_v": 14.1}]),
        ('?meas "Bat_V"', ":85 Content. 14.10", [{"voltage_v": 14.1}]),
        ('!output ["Bat_V","DCDCState"]', ":0 Success. [14.1,4]", [{"voltage_v": 14.1}, {"dcdc_state": 6.0}]),
        ('?Battery ["rVoltage_V"]', ":85 [12.9]", [{"voltage_v": 12.9}]),
        ('?output ["Bat_V","Bat_A"]', ":85 Content. [14.10]", []),
        ('?output ["Bat_V"]', ":A4 Not Found.", []),
        ('?output ["Bat_V"', ":85 Content. [14.10]", []),
        ("?output", ":85 Content. [14.10]", []),
        ('?output ["nothing"]', ":85 Content. [14.10]", []),
        ('?output ["Bat_V"]', ':85 Content. ["x"]', []),
    ],
)
def test_decode_names_the_values_of_a_reply_by_the_request_before_it(
    request_: str, answer: str, readings: list[dict[str, float]]
) -> None:
    _, _, *found = DEVICE.decode([f"{request_}\n{answer}\n".encode()])
    assert [record["values"] for record in found] == readings


def test_decode_gives_the_values_of_a_late_reply_no_names() -> None:
    records = list(DEVICE.decode([b'?output ["Bat_V"]\n:85 Content. [14.1]\n:85 Content. [99.0]\n']))
    assert [record["values"] for record in records if "measurement" in record] == [{"voltage_v": 14.1}]
