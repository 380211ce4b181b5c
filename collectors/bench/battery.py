"""A simulated 12.8 V bench: a LiFePO4 battery, a solar panel with its charger, and a load that switches.

The cell is an equivalent circuit with two R–C pairs and one-state hysteresis (G. L. Plett, Battery Management
Systems, vol. 1, Artech House 2015, ch. 2), with the sign convention of this project: **positive current charges**.

    v = OCV(z) + M·h + R0·i + v1 + v2
    dz/dt = η·i / (3600·Q)        v_k' = (R_k·i − v_k) / (R_k·C_k)        h' = |γ·i / (3600·Q)| · (sign(i) − h)

Four cells in series differ slightly in capacity and resistance. Numbers marked "typical" have the magnitude that data
sheets of 40 Ah prismatic LiFePO4 cells state; they belong to no particular product. The same seed gives the same
course, independent of the times at which it is evaluated, because time advances in whole steps of STEP_S.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

STEP_S = 0.1
"""The smallest time constant is 12 s: a step of 0.1 s is accurate enough, and bounds the computing time."""
SECONDS_PER_DAY = 86_400.0
AMBIENT_DEGC = 20.0

OCV_SOC = (-0.02, 0.0, 0.02, 0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 0.95, 0.98, 1.0, 1.03)
OCV_V = (2.00, 2.50, 2.85, 3.05, 3.18, 3.235, 3.275, 3.288, 3.292, 3.298, 3.318, 3.330, 3.334, 3.338, 3.36, 3.60, 4.00)
"""Open-circuit voltage of a LiFePO4 cell at 25 °C: typical; two plateaus with a step between them near 0.65.

The table extends slightly beyond empty and full, because the weakest cell reaches these first."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Parameters of a cell: typical values for 40 Ah."""

    capacity_ah: float = 40.0
    r0_ohm: float = 1.2e-3
    r1_ohm: float = 0.8e-3
    tau1_s: float = 12.0
    r2_ohm: float = 1.5e-3
    tau2_s: float = 600.0
    hysteresis_v: float = 0.012
    gamma: float = 60.0
    """Rate of the hysteresis: it is complete after roughly 5 % of the capacity."""
    efficiency: float = 0.998
    """Coulombic efficiency: share of the charging current that is stored."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The bench around the cells: typical for a small solar system with a 10 A charger."""

    cell: Cell = field(default_factory=Cell)
    cells: int = 4
    spread: float = 0.01
    """Relative standard deviation of capacity and resistance among the cells."""
    start_soc: float = 0.55
    start_of_day_s: float = 11.0 * 3600
    panel_w: float = 120.0
    """At full sun."""
    panel_v: float = 17.6
    """At the maximum-power point, full sun."""
    charge_limit_v: float = 14.4
    charge_limit_a: float = 10.0
    """Of the charger, on the battery side (MPPT-1210-HUS: 10 A)."""
    load_off_v: float = 11.2
    load_on_v: float = 12.6
    """The charger disconnects the load at `load_off_v` and connects it again at `load_on_v`."""
    load_wire_ohm: float = 0.01
    charger_own_w: float = 0.15
    heat_j_per_k: float = 4_400.0
    """Heat capacity of the battery: about 4.4 kg at 1000 J/(kg K)."""
    cooling_w_per_k: float = 0.9


@dataclass(frozen=True, slots=True)
class State:
    """The state of the simulation; arrays have one element per cell."""

    time_s: float
    soc: Array
    rc1_v: Array
    rc2_v: Array
    hysteresis: Array
    """−1 (after discharge) to 1 (after charge)."""
    temperature_degc: float
    current_a: float
    """Through the battery during the last step."""
    charger_a: float
    """From the charger to battery and load."""
    load_a: float
    load_is_connected: bool
    sun: float
    """Irradiance relative to full sun, 0 to 1, including clouds."""
    voltage_v: float
    charged_ah: float
    """Net charge through the terminals since the start."""
    load_ah: float


def ocv_v(soc: Array) -> Array:
    """Return the open-circuit voltage in V of each cell."""
    return np.asarray(np.interp(soc, OCV_SOC, OCV_V))


def clear_sky(second_of_day: float) -> float:
    """Return the relative irradiance without clouds, 0 to 1: a half sine between 06:00 and 18:00."""
    hours = (second_of_day % SECONDS_PER_DAY) / 3600
    return max(0.0, math.sin(math.pi * (hours - 6) / 12)) if 6 <= hours <= 18 else 0.0


class Weather:
    """Clouds and load switching, as functions of time and seed only."""

    CLOUD_S = 20.0
    LOAD_S = 15.0
    LOADS_A = (0.0, 0.0, 0.4, 1.0, 1.0, 2.5, 5.0)

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _pick(self, what: str, slot: int) -> Random:
        return Random(f"{self._seed} {what} {slot}")  # noqa: S311 - reproducible on purpose

    def clearness(self, time_s: float) -> float:
        """Return the share of the irradiance that passes the clouds, 0.15 to 1, continuous in time."""
        slot, part = divmod(time_s / self.CLOUD_S, 1.0)
        here, there = (self._pick("cloud", int(slot) + i) for i in (0, 1))
        return self._cover(here) * (1 - part) + self._cover(there) * part

    @staticmethod
    def _cover(pick: Random) -> float:
        return 1.0 if pick.random() < 0.6 else pick.uniform(0.15, 0.8)

    def load_a(self, time_s: float) -> float:
        """Return the set current of the load in A."""
        return self._pick("load", int(time_s // self.LOAD_S)).choice(self.LOADS_A)


class Battery:
    """The simulated bench. `at` returns the true values; time only advances."""

    def __init__(self, setup: Setup | None = None, seed: int = 1) -> None:
        self.setup = setup or Setup()
        self._weather = Weather(seed)
        rng = np.random.default_rng(seed)
        cell, count = self.setup.cell, self.setup.cells
        self.capacity_ah = cell.capacity_ah * (1 + self.setup.spread * rng.standard_normal(count))
        self._more_ohm = 1 + self.setup.spread * rng.standard_normal(count)
        zeros = np.zeros(count)
        soc = np.full(count, self.setup.start_soc)
        rest_v = float(ocv_v(soc).sum())
        self.state = State(0.0, soc, zeros, zeros, zeros, AMBIENT_DEGC, 0.0, 0.0, 0.0, True, 0.0, rest_v, 0.0, 0.0)
        self._steps = 0

    def at(self, time_s: float) -> Mapping[str, float]:
        """Return the true values (see `truth`) at this time; for an earlier time, the present ones."""
        while self._steps < int(time_s / STEP_S + 1e-9):
            self._steps += 1
            self.state = self._step(self.state, self._steps * STEP_S)
        return truth(self.state, self.setup)

    def _drive(self, state: State, now_s: float) -> tuple[float, float, bool]:
        """Return irradiance, charger current and whether the load is connected, from the state one step before."""
        setup = self.setup
        sun = clear_sky(setup.start_of_day_s + now_s) * self._weather.clearness(now_s)
        wanted_a = sun * setup.panel_w / state.voltage_v
        room_a = max(0.0, (setup.charge_limit_v - state.voltage_v) / 0.02 + state.charger_a)
        charger_a = min(wanted_a, setup.charge_limit_a, room_a)
        limit_v = setup.load_off_v if state.load_is_connected else setup.load_on_v
        return sun, charger_a, state.voltage_v > limit_v

    def _step(self, state: State, now_s: float) -> State:
        cell, setup = self.setup.cell, self.setup
        sun, charger_a, load_is_connected = self._drive(state, now_s)
        load_a = self._weather.load_a(now_s) if load_is_connected else 0.0
        current_a = charger_a - load_a - setup.charger_own_w / state.voltage_v
        stored_a = current_a * (cell.efficiency if current_a > 0 else 1.0)
        soc = state.soc + stored_a * STEP_S / 3600 / self.capacity_ah
        turn = 1 - math.exp(-abs(cell.gamma * current_a) * STEP_S / 3600 / cell.capacity_ah)
        hysteresis = state.hysteresis + turn * (np.sign(current_a) - state.hysteresis)
        rc1_v = _relax(state.rc1_v, cell.r1_ohm * current_a * self._more_ohm, cell.tau1_s)
        rc2_v = _relax(state.rc2_v, cell.r2_ohm * current_a * self._more_ohm, cell.tau2_s)
        over_v = cell.r0_ohm * current_a * self._more_ohm + rc1_v + rc2_v
        voltage_v = float((ocv_v(soc) + cell.hysteresis_v * hysteresis + over_v).sum())
        heat_w = float(over_v.sum()) * current_a - setup.cooling_w_per_k * (state.temperature_degc - AMBIENT_DEGC)
        hours = STEP_S / 3600
        return State(
            time_s=now_s,
            soc=soc,
            rc1_v=rc1_v,
            rc2_v=rc2_v,
            hysteresis=hysteresis,
            temperature_degc=state.temperature_degc + heat_w * STEP_S / setup.heat_j_per_k,
            current_a=current_a,
            charger_a=charger_a,
            load_a=load_a,
            load_is_connected=load_is_connected,
            sun=sun,
            voltage_v=voltage_v,
            charged_ah=state.charged_ah + current_a * hours,
            load_ah=state.load_ah + load_a * hours,
        )


def _relax(now_v: Array, towards_v: Array, tau_s: float) -> Array:
    """Return an R–C pair's voltage one step later (exact solution)."""
    keep = math.exp(-STEP_S / tau_s)
    return keep * now_v + (1 - keep) * towards_v


def truth(state: State, setup: Setup) -> Mapping[str, float]:
    """Return the true values at the instruments' terminals, keys "<measurement>.<signal>" as in `collectors.fakes`.

    The fakes compute energy and charge counters themselves, except the load's, which counts in the bench's time.
    The load is connected to the charger's load output by a wire of its own. Its voltage is the battery's minus the
    voltage drop of the wire.
    """
    solar_w = state.charger_a * state.voltage_v
    panel_v = setup.panel_v * (0.9 + 0.1 * state.sun) if state.sun > 0 else 0.0
    load_v = state.voltage_v - setup.load_wire_ohm * state.load_a
    values = {
        "battery.voltage_v": state.voltage_v,
        "battery.current_a": state.current_a,
        "battery.power_w": state.voltage_v * state.current_a,
        "battery.temperature_degc": state.temperature_degc,
        "battery.soc": float(state.soc.mean()),
        "solar.voltage_v": panel_v,
        "solar.current_a": solar_w / panel_v if panel_v else 0.0,
        "solar.power_w": solar_w,
        "load.voltage_v": load_v,
        "load.current_a": state.load_a,
        "load.power_w": load_v * state.load_a,
        "load.charge_ah": state.load_ah,
        "charger.temperature_degc": AMBIENT_DEGC + 8 + 0.8 * state.charger_a,
        "charger.mosfet_temperature_degc": AMBIENT_DEGC + 10 + 1.5 * state.charger_a,
        "charger.target_voltage_v": setup.charge_limit_v,
        "charger.target_current_a": setup.charge_limit_a,
    }
    return MappingProxyType(values)
