"""Compile the filters beforehand, and report compilation on the terminal when it happens later.

Compiled code depends on the filter and on a cell's number of R–C pairs and states; all shipped cells have three pairs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba.core.event as numba_event

import soc
from soc.cell.parameters import CellParameters
from soc.filters import NAMES

PAIRS = 3


def compile_filters(pairs: int = PAIRS) -> list[str]:
    """Compile the code for estimating and simulating a cell with this number of pairs; returns the filters' names."""
    curve = soc.Ocv.of_points([0.0, 1.0], [3.0, 4.0])
    cell = CellParameters.plain("compiled", 1.0, curve, 0.01, [(0.01, 10.0 * 10**k) for k in range(pairs)])
    series, _ = soc.simulate(cell, [0.0, 1.0, 2.0], [0.0, -1.0, -1.0], 25.0, 0.5)
    done = []
    for name in NAMES:
        try:
            soc.estimate(series, cell, name, soc0=0.5)
        except ImportError:  # filterpy is for comparisons only
            continue
        done.append(name)
    return done


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class _Teller(numba_event.Listener):
    """Shows on a terminal that code is being compiled: the number of functions so far and the elapsed time."""

    def __init__(self) -> None:
        self._depth = self._functions = 0
        self._begun_s = 0.0

    def on_start(self, event: Any) -> None:  # noqa: ARG002 - numba's interface
        """Show that a function is being compiled; functions that it calls are counted, too."""
        if self._depth == 0 and self._functions == 0:
            self._begun_s = time.monotonic()
        self._depth += 1
        self._functions += 1
        seconds = time.monotonic() - self._begun_s
        _show(
            f"\rsoc: compiling, once: {self._functions} functions, {seconds:.0f} s (`soc compile` does it beforehand)"
        )

    def on_end(self, event: Any) -> None:  # noqa: ARG002 - numba's interface
        """Remove the line when the outermost function is ready."""
        self._depth -= 1
        if self._depth == 0:
            _show("\r\033[K")


@contextmanager
def told() -> Iterator[None]:
    """Report on standard error, if it is a terminal, when code is compiled within this block."""
    if not sys.stderr.isatty():
        yield
        return
    with numba_event.install_listener("numba:compile", _Teller()):
        yield
