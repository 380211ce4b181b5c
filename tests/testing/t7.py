"""A T7 driver on the T7 fake, in simulated time; shared by the T7's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.device import Output
from collectors.devices.labjack_t7 import DEVICE
from collectors.devices.labjack_t7.configuration import STREAMS
from collectors.fakes.labjack_t7 import FAKE, FakeT7, FakeT7Options
from collectors.reading import Event, Reading
from tests.testing.conformance import Bench, options_of

VOLTAGE = {"input": "AIN0", "signal": "battery.voltage_v", "scaling": {"divider": {"r1_ohm": 3000, "r2_ohm": 1000}}}
CURRENT = {"input": "AIN1", "signal": "battery.current_a", "scaling": {"hall": {"burden_ohm": 100}}}
STREAM: dict[str, Any] = {"mode": "stream", "scan_rate_hz": 1000, "bin_s": 0.1}
TRUE: dict[str, float | None] = {"battery.voltage_v": 13.2, "battery.current_a": -4.5}


class Setup:
    """A driver on a fake with changeable simulated values, in a process without knowledge of a running stream."""

    def __init__(self, table: Mapping[str, Any], **fake: Any) -> None:
        STREAMS.clear()
        self.world = dict(TRUE)
        self.fake = FakeT7(lambda _time_s: self.world, FakeT7Options(**{"noise": False, **fake}))
        self.bench = Bench(self.fake, FAKE.channels or [])
        self.driver = DEVICE.driver(options_of(DEVICE, table))

    def open(self) -> Setup:
        self.identity = self.bench.carry(self.driver.open())
        return self

    def poll(self, after_s: float = 1.0) -> list[Output]:
        self.bench.now_s += after_s
        return self.bench.carry(self.driver.poll())


def readings(outputs: list[Output]) -> list[Reading]:
    return [output for output in outputs if isinstance(output, Reading)]


def events(outputs: list[Output]) -> list[str]:
    return [output.kind for output in outputs if isinstance(output, Event)]
