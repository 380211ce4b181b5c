"""The filters. Each module here is one filter and is found by its name.

A filter module has a function `run`. It carries the state estimates of c cells in place (means [c, n], covs [c, n, n],
memories [c, m]) through k samples each and fills one row of output per sample (outs [c, k, column], with the columns
of `soc.models.measurement_update`). `scratch(n)` returns its work arrays.

May import `soc.cell`, `soc.models` and `soc.errors`. No input or output.
"""

from __future__ import annotations

import importlib
from pkgutil import iter_modules
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from soc.cell.tables import Tables
from soc.errors import OptionError
from soc.models.options import Options
from soc.models.step_input import STEP_SIZE

Array = NDArray[np.float64]

NAMES = sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


class Samples(NamedTuple):
    """Columns in the layout of filters, each [cells, samples]; positive current charges."""

    time_s: Array
    current_a: Array
    voltage_v: Array
    temperature_degc: Array  # nan: missing
    counted_a: Array  # mean current over the interval by a charge counter; nan: none


class FilterRun(Protocol):
    """Carry state estimates through samples, in place."""

    def __call__(
        self,
        tables: Tables,
        o: Options,
        means: Array,
        covs: Array,
        memories: Array,
        samples: Samples,
        outs: Array,
        scratch: tuple[Array, Array, Array, Array, Array],
    ) -> None: ...


def find(name: str) -> FilterRun:
    """Return the filter of this name. Raises `OptionError` if there is none, `ImportError` if its library is absent."""
    if name not in NAMES:
        raise OptionError(f"no filter {name!r}; there are {', '.join(NAMES)}")
    return cast("FilterRun", importlib.import_module(f"{__name__}.{name}").run)


def scratch(states: int) -> tuple[Array, Array, Array, Array, Array]:
    """Return the work arrays of a filter with this number of states: step, root of P, deviations, a point, a gain."""
    n = states
    return np.zeros(STEP_SIZE), np.zeros((n, n)), np.zeros((n + 1, n)), np.zeros(n), np.zeros(n)
