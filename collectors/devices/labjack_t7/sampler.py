"""Sample mode (command–response): the T7 is read once per period."""

from __future__ import annotations

import math
from collections.abc import Iterator

from collectors.device import Output
from collectors.devices.labjack_t7 import calibration as volts
from collectors.devices.labjack_t7.client import T7Client
from collectors.devices.labjack_t7.configuration import (
    MissingInputs,
    configure,
    enter,
    groups,
    identity,
    inputs,
    warnings,
)
from collectors.devices.labjack_t7.options import Channel, T7Options, resolution_index
from collectors.protocols.dialogue import Dialogue
from collectors.reading import Event, Identity, Reading, Value

DUMMY_V = -8000.0
"""LJM and the device return -9999 (not taken) and -8888 (not read): values below this one are not voltages."""
KELVIN = 273.15
TICKS_PER_S = 20
TOLERANCE_TICKS = TICKS_PER_S
"""Delay of the timer that means a restart: responses may be 1 s late, a restart takes longer."""


class Sampler:
    """Command–response: one poll cycle gives one value of each channel."""

    paced_by = "grid"

    def __init__(self, options: T7Options) -> None:
        self._options = options
        self._channels = sorted(options.channels, key=lambda c: c.number)
        self._session = T7Client()
        self._settings: dict[str, float] = {}
        self._timer: tuple[int, int] | None = None  # ticks, boottime_ns
        self._settings_lost = False
        """A restart was detected and the settings are not written again yet: until then nothing is read."""
        self._missing = MissingInputs()
        self._news = warnings(options)

    def open(self) -> Dialogue[Identity]:
        """Return the identity of the device, after writing the settings of its inputs."""
        who, events = yield from enter(self._session, self._options)
        self._news += events
        self._settings = (
            inputs(self._channels)
            | {f"{c.input}_RESOLUTION_INDEX": float(resolution_index(c, who.is_pro)) for c in self._channels}
            | {f"{c.input}_SETTLING_US": c.settling_us for c in self._channels}
        )
        yield from self._is_behind()  # stores the timer, so that a later restart is detected
        yield from configure(self._session, self._settings)
        return identity(who, self._options)

    def poll(self) -> Dialogue[list[Output]]:
        """Return one reading per measurement; only an event if the device has lost its settings."""
        if self._settings_lost:
            yield from self._set_again()
        values, at_ns = yield from self._session.read(*(c.input for c in self._channels))
        degc: Value = None
        if self._options.device_temperature:
            degc = (yield from self._session.read("TEMPERATURE_DEVICE_K")).by_name["TEMPERATURE_DEVICE_K"] - KELVIN
        if (yield from self._is_behind()):
            self._settings_lost = True
            self._news.append(Event("settings_lost", "the T7 restarted: its settings are written again"))
            yield from self._set_again()
            values = {}
        outputs, self._news = self._news, []
        if not values:
            return outputs
        outputs += self._readings({name: float(value) for name, value in values.items()}, at_ns)
        if degc is not None:
            outputs.append(Reading("analog", at_ns, {"temperature_degc": degc}))
        return outputs

    def close(self) -> Dialogue[None]:
        """Do nothing: the settings stay until they are overwritten."""
        yield from ()

    def _set_again(self) -> Dialogue[None]:
        yield from configure(self._session, self._settings)
        self._settings_lost = False

    def _is_behind(self) -> Dialogue[bool]:
        """Return whether the device's timer is behind the host's since the last call: then the device restarted."""
        values, at_ns = yield from self._session.read("SYSTEM_TIMER_20HZ")
        ticks, before = int(values["SYSTEM_TIMER_20HZ"]), self._timer
        self._timer = (ticks, at_ns)
        if before is None:
            return False
        expected = before[0] + (at_ns - before[1]) * TICKS_PER_S / 1e9
        return ticks < expected - TOLERANCE_TICKS

    def _readings(self, by_input: dict[str, float], at_ns: int) -> Iterator[Output]:
        for group in groups(self._channels):
            values: dict[str, Value] = {}
            for channel in group:
                raw = by_input[channel.input]
                no_volts = self._problem(channel, raw)
                problem = no_volts or channel.scaling.problem(raw)
                yield from self._missing.note(channel, problem, at_ns)
                values[channel.name] = None if problem else channel.scaling.apply(raw)
                if channel.keep_raw:  # the voltage was measured, even if it is outside the sensor's range
                    raw_v = None if no_volts else raw
                    yield Reading("analog", at_ns, {"raw_v": raw_v}, {"channel": channel.input})
            yield Reading(group[0].measurement, at_ns, values, group[0].tags)

    def _problem(self, channel: Channel, raw: float) -> str | None:
        """Return why this is not a measurement, or None."""
        if math.isnan(raw) or raw < DUMMY_V:
            return f"{raw:g} stands for no value"
        if volts.is_overrange(raw, channel.range_v):
            return f"{raw:g} V is outside ±{channel.range_v:g} V"
        return None
