"""The two ways in which numerical code is compiled: double precision, no fast math, Python's lock not held.

`compiled` is for what Python calls: kept on disk. `inlined` is for what only compiled code calls.

Neither may allocate: reference counting of arrays is switched off (numba's `_nrt`), because counting them at every
inner call costs ten times what the arithmetic does. Callers bring arrays for results and scratch.

numba keys its cache on the file of the compiled function only; a change in a function that it calls, in another file,
would go unseen. So the cache lies in a folder named after the content of all compiled sources. The folder is beside
them, or under `XDG_CACHE_HOME` where that cannot be written; `NUMBA_CACHE_DIR` wins over both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., object])

HERE = Path(__file__).parent
SOURCES = ("compiled.py", "cell.py", "options.py", "belief.py", "sigma.py", "models", "filters")
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
    given = os.environ.get("NUMBA_CACHE_DIR")
    beside = HERE / "__pycache__"
    writable = os.access(beside if beside.exists() else HERE, os.W_OK)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "battfleet"
    root = Path(given) if given else beside if writable else home
    return str(root / f"kernels-{_sources_digest()}")


CACHE = _cache_folder()
