"""The results that are written: a piece of an estimate under the vocabulary's names, with the model's identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIGNALS = (
    "soc",
    "soc_lo",
    "soc_hi",
    "soc_counted",
    "innovation_v",
    "innovation_bound_v",
    "current_offset_a",
    "ocv_v",
)
"""The fields of the measurement `soc`; the collectors' vocabulary defines them."""

FILE_COLUMNS = ("soc", "soc_lo", "soc_hi")
"""The columns of a file besides `time_s`, unless all are requested."""


@dataclass(frozen=True, eq=False)
class Results:
    """Signals at times (rising, s), NaN where a signal has no value there; `model` and `version` made them."""

    time_s: Array
    signals: Mapping[str, Array]
    model: str
    version: str = field(default="")
    warnings: Sequence[str] = ()
    """Contradictions of the model in this piece, with evidence."""
