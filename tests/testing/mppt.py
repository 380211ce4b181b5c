"""A charge controller's driver on its fake, in simulated time, for several tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from collectors.devices.libresolar_mppt import Controller, MpptOptions
from collectors.fakes import Fake, Out
from collectors.fakes.libresolar_mppt import FAKE, FakeMppt
from collectors.fakes.libresolar_mppt import FakeMpptOptions as FakeOptions
from collectors.reading import Event, Reading
from tests.testing.conformance import Bench

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
    """A fake that records the requests to it."""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.asked: list[bytes] = []
        self.is_deaf = False

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        self.asked.append(data)
        return () if self.is_deaf else self.fake.receive(data, now_s, channel)

    def tick(self, now_s: float) -> Sequence[Out]:
        return self.fake.tick(now_s)

    def next_tick_s(self) -> float | None:
        return self.fake.next_tick_s()

    def connected(self, now_s: float, channel: str = "") -> None:
        self.fake.connected(now_s, channel)


class Rig:
    """A driver on a fake in simulated time."""

    def __init__(self, fake: Mapping[str, Any], world: Mapping[str, float | None] = WORLD, **options: Any) -> None:
        self.world = dict(world)
        self.fake = FakeMppt(lambda _: self.world, FakeOptions(**fake))
        self.recorder = Recorder(
            FAKE.make(lambda _: self.world, FakeOptions(**fake)) if fake.get("shell") else self.fake
        )
        self.bench = Bench(self.recorder, [""])
        self.driver = Controller(MpptOptions(**options))

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


class Scripted(Recorder):
    """A fake with some scripted replies."""

    def __init__(self, fake: Fake, answers: Mapping[bytes, bytes], publications: Sequence[bytes] = ()) -> None:
        super().__init__(fake)
        self.answers = answers
        self.publications = list(publications)

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        for request, answer in self.answers.items():
            if data.startswith(request):
                return (Out(answer, now_s + 0.01),) if answer else ()
        return super().receive(data, now_s, channel)

    def tick(self, now_s: float) -> Sequence[Out]:
        outs = super().tick(now_s)
        return [Out(self.publications.pop(0), out.at_s) for out in outs] if self.publications else outs


def scripted(answers: Mapping[bytes, bytes], publications: Sequence[bytes] = (), **options: Any) -> Rig:
    rig = Rig({"publications": bool(publications)}, **options)
    rig.recorder = Scripted(rig.fake, answers, publications)
    rig.bench = Bench(rig.recorder, [""])
    return rig
