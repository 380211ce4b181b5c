"""Data that contradict the cell model are reported with evidence; consistent data give no warning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import soc
from soc import stores
from soc.cell import library
from soc.cell.parameters import CellParameters
from soc.estimation import service
from soc.estimation.cleaning import CleanedRecording, Pack
from soc.estimation.estimator import Estimator
from soc.estimation.session import Setup, Stream
from soc.series import Series
from soc.simulation.profiles import current
from soc.stores import Results
from soc.stores.influx import encode


@pytest.fixture(scope="module")
def cell() -> CellParameters:
    return library.cell("lg_hg2")


@pytest.fixture(scope="module")
def drive(cell: CellParameters) -> Series:
    """Pulses over most of the cell's charge, with sensor noise."""
    time_s, current_a = current("drive", cell, 25.0, 0.95, 5400.0, 1.0, 3)
    series, _ = soc.simulate(cell, time_s, current_a, 25.0, 0.95)
    return replace(series, voltage_v=series.voltage_v + np.random.default_rng(1).normal(0, 1e-3, len(series)))


def warnings(series: Series, cell: CellParameters, **options: object) -> str:
    return "\n".join(soc.estimate(series, cell, soc0=0.95, **options).warnings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["spkf", "ekf"])
def test_data_that_fit_are_not_warned_about(drive: Series, cell: CellParameters, name: str) -> None:
    assert soc.estimate(drive, cell, name, soc0=0.95).warnings == ()
    assert soc.estimate(drive, cell, name, soc0=0.65, soc0_sd=0.3).warnings == ()


def test_a_gap_is_no_contradiction(drive: Series, cell: CellParameters) -> None:
    kept = np.r_[0:2000, 2900 : len(drive)]
    assert soc.estimate(drive[kept], cell, soc0=0.95).warnings == ()


CONTRADICTIONS: dict[str, tuple[Callable[[Series], Series], str]] = {
    "minutes as seconds": (lambda s: replace(s, time_s=s.time_s / 60), "voltages contradict the cell model"),
    "hours as seconds": (lambda s: replace(s, time_s=s.time_s / 3600), "voltages contradict the cell model"),
    "an unsigned current": (lambda s: replace(s, current_a=np.abs(s.current_a)), "never changes its sign"),
    "a tenth of the current": (lambda s: replace(s, current_a=0.1 * s.current_a), "contradict"),
    "twice the current": (lambda s: replace(s, current_a=2 * s.current_a), "contradict"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_data_that_contradict_the_model_are_named_with_evidence(drive: Series, cell: CellParameters, kind: str) -> None:
    change, words = CONTRADICTIONS[kind]
    said = warnings(change(drive), cell)
    assert words in said and any(character.isdigit() for character in said)


def test_a_lost_capacity_is_detected_from_the_charge_between_two_voltages(drive: Series, cell: CellParameters) -> None:
    new = replace(cell, capacity_ah=cell.capacity_ah / 0.6, nominal_ah=cell.nominal_ah / 0.6)
    assert "a worn or another cell" in warnings(drive, new)


def test_milliseconds_over_a_balanced_cycle_are_refused_and_a_larger_battery_is_named(cell: CellParameters) -> None:
    time_s = np.arange(0.0, 3600.0 * 8, 10.0)
    current_a = 1.2 * np.where(time_s % 14400.0 < 7200.0, -1.0, 1.0)
    series, _ = soc.simulate(cell, time_s, current_a, 25.0, 0.95)
    parallel = replace(series, current_a=3 * series.current_a)  # three strings in parallel, which no option names
    assert "counted charge contradicts the capacity" in warnings(parallel, cell)
    slow = {name: getattr(series, name) for name in ("current_a", "voltage_v", "temperature_degc")}
    with pytest.raises(soc.SocError, match="milliseconds"):
        CleanedRecording(cell, Pack()).take({"time_s": 1000 * series.time_s, **slow})


def test_a_warning_ends_when_the_data_fit_again(drive: Series, cell: CellParameters) -> None:
    stream = Estimator(cell, soc0=0.95)
    assert stream.run(replace(drive, current_a=np.abs(drive.current_a))).warnings != ()
    for day in range(1, 5):
        rest = np.arange(0.0, 43200.0, 60.0)
        steady = Series(day * 86400.0 + rest, 0 * rest, 0 * rest + 3.9, 0 * rest + 25.0)
        found = stream.run(steady)
    assert found.warnings == ()


def test_pieces_give_the_warnings_of_the_whole(drive: Series, cell: CellParameters) -> None:
    wrong = replace(drive, time_s=drive.time_s / 60)
    stream = Estimator(cell, soc0=0.95)
    for k in range(0, len(wrong), 500):
        last = stream.run(wrong[k : k + 500])
    assert last.warnings == soc.estimate(wrong, cell, soc0=0.95).warnings


def test_a_warning_is_stored_with_the_results(drive: Series, cell: CellParameters, tmp_path: Path) -> None:
    columns = {name: getattr(drive, name) for name in ("current_a", "voltage_v", "temperature_degc")}
    results = Stream(Setup(cell, soc0=0.95)).feed({"time_s": drive.time_s / 60, **columns})
    assert results is not None and results.warnings
    lines = list(encode(results, {}))
    assert "warning=" not in lines[0] and "voltages contradict" in lines[-1]
    fine = Results(np.zeros(1), {"soc": np.ones(1)}, "m", "v")
    assert ',warning="" ' in next(iter(encode(fine, {})))
    with stores.writer(str(tmp_path / "a.parquet")) as writer:
        writer.write(results)
    assert b"voltages contradict" in pq.read_metadata(tmp_path / "a.parquet").metadata[b"battfleet"]


# ---- the service ----------------------------------------------------------------------------------------------------


def piece(begin_s: float, **other: float) -> dict[str, np.ndarray]:
    values = {"current_a": -1.0, "voltage_v": 3.7, "temperature_degc": np.nan, **other}
    return {"time_s": begin_s + np.arange(10.0), **{name: np.full(10, value) for name, value in values.items()}}


def test_a_service_without_temperature_warns_as_a_single_run_does(
    cell: CellParameters, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(Setup(cell), strict=False)
    warned: set[str] = set()
    with caplog.at_level(logging.WARNING):
        service._say_silence("place", stream, warned)
        assert "no samples so far: look at device" in caplog.text
        for k in range(3):
            assert stream.feed(piece(10.0 * k)) is None
            service._say_silence("place", stream, warned)
    assert caplog.text.count("give --temperature-degc") == 1
    assert stream.feed(piece(30.0, temperature_degc=25.0)) is not None
    assert stream.intake.silence() is None


def test_a_given_temperature_is_used_until_one_is_measured(cell: CellParameters) -> None:
    stream = Stream(Setup(cell, pack=Pack(temperature_degc=20.0), full=True), strict=False)
    for k in range(3):
        results = stream.feed(piece(1000.0 * k))
        assert results is not None and np.isfinite(results.signals["ocv_v"]).all()
    assert stream.beliefs["spkf"].counters["held_temperature"] == 0
    assert stream.feed(piece(3000.0, temperature_degc=25.0)) is not None
    results = stream.feed(piece(3010.0))
    assert results is not None and np.isfinite(results.signals["ocv_v"]).all()
    assert stream.beliefs["spkf"].counters["held_temperature"] == 10
