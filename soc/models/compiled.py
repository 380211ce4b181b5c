"""Two decorators that compile numerical code: double precision, no fast math, without holding Python's lock.

`compiled` is for functions that Python calls; their code is kept on disk. `inlined` is for functions that only compiled
code calls.

Compiled functions must not allocate: reference counting of arrays is switched off (numba's `_nrt`), because counting
at every inner call costs ten times as much as the arithmetic. Callers pass arrays for results and scratch.

numba keys its cache on the file of the compiled function only and does not detect a change in a called function in
another file. So the cache directory is named after the content of all compiled sources. It lies beside the sources, or
where that is not writable under `CACHE_DIRECTORY` (systemd), `XDG_CACHE_HOME` or the home directory; `NUMBA_CACHE_DIR`
takes precedence over all. `soc compile` fills the cache beforehand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., object])

HERE = Path(__file__).parents[1]
SOURCES = ("cell", "models", "filters")
RULES: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy", "_nrt": False}


def compiled(function: Function) -> Function:
    """Compile the function at its first call for the types of its arguments, or read the code from disk."""
    folder, config.CACHE_DIR = config.CACHE_DIR, CACHE  # type: ignore[attr-defined]
    try:
        fast: Any = numba.njit(cache=True, **RULES)(function)
    finally:
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
    return cast("Function", fast)


def inlined(function: Function) -> Function:
    """Compile the function into each compiled function that calls it."""
    fast: Any = numba.njit(forceinline=True, **RULES)(function)
    return cast("Function", fast)


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        path = HERE / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _cache_folder() -> str:
    """Return the directory for compiled code: the first candidate that is writable.

    If it is not beside the sources, the code compiled there at installation is copied instead of compiled again.
    """
    name = f"kernels-{_sources_digest()}"
    beside = HERE / "__pycache__"
    folder = next(root for root in _roots(beside) if _is_writable(root)) / name
    installed = beside / name
    if installed.is_dir() and not folder.exists():
        part = folder.with_name(f"{name}.{os.getpid()}.part")
        try:
            shutil.copytree(installed, part)
            part.rename(folder)
        except OSError:  # another process copied first, or the disk is full: the code is compiled again
            shutil.rmtree(part, ignore_errors=True)
    return str(folder)


def _roots(beside: Path) -> Iterator[Path]:
    """Return the candidate directories for compiled code, in order."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
    yield beside
    if os.environ.get("CACHE_DIRECTORY"):  # of a systemd unit
        yield Path(os.environ["CACHE_DIRECTORY"].partition(":")[0])
    if os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.environ["XDG_CACHE_HOME"]) / "battfleet"
    yield Path(os.path.expanduser("~/.cache/battfleet"))  # noqa: PTH111 - Path.home() raises where there is none
    yield Path(tempfile.mkdtemp(prefix="battfleet-"))  # kept for this process only


def _is_writable(root: Path) -> bool:
    """Return whether files can be created in this directory, which is created if possible."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return True
    except OSError:
        return False


CACHE = _cache_folder()
