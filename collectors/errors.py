"""What can go wrong; each class asks one thing of whoever catches it.

    CollectorError
    ├── ConfigError          stop before starting; names file and key, all problems at once     exit 78
    ├── FrameError           drop what arrived, ask again at the next turn
    │   └── BadChecksum
    ├── NoReply              ask again; after a few, reopen the link                             exit 69
    │   └── NotUnderstood    bytes came, none of them a frame: another device, line speed, noise exit 76
    ├── Refused              the device answered with an error of its own: count it, ask again
    ├── WrongDevice          something else lives on this port: stop and say so                  exit 76
    ├── LinkDown             reopen, waiting longer each time                                    exit 69
    │   └── LinkBusy         someone else holds the port                                         exit 75
    ├── SinkHeld             a database takes nothing until a person has done something          exit 69
    ├── ClockUnknown         samples cannot be shipped before their time is known                exit 69
    └── JournalError         the disk or the file: stop at the start, wait when running          exit 74
        ├── JournalNewer     written by a newer version: stop, touch nothing
        ├── JournalLocked    another process writes it: stop                                     exit 75
        └── JournalReadOnly  the place cannot be written: stop

Every outcome is counted by the class's name. Anything else is a bug: full trace, exit 70, and the service
manager starts us again. Exit codes are those of sysexits.h.
"""

from __future__ import annotations

from collections.abc import Sequence


class CollectorError(Exception):
    """Anything that is expected to go wrong."""

    exit_code = 70


class ConfigError(CollectorError):
    """The configuration cannot be used; `problems` has one line for each mistake, file and key named."""

    exit_code = 78

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class FrameError(CollectorError):
    """The bytes are not a frame. `drop` says how many bytes of the buffer cannot start one."""

    exit_code = 76

    def __init__(self, message: str, drop: int = 1) -> None:
        self.drop = drop
        super().__init__(message)


class BadChecksum(FrameError):
    """The frame's own check does not fit its content."""


class NoReply(CollectorError):
    """No whole frame came before the deadline."""

    exit_code = 69


class NotUnderstood(NoReply):
    """Bytes came before the deadline, but none that this instrument says: another one, a wrong line speed, noise."""

    exit_code = 76


class Refused(CollectorError):
    """The device answered, and its answer is an error of its own; `code` is the device's."""

    exit_code = 76

    def __init__(self, message: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class WrongDevice(CollectorError):
    """A device of another kind, model or generation answers here."""

    exit_code = 76


class LinkDown(CollectorError):
    """The port or connection is absent or was lost."""

    exit_code = 69


class LinkBusy(LinkDown):
    """Another process holds the port."""

    exit_code = 75


class SinkHeld(CollectorError):
    """A database takes nothing until a person has done something; all rows are still in the journal."""

    exit_code = 69


class ClockUnknown(CollectorError):
    """Samples wait in the journal until a time service, or a person, has set the clock."""

    exit_code = 69


class JournalError(CollectorError):
    """The journal cannot be read or written."""

    exit_code = 74


class JournalNewer(JournalError):
    """The file was written by a newer version of this program; nothing was touched."""


class JournalLocked(JournalError):
    """Another process writes this journal."""

    exit_code = 75


class JournalReadOnly(JournalError):
    """The folder or file system cannot be written."""
