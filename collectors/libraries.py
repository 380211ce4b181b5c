"""Libraries that an installation may lack, and the set-up that installs them.

A host that only collects has the extra `collectors`; user commands need more. LIBRARIES lists every module that may be
missing, so that a missing library is distinguished from a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

LIBRARIES: Mapping[str, str] = {
    "influxdb_client": "influxdb-client",
    "labjack": "labjack-ljm",
    "numpy": "numpy",
    "orjson": "orjson",
    "plotext": "plotext",
    "pyarrow": "pyarrow",
    "rich": "rich",
    "serial": "pyserial",
    "urllib3": "urllib3",
    "zstandard": "zstandard",
}
"""Module to distribution."""


def advice(error: ImportError) -> str | None:
    """Return what is missing and how to install it; None when the error does not concern one of LIBRARIES."""
    library = LIBRARIES.get((error.name or "").partition(".")[0])
    if library is None:
        return None
    return f"{library} is not installed in {sys.prefix}; in the checkout run: scripts/setup bench"
