"""The state of the fake charge controller: what it measures, counts and stores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

from collectors.devices.libresolar_mppt.objects import ITEMS, SETTINGS
from collectors.fakes import World

Signals = dict[str, float | None]

_DAY = ("solar.energy_today_wh", "load.energy_today_wh", "battery.charged_today_wh", "battery.discharged_today_wh")
_PEAKS: Mapping[str, str] = {
    "solar.power_peak_today_w": "solar.power_w",
    "load.power_peak_today_w": "load.power_w",
    "solar.power_peak_w": "solar.power_w",
    "load.power_peak_w": "load.power_w",
    "battery.voltage_peak_v": "battery.voltage_v",
    "solar.voltage_peak_v": "solar.voltage_v",
    "charger.dcdc_current_peak_a": "charger.dcdc_current_a",
    "load.current_peak_a": "load.current_a",
    "battery.temperature_peak_degc": "battery.temperature_degc",
    "charger.temperature_peak_degc": "charger.temperature_degc",
    "charger.mosfet_temperature_peak_degc": "charger.mosfet_temperature_degc",
}
_CONSTANT: Mapping[str, float] = {
    "battery.temperature_degc": 25.0,  # the device reports this without a sensor
    "battery.soc": 0.5,
    "battery.soh": 1.0,
    "battery.batteries_in_series": 1.0,
    "battery.usable_capacity_ah": 40.0,
    "battery.full_charge_count": 0.0,
    "battery.deep_discharge_count": 0.0,
    "charger.temperature_degc": 31.5,
    "charger.mosfet_temperature_degc": 33.0,
    "charger.target_voltage_v": 14.4,
    "charger.target_current_a": 10.0,
    "charger.error_flags": 0.0,
    "charger.usb_state": 1.0,
    "load.state": 1.0,
    "solar.voltage_v": 18.0,
}
_SETTINGS: Mapping[str, float] = {
    "setting.nominal_capacity_ah": 40.0,
    "setting.recharge_voltage_v": 13.3,
    "setting.least_voltage_v": 10.0,
    "setting.charge_current_a": 10.0,
    "setting.topping_voltage_v": 14.4,
    "setting.trickle_voltage_v": 13.6,
    "setting.load_disconnect_voltage_v": 11.5,
    "setting.load_reconnect_voltage_v": 12.6,
}
_ORDERED = (
    ("setting.least_voltage_v", "setting.load_disconnect_voltage_v", "setting.load_reconnect_voltage_v"),
    ("setting.recharge_voltage_v", "setting.topping_voltage_v"),
)
"""Settings that must increase in this order; otherwise the firmware silently restores the old ones."""


class Plant:
    """Measures the world and holds counters, switches and settings. The caller supplies the time."""

    def __init__(self, world: World, second_s: float, uptime_s: int, *, has_sensor: bool) -> None:
        self._world = world
        self._second_s = second_s
        self._has_sensor = has_sensor
        self._boot_s = -uptime_s * second_s
        self.kept: Signals = {item.signal: _SETTINGS.get(item.signal, 0.0) for item in SETTINGS}
        self.kept |= dict.fromkeys(_PEAKS, 0.0) | {day.replace("_today_", "_total_"): 0.0 for day in _DAY}
        self._forget()

    def _forget(self) -> None:
        """Set the values in RAM to their initial values."""
        self.kept |= dict.fromkeys((*_DAY, "battery.discharged_since_full_ah", "charger.day_count"), 0.0)
        self.kept |= dict.fromkeys(item.signal for item in ITEMS if item.signal.endswith("enabled"))
        self.kept |= {"load.enabled": 1.0, "charger.usb_enabled": 1.0, "charger.dcdc_enabled": 1.0}

    def restart(self, now_s: float) -> None:
        """Reset the device."""
        self._boot_s = now_s
        self._forget()

    def measure(self, now_s: float) -> Signals:
        """Return every signal's value now: the world's values, and the others as the device derives them."""
        told = self._world(now_s)
        volts, amps = told.get("battery.voltage_v", 12.8), told.get("battery.current_a", 0.0)
        uptime_s = math.floor((now_s - self._boot_s) / self._second_s + 1e-6)
        return {
            **_CONSTANT,
            **self.kept,
            **_flows(volts, amps, told.get("load.current_a"), told.get("solar.voltage_v", 18.0)),
            "battery.voltage_v": volts,
            "battery.current_a": amps,
            "battery.temperature_sensor": float(self._has_sensor),
            "charger.uptime_s": uptime_s,
            **told,
        }

    def count(self, values: Mapping[str, float | None]) -> None:
        """Add one second to the counters and peaks."""
        battery_w = values["battery.power_w"] or 0.0
        charged_w, discharged_w = max(battery_w, 0.0), max(-battery_w, 0.0)
        powers_w = (values["solar.power_w"], values["load.power_w"], charged_w, discharged_w)
        for day, power_w in zip(_DAY, powers_w, strict=True):
            self._add(day, (power_w or 0.0) / 3600.0)
            self._add(day.replace("_today_", "_total_"), (power_w or 0.0) / 3600.0)
        self._add("battery.discharged_since_full_ah", -(values["battery.current_a"] or 0.0) / 3600.0)
        for peak, source in _PEAKS.items():
            self.kept[peak] = max(self.kept[peak] or 0.0, values.get(source) or 0.0)

    def _add(self, signal: str, amount: float) -> None:
        self.kept[signal] = (self.kept[signal] or 0.0) + amount

    def store(self, changes: Signals) -> None:
        """Store new settings or switches; keep the old ones if the new ones contradict each other."""
        after = self.kept | changes
        if all((after[a] or 0.0) < (after[b] or 0.0) for chain in _ORDERED for a, b in pairwise(chain)):
            self.kept = after


def _flows(volts: float | None, amps: float | None, load_a: float | None, solar_v: float | None) -> Signals:
    """Return currents, powers and states that balance: solar power = battery power + load power.

    If the world has no load current, the load takes the current that leaves the battery.
    """
    if volts is None or amps is None or not solar_v:
        keys = ("battery.power_w", "solar.current_a", "solar.power_w", "load.current_a", "load.power_w")
        return {**dict.fromkeys(keys), "charger.state": 0.0, "charger.dcdc_state": 0.0}
    load_a = max(-amps, 0.0) if load_a is None else load_a
    converter_a = amps + load_a
    works = float(converter_a > 0.0)
    return {
        "battery.power_w": volts * amps,
        "load.current_a": load_a,
        "load.power_w": volts * load_a,
        "solar.current_a": converter_a * volts / solar_v,
        "solar.power_w": converter_a * volts,
        "charger.dcdc_current_a": converter_a,
        "charger.state": works,
        "charger.dcdc_state": works,
    }
