"""Estimate the state of charge of a battery cell from recorded current, voltage and temperature.

    import soc

    series = soc.Series(time_s, current_a, voltage_v, temperature_degc)      # positive current charges
    result = soc.estimate(series, soc.load("cell.toml"), soc0=0.8)
    result.soc, result.soc_lo, result.soc_hi

Public names are imported at first use, so reading a cell file does not load the compiler of the filters.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soc.cell.ocv import Ocv as Ocv
    from soc.cell.parameters import CellParameters as CellParameters
    from soc.cell.toml_file import load as load
    from soc.cell.toml_file import save as save
    from soc.errors import SocError as SocError
    from soc.estimation.estimator import Estimate as Estimate
    from soc.estimation.estimator import Estimator as Estimator
    from soc.estimation.estimator import estimate as estimate
    from soc.models.options import Options as Options
    from soc.models.state import StateEstimate as StateEstimate
    from soc.series import Series as Series
    from soc.simulation.simulate import simulate as simulate

_MODULES = {
    "CellParameters": "cell.parameters",
    "Estimate": "estimation.estimator",
    "Estimator": "estimation.estimator",
    "Ocv": "cell.ocv",
    "Options": "models.options",
    "Series": "series",
    "SocError": "errors",
    "StateEstimate": "models.state",
    "estimate": "estimation.estimator",
    "load": "cell.toml_file",
    "save": "cell.toml_file",
    "simulate": "simulation.simulate",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'soc' has no attribute {name!r}")
    value = getattr(import_module(f"soc.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
