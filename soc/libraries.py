"""Libraries that an installation may lack, and the set-up command that installs them.

`scripts/demo` and a bench install only what collectors need. LIBRARIES has each module that can be missing then, so
that a missing library is told from a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

LIBRARIES: Mapping[str, tuple[str, str]] = {
    "filterpy": ("filterpy", "dev"),
    "matplotlib": ("matplotlib", "soc"),
    "numba": ("numba", "soc"),
    "numpy": ("numpy", "soc"),
    "pyarrow": ("pyarrow", "soc"),
    "rich": ("rich", "soc"),
    "scipy": ("scipy", "soc"),
}
"""Module → distribution, and the set-up command that installs it."""


def advice(error: ImportError) -> str | None:
    """Return what is missing and how to install it; None when the error is not about one of LIBRARIES."""
    library, part = LIBRARIES.get((error.name or "").partition(".")[0], ("", ""))
    if not library:
        return None
    return f"{library} is not installed in {sys.prefix}; in the checkout run: scripts/setup {part}"
