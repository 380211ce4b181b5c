"""The data objects of Libre Solar charge controllers: name in each generation, signal, sign and scale.

The driver uses a row from name to signal, the fake from signal to name. Sources:
docs/protocols/libresolar_mppt.md §5 and §6, and the firmware's data_objects.cpp of 2019, 2021, 2022 and HEAD
(github.com/LibreSolar/charge-controller-firmware).

Signs: the device counts current positive that leaves it. So battery and load have the vocabulary's sign; solar is
inverted. Counters: "today" energies restart at sunrise (solar above battery voltage after more than 5 h below), not at
midnight, and at 0 after a reboot. "Total" energies are saved every 6 h: a power loss reduces them by up to that much.
`discharged_since_full_ah` is set to 0 at each full charge, falls while charging, may be negative, and has steps of
1 Ah. The device computes solar current and power from values of the battery side, as if it had no losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from collectors.protocols import thingset
from collectors.protocols.thingset import Generation, Json, Publication, Response
from collectors.reading import Reading, Value

_ONLY_0_2 = frozenset({"SOC_%", "LoadState", "UsbState"})
_ONLY_0_3 = frozenset({"SOC_pct", "LoadInfo", "UsbInfo", "Uptime_s"})


@dataclass(frozen=True, slots=True)
class Item:
    """One data object."""

    signal: str
    """"<measurement>.<signal>" of the vocabulary; of a setting: "setting.<name in this project>"."""
    name: str
    """Its name in 0.3, and in 0.2 and 0.4 unless they have another."""
    group: str
    """Its group in 0.2 and 0.3."""
    group_0_4: str
    path: str
    """"Group/name" in 0.5 and 0.6."""
    name_2022: str = ""
    """Its name in builds of 2022 (also 0.5), if different."""
    old: str | None = None
    """Its name in 0.2, if different; "" if 0.2 does not have it."""
    name_0_4: str = ""
    """Its name in 0.4, if different."""
    group_0_2: str = ""
    """Its group in 0.2, if different."""
    digits: int = 2
    """Number of decimals that the device prints; -1: it prints true or false."""
    scale: float = 1.0
    """Factor from the device's value to the signal's value."""


def _out(signal: str, name: str, group_0_4: str, path: str, name_2022: str = "", **more: Any) -> Item:
    return Item(signal, name, "output", group_0_4, path, name_2022, **more)


def _rec(signal: str, name: str, path: str, name_2022: str = "", **more: Any) -> Item:
    return Item(signal, name, "rec", "rec", path, name_2022, **more)


def _set(signal: str, name: str, path: str, name_2022: str = "", **more: Any) -> Item:
    return Item(f"setting.{signal}", name, "conf", "conf", path, name_2022, **more)


ITEMS: tuple[Item, ...] = (
    _out("charger.uptime_s", "Uptime_s", "meas", "Device/rUptime_s", old="Timestamp_s", group_0_2="conf", digits=0),
    _out("battery.voltage_v", "Bat_V", "meas", "Battery/rVoltage_V", "rMeas_V"),
    _out("battery.current_a", "Bat_A", "meas", "Battery/rCurrent_A", "rMeas_A"),
    _out("battery.power_w", "Bat_W", "meas", "Battery/rPower_W", "rCalc_W"),
    _out("battery.temperature_degc", "Bat_degC", "meas", "Battery/rTemperature_degC", "rMeas_degC", digits=1),
    _out("battery.temperature_sensor", "BatTempExt", "meas", "Battery/rExtTempSensor", "rTempExt", digits=-1),
    _out("battery.soc", "SOC_pct", "meas", "Battery/rSOC_pct", old="SOC_%", digits=0, scale=0.01),
    _out("battery.batteries_in_series", "NumBatteries", "meas", "Battery/rNumBatteries", old="", digits=0),
    _out("charger.temperature_degc", "Int_degC", "meas", "Device/rIntTemp_degC", "rInt_degC", digits=1),
    _out(
        "charger.mosfet_temperature_degc", "Mosfet_degC", "meas", "Charger/rMosfetTemp_degC", "rMosfet_degC", digits=1
    ),
    _out(
        "charger.target_voltage_v",
        "ChgTarget_V",
        "state",
        "Charger/rControlTargetVoltage_V",
        "rControlTarget_V",
        old="BatTarget_V",
    ),
    _out(
        "charger.target_current_a",
        "ChgTarget_A",
        "state",
        "Charger/rControlTargetCurrent_A",
        "rControlTarget_A",
        old="BatTarget_A",
    ),
    _out("charger.state", "ChgState", "state", "Charger/rState", digits=0),
    _out("charger.dcdc_state", "DCDCState", "state", "Charger/rDCDCState", digits=0),
    _out("solar.voltage_v", "Solar_V", "meas", "Solar/rVoltage_V", "rMeas_V"),
    _out("solar.current_a", "Solar_A", "meas", "Solar/rCurrent_A", "rMeas_A", scale=-1.0),
    _out("solar.power_w", "Solar_W", "meas", "Solar/rPower_W", "rCalc_W", scale=-1.0),
    _out("load.current_a", "Load_A", "meas", "Load/rCurrent_A", "rMeas_A"),
    _out("load.power_w", "Load_W", "meas", "Load/rPower_W", "rCalc_W"),
    _out("load.state", "LoadInfo", "state", "Load/rState", old="LoadState", digits=0),
    _out("charger.usb_state", "UsbInfo", "state", "USB/rState", old="UsbState", digits=0),
    _out("charger.error_flags", "ErrorFlags", "state", "Device/rErrorFlags", digits=0),
    _rec("solar.energy_today_wh", "SolarInDay_Wh", "Solar/pInputToday_Wh", "pInDay_Wh"),
    _rec("solar.energy_total_wh", "SolarInTotal_Wh", "Solar/pInputTotal_Wh", "pInTotal_Wh", digits=0),
    _rec("load.energy_today_wh", "LoadOutDay_Wh", "Load/pOutputToday_Wh", "pOutDay_Wh"),
    _rec("load.energy_total_wh", "LoadOutTotal_Wh", "Load/pOutputTotal_Wh", "pOutTotal_Wh", digits=0),
    _rec("battery.charged_today_wh", "BatChgDay_Wh", "Battery/pChgEnergyToday_Wh", "pChgDay_Wh"),
    _rec("battery.charged_total_wh", "BatChgTotal_Wh", "Battery/pChgEnergyTotal_Wh", "pChgTotal_Wh", digits=0),
    _rec("battery.discharged_today_wh", "BatDisDay_Wh", "Battery/pDisEnergyToday_Wh", "pDisDay_Wh"),
    _rec("battery.discharged_total_wh", "BatDisTotal_Wh", "Battery/pDisEnergyTotal_Wh", "pDisTotal_Wh", digits=0),
    _rec("battery.discharged_since_full_ah", "Dis_Ah", "Battery/pDisCapacity_Ah", "pDis_Ah", digits=0),
    _rec("battery.usable_capacity_ah", "BatUsable_Ah", "Battery/pCapacityEstimation_Ah", "pEstUsable_Ah", digits=1),
    _rec("battery.soh", "SOH_pct", "Battery/pSOH_pct", old="SOH_%", digits=0, scale=0.01),
    _rec("battery.full_charge_count", "FullChgCount", "Battery/pFullChgCount", digits=0),
    _rec("battery.deep_discharge_count", "DeepDisCount", "Battery/pDeepDisCount", digits=0),
    _rec("charger.day_count", "DayCount", "Device/pDayCount", digits=0),
    _rec("solar.power_peak_today_w", "SolarMaxDay_W", "Solar/pPowerMaxToday_W", "pMaxDay_W", digits=0),
    _rec("load.power_peak_today_w", "LoadMaxDay_W", "Load/pPowerMaxToday_W", "pMaxDay_W", digits=0),
    _rec("solar.power_peak_w", "SolarMaxTotal_W", "Solar/pPowerMaxTotal_W", "pMaxTotal_W", digits=0),
    _rec("load.power_peak_w", "LoadMaxTotal_W", "Load/pPowerMaxTotal_W", "pMaxTotal_W", digits=0),
    _rec("battery.voltage_peak_v", "BatMaxTotal_V", "Battery/pMaxTotalVoltage_V", "pMaxTotal_V"),
    _rec("solar.voltage_peak_v", "SolarMaxTotal_V", "Solar/pVoltageMaxTotal_V", "pMaxTotal_V"),
    _rec("charger.dcdc_current_peak_a", "DcdcMaxTotal_A", "Charger/pDCDCMaxTotalCurrent_A", "pDCDCMaxTotal_A"),
    _rec("load.current_peak_a", "LoadMaxTotal_A", "Load/pCurrentMaxTotal_A", "pMaxTotal_A"),
    _rec("battery.temperature_peak_degc", "BatMax_degC", "Battery/pMaxTotalTemp_degC", "pMaxTotal_degC", digits=0),
    _rec("charger.temperature_peak_degc", "IntMax_degC", "Device/pIntTempMax_degC", "pIntMax_degC", digits=0),
    _rec(
        "charger.mosfet_temperature_peak_degc",
        "MosfetMax_degC",
        "Charger/pMosfetTempMax_degC",
        "pMosfetMax_degC",
        digits=0,
    ),
    Item("load.enabled", "LoadEn", "input", "input", "Load/wEnable", digits=-1),
    Item("charger.usb_enabled", "UsbEn", "input", "input", "USB/wEnable", digits=-1),
    Item("charger.dcdc_enabled", "DcdcEn", "input", "input", "Charger/wDCDCEnable", "wDCDCEn", digits=-1),
    Item("charger.pwm_enabled", "PwmEn", "input", "input", "Charger/wPWMEnable", "wPWMEn", old="", digits=-1),
)
"""Everything that is measured, counted or switched."""

ALIASES: Mapping[str, str] = {"Timestamp_s": "Uptime_s", "MCU_degC": "Int_degC"}
"""Names in builds between the released versions of 0.2 and 0.3, and their names in later or earlier builds."""

SETTINGS: tuple[Item, ...] = (
    _set("nominal_capacity_ah", "BatNom_Ah", "Battery/sNominalCapacity_Ah", "sNom_Ah", digits=1),
    _set("recharge_voltage_v", "BatRecharge_V", "Charger/sRechgVoltage_V", "sRechg_V"),
    _set("least_voltage_v", "BatAbsMin_V", "Charger/sAbsMinVoltage_V", "sAbsMin_V"),
    _set("charge_current_a", "BatChgMax_A", "Charger/sChgCurrentLimit_A", "sChgMax_A", digits=1),
    _set("topping_voltage_v", "Topping_V", "Charger/sChgVoltage_V", "sChg_V", old="BatTarget_V", name_0_4="BatChg_V"),
    _set(
        "topping_cutoff_current_a",
        "ToppingCutoff_A",
        "Charger/sChgCutoffCurrent_A",
        "sChgCutoff_A",
        old="BatCutoff_A",
        digits=1,
    ),
    _set(
        "topping_cutoff_s", "ToppingCutoff_s", "Charger/sChgCutoffTime_s", "sChgCutoff_s", old="BatCutoff_s", digits=0
    ),
    _set("trickle_enabled", "TrickleEn", "Charger/sFloatChgEnable", "sFloatChgEn", digits=-1),
    _set("trickle_voltage_v", "Trickle_V", "Charger/sFloatChgVoltage_V", "sFloatChg_V"),
    _set("trickle_recharge_s", "TrickleRecharge_s", "Charger/sFloatRechgTime_s", "sFloatRechg_s", digits=0),
    _set("equalization_enabled", "EqlEn", "Charger/sEqlChgEnable", "sEqlChgEn", old="", digits=-1),
    _set("equalization_voltage_v", "Eql_V", "Charger/sEqlChgVoltage_V", "sEqlChg_V", old=""),
    _set("equalization_current_a", "Eql_A", "Charger/sEqlChgCurrent_A", "sEqlChg_A", old=""),
    _set("equalization_s", "EqlDuration_s", "Charger/sEqlDuration_s", old="", digits=0),
    _set("equalization_interval_d", "EqlInterval_d", "Charger/sEqlMaxInterval_d", "sEqlInterval_d", old="", digits=0),
    _set("equalization_deep_discharges", "EqlDeepDisTrigger", "Charger/sEqlDeepDisTrigger", old="", digits=0),
    _set(
        "temperature_compensation_mv_k",
        "BatTempComp_mV-K",
        "Charger/sTempCompensation_mV_K",
        "sTempComp_mV_K",
        old="TempFactor",
        name_0_4="BatTempComp_mV_K",
        digits=3,
    ),
    _set("internal_resistance_ohm", "BatInt_Ohm", "Battery/sIntResistance_Ohm", "sInt_Ohm", digits=3),
    _set("wire_resistance_ohm", "BatWire_Ohm", "Battery/sWireResistance_Ohm", "sWire_Ohm", digits=3),
    _set("charge_max_degc", "BatChgMax_degC", "Charger/sChgMaxTemp_degC", "sChgMax_degC", digits=1),
    _set("charge_min_degc", "BatChgMin_degC", "Charger/sChgMinTemp_degC", "sChgMin_degC", digits=1),
    _set("discharge_max_degc", "BatDisMax_degC", "Load/sDisMaxTemperature_degC", "sDisMax_degC", digits=1),
    _set("discharge_min_degc", "BatDisMin_degC", "Load/sDisMinTemperature_degC", "sDisMin_degC", digits=1),
    _set("load_enabled_at_start", "LoadEnDefault", "Load/sEnableDefault", digits=-1),
    _set("load_disconnect_voltage_v", "LoadDisconnect_V", "Load/sDisconnectVoltage_V", "sDisconnect_V"),
    _set("load_reconnect_voltage_v", "LoadReconnect_V", "Load/sReconnectVoltage_V", "sReconnect_V"),
    _set(
        "load_overcurrent_recovery_s",
        "LoadOCRecovery_s",
        "Load/sOvercurrentRecoveryDelay_s",
        "sOvercurrentRecovery_s",
        old="",
        digits=0,
    ),
    _set(
        "load_undervoltage_recovery_s",
        "LoadUVRecovery_s",
        "Load/sUndervoltageRecoveryDelay_s",
        "sUndervoltageRecovery_s",
        old="",
        digits=0,
    ),
    _set("usb_enabled_at_start", "UsbEnDefault", "USB/sEnableDefault", digits=-1),
    _set(
        "usb_undervoltage_recovery_s",
        "UsbUVRecovery_s",
        "USB/sUndervoltageRecoveryDelay_s",
        "sUndervoltageRecovery_s",
        old="",
        digits=0,
    ),
)
"""Stored in the EEPROM. Not sampled: they change only when they are written."""

CODES_0_2: Mapping[str, Mapping[int, int]] = {
    # its names have no charging side: a 2019 controller regulates the low side only
    "charger.dcdc_state": {0: 0, 1: 1, 2: 2, 3: 3, 4: 6},
    # later firmware has no bit for "too warm": -64 is this project's code
    "load.state": {0: 0, 1: 1, 2: -1, 3: -4, 4: -2, 5: -8, 6: -64},
    "charger.usb_state": {0: 0, 1: 1, 2: -1, 3: -4, 4: -2, 5: -8, 6: -64},
}
"""State codes of 0.2, and the codes of later firmware and the vocabulary for the same state."""

IDENTITY: Mapping[Generation, tuple[str, tuple[str, ...]]] = {
    "0.2": ("info", ("DeviceID", "DeviceType", "HardwareVersion", "FirmwareVersion", "Manufacturer")),
    "0.3": ("info", ("DeviceID", "DeviceType", "HardwareVersion", "FirmwareVersion", "Manufacturer")),
    "0.4": ("info", ("DeviceID", "DeviceType", "HardwareVersion", "FirmwareVersion", "Manufacturer")),
    "0.5": ("Device", ("cNodeID", "cType", "cHardwareVersion", "cFirmwareVersion", "cManufacturer")),
    "0.6": ("Device", ("cNodeID", "cType", "cHardwareVersion", "cFirmwareVersion", "cManufacturer")),
}
"""Group and names of: serial number, model, hardware, firmware, maker. Builds of 2022 have cNodeID at the root."""

SWITCHES: Mapping[Generation, tuple[tuple[str, str], ...]] = {
    "0.2": (("pub", "Serial_1s"),),
    "0.3": (("pub/serial", "Enable"),),
    "0.4": ((".pub/serial", "Enable"),),
    "0.5": (("_Pub/mSerial", "wEnable"), ("_pub/mSerial", "Enable")),
    "0.6": (("_Reporting/mLive_", "sEnable"),),
}
"""The switches for publications on the serial line, in the order in which they are tried. In RAM only."""

AUTHENTICATION: Mapping[Generation, str] = {"0.2": "auth", "0.3": "auth", "0.4": "x-auth", "0.5": "Device/xAuth"}
"""The function that takes the password; in 0.6 it depends on the device and is not known."""


def places(item: Item, generation: Generation) -> tuple[tuple[str, str], ...]:
    """Return every (group, name) that the object may have in this generation; none if it is unknown there."""
    if generation in ("0.5", "0.6"):
        group, name = item.path.split("/")
        older = ((group, item.name_2022),) if item.name_2022 and generation == "0.5" else ()
        return ((group, name), *older)
    if generation == "0.4":
        return ((item.group_0_4, item.name_0_4 or item.name),)
    if generation == "0.3":
        return ((item.group, item.name),)
    name = item.name if item.old is None else item.old
    return ((item.group_0_2 or item.group, name),) if name else ()


def full_name(generation: Generation, group: str, name: str) -> str:
    """Return the object's name in publications: with its group from 0.5 on, without it before."""
    return f"{group}/{name}" if generation in ("0.5", "0.6") else name


@cache
def located(generation: Generation) -> Mapping[tuple[str, str], Item]:
    """Return the measured objects by (group, name). In 0.2 a setting and a measured value may share a name."""
    return {place: item for item in ITEMS for place in places(item, generation)}


@cache
def catalogue(generation: Generation) -> Mapping[str, Item]:
    """Return the measured objects by their name in publications."""
    found = {full_name(generation, *place): item for place, item in located(generation).items()}
    if generation in ("0.2", "0.3"):
        found |= {other: found[name] for other, name in ALIASES.items() if name in found}
    return found


@cache
def groups(generation: Generation) -> tuple[str, ...]:
    """Return the groups that hold measured objects."""
    return tuple(dict.fromkeys(group for group, _ in located(generation)))


# ---- names to signals ----------------------------------------------------------------------------------------------


def possible(message: Response | Publication) -> frozenset[Generation]:
    """Return the generations in which a charge controller can send this, by its form and by the names in it."""
    found = thingset.generations(message)
    if isinstance(message, Response):
        return found
    names = message.values.keys()
    if message.path is None:
        if names & _ONLY_0_2:
            return frozenset({"0.2"})
        return frozenset({"0.3"}) if names & _ONLY_0_3 else found
    if found == {"0.4", "0.5"}:  # equal forms: the names decide; a bit error can make one unknown
        return frozenset(g for g in found if 2 * len(names & catalogue(g).keys()) > len(names)) or found
    return found


def likeliest(message: Publication) -> Generation:
    """Return the generation, of those whose form it has, that knows most of its names."""
    names = message.values.keys()
    return max(thingset.generations(message), key=lambda g: (len(names & catalogue(g).keys()), g))


def canonical(generation: Generation, values: Mapping[str, Json]) -> tuple[dict[str, Value], list[str]]:
    """Return ({"<measurement>.<signal>": number or None}, names that are unknown or have no number)."""
    known = catalogue(generation)
    found: dict[str, Value] = {}
    strange = []
    for name, raw in values.items():
        item = known.get(name)
        if item is None or not _fits(item, raw):
            strange.append(name)
        elif raw is None:
            found[item.signal] = None
        else:
            codes = CODES_0_2.get(item.signal) if generation == "0.2" else None
            number = codes.get(raw, raw) if codes else raw
            found[item.signal] = number * item.scale + 0.0  # avoids -0.0
    return found, strange


def _fits(item: Item, raw: Json) -> bool:
    """Return whether the value is of the object's type; a missing one fits all, 0 and 1 count as false and true."""
    return raw is None or (isinstance(raw, int | float) and (item.digits < 0 or not isinstance(raw, bool)))


def by_measurement(values: Mapping[str, Value], boottime_ns: int) -> list[Reading]:
    """Return one Reading per measurement."""
    found: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        measurement, signal = key.split(".")
        found.setdefault(measurement, {})[signal] = value
    return [Reading(measurement, boottime_ns, signals) for measurement, signals in found.items()]


def without_false_temperature(values: Mapping[str, Value], *, has_sensor: bool) -> dict[str, Value]:
    """Return the values without the battery temperature if no sensor measures it: the device then reports 25."""
    return {key: value for key, value in values.items() if has_sensor or key != "battery.temperature_degc"}


def imbalance_w(values: Mapping[str, Value]) -> float:
    """Return solar minus battery minus load power in W if beyond 2 W and 10 %; 0 if one of them is unknown.

    The firmware computes solar current from the other two. So the balance is 0 except for rounding (0.01 V and A),
    whatever the battery does. Any other value means a garbled digit or another firmware.
    """
    needed = ("battery.voltage_v", "solar.voltage_v", "battery.current_a", "solar.current_a", "load.current_a")
    known = [value for key in needed if (value := values.get(key)) is not None]
    if len(known) < len(needed):
        return 0.0
    battery_v, solar_v, battery_a, solar_a, load_a = known
    solar_w, used_w = solar_v * solar_a, battery_v * (battery_a + load_a)
    beyond_w = abs(solar_w - used_w) - 2.0 - 0.1 * max(abs(solar_w), abs(used_w))
    return math.copysign(max(0.0, beyond_w), solar_w - used_w)
