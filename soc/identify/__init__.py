"""Identify the parameters of a cell and their accuracy from recordings.

ocv            OCV, capacity and efficiency from the four-script test or one slow discharge and charge
runs           a recording with its reference state of charge
dynamic        all other parameters, by separable bounded least squares
problem        the bounded linear problem of one temperature
regressors     one run as the columns of that problem
least_squares  bounded least squares, penalties, correlation time
fit_results    settings and results of a fit
interpolation  rows of the cell between temperatures that lie far apart
noise          residuals on held-out data
result         the whole identification: `identify(runs, ocv, about)`
experiments    the file of experiments that `soc identify` reads
report         the result as HTML and JSON
recipes        how the shipped cells were identified

May import every package of `soc` except `soc.cli`.
"""

from soc.identify.fit_results import Settings
from soc.identify.result import About, Identified, identify
from soc.identify.runs import Run

__all__ = ["About", "Identified", "Run", "Settings", "identify"]
