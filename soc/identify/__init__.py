"""From recordings to the parameters of a cell, with what they are worth.

ocv         OCV, capacity and efficiency from the four-script test or one slow pair
runs        a recording with its reference state of charge
dynamic     everything else, by separable bounded least squares
between     rows of the cell between temperatures that lie far apart
noise       residuals on data that the fit did not see
identified  all of it: `identify(runs, ocv, about)`
report      what a reader wants to see, as HTML and JSON
recipes     how the shipped cells were made
"""

from soc.identify.fit_results import Settings
from soc.identify.result import About, Identified, identify
from soc.identify.runs import Run

__all__ = ["About", "Identified", "Run", "Settings", "identify"]
