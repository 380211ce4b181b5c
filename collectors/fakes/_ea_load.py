"""Code shared by the fakes of both EA loads: the battery or bench to which they are connected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from collectors.fakes import Out, World


class OnlyAnswers:
    """The parts of `collectors.fakes.Fake` for a device that sends only responses."""

    def __init__(self) -> None:
        self._buffer = b""
        """The beginning of a request that is not complete yet."""

    def tick(self, now_s: float) -> Sequence[Out]:
        """Return nothing."""
        return []

    def next_tick_s(self) -> float | None:
        """Return None: never."""
        return None

    def connected(self, now_s: float, channel: str = "") -> None:
        """Discard the incomplete request of an earlier connection."""
        self._buffer = b""


class Terminals:
    """What is connected to the load, and the charge that flowed into the load."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before: tuple[float, float] | None = None
        self.charge_ah = 0.0
        self.values: Mapping[str, float] = {"voltage_v": 0.0, "current_a": 0.0, "power_w": 0.0, "input_on": 0.0}
        """Values of the last update, under the vocabulary's names."""

    def look(self, now_s: float) -> bool:
        """Update the values to this time; return False if the instrument is to give no value.

        The world is called only here, once for each response that carries measured values. The load cannot show a
        voltage or current below zero.
        """
        true = self._world(now_s)
        voltage_v, current_a = true.get("load.voltage_v"), true.get("load.current_a")
        if voltage_v is None or current_a is None:
            return False
        voltage_v, current_a = max(0.0, voltage_v), max(0.0, current_a)
        self._count(now_s, current_a)
        known = {name.removeprefix("load."): value for name, value in true.items() if value is not None}
        self.values = {
            "input_on": float(voltage_v > 0.0),
            "charge_ah": self.charge_ah,
            **known,
            "voltage_v": voltage_v,
            "current_a": current_a,
            "power_w": voltage_v * current_a,
        }
        return True

    def _count(self, now_s: float, current_a: float) -> None:
        if self._before is not None:
            before_s, before_a = self._before
            self.charge_ah += (before_a + current_a) / 2 * (now_s - before_s) / 3600
        self._before = now_s, current_a
