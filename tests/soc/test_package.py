"""Imports, public names and compilation of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

import soc
from soc.models import compiled


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


def test_estimating_imports_neither_optimisers_nor_filterpy():
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


def test_compiled_code_of_a_read_only_installation_is_copied_and_not_made_again(tmp_path, monkeypatch):
    installed = tmp_path / "soc" / "__pycache__" / "kernels-1"
    installed.mkdir(parents=True)
    (installed / "filter.nbi").write_text("compiled")
    monkeypatch.setattr(compiled, "HERE", tmp_path / "soc")
    monkeypatch.setattr(compiled, "_sources_digest", lambda: "1")
    monkeypatch.setattr(compiled, "_is_writable", lambda root: root.is_relative_to(tmp_path / "home"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "battfleet").mkdir(parents=True)
    folder = Path(compiled._cache_folder())
    assert folder == tmp_path / "home" / "battfleet" / "kernels-1"
    assert (folder / "filter.nbi").read_text() == "compiled"


def test_without_a_writable_cache_compiled_code_goes_to_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(compiled, "_is_writable", lambda root: root.name.startswith("battfleet-"))
    assert Path(compiled._cache_folder()).is_relative_to(tmp_path)


def test_compilation_is_announced_on_a_terminal_only(monkeypatch, capsys):
    from soc.compilation import told

    @numba.njit
    def fresh(x):
        return x + 1

    with told():
        fresh(1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with told():
        fresh(1.0)
    assert "compiling, once: 1 functions" in capsys.readouterr().err
