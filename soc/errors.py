"""What can go wrong in `soc`; each names the thing and what to do next.

    SocError
    ├── SeriesError    the recording cannot be used as it is: names the column, the first bad row and its value
    ├── CellError      the cell's parameters are missing or absurd: names file and key, all problems at once
    ├── OptionError    an option has no meaning or no such name
    ├── BeliefError    a stored belief does not fit this cell, filter or version: start anew
    ├── FilterError    a filter's numbers are no longer finite: names the filter, the sample and its time
    ├── FileError      a file cannot be read or written: names it and says why
    └── OverwriteError a result would take the place of an input or of another result

Anything else is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence


class SocError(ValueError):
    """Anything that is expected to go wrong."""


class SeriesError(SocError):
    """The recording cannot be used as it is."""


class CellError(SocError):
    """The cell's parameters cannot be used; `problems` has one line for each mistake, file and key named."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class OptionError(SocError):
    """An option has no meaning or no such name."""


class BeliefError(SocError):
    """A stored belief does not fit this cell, filter or version."""


class FilterError(SocError):
    """A filter cannot go on with this recording."""


class FileError(SocError):
    """A file cannot be read or written."""


class OverwriteError(SocError):
    """A result would take the place of an input or of another result; nothing was written."""
