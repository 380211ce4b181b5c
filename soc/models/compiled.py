"""The two ways in which numerical code is compiled: double precision, no fast math, Python's lock not held.

`compiled` is for what Python calls: kept on disk. `inlined` is for what only compiled code calls.

Neither may allocate: reference counting of arrays is switched off (numba's `_nrt`), because counting them at every
inner call costs ten times what the arithmetic does. Callers bring arrays for results and scratch.

numba keys its cache on the file of the compiled function only; a change in a function that it calls, in another file,
would go unseen. So the cache lies in a folder named after the content of all compiled sources. The folder is beside
them, or where that cannot be written under `CACHE_DIRECTORY` (systemd), `XDG_CACHE_HOME` or the home; `NUMBA_CACHE_DIR`
wins over all. `soc compile` fills it beforehand.
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
    """The function, compiled at its first call for the types it is called with, or read from disk."""
    folder, config.CACHE_DIR = config.CACHE_DIR, CACHE  # type: ignore[attr-defined]
    try:
        fast: Any = numba.njit(cache=True, **RULES)(function)
    finally:
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
    return cast("Function", fast)


def inlined(function: Function) -> Function:
    """The function, compiled into each compiled function that calls it."""
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
    """The folder for compiled code: the first of the places that can be written to.

    Where that is not beside the sources, what was compiled there when they were installed is copied, not made again.
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
        except OSError:  # another process was first, or the disk is full: compiled again then
            shutil.rmtree(part, ignore_errors=True)
    return str(folder)


def _roots(beside: Path) -> Iterator[Path]:
    """Where compiled code may lie, in order."""
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
    """Whether files can be made in this folder, which is made where it can be."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return True
    except OSError:
        return False


CACHE = _cache_folder()
