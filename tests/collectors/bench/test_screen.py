"""The bench's screen fits the terminal: no figure is cut from 60 columns on."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from collectors.bench import screen
from collectors.bench.bench import COMPARED, Bench
from collectors.bench.reconciliation import Gap, JournalSeries, Reconciliation
from collectors.bench.sensors import Agreement, Course
from collectors.bench.setup import PLACES
from collectors.bench.summary import RunReport, Summary

FIGURES = ("-163.456", "-263.789", "123456789", "54321", "-1234.5 mV", "-4321.0 mA", "1234.5", "synchronised")


class JournalStub:
    """A journal in which every quantity has long values."""

    rows = 123456789

    def course(self, measurement: str, signal: str) -> Course:
        return Course(np.array([1]), np.array([-163.456 if signal == "voltage_v" else -263.789]))

    def measured(self) -> dict[Any, JournalSeries]:
        return {"battery": JournalSeries([round(i * 1e9 / 1234.5) for i in range(200)])}

    def own(self) -> dict[str, float]:
        return {"skipped": 54321, "errors": 54321, "reconnects": 54321, "queue_rows": 54321, "clock_state": 1.0}


def bench() -> Bench:
    """Return the bench state that the screen reads."""
    agreement = {
        compared.title: Agreement(99999, -4.321 if " A:" in compared.title else -1.2345, 0.1, 0.1, 1.234, 0.0)
        for compared in COMPARED
    }
    stub = SimpleNamespace(
        now_s=86400.0,
        places=list(PLACES.values()),
        journals={name: JournalStub() for name in PLACES},
        gaps=lambda name, journal: [None] * 4321,
        agreement=lambda: agreement,
        replay=SimpleNamespace(row=9080, speed=60.0, latest_s=1.234, recording=SimpleNamespace(rows=range(9081))),
        health=SimpleNamespace(state="ok", why="", lines_sent=123456789),
        unsent=lambda: 12345,
        database=SimpleNamespace(url="http://influx.lab.example:8086"),
    )
    return cast("Bench", stub)


def rendered(width: int) -> list[str]:
    """Return the lines on a terminal of so many columns."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen.live(bench(), width))
    return cast("io.StringIO", console.file).getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 71, 72, 80, 99, 100, 160])
def test_no_figure_is_cut(width: int) -> None:
    lines = rendered(width)
    text = "\n".join(lines)
    assert "…" not in text
    for figure in FIGURES:
        assert figure in text
    assert max(map(len, lines)) <= width


def test_a_terminal_of_80_by_24_shows_the_whole_table() -> None:
    assert len(rendered(80)) < 24


def test_the_summary_breaks_between_words() -> None:
    report = RunReport(
        Reconciliation(1000, 3, 4, 990, 3), 1000, {}, [Gap(0, 3.0, "link_down, harmed by a fault")], 0, 0
    )
    lost = [f"mppt: {number} of 1000 samples are not in the journal" for number in range(3)]
    summary = Summary(60.0, {"mppt": report}, {}, "http://127.0.0.1:8086", None, None, lost)
    whole, broken = list(screen.summary_lines(summary)), list(screen.summary_lines(summary, 60))
    assert max(map(len, broken)) <= 60 < max(map(len, whole))
    assert " ".join(broken).split() == " ".join(whole).split()
