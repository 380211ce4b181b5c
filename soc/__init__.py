"""Series in, state of charge out.

    import soc
    series = soc.Series(time_s, current_a, voltage_v, temperature_degc)      # positive current charges
    result = soc.estimate(series, soc.load("cell.toml"), soc0=0.8)
    result.soc, result.soc_lo, result.soc_hi

Names are imported at first use: reading a cell file does not wait for the compiler of the filters.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soc.belief import Belief as Belief
    from soc.cellfile import load as load
    from soc.cellfile import save as save
    from soc.errors import SocError as SocError
    from soc.estimator import Estimate as Estimate
    from soc.estimator import Estimator as Estimator
    from soc.estimator import estimate as estimate
    from soc.ocv import Ocv as Ocv
    from soc.options import Options as Options
    from soc.parameters import CellParameters as CellParameters
    from soc.series import Series as Series
    from soc.simulation import simulate as simulate

_PLACES = {
    "Belief": "belief",
    "CellParameters": "parameters",
    "Estimate": "estimator",
    "Estimator": "estimator",
    "Ocv": "ocv",
    "Options": "options",
    "Series": "series",
    "SocError": "errors",
    "estimate": "estimator",
    "load": "cellfile",
    "save": "cellfile",
    "simulate": "simulation",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'soc' has no attribute {name!r}")
    value = getattr(import_module(f"soc.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
