"""Read the experiments on one kind of cell from one TOML file, the input of `soc identify`.

    name = "my_cell"; chemistry = "NMC"; nominal_ah = 3.0; voltage_min_v = 2.8; voltage_max_v = 4.2
    source = "whose cell, which laboratory, when"
    flat = false                             # true for LFP: slow polarisation matters, other penalties

    [[ocv]]                                  # for each temperature: one slow discharge and charge …
    recording = "c20_25.parquet"             # … or recordings = [four scripts], with charged_ah and discharged_ah
    temperature_degc = 25

    [[run]]                                  # for each dynamic test, from rest
    recording = "influx:http://lab:8086/bat?device=t7&from=2026-11-02T08:00Z&to=2026-11-02T14:00Z"
    temperature_degc = 25
    capacity_ah = 2.78                       # default: that of the OCV test at this temperature
    efficiency = 0.995                       # default 1
    soc0 = 1.0                               # where the recording has no soc_ref: it is counted from here
    map = {current_a = "-I_mA*0.001"}

A recording is a place as in `soc.stores`: a file beside this one, the journal, InfluxDB. The reference state of charge
is the column soc_ref; else soc0 plus charge_ah; else soc0 plus the sampled current, with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from soc import stores
from soc.cell.ocv import Ocv
from soc.errors import CellError, SeriesError
from soc.estimation.session import placed
from soc.files import shown
from soc.identify import About, Run, Settings
from soc.identify.noise import ModelUncertainty
from soc.identify.ocv import OcvTest, Script, four_scripts, over_temperature, room_efficiency, slow_pair
from soc.identify.recipes import FLAT, FLAT_DOUBT
from soc.series import Series, counted_ah, gaps
from soc.stores import Rules
from soc.tomlfile import document_of, is_number, short

Array = NDArray[np.float64]
Table = TypeVar("Table")

ROOM_DEGC = 25.0
PROCEDURE = "Identified by `soc identify`: OCV from {ocv}; dynamics by separable bounded least squares on {runs} runs."


@dataclass(frozen=True)
class OcvEntry:
    """One [[ocv]] table."""

    temperature_degc: float
    recording: str = ""
    recordings: Sequence[str] = ()
    map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunEntry:
    """One [[run]] table."""

    recording: str
    temperature_degc: float
    capacity_ah: float | None = None
    efficiency: float = 1.0
    soc0: float | None = None
    map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The whole file; relative paths begin at `folder`."""

    folder: Path
    name: str
    chemistry: str
    nominal_ah: float
    voltage_min_v: float
    voltage_max_v: float
    ocv: Sequence[OcvEntry]
    run: Sequence[RunEntry]
    source: str = ""
    flat: bool = False


@dataclass(frozen=True, eq=False)
class Experiments:
    """The arguments of `soc.identify.identify`; `warnings` are about the references."""

    about: About
    runs: Sequence[Run]
    ocv: Ocv
    settings: Settings
    warnings: Sequence[str]


def plan(path: Path) -> Plan:
    """Return the experiments in this file. Raises `CellError` with every wrong key; `FileError`."""
    document = document_of(path)
    problems: list[str] = []
    tables = {key: _tables_of(document, key, problems) for key in ("ocv", "run")}
    ocv = [_table(OcvEntry, t, f"[[ocv]] {k}", problems) for k, t in enumerate(tables["ocv"], 1)]
    runs = [_table(RunEntry, t, f"[[run]] {k}", problems) for k, t in enumerate(tables["run"], 1)]
    problems += [f"[[{key}]]: expected at least one" for key, found in tables.items() if not found]
    problems += [f"[[ocv]] {k}: {p}" for k, e in enumerate(ocv, 1) if e is not None and (p := _ocv_problem(e))]
    if "folder" in document:
        problems.append("folder: unknown key")
    made = _table(Plan, {**document, "ocv": ocv, "run": runs, "folder": path.parent}, "", problems)
    if made is not None and (not made.name.isprintable() or made.name != Path(made.name).name):
        problems.append(f"name: expected a name that a file can have, got {short(made.name)}")
    if problems or made is None:
        raise CellError([f"{shown(path)}: {problem}" for problem in problems])
    return made


def _tables_of(document: Mapping[str, Any], key: str, problems: list[str]) -> list[Mapping[str, Any]]:
    """Return the tables of an array of tables; anything else is added to `problems`."""
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        problems.append(f"[[{key}]]: expected tables, got {short(found)}")
        return []
    return found


def _table(kind: Callable[..., Table], values: Mapping[str, Any], where: str, problems: list[str]) -> Table | None:
    """Return the table as its dataclass; mistakes are added to `problems`."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    prefix = f"{where}: " if where else ""
    wrong = [f"{prefix}{key[:40]}: unknown key; there are {', '.join(known)}" for key in values if key not in known]
    needed = [n for n, f in known.items() if f.default is f.default_factory]  # both MISSING
    wrong += [f"{prefix}{key}: missing" for key in needed if key not in values]
    for key, value in values.items():
        expected = EXPECTED.get(str(known[key].type).partition(" |")[0]) if key in known else None
        if expected is not None and not expected[1](value):
            wrong.append(f"{prefix}{key}: expected {expected[0]}, got {short(value)}")
    problems += wrong
    return None if wrong else kind(**values)


def _is_texts(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)


def _is_map(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


EXPECTED: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "str": ("text", lambda value: isinstance(value, str)),
    "float": ("a number", is_number),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "Sequence[str]": ("a list of texts", _is_texts),
    "Mapping[str, str]": ("a table of texts", _is_map),
}
"""Type of a field → its name in messages, and whether a value of a document has it."""


def _ocv_problem(entry: OcvEntry) -> str | None:
    if bool(entry.recording) == bool(entry.recordings):
        return "expected `recording` (a slow pair) or `recordings` (four scripts)"
    if entry.recordings and len(entry.recordings) != 4:
        return f"recordings: expected the four scripts in order, got {len(entry.recordings)}"
    return None


def local_files(made: Plan) -> list[Path]:
    """Return the files of this machine that the recordings of a plan consist of. Raises `StoreError`."""
    places = [*(place for entry in made.ocv for place in (entry.recording, *entry.recordings) if place)]
    places += [entry.recording for entry in made.run]
    return [made.folder / path for place in places for path in stores.local_files(place)]


def load(made: Plan) -> Experiments:
    """Read the recordings of a plan. Raises `StoreError`, `SeriesError` naming the place."""
    tests = _ocv_tests(made)
    curves = {degc: test.voltage_v for degc, test in tests.items()}
    ocv = over_temperature(curves)
    capacities = {degc: test.capacity_ah for degc, test in tests.items()}
    warnings: list[str] = []
    runs = [_run(entry, made.folder, capacities, warnings) for entry in made.run]
    kind = "the four-script test" if made.ocv[0].recordings else "slow discharge and charge"
    procedure = PROCEDURE.format(ocv=kind, runs=len(runs))
    doubt = FLAT_DOUBT if made.flat else ModelUncertainty()
    limits = (made.nominal_ah, made.voltage_min_v, made.voltage_max_v)
    about = About(made.name, made.chemistry, *limits, made.source, procedure, doubt)
    return Experiments(about, runs, ocv, FLAT if made.flat else Settings(), warnings)


def _ocv_tests(made: Plan) -> dict[float, OcvTest]:
    """Return the OCV test of each temperature."""
    scripts = {
        e.temperature_degc: [_script(made.folder, place, e.map) for place in e.recordings]
        for e in made.ocv
        if e.recordings
    }
    if scripts and ROOM_DEGC not in scripts:
        raise SeriesError(
            "the four-script test needs its 25 °C test: it gives the efficiency at which cells are refilled"
        )
    room = room_efficiency(scripts[ROOM_DEGC]) if scripts else 1.0
    tests = {degc: four_scripts(four, room) for degc, four in scripts.items()}
    for entry in made.ocv:
        if entry.recording:
            columns = _columns(made.folder, entry.recording, entry.map, ("charge_ah",))
            with placed(entry.recording):
                tests[entry.temperature_degc] = slow_pair(
                    columns["current_a"], columns["voltage_v"], columns["charge_ah"]
                )
    return tests


def _script(folder: Path, place: str, maps: Mapping[str, str]) -> Script:
    columns = _columns(folder, place, maps, ("charged_ah", "discharged_ah"))
    names = ("time_s", "current_a", "voltage_v", "charged_ah", "discharged_ah")
    return Script(**{name: columns[name] for name in names})


def _columns(folder: Path, place: str, maps: Mapping[str, str], needed: Sequence[str] = ()) -> dict[str, Array]:
    """Return all columns of a recording. Raises `StoreError`; `SeriesError` if a needed column is missing."""
    where = str(folder / place) if stores.is_file(place) else place
    chunks = list(stores.read(where, Rules.parse(f"{ours}={formula}" for ours, formula in maps.items())).chunks)
    if not chunks:
        raise SeriesError(f"{where}: no rows")
    missing = [name for name in needed if name not in chunks[0]]
    if missing:
        raise SeriesError(f"{where}: no column {', '.join(missing)}; identification counts charge by the tester's own")
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _run(entry: RunEntry, folder: Path, capacities: Mapping[float, float], warnings: list[str]) -> Run:
    """Return one dynamic test with its reference."""
    capacity_ah = capacities.get(entry.temperature_degc) if entry.capacity_ah is None else entry.capacity_ah
    if capacity_ah is None:
        raise SeriesError(
            f"{entry.recording}: no capacity_ah, and no OCV test at {entry.temperature_degc:g} °C has one"
        )
    columns = _columns(folder, entry.recording, entry.map)
    degc = columns.get("temperature_degc", np.full(len(columns["time_s"]), entry.temperature_degc))
    with placed(entry.recording):
        series = Series(columns["time_s"], columns["current_a"], columns["voltage_v"], degc, columns.get("charge_ah"))
        soc = columns["soc_ref"] if "soc_ref" in columns else _counted(series, entry, capacity_ah, warnings)
        name = Path(entry.recording).name if stores.is_file(entry.recording) else entry.recording
        return Run(name, entry.temperature_degc, capacity_ah, entry.efficiency, series, soc)


def _counted(series: Series, entry: RunEntry, capacity_ah: float, warnings: list[str]) -> Array:
    """Count the reference where the recording has none. Raises `SeriesError` without an initial state of charge."""
    if entry.soc0 is None:
        raise SeriesError("no reference: expected a column soc_ref, or soc0 in the experiments file to count from")
    if series.charge_ah is not None and entry.efficiency == 1.0:
        moved = (series.charge_ah - series.charge_ah[0]) / capacity_ah
        return np.asarray(entry.soc0 + moved)
    warnings.append(f"{entry.recording}: the reference is counted from the sampled current, not from a counter")
    missed = gaps(series.time_s)
    if missed.any():
        warnings.append(
            f"{entry.recording}: {int(missed.sum())} gaps, the longest {np.diff(series.time_s)[missed].max():.4g} s: "
            "the reference counts no charge over them"
        )
    stored = np.where(series.current_a > 0, entry.efficiency, 1.0) * series.current_a
    moved = counted_ah(replace(series, current_a=stored)) / capacity_ah
    return np.asarray(entry.soc0 + moved)
