"""The poller samples on its time grid, reconnects lost links, and counts every outcome by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import transports
from collectors.acquisition.poller import Poller, RangeGuard
from collectors.config import Collector, Config
from collectors.device import Output
from collectors.errors import ConfigError, LinkDown, WrongDevice
from collectors.host.clock import FakeClock
from collectors.journal.settings import JournalSettings
from collectors.protocols.dialogue import Ask, Dialogue
from collectors.reading import Event, Identity, Reading
from tests.testing import acme

S = 1_000_000_000


@dataclass
class Kept:
    items: list[Output] = field(default_factory=list)

    def put(self, item: Output) -> None:
        self.items.append(item)

    @property
    def readings(self) -> list[Reading]:
        return [i for i in self.items if isinstance(i, Reading)]

    @property
    def events(self) -> list[str]:
        return [i.kind for i in self.items if isinstance(i, Event)]


Opener = Callable[[FakeClock], acme.ScriptedLink]


@pytest.fixture
def poll(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Poller, Kept, FakeClock]]:
    """Run a poller over links made by the given openers, one for each (re)connect, until `until_s`."""

    def run(
        *openers: Opener | LinkDown, until_s: float, period_s: float = 1.0, start_s: float = 0.0, options: object = None
    ) -> tuple[Poller, Kept, FakeClock]:
        clock = FakeClock(boottime_ns=int(start_s * S))
        left = list(openers)

        def open_link(link: str, device: object) -> acme.ScriptedLink:
            opener = left.pop(0) if left else LinkDown("still gone")
            if isinstance(opener, LinkDown):
                raise opener
            return opener(clock)

        monkeypatch.setattr(transports, "open_link", open_link)
        settings = Collector("pm1", "bench", "acme", "serial:x", period_s=period_s, state_dir=Path("unused"))
        config = Config(settings, acme.DEVICE, options or acme.Options(), JournalSettings())
        kept = Kept()
        poller = Poller(config, kept, clock, lambda: clock.monotonic_s() >= start_s + until_s)
        poller.run()
        return poller, kept, clock

    return run


def link(*values: int | bytes | LinkDown | None, delay_s: float = 0.01) -> Opener:
    answers = [acme.frame(v) if isinstance(v, int) else v for v in (0, *values)]
    return lambda clock: acme.ScriptedLink(clock, answers, delay_s)


Poll = Callable[..., tuple[Poller, Kept, FakeClock]]


def test_samples_lie_on_whole_multiples_of_the_period(poll: Poll) -> None:
    poller, kept, _ = poll(link(1, 2, 3, 4), until_s=4.5, start_s=100.3)
    stamps = [r.boottime_ns / S for r in kept.readings]
    assert stamps == pytest.approx([101.01, 102.01, 103.01, 104.01], abs=1e-6)
    assert [r.values["voltage_v"] for r in kept.readings] == [1, 2, 3, 4]
    assert (poller.samples, poller.skipped, poller.outcomes["ok"]) == (4, 0, 4)


def test_a_slow_poll_skips_slots_and_never_shifts_the_grid(poll: Poll) -> None:
    def slow(clock: FakeClock) -> acme.ScriptedLink:
        return link(1, None, 3, 4)(clock)  # the second request gets no reply: 0.5 s, 5 slots of 0.1 s

    poller, kept, _ = poll(slow, until_s=1.2, period_s=0.1, start_s=10.0)
    stamps = [round(r.boottime_ns / S, 3) for r in kept.readings]
    assert stamps[0] == 10.11  # the instrument was opened during the slot at 10.0
    assert stamps[1:3] == [10.71, 10.81]
    assert poller.skipped >= 4
    assert poller.outcomes["NoReply"] >= 1


def test_an_absent_port_is_retried_within_a_second_and_reported_once(poll: Poll) -> None:
    gone = LinkDown("no such port")
    poller, kept, _ = poll(gone, gone, gone, link(5), until_s=4.0)
    assert kept.events == ["link_down", "link_up"]
    assert kept.readings[0].values == {"voltage_v": 5}
    assert poller.outcomes["LinkDown"] >= 3
    assert kept.readings[0].boottime_ns < 3 * S  # 0.2 + 0.4 + 0.8 s of waiting


def test_a_lost_link_is_opened_again_and_counted(poll: Poll) -> None:
    poller, kept, _ = poll(link(1, LinkDown("pulled")), link(2), until_s=3.6)
    assert [r.values["voltage_v"] for r in kept.readings] == [1, 2]
    assert poller.reconnects == 1
    assert kept.events[:3] == ["link_up", "link_down", "link_up"]


def test_missing_replies_reopen_the_link(poll: Poll) -> None:
    poller, kept, _ = poll(link(1), link(2), until_s=12.0)
    assert [r.values["voltage_v"] for r in kept.readings] == [1, 2]
    assert poller.outcomes["NoReply"] >= 3
    assert poller.reconnects == 1


def test_rejected_frames_are_counted_by_name(poll: Poll) -> None:
    broken = bytes([acme.HEAD, 1, 0]) + acme.frame(8)
    poller, kept, _ = poll(link(broken), until_s=1.5)
    assert kept.readings[0].values == {"voltage_v": 8}
    assert poller.outcomes["BadChecksum"] == 1


def test_another_device_on_the_port_stops_the_poller(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_: acme.Driver) -> Dialogue[Identity]:
        raise WrongDevice("a toaster answers")
        yield  # a generator

    monkeypatch.setattr(acme.Driver, "open", refuses)
    with pytest.raises(WrongDevice, match="toaster"):
        poll(link(), until_s=5.0)


def test_a_link_that_can_never_open_stops_the_poller(poll: Poll) -> None:
    def never(_: FakeClock) -> acme.ScriptedLink:
        raise ConfigError("link: nonsense")

    with pytest.raises(ConfigError):
        poll(never, until_s=5.0)


def test_stopping_closes_the_driver_and_the_port(poll: Poll) -> None:
    made: list[acme.ScriptedLink] = []

    def opener(clock: FakeClock) -> acme.ScriptedLink:
        made.append(link(1)(clock))
        return made[0]

    poll(opener, until_s=1.5)
    assert made[0].written[-1] == b"bye"
    assert made[0].closed == 1


def reading(**values: float | None) -> Reading:
    return Reading("battery", 5, values)


def test_an_implausible_value_is_missing_and_an_event_never_clipped() -> None:
    guard = RangeGuard()
    checked, events = guard.check(reading(voltage_v=12.5, current_a=1e9))
    assert checked.values == {"voltage_v": 12.5, "current_a": None}
    assert [e.kind for e in events] == ["out_of_range"]
    assert "battery.current_a: 1000000000.0; expected -1000 to 1000 A" in events[0].detail


def test_a_run_of_implausible_values_is_two_events_and_a_count() -> None:
    guard = RangeGuard()
    events = [e for v in (1e9, 2e9, 3e9, 1.0, 2.0) for e in guard.check(reading(current_a=v))[1]]
    assert [e.kind for e in events] == ["out_of_range", "back_in_range"]
    assert "after 3 values" in events[1].detail
    assert guard.rejected == 3


@given(st.floats())
def test_values_that_pass_the_guard_are_unchanged_and_within_limits(value: float) -> None:
    checked, events = RangeGuard().check(reading(voltage_v=value))
    kept = checked.values["voltage_v"]
    assert (kept is None) == bool(events)
    assert kept is None or (kept == value and -100 <= kept <= 1000)


def test_a_missing_value_is_not_an_event() -> None:
    checked, events = RangeGuard().check(reading(voltage_v=None))
    assert checked.values == {"voltage_v": None}
    assert events == []


def two_amperes(self: acme.Driver) -> Dialogue[list[Output]]:
    reply = yield Ask(b"poll", acme.cut, timeout_s=0.5)
    return [Reading("battery", reply.boottime_ns, {"current_a": 2.0, "voltage_v": 10.0})]


def test_slow_samples_are_no_gaps(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a kind that has its own time of silence, which is shorter than this period: 2 A for 4 min."""
    monkeypatch.setattr(acme.Driver, "poll", two_amperes)
    monkeypatch.setattr(acme, "DEVICE", replace(acme.DEVICE, silence_s=5.0))
    _, kept, _ = poll(link(*[1] * 5), until_s=310, period_s=60.0)
    rows = [reading for reading in kept.readings if reading.measurement == "throughput"]
    assert [round(3600 * (row.values["charge_in_ah"] or 0.0), 3) for row in rows] == [120.0] * 4


def test_the_integrated_charge_is_stored_beside_the_samples(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the link is lost and when it stops: 2 A over the 8 + 6 intervals between its samples, and a gap."""
    monkeypatch.setattr(acme.Driver, "poll", two_amperes)
    nobody = [LinkDown("gone")] * 12
    _, kept, _ = poll(link(*[1] * 9, LinkDown("gone")), *nobody, link(*[1] * 7), until_s=29)
    rows = [reading for reading in kept.readings if reading.measurement == "throughput"]
    assert [reading.measurement for reading in kept.readings].count("battery") == 16
    charge_as = [round(3600 * (row.values["charge_in_ah"] or 0.0), 6) for row in rows]
    assert charge_as == [pytest.approx(16.0), pytest.approx(12.0)]
    assert [row.values["energy_out_wh"] for row in rows] == [0.0, 0.0]
