"""The fake charge controller behaves as the real firmware does."""

from __future__ import annotations

from typing import Any

import pytest

from collectors.fakes.libresolar_mppt import FAKE, FakeMppt
from collectors.fakes.libresolar_mppt import FakeMpptOptions as FakeOptions
from tests.testing.mppt import WORLD, Rig


@pytest.mark.parametrize(("generation", "answered"), [("0.3", True), ("0.5", False)])
def test_bytes_that_arrive_during_processing_are_lost(generation: Any, answered: bool) -> None:
    """Up to 0.4 the rest of a line is taken for a line of its own; from 0.5 on the whole line is lost."""
    fake = FakeMppt(lambda _: WORLD, FakeOptions(generation=generation))
    group = "Battery" if generation == "0.5" else "output"
    (first,) = fake.receive(f"?{group}/\n".encode(), 0.0)
    assert fake.receive(b"=lost", 0.01) == ()
    assert bool(fake.receive(f"?{group}/\n".encode(), 1.0)) == answered
    assert fake.receive(f"?{group}/\n".encode(), 2.0)[0].data == first.data


@pytest.mark.parametrize(
    ("generation", "request_", "answer"),
    [
        ("0.2", "?output", "\n"),
        ("0.2", "!nothing", ":33 Unknown function.\n"),
        ("0.2", '!output {"Bat_V":1}', ":42 Wrong category.\n"),
        ("0.2", "!conf {", ":35 Wrong format.\n"),
        ("0.3", '=output {"Bat_V":1}', ":A3 Forbidden.\n"),
        ("0.3", '=conf {"BatNom_Ah":"x"}', ":AF Unsupported Content-Format.\n"),
        ("0.3", "=conf 1", ":A0 Bad Request.\n"),
        ("0.3", "=pub/serial 1", ":A4 Not Found.\n"),
        ("0.3", '-pub/serial/IDs "Bat_V"', ":82 Deleted.\n"),
        ("0.3", '+pub/serial/IDs "x"', ":A4 Not Found.\n"),
        ("0.3", '!auth "longer than ten"', ":AF Unsupported Content-Format.\n"),
        ("0.4", '?meas ["Bat_V","x"]', ":A4 Not Found.\n"),
        ("0.5", "?Battery/rVoltage_V", ":85 Content. 12.85\n"),
        ("0.5", "?nothing/", ":A4 Not Found.\n"),
        ("0.6", '?Battery ["rVoltage_V"]', ":85 [12.85]\n"),
    ],
)
def test_the_fake_replies_as_its_generation_does(generation: Any, request_: str, answer: str) -> None:
    fake = FakeMppt(lambda _: WORLD, FakeOptions(generation=generation, debug_text=False))
    (out,) = fake.receive(request_.encode() + b"\r\n", 0.0)
    assert out.data.decode() == answer


def test_a_group_is_given_whole_and_too_short_a_line_is_no_request() -> None:
    fake = FakeMppt(lambda _: WORLD, FakeOptions())
    assert fake.receive(b"?\n", 0.0) == ()
    (out,) = fake.receive(b"?input\n", 0.0)
    assert out.data == b':85 Content. {"LoadEn":true,"UsbEn":true,"DcdcEn":true,"PwmEn":false}\n'
    (listed,) = fake.receive(b"?pub/serial/IDs\n", 1.0)
    assert b'"Bat_V"' in listed.data


@pytest.mark.parametrize(("generation", "request_"), [("0.3", b"!exec/reset\n"), ("0.5", b"!Device/xReset\n")])
def test_a_reset_forgets_switch_and_uptime(generation: Any, request_: bytes) -> None:
    fake = FakeMppt(lambda _: WORLD, FakeOptions(generation=generation, publications=False, uptime_s=500))
    switch = b'=pub/serial {"Enable":true}\n' if generation == "0.3" else b'=_Pub/mSerial {"wEnable":true}\n'
    fake.receive(switch, 0.0)
    assert fake.tick(1.0)
    assert fake.receive(request_, 1.5) == ()
    assert not fake.tick(2.5)


def test_nothing_is_published_before_it_is_due() -> None:
    fake = FakeMppt(lambda _: WORLD, FakeOptions())
    fake.connected(0.0)
    assert not fake.tick(0.5)


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
