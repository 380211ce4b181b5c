"""The options of the filters: plain numbers, each with its reason.

`soc.cell.parameters.Noise` has the model errors of the cell; the scales here multiply them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from soc.cell.parameters import CellParameters
from soc.errors import OptionError


class Options(NamedTuple):
    """Options of the filters. Times in s, sd = standard deviation; `soc` quantities are 0..1; nan: the cell's own."""

    # Model error
    coloured: bool = True  # Σ_v = σ²·(1 + 2 t_c/Δt): one independent sample per 2 t_c, at any sampling rate
    bias_state: bool = True  # the slow voltage error is a state; otherwise it is added to the coloured error
    error_scale: float = 1.0  # times the cell's error_v
    ocv_sd_v: float = math.nan  # sd of the OCV table's own error; divided by the slope it limits how well z is known
    bias_scale: float = 1.0  # times the cell's bias_v
    sensor_v: float = math.nan  # sd of white voltage noise
    resistance_scale: float = 1.0  # times the cell's resistance_sd

    # Process noise
    current_sd_a: float = math.nan  # sd of white current noise
    current_time_s: float = 1.0  # averaging time of current_sd_a; longer samples average it further. inf: per sample
    capacity_sd: float = math.nan  # relative error of counted charge
    soc_walk: float = 0.0  # sd of z's own random walk after an hour
    hysteresis_sd: float = 0.1  # sd to which h returns while charge flows
    hysteresis_on_points: bool = False  # True: each sigma point propagates h with its own current, as in Plett (2006)

    # Offset of the current sensor
    offset_state: bool = True
    offset_sd_a: float = math.nan  # at the start; nan: C/100
    offset_walk_a: float = 5e-4  # sd of its random walk after an hour
    offset_slope_v: float = 0.2  # not corrected while dOCV/dz is below this (V per unit of z; 0.2 is 2 mV per %)
    full_scale_a: float = math.inf  # a current beyond this changes the sensor's offset (remanence)
    dead_band_a: float = 0.0  # the instrument reports smaller currents as exactly zero

    # Faults and disagreement
    gate_sigma: float = 10.0  # an innovation beyond this is a sensor fault
    gate_sd: float = 0.03  # … if the sd of z has been below this
    gate_limit_s: float = 60.0  # … for at most this long: then the state estimate is wrong, not the sensor
    bump_sigma: float = 3.0  # an innovation beyond this multiplies P_zz by bump_factor
    bump_factor: float = 5.0
    bump_interval_s: float = 60.0  # … at most once in this time
    bump_sd: float = 0.1  # … up to this sd of z
    soc_floor: float = 1e-4  # the sd of z never falls below this
    soc_sd_max: float = 0.3  # sd of an unknown z: about that of a uniform distribution over 0..1

    # Time
    previous_current: bool = False  # instantaneous samples: the state moved with the previous sample's current
    period_s: float = 0.0  # usual time between samples; 0: learned from the data
    gap_ratio: float = 2.5  # an interval longer than this many periods is a gap
    gap_least_s: float = 2.5  # … unless it is shorter than this
    gap_short_s: float = 60.0  # in gaps up to this length the mean of the two currents at the ends is used
    gap_carry_s: float = 900.0  # in longer gaps the recent mean current continues for at most this long; 0: no current
    gap_current_a: float = math.nan  # possible current in a long gap; nan: recent rms
    rest_s: float = 3600.0  # after a gap of this length without current the cell counts as rested
    recent_s: float = 600.0  # averaging time of the recent mean and rms current

    # Temperature
    temperature_hold_s: float = 600.0  # a missing temperature is held for this long
    temperature_missing_sd: float = 0.4  # after that, this is the relative sd of the resistances (10 K)

    # Anchors: voltage beyond a limit with a small current into that end for some minutes is a measurement of z
    full_voltage_v: float = math.nan  # nan: 3.45 V for LFP, 10 mV below the upper limit otherwise; inf: none
    full_sd: float = 0.01
    empty_voltage_v: float = 0.0  # the same at the lower end; 0: none
    empty_sd: float = 0.02
    anchor_current_c: float = 0.05  # tail current, 1/h
    anchor_hold_s: float = 300.0

    reference_sd: float = math.nan  # uncertainty of the definition of z: widens the reported bounds


FLAGS = frozenset(name for name, value in Options._field_defaults.items() if isinstance(value, bool))


def options(base: Options | None = None, **values: Any) -> Options:
    """Return options with these values, on top of `base` or the defaults. Raises `OptionError` for an unknown name."""
    unknown = sorted(set(values) - set(Options._fields))
    if unknown:
        raise OptionError(f"no such option: {', '.join(unknown)}; there are {', '.join(Options._fields)}")
    return (base or Options())._replace(**values)


# The textbook filter: white noises and the plain algorithm only. For comparisons and tests with known results.
PLAIN = Options(
    coloured=False,
    offset_state=False,
    bias_state=False,
    error_scale=0.0,
    resistance_scale=0.0,
    bias_scale=0.0,
    ocv_sd_v=0.0,
    current_time_s=math.inf,
    capacity_sd=0.0,
    hysteresis_sd=0.0,
    gate_sigma=math.inf,
    bump_sigma=math.inf,
    soc_floor=0.0,
    gap_ratio=math.inf,
    full_voltage_v=math.inf,
    reference_sd=0.0,
)


def settings(chosen: Options, cell: CellParameters) -> Options:
    """Return the options for compiled code: the cell's own values for nan, flags as bool, all else float.

    Raises `OptionError` for a value that is not a number or is negative.
    """
    own = {
        "sensor_v": cell.noise.sensor_v,
        "current_sd_a": cell.noise.current_sd_a,
        "capacity_sd": cell.noise.capacity_sd,
        "ocv_sd_v": cell.noise.ocv_sd_v,
        "reference_sd": cell.noise.reference_sd,
        "offset_sd_a": cell.nominal_ah / 100,
        "full_voltage_v": 3.45 if cell.chemistry.upper().startswith("LFP") else cell.voltage_max_v - 0.01,
    }
    values: dict[str, Any] = {}
    for name, value in chosen._asdict().items():
        if not isinstance(value, bool | int | float) or value < 0:
            raise OptionError(f"option {name}: expected a number that is not negative, got {value!r}")
        values[name] = bool(value) if name in FLAGS else float(own.get(name, value) if math.isnan(value) else value)
    return Options(**values)
