"""How the shipped cells were identified from public recordings: which runs, which OCV, which settings.

The module reads no files: `read` returns the recordings, so the same recipes serve the shipped files, tests and
benchmarks. An `Entry` is one row of a collection's index; `read(path)` returns its columns, named as in `soc.series`
and, in addition, `charge_ah`, `charged_ah`, `discharged_ah` (counters), `soc_ref`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from soc.cell.ocv import Ocv
from soc.identify.fit_results import Settings
from soc.identify.noise import ModelUncertainty
from soc.identify.ocv import OcvTest, Script, four_scripts, over_temperature, room_efficiency, slow_pair
from soc.identify.result import About
from soc.identify.runs import Run, counted_soc
from soc.series import Series

Array = NDArray[np.float64]
Columns = Mapping[str, Array]
Read = Callable[[str], Columns]

METHOD = (
    "OCV: {ocv}. Dynamics: separable bounded least squares on {runs}; poles and γ shared by all temperatures, found by "
    "Nelder–Mead; shift, R(z), M, M0 ≥ 0 linear per temperature, I0 below 5 °C; neighbouring temperatures interpolated "
    "as filters do. Noise: residuals of runs left out of the fit, fast part times 2 (4 where the OCV is flat). "
    "Positive current charges."
)
LG_SOURCE = (
    "Fitted by this project to recordings of one cell by P. Kollmeyer, C. Vidal, M. Naguib, M. Skells, "
    "'LG 18650HG2 Li-ion Battery Data', Mendeley Data, doi:10.17632/cp3473x7xv.3, CC BY 4.0. "
    "Capacity per temperature is the C/20 discharge of its block of tests: it falls with age, not with temperature. "
    "Known from drive cycles, and good for them (0.2 to 0.5 % SOC). Slow charging was not in the fit (the tester's "
    "counters disagree by up to 7 % there): at C/20 it reads 5 % SOC wrong, in the cold C/20 discharges, too, up to "
    "13 % at -20 °C, and the bounds do not show it."
)
PANASONIC_SOURCE = (
    "Fitted by this project to recordings of one cell by P. Kollmeyer, 'Panasonic 18650PF Li-ion Battery Data', "
    "Mendeley Data, doi:10.17632/wykht8y7tg.1, CC BY 4.0. The reference (2.9 Ah everywhere) is off by up to 5 % away "
    "from 25 °C, as the cell aged during the tests: use it to compare methods."
)
A123_SOURCE = (
    "Fitted by this project to G. L. Plett's tests of one cell (University of Colorado Colorado Springs), as CSV in "
    "GitHub batterysim/esctoolbox-python. Only data were taken."
)
LFP_SOURCE = (
    "Fitted by this project to recordings in GitHub terencetaothucb/LFP-SOC-Estimation-Fisher-Information-Fusion, "
    "which states no licence: the recordings are not distributed here. Known between 20 and 80 % SOC only."
)


@dataclass(frozen=True)
class Entry:
    """One recording of a collection: the columns of its index row that recipes use."""

    id: str
    path: str
    cell: str
    temperature_degc: float
    capacity_ah: float
    efficiency: float


@dataclass(frozen=True, eq=False)
class Recipe:
    """The arguments of `identify` for one cell."""

    about: About
    runs: tuple[Run, ...]
    ocv: Ocv
    settings: Settings = field(default_factory=Settings)


def entry(row: Mapping[str, str]) -> Entry:
    """Return the entry of one row of index.csv; an absent capacity is NaN, an absent efficiency 1."""
    return Entry(
        row["id"],
        row["path"],
        row["cell"],
        float(row["temperature_degc"] or "nan"),
        float(row["capacity_ah"] or "nan"),
        float(row["coulombic_efficiency"] or 1.0),
    )


def run_of(item: Entry, read: Read, efficiency: float | None = None) -> Run:
    """Return a drive cycle as a run, with the collection's own reference."""
    c = read(item.path)
    series = Series(c["time_s"], c["current_a"], c["voltage_v"], c["temperature_degc"])
    eta = item.efficiency if efficiency is None else efficiency
    return Run(item.id, item.temperature_degc, item.capacity_ah, eta, series, c["soc_ref"])


def lg_hg2(entries: Sequence[Entry], read: Read) -> Recipe:
    """LG INR18650HG2, NMC, 3 Ah: C/20 pairs at 0 to 40 °C, three drive cycles at each of six temperatures."""
    pairs = {e.temperature_degc: _pair(read(e.path)).voltage_v for e in _chosen(entries, "lg_hg2/ocv_c20")}
    runs = tuple(run_of(e, read) for e in _chosen(entries, "lg_hg2/drive_"))
    procedure = METHOD.format(ocv="mean of C/20 discharge and charge, linear in T from 0 °C", runs="drive cycles")
    about = About("lg_hg2", "NMC", 3.0, 2.8, 4.2, LG_SOURCE, procedure, ModelUncertainty(reference_sd=0.0075))
    return Recipe(about, runs, over_temperature(pairs))


def panasonic_18650pf(entries: Sequence[Entry], read: Read) -> Recipe:
    """Panasonic NCR18650PF, NCA, 2.9 Ah: one C/20 pair at 25 °C, two drive cycles at each of five temperatures."""
    (pair,) = (_pair(read(e.path)) for e in _chosen(entries, "panasonic_18650pf/ocv_c20"))
    runs = tuple(run_of(e, read) for e in _chosen(entries, "panasonic_18650pf/drive_"))
    procedure = METHOD.format(ocv="mean of C/20 discharge and charge at 25 °C", runs="drive cycles")
    about = About(
        "panasonic_18650pf",
        "NCA",
        2.9,
        2.5,
        4.2,
        PANASONIC_SOURCE,
        procedure,
        ModelUncertainty(error_factor=4.0, capacity_sd=0.02, reference_sd=0.025),
    )
    return Recipe(about, runs, Ocv(pair.voltage_v, np.zeros_like(pair.voltage_v)))


def a123_26650(entries: Sequence[Entry], read: Read) -> Recipe:
    """A123 ANR26650M1, LFP, 2.05 Ah: four-script OCV tests, dynamic tests, slow branches at the same temperatures.

    The fit includes the slow discharge and charge: a dynamic test discharges on the whole, and parameters fitted to it
    alone are 20 to 40 mV wrong when the cell is charged.
    """
    temperatures = sorted({e.temperature_degc for e in _chosen(entries, "a123_26650/ocv_s1")})
    scripts = {t: _scripts(entries, read, t) for t in temperatures}
    room = room_efficiency(scripts[25.0])
    tests = {t: four_scripts(s, room) for t, s in scripts.items()}
    drives = [run_of(e, read) for e in _chosen(entries, "a123_26650/dyn_s1")]
    slow = [run for d in drives for run in _slow_runs(d.temperature_degc, scripts, tests)]
    procedure = METHOD.format(
        ocv="four-script test, linear in T from 5 °C", runs="the dynamic test and the C/30 discharge and charge"
    )
    about = About("a123_26650", "LFP", 2.05, 2.0, 3.6, A123_SOURCE, procedure, FLAT_DOUBT)
    ocv = over_temperature({t: test.voltage_v for t, test in tests.items()})
    return Recipe(about, (*drives, *slow), ocv, FLAT)


def lfp_1ah2(entries: Sequence[Entry], read: Read, table: Columns) -> Recipe:
    """A 1.2 Ah LFP cell cycled between 20 and 80 %: its OCV table, two long recordings, each cut in two halves."""
    runs = [half for e in _chosen(entries, "lfp_1ah2/flatzone") for half in _halves(run_of(e, read))]
    procedure = METHOD.format(ocv="the source's mean OCV table", runs="both recordings, halves held out in turn")
    about = About("lfp_1ah2", "LFP", 1.2, 2.0, 3.6, LFP_SOURCE, procedure, FLAT_DOUBT)
    ocv = Ocv.of_points(table["soc_ref"], table["ocv_mean_v"])
    return Recipe(about, tuple(runs), ocv, replace(FLAT, tau_start_s=(5.0, 50.0, 600.0)))


# Flat curves: slow polarisation matters. M is small compared with it, but the penalty must not reduce it to zero.
FLAT = Settings(
    tau_start_s=(5.0, 60.0, 1000.0), tau_range_s=(0.7, 8000.0), gamma_start=60.0, ridge_m=1e-5, evaluations=160
)

FLAT_DOUBT = ModelUncertainty(error_factor=4.0, ocv_sd_v=0.003)


def _chosen(entries: Sequence[Entry], beginning: str) -> list[Entry]:
    """Return the entries whose path begins with this text."""
    return [e for e in entries if e.path.startswith(beginning)]


def _pair(columns: Columns) -> OcvTest:
    return slow_pair(columns["current_a"], columns["voltage_v"], columns["charge_ah"])


def _scripts(entries: Sequence[Entry], read: Read, temperature_degc: float) -> list[Script]:
    names = ("time_s", "current_a", "voltage_v", "charged_ah", "discharged_ah")
    here = [e for e in _chosen(entries, "a123_26650/ocv_s") if e.temperature_degc == temperature_degc]
    read_all = [read(e.path) for e in sorted(here, key=lambda e: e.path)]
    return [Script(**{name: c[name] for name in names}) for c in read_all]


def _slow_runs(
    temperature_degc: float, scripts: Mapping[float, Sequence[Script]], tests: Mapping[float, OcvTest]
) -> list[Run]:
    """Return the slow discharge from full and the slow charge from empty of one temperature, as runs."""
    test = tests[temperature_degc]
    runs = []
    for kind, script, start in (
        ("slow discharge", scripts[temperature_degc][0], 1.0),
        ("slow charge", scripts[temperature_degc][2], 0.0),
    ):
        soc = counted_soc(script.charged_ah, script.discharged_ah, test.capacity_ah, test.efficiency, start)
        degc = np.full(len(soc), temperature_degc)
        series = Series(script.time_s, script.current_a, script.voltage_v, degc)
        name = f"{kind} {temperature_degc:+g} °C"
        runs.append(Run(name, temperature_degc, test.capacity_ah, test.efficiency, series, soc, kind))
    return runs


def _halves(run: Run) -> list[Run]:
    middle = len(run.series) // 2
    return [
        replace(run[part], name=f"{run.name} {k}/2") for k, part in ((1, slice(0, middle)), (2, slice(middle, None)))
    ]
