"""What importing and compiling promise."""

from __future__ import annotations

import subprocess
import sys

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

import soc
from soc import compiled


def test_every_public_name_is_there_and_others_are_not():
    assert all(getattr(soc, name) is not None for name in soc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = soc.nonsense


def test_cells_and_series_are_read_without_the_compiler_or_scipy():
    program = (
        "import sys, soc; soc.load, soc.Series; print([m for m in ('numba', 'scipy', 'filterpy') if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_estimating_waits_for_neither_optimisers_nor_filterpy():
    program = (
        "import sys, soc; c = soc.CellParameters.plain('c', 2.0, soc.Ocv.of_points([0, 1], [3, 4]), .01, [(.01, 9)]);"
        "soc.estimate(soc.Series([0., 1.], [0., 1.], [3.5, 3.5], [25., 25.]), c);"
        "print([m for m in ('scipy.optimize', 'filterpy') if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_compiled_code_is_kept_under_the_digest_of_its_sources(tmp_path, monkeypatch):
    assert compiled._sources_digest() in compiled.CACHE
    for name in compiled.SOURCES:
        path = compiled.HERE / name
        if path.is_dir():
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_bytes(path.read_bytes())
    monkeypatch.setattr(compiled, "HERE", tmp_path)
    before = compiled._sources_digest()
    (tmp_path / "models" / "new.py").write_text("x = 1")
    assert compiled._sources_digest() != before


def test_compiled_code_cannot_allocate():
    """Without counted references an allocation would leak; the compiler refuses it."""

    @numba.njit(**compiled.RULES)
    def allocating(n):
        return np.zeros(n)

    with pytest.raises(TypingError, match="Only accept returning of array passed into the function"):
        allocating(3)
