"""What a run of the bench came to, and what of it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collectors.bench.comparison import DatabaseComparison, ReplayCheck
from collectors.bench.reconciliation import Gap, Reconciliation
from collectors.bench.replay import Stall
from collectors.bench.sensors import Agreement


@dataclass(frozen=True, slots=True)
class RunReport:
    """One instrument's run."""

    account: Reconciliation
    rows: int
    events: Mapping[str, int]
    gaps: Sequence[Gap]
    restarts: int
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """A replay's run."""

    speed: float
    rows: int
    """That were served; fewer than the recording has when the run was ended before it."""
    of_rows: int
    seconds: float
    stalls: Sequence[Stall]
    latest_s: float
    """The longest that a row began late, in real seconds."""
    instruments: Mapping[str, ReplayCheck]


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole run. `problems` is empty when nothing was lost."""

    seconds: float
    instruments: Mapping[str, RunReport]
    agreement: Mapping[str, Agreement]
    database: str
    """Its address, or why there is none."""
    read_back: DatabaseComparison | None
    replay: ReplayReport | None
    problems: Sequence[str] = ()


def problems_of(summary: Summary) -> list[str]:
    """Return what was lost or went wrong, one line each; faults that were asked for are not wrong."""
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
    """Return what of the served rows did not come back; that a run was ended early is no loss."""
    problems = [f"replay: nobody took row {stall.row} of {', '.join(stall.instruments)}" for stall in report.stalls]
    for name, check in report.instruments.items():
        if check.missing or check.different or check.invented:
            problems.append(f"replay: {name}: {check}")
    return problems
