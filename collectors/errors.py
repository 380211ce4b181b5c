"""Expected errors; each class requires one reaction of the code that catches it.

    CollectorError
    ├── ConfigError          stop before starting; names file and key, all problems at once     exit 78
    ├── FrameError           drop the bytes, ask again in the next poll cycle
    │   └── BadChecksum
    ├── NoReply              ask again; after a few, reopen the link                             exit 69
    │   └── NotUnderstood    bytes arrived, none of them a frame: another device, line speed, noise exit 76
    ├── Refused              the device responded with an error of its own: count it, ask again
    ├── WrongDevice          another device is on this port: stop and report it                  exit 76
    ├── LinkDown             reopen, waiting longer each time                                    exit 69
    │   └── LinkBusy         another process holds the port                                      exit 75
    ├── SinkHeld             a database accepts nothing until a person acts                      exit 69
    ├── ClockUnknown         samples cannot be shipped before their time is known                exit 69
    └── JournalError         the disk or the file: stop at the start, wait when running          exit 74
        ├── JournalNewer     written by a newer version: stop, change nothing
        ├── JournalLocked    another process writes it: stop                                     exit 75
        └── JournalReadOnly  the directory cannot be written: stop

Every outcome is counted by the class's name. Any other exception is a bug: full traceback, exit 70, and the service
manager restarts the process. Exit codes are those of sysexits.h.
"""

from __future__ import annotations

from collections.abc import Sequence


class CollectorError(Exception):
    """Base class of all expected errors."""

    exit_code = 70


class ConfigError(CollectorError):
    """The configuration cannot be used; `problems` has one line for each mistake, naming file and key."""

    exit_code = 78

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class FrameError(CollectorError):
    """The bytes are not a frame. `drop` is the number of bytes at the start of the buffer that cannot begin one."""

    exit_code = 76

    def __init__(self, message: str, drop: int = 1) -> None:
        self.drop = drop
        super().__init__(message)


class BadChecksum(FrameError):
    """The frame's checksum does not match its content."""


class NoReply(CollectorError):
    """No whole frame arrived before the deadline."""

    exit_code = 69


class NotUnderstood(NoReply):
    """Bytes arrived before the deadline, but none of this instrument's: another one, a wrong line speed, noise."""

    exit_code = 76


class Refused(CollectorError):
    """The device responded with an error of its own; `code` is the device's."""

    exit_code = 76

    def __init__(self, message: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class WrongDevice(CollectorError):
    """A device of another kind, model or generation responds here."""

    exit_code = 76


class LinkDown(CollectorError):
    """The port or connection is absent or was lost."""

    exit_code = 69


class LinkBusy(LinkDown):
    """Another process holds the port."""

    exit_code = 75


class SinkHeld(CollectorError):
    """A database accepts nothing until a person acts; all rows are still in the journal."""

    exit_code = 69


class ClockUnknown(CollectorError):
    """Samples wait in the journal until a time service sets the clock, or a person sets it manually."""

    exit_code = 69


class JournalError(CollectorError):
    """The journal cannot be read or written."""

    exit_code = 74


class JournalNewer(JournalError):
    """The file was written by a newer version of this program; nothing was changed."""


class JournalLocked(JournalError):
    """Another process writes this journal."""

    exit_code = 75


class JournalReadOnly(JournalError):
    """The directory or file system cannot be written."""
