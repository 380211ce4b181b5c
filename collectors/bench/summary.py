"""The result of a run of the bench, and its problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collectors.bench.comparison import DatabaseComparison, ReplayCheck
from collectors.bench.reconciliation import Gap, Reconciliation
from collectors.bench.replay import Stall
from collectors.bench.sensors import Agreement


@dataclass(frozen=True, slots=True)
class RunReport:
    """The result of one instrument."""

    account: Reconciliation
    rows: int
    events: Mapping[str, int]
    gaps: Sequence[Gap]
    restarts: int
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The result of a replay."""

    speed: float
    rows: int
    """Rows that were served; fewer than `of_rows` when the run ended before the recording did."""
    of_rows: int
    seconds: float
    stalls: Sequence[Stall]
    latest_s: float
    """Maximum lateness of a row's begin, in real seconds."""
    instruments: Mapping[str, ReplayCheck]


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of the whole run. `problems` is empty when nothing was lost."""

    seconds: float
    instruments: Mapping[str, RunReport]
    agreement: Mapping[str, Agreement]
    database: str
    """Its address, or why there is none."""
    read_back: DatabaseComparison | None
    replay: ReplayReport | None
    problems: Sequence[str] = ()


def problems_of(summary: Summary) -> list[str]:
    """Return losses and errors, one line each; effects of injected faults are not problems."""
    problems = []
    for name, report in summary.instruments.items():
        if report.account.lost:
            problems.append(f"{name}: {report.account.lost} of {report.account.sent} samples are not in the journal")
        if not report.account.kept:
            problems.append(f"{name}: not one sample was kept")
        if report.restarts:
            problems.append(f"{name}: the collector ended by itself {report.restarts} times")
        elif report.exit_code:
            problems.append(f"{name}: the collector ended with exit code {report.exit_code}")
    if summary.read_back and not summary.read_back.is_same:
        problems.append(f"the database does not hold the same as the journals: {summary.read_back}")
    if summary.replay:
        problems += replay_problems(summary.replay)
    return problems


def replay_problems(report: ReplayReport) -> list[str]:
    """Return the losses among the served rows, one line each; an early end of the run is not a loss."""
    problems = [f"replay: nobody took row {stall.row} of {', '.join(stall.instruments)}" for stall in report.stalls]
    for name, check in report.instruments.items():
        if check.missing or check.different or check.invented:
            problems.append(f"replay: {name}: {check}")
    return problems
