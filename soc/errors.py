"""The expected errors of `soc`. Each message names the thing concerned and what to do next.

    SocError
    ├── SeriesError    the recording cannot be used as it is: names the column, the first bad row and its value
    ├── CellError      the cell's parameters are missing or implausible: names file and key, all problems at once
    ├── OptionError    an option has an impossible value or an unknown name
    ├── BeliefError    a stored state estimate does not fit this cell, filter or version: start anew
    ├── FilterError    a filter's numbers are no longer finite: names the filter, the sample and its time
    ├── FileError      a file cannot be read or written: names it and gives the reason
    └── OverwriteError a result would replace an input or another result

Any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence


class SocError(ValueError):
    """The base class of all expected errors."""


class SeriesError(SocError):
    """The recording cannot be used as it is."""


class CellError(SocError):
    """The cell's parameters cannot be used; `problems` has one line for each mistake, with file and key."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class OptionError(SocError):
    """An option has an impossible value or an unknown name."""


class BeliefError(SocError):
    """A stored state estimate does not fit this cell, filter or version."""


class FilterError(SocError):
    """A filter cannot continue with this recording."""


class FileError(SocError):
    """A file cannot be read or written."""


class OverwriteError(SocError):
    """A result would replace an input or another result; nothing was written."""
