"""Clocks of the host: boot time, wall time, and the offset between them.

Samples are stamped with CLOCK_BOOTTIME in ns, which starts at 0 with every boot, counts through suspend, never jumps.
CLOCK_REALTIME is wall time; after power-up it is wrong until it is set. NTP slews both alike, so REALTIME − BOOTTIME
(`ClockReading.offset_ns`) changes only when REALTIME is set. A table of such steps therefore converts any stamp to
true time afterwards, exactly.

    boottime_ns()    stamps                       look()        offset and whether REALTIME is synchronised
    monotonic_s()    timers, deadlines            step_fd()     readable when REALTIME was set

`SystemClock` is the host's clock. A test sets `FakeClock`. `FileClock` lets a virtual bench set the clock of another
process: it reads offset and state from a small file named by $COLLECTORS_CLOCK.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from collectors.errors import ConfigError

UNSYNCHRONISED, SYNCHRONISED, SET_BY_PERSON = 0, 1, 2
"""Clock states: not set yet; set by a time service; set manually."""

MANUAL_CLOCK_SOURCE = "COLLECTORS_CLOCK"
"""Environment variable that names the file of a FileClock."""


class ClockReading(NamedTuple):
    """One reading of the clocks."""

    boottime_ns: int
    offset_ns: int
    """REALTIME − BOOTTIME in ns."""
    state: int
    """UNSYNCHRONISED or SYNCHRONISED: whether a time service has synchronised REALTIME."""
    max_error_us: int | None = None
    """The time service's bound on its error in µs, where it gives one."""


class Clock(Protocol):
    """The interface to the clocks that a collector uses."""

    @property
    def boot_id(self) -> str:
        """Return the id of this boot, the origin of `boottime_ns`."""
        ...

    def boottime_ns(self) -> int:
        """Return the time since boot, suspend included, in ns: the stamp of every sample."""
        ...

    def monotonic_s(self) -> float:
        """Return the seconds of a clock that never jumps: for timers and deadlines only."""
        ...

    def sleep_s(self, seconds: float) -> None:
        """Wait; returns early only when a signal handler raises."""
        ...

    def look(self) -> ClockReading:
        """Return the offset of REALTIME to BOOTTIME now, with its state."""
        ...

    def step_fd(self) -> int | None:
        """Return a descriptor that becomes readable when REALTIME is set, or None if there is none."""
        ...

    def clear_step(self) -> None:
        """Reset `step_fd`, so that it waits for the next step."""
        ...


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class _Timex(ctypes.Structure):
    """The head of struct timex (adjtimex(2)); the tail reserves room for what the kernel writes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("tail", ctypes.c_byte * 256),
    )


TIME_ERROR, STA_UNSYNC = 5, 0x40  # adjtimex(2)
TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2  # timerfd_create(2)
NEVER_S = 2**40 if ctypes.sizeof(ctypes.c_long) == 8 else 2**31 - 1
"""The timer's expiry, as far away as time_t allows: only its cancellation matters."""


class SystemClock:
    """The host's clocks."""

    def __init__(self, timesyncd_mark: Path = Path("/run/systemd/timesync/synchronized")) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timesyncd_mark = timesyncd_mark
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._step_fd: int | None = None

    @property
    def boot_id(self) -> str:
        """Return the kernel's random id of this boot."""
        return self._boot_id

    def boottime_ns(self) -> int:
        """Return CLOCK_BOOTTIME in ns."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def monotonic_s(self) -> float:
        """Return CLOCK_MONOTONIC in s."""
        return time.monotonic()

    def sleep_s(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def look(self) -> ClockReading:
        """Return offset and synchronisation; the offset is that of the narrowest of three brackets BOOT, REAL, BOOT."""
        width_ns, boottime_ns, offset_ns = min(_bracket() for _ in range(3))
        del width_ns
        timex = _Timex()
        result = self._libc.adjtimex(ctypes.byref(timex))
        in_sync = result not in (-1, TIME_ERROR) and not timex.status & STA_UNSYNC
        in_sync = in_sync or self._timesyncd_vouches(offset_ns)
        return ClockReading(boottime_ns, offset_ns, SYNCHRONISED if in_sync else UNSYNCHRONISED, timex.maxerror)

    def _timesyncd_vouches(self, booted_ns: int) -> bool:
        """Return whether systemd-timesyncd has set the clock since boot; chrony and ntpd clear the kernel's bit."""
        try:
            return self._timesyncd_mark.stat().st_mtime_ns > booted_ns
        except OSError:
            return False

    def step_fd(self) -> int | None:
        """Return a timerfd that becomes readable within 1 ms of a step; None if the kernel refuses one."""
        if self._step_fd is None:
            fd = self._libc.timerfd_create(time.CLOCK_REALTIME, os.O_CLOEXEC | os.O_NONBLOCK)
            self._step_fd = fd if fd >= 0 else None
            self.clear_step()
        return self._step_fd

    def clear_step(self) -> None:
        """Arm the timer again: after a cancellation it stays readable until then."""
        if self._step_fd is not None:
            spec = _Itimerspec(_Timespec(0, 0), _Timespec(NEVER_S, 0))
            flags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
            self._libc.timerfd_settime(self._step_fd, flags, ctypes.byref(spec), None)


def _bracket() -> tuple[int, int, int]:
    """Return width, BOOTTIME at the midpoint and REALTIME − BOOTTIME of one BOOT, REAL, BOOT reading, all in ns."""
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    real_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
    after_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    middle_ns = (before_ns + after_ns) // 2
    return after_ns - before_ns, middle_ns, real_ns - middle_ns


class FakeClock:
    """A clock for tests: it advances only by `sleep_s`, and offset and state change only by its methods."""

    def __init__(
        self, boottime_ns: int = 0, offset_ns: int = 0, state: int = SYNCHRONISED, boot_id: str = "fake-boot"
    ) -> None:
        self.boot_id = boot_id
        self._boottime_ns = boottime_ns
        self.offset_ns = offset_ns
        self.state = state

    def boottime_ns(self) -> int:
        """Return the simulated time since boot in ns."""
        return self._boottime_ns

    def monotonic_s(self) -> float:
        """Return the same in s."""
        return self._boottime_ns / 1e9

    def sleep_s(self, seconds: float) -> None:
        """Advance the clock by `seconds`, without waiting."""
        self._boottime_ns += round(seconds * 1e9)

    def look(self) -> ClockReading:
        """Return the simulated offset and state."""
        return ClockReading(self._boottime_ns, self.offset_ns, self.state)

    def step_fd(self) -> int | None:
        """Return None: steps are seen at the next reading."""
        return None

    def clear_step(self) -> None:
        """Do nothing."""

    def step_s(self, seconds: float) -> None:
        """Set REALTIME forward, or back if negative."""
        self.offset_ns += round(seconds * 1e9)

    def synchronise(self, offset_ns: int | None = None) -> None:
        """Simulate a time service that sets REALTIME (if `offset_ns` is given) and synchronises it."""
        self.offset_ns = self.offset_ns if offset_ns is None else offset_ns
        self.state = SYNCHRONISED

    def lose_synchronisation(self) -> None:
        """Simulate the loss of the time service."""
        self.state = UNSYNCHRONISED


class FileClock(SystemClock):
    """The host's own BOOTTIME, with offset and state from a file: `{"offset_ns": …, "state": 0 or 1}`.

    For a key that is left out, the host's own value is used. `write_clock_file` writes the file atomically.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def look(self) -> ClockReading:
        """Return the host's reading, overridden by the file; ConfigError when the file's content is not valid."""
        try:
            told = json.loads(self._path.read_text(encoding="utf-8"))
            real = super().look()
            return real._replace(
                offset_ns=int(told.get("offset_ns", real.offset_ns)), state=int(told.get("state", real.state))
            )
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f'{self._path} (${MANUAL_CLOCK_SOURCE}): expected {{"offset_ns": …, "state": 0 or 1}}: {error}'
            ) from error


def write_clock_file(path: Path, offset_ns: int | None = None, state: int | None = None) -> None:
    """Set every FileClock that reads `path`: REALTIME − BOOTTIME in ns, and the state."""
    told = {"offset_ns": offset_ns, "state": state}
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(json.dumps({k: v for k, v in told.items() if v is not None}), encoding="utf-8")
    draft.replace(path)


def system_clock() -> Clock:
    """Return the host's clock, or the FileClock that $COLLECTORS_CLOCK names."""
    told_by = os.environ.get(MANUAL_CLOCK_SOURCE)
    return FileClock(Path(told_by)) if told_by else SystemClock()
