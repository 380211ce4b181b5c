"""The parameters of one kind of cell and their uncertainty: frozen values, checked when they are created.

Values are given per tested temperature (rows, rising °C) and, where marked [T, z], on a few knots of state of
charge (columns, rising 0..1). Between knots a value is linear in z; beyond the first and last knot it is constant; one
knot means constant in z. Between tested temperatures every value is linear in T, except resistances, which are
interpolated as log R against 1/T_K. Outside the tested range the nearest tested temperature applies (a filter counts
how often this happens and reports it).

The parameters are those of the enhanced self-correcting model (G. L. Plett, *Battery Management Systems* I, ch. 2):
v = OCV + M·h + M0·s − Σ R_j·i_Rj − R0·i, with discharge positive as in that book. One file holds one cell:
`soc.cell.toml_file`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soc.cell.ocv import SIZE, Ocv
from soc.errors import CellError

Array = NDArray[np.float64]

PAIRS_MAX = 3

# Shape ([p]air, [T]emperature, [z] knot) and plausible range of every number. The ranges are wide on purpose: a value
# outside shows a wrong unit or a failed fit.
SHAPES: Mapping[str, tuple[str, float, float]] = MappingProxyType(
    {
        "nominal_ah": ("", 1e-3, 1e4),
        "voltage_min_v": ("", 0.0, 5.0),
        "voltage_max_v": ("", 0.5, 6.0),
        "temperature_degc": ("T", -60.0, 100.0),
        "soc_knots": ("z", 0.0, 1.0),
        "capacity_ah": ("T", 1e-3, 1e4),
        "efficiency": ("T", 0.5, 1.0),
        "ocv0_v": ("grid", -1.0, 6.0),
        "ocvrel_v_per_k": ("grid", -0.05, 0.05),
        "shift_v": ("Tz", -0.5, 0.5),
        "r0_ohm": ("Tz", 0.0, 100.0),
        "r_ohm": ("pTz", 0.0, 100.0),
        "tau_s": ("pT", 1e-3, 1e6),
        "m_v": ("Tz", 0.0, 0.5),
        "m0_v": ("Tz", 0.0, 0.5),
        "gamma": ("T", 0.0, 1e4),
        "charge_transfer_a": ("T", 1e-4, math.inf),
        "error_v": ("Tz", 0.0, 1.0),
        "error_time_s": ("T", 0.0, 1e6),
        "bias_v": ("Tz", 0.0, 1.0),
        "bias_time_s": ("T", 1.0, 1e7),
        "resistance_sd": ("T", 0.0, 2.0),
        "ocv_sd_v": ("", 0.0, 0.5),
        "capacity_sd": ("", 0.0, 0.5),
        "sensor_v": ("", 0.0, 0.5),
        "current_sd_a": ("", 0.0, 1e3),
        "reference_sd": ("", 0.0, 0.2),
    }
)


@dataclass(frozen=True, eq=False)
class Noise:
    """What the model does not explain. Identification measures it on held-out data; filters use it.

    All values are standard deviations. A *coloured* error of correlation time t_c counts as one independent sample per
    2·t_c.

    `error_v` [T, z], `error_time_s` [T]: voltage error of the model, and its correlation time (30..300 s).
    `bias_v` [T, z], `bias_time_s` [T]: its slow part, a first-order Gauss–Markov process (1000..3000 s).
    `resistance_sd` [T]: relative error of the overpotential (R0·i + Σ R_j·i_Rj), coloured like `error_v`.
    `ocv_sd_v`: error of the OCV table. Time does not average it out: no voltage determines z better than this divided
    by the curve's slope.
    `capacity_sd`: relative error of counted charge; the random walk of z reaches it after a throughput of one capacity.
    `sensor_v`: white noise of the voltage sensor.
    `current_sd_a`: white noise of one current sample, the process noise of the filters.
    `reference_sd`: uncertainty of the definition of the state of charge (0..1); it only widens the reported bounds.
    """

    error_v: Array
    error_time_s: Array
    bias_v: Array
    bias_time_s: Array
    resistance_sd: Array
    ocv_sd_v: float = 0.002
    capacity_sd: float = 0.01
    sensor_v: float = 0.001
    current_sd_a: float = 0.1
    reference_sd: float = 0.005

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.type == "Array":
                object.__setattr__(self, f.name, _frozen(getattr(self, f.name)))

    @classmethod
    def uniform(cls, temperatures: int, knots: int, **values: float) -> Noise:
        """Return the same values at every temperature and state of charge; a value not named has its default."""
        plain = {"error_v": 0.005, "error_time_s": 60.0, "bias_v": 0.005, "bias_time_s": 2000.0, "resistance_sd": 0.05}
        shape = {"Tz": (temperatures, knots), "T": (temperatures,)}
        rows = {key: np.full(shape[SHAPES[key][0]], values.get(key, plain[key])) for key in plain}
        return cls(**rows, **{key: value for key, value in values.items() if key not in plain})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class CellParameters:
    """One kind of cell. Rows are `temperature_degc`, columns `soc_knots`; see the module for shapes and interpolation.

    `charge_transfer_a` is I0 of the first pair's law R1·I0·asinh(i_R1/I0); infinite means linear.
    `shift_v` is added to the OCV table: the correction found by the dynamic test.
    `sd` holds the known standard deviations of fitted values: field name → array of the field's shape.
    Raises `CellError` that names every key with a wrong shape or an implausible value.
    """

    name: str
    chemistry: str
    nominal_ah: float
    voltage_min_v: float
    voltage_max_v: float
    temperature_degc: Array
    soc_knots: Array
    capacity_ah: Array
    efficiency: Array
    ocv: Ocv
    shift_v: Array
    r0_ohm: Array
    r_ohm: Array  # [pair, T, z]
    tau_s: Array  # [pair, T]
    m_v: Array
    m0_v: Array
    gamma: Array
    charge_transfer_a: Array
    noise: Noise
    sd: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))
    source: str = ""
    procedure: str = ""

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.type == "Array":
                object.__setattr__(self, f.name, _frozen(getattr(self, f.name)))
        object.__setattr__(self, "sd", MappingProxyType({k: _frozen(v) for k, v in self.sd.items()}))
        problems = _problems(self)
        if problems:
            raise CellError([f"cell {self.name!r}: {p}" for p in problems])

    @property
    def pairs(self) -> int:
        """Return the number of R–C pairs of the model."""
        return len(self.r_ohm)

    @property
    def id(self) -> str:
        """Return an identifier of these exact numbers: the cell's name and eight hex digits of their checksum."""
        digest = hashlib.sha256()
        for part in (self, self.ocv, self.noise):
            for f in fields(part):
                value = getattr(part, f.name)
                if isinstance(value, float | np.ndarray):
                    digest.update(f.name.encode() + np.asarray(value, dtype=np.float64).tobytes())
        return f"{self.name}@{digest.hexdigest()[:8]}"

    @classmethod
    def plain(
        cls, name: str, capacity_ah: float, ocv: Ocv, r0_ohm: float, pairs: Sequence[tuple[float, float]], **values: Any
    ) -> CellParameters:
        """Return a cell with constants only, at one temperature (25 °C unless given); `pairs` are (R in Ω, τ in s).

        Other fields are given by name, as floats or whole arrays; noise as a `Noise` of shape (1, 1).
        """
        table = ocv.table(25.0)
        given: dict[str, Any] = {
            "chemistry": "unknown",
            "nominal_ah": capacity_ah,
            "voltage_min_v": float(table[0]),
            "voltage_max_v": float(table[-1]),
            "temperature_degc": 25.0,
            "soc_knots": [0.5],
            "efficiency": 1.0,
            "shift_v": 0.0,
            "m_v": 0.0,
            "m0_v": 0.0,
            "gamma": 0.0,
            "charge_transfer_a": math.inf,
            "noise": Noise.uniform(1, 1),
            **values,
        }
        shape = {"T": (1,), "Tz": (1, 1)}
        for key, value in given.items():
            if key in SHAPES and SHAPES[key][0] in shape and np.ndim(value) == 0:
                given[key] = np.full(shape[SHAPES[key][0]], value)
        r = np.reshape([r for r, _ in pairs], (-1, 1, 1))
        tau = np.reshape([tau for _, tau in pairs], (-1, 1))
        return cls(
            name=name,
            capacity_ah=np.array([capacity_ah]),
            ocv=ocv,
            r0_ohm=np.array([[r0_ohm]]),
            r_ohm=r,
            tau_s=tau,
            **given,
        )


def value_of(cell: CellParameters, key: str) -> Any:
    """Return the value of that name from the cell, its OCV table or its noise."""
    return next(getattr(part, key) for part in (cell, cell.ocv, cell.noise) if hasattr(part, key))


def _frozen(value: ArrayLike) -> Array:
    """Return the value as a read-only double array."""
    array = np.array(value, dtype=np.float64)
    array.setflags(write=False)
    return array


def _problems(cell: CellParameters) -> list[str]:
    """Return one line for each value that has a wrong shape or is impossible."""
    n_t, n_z, n_p = len(cell.temperature_degc), len(cell.soc_knots), len(cell.r_ohm)
    size = {"p": n_p, "T": n_t, "z": n_z}
    problems = []
    for key, (kind, low, high) in SHAPES.items():
        shape = (SIZE,) if kind == "grid" else tuple(size[axis] for axis in kind)
        value = np.asarray(value_of(cell, key))
        problems += _value_problems(key, value, shape, low, high)
        if key in cell.sd:
            problems += _value_problems(f"sd of {key}", cell.sd[key], shape, 0.0, math.inf)
    problems += [f"sd of {key}: no such parameter" for key in cell.sd if key not in SHAPES]
    for key in ("temperature_degc", "soc_knots"):
        if getattr(cell, key).size == 0 or np.any(np.diff(getattr(cell, key)) <= 0):
            problems.append(f"{key}: expected at least one number, rising, got {getattr(cell, key).tolist()}")
    if not 1 <= n_p <= PAIRS_MAX:
        problems.append(f"r_ohm: expected 1 to {PAIRS_MAX} R–C pairs, got {n_p}")
    if not cell.voltage_min_v < cell.voltage_max_v:
        problems.append(f"voltage_min_v: {cell.voltage_min_v} is not below voltage_max_v {cell.voltage_max_v}")
    return problems


def _value_problems(key: str, value: Array, shape: tuple[int, ...], low: float, high: float) -> list[str]:
    """Describe what is wrong with an array: its shape, a NaN, a value out of range; empty if nothing is."""
    if value.shape != shape:
        return [f"{key}: expected shape {shape}, got {value.shape}"]
    bad = ~((value >= low) & (value <= high))
    if bad.any():
        return [f"{key}: {value[bad].flat[0]:.6g} is not in {low:g}..{high:g} ({int(bad.sum())} such values)"]
    return []
