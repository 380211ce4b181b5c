"""The machine's clocks as the kernel reports them, and fake clocks set by tests."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from collectors.errors import ConfigError
from collectors.host.clock import (
    MANUAL_CLOCK_SOURCE,
    SYNCHRONISED,
    UNSYNCHRONISED,
    FakeClock,
    FileClock,
    SystemClock,
    system_clock,
    write_clock_file,
)


def test_the_offset_is_realtime_minus_boottime() -> None:
    look = SystemClock().look()
    assert abs(look.boottime_ns + look.offset_ns - time.time_ns()) < 1e9
    assert look.state in (UNSYNCHRONISED, SYNCHRONISED)


def test_stamps_rise_and_carry_the_kernels_boot_id() -> None:
    clock = SystemClock()
    first = clock.boottime_ns()
    clock.sleep_s(0.001)
    assert clock.boottime_ns() > first
    assert clock.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_timesyncd_counts_as_synchronised_only_with_a_mark_newer_than_the_boot(tmp_path: Path) -> None:
    mark = tmp_path / "synchronized"
    clock = SystemClock(timesyncd_mark=mark)
    kernel_says = clock.look().state
    mark.touch()
    assert clock.look().state == SYNCHRONISED
    os.utime(mark, (1000, 1000))
    assert clock.look().state == kernel_says


def test_the_step_descriptor_reports_nothing_while_the_clock_is_not_set() -> None:
    clock = SystemClock()
    fd = clock.step_fd()
    assert fd is not None
    assert clock.step_fd() == fd
    clock.clear_step()
    assert select.select([fd], [], [], 0.01)[0] == []


def test_a_fake_clock_returns_the_set_values() -> None:
    clock = FakeClock(boottime_ns=5, offset_ns=10, state=UNSYNCHRONISED)
    clock.sleep_s(1.5)
    assert (clock.boottime_ns(), clock.monotonic_s()) == (1_500_000_005, 1.500000005)
    clock.step_s(-2)
    assert clock.look() == (1_500_000_005, 10 - 2 * 10**9, UNSYNCHRONISED, None)
    clock.synchronise(7)
    assert clock.look()[1:3] == (7, SYNCHRONISED)
    clock.lose_synchronisation()
    assert clock.look().state == UNSYNCHRONISED
    assert clock.step_fd() is None


def test_another_process_reads_the_clock_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clock.json"
    monkeypatch.setenv(MANUAL_CLOCK_SOURCE, str(path))
    clock = system_clock()
    assert isinstance(clock, FileClock)
    write_clock_file(path, state=SYNCHRONISED)
    assert clock.look().state == SYNCHRONISED
    assert abs(clock.look().offset_ns - SystemClock().look().offset_ns) < 1e9
    write_clock_file(path, offset_ns=42, state=UNSYNCHRONISED)
    assert clock.look()[1:3] == (42, UNSYNCHRONISED)
    for nonsense in ("[]", "{", '{"state": "x"}'):
        path.write_text(nonsense)
        with pytest.raises(ConfigError, match=r"clock\.json .*expected"):
            clock.look()


def test_without_a_file_it_is_the_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MANUAL_CLOCK_SOURCE, raising=False)
    assert type(system_clock()) is SystemClock
