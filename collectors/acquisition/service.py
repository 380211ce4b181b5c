"""One collector process: poller in the main thread, committer in its own, watchdog notifications and reports."""

from __future__ import annotations

import logging
import resource
import signal
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from collectors.acquisition.poller import Poller
from collectors.config import Config
from collectors.device import Output
from collectors.errors import WrongDevice
from collectors.host.clock import Clock, system_clock
from collectors.host.metrics import resident_bytes
from collectors.host.systemd import has_manager, notify, status_line, watchdog_interval_s
from collectors.journal import notes
from collectors.journal.committer import Committer
from collectors.reading import Event, Reading

log = logging.getLogger("collectors")

STOP_S = 1.2
"""A stop must complete in 2 s: the share of it that the committer gets, in s."""
WRONG_DEVICE_S = 30.0
"""Time between attempts, under a service manager, at a port where another instrument responds."""
COMMIT_PATIENCE_S = 20.0
"""A committer that has not finished a round for this long is stuck: watchdog notifications stop."""


class LoggingSink:
    """Passes everything to the committer; events are also logged."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    def put(self, item: Output) -> None:
        """Accept one reading or event."""
        if isinstance(item, Event):
            log.info("%s: %s", item.kind, item.detail)
        self._committer.put(item)


class Totals(NamedTuple):
    """The counters since the start of the process, at one report."""

    at_s: float
    """CLOCK_MONOTONIC in s."""
    processor_s: float
    """User and system time of all threads in s, from the start of the process, including set-up and imports."""
    turns: int
    turn_time_s: float
    skipped: int


def processor_s() -> float:
    """Return the processor time that this process has used, in s."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def processor_share(before: Totals | None, now: Totals) -> float | None:
    """Return processor time per wall time between two reports; None at the first, which has no predecessor."""
    if before is None or now.at_s <= before.at_s:
        return None
    return (now.processor_s - before.processor_s) / (now.at_s - before.at_s)


class Reporter:
    """Writes the collector's own metrics, and notifies the service manager that the process is alive."""

    def __init__(self, config: Config, clock: Clock, committer: Committer) -> None:
        self._clock = clock
        self._committer = committer
        self._report_s = config.collector.report_s
        self._ping_s = min(watchdog_interval_s() or self._report_s, self._report_s)
        self._next_report_s = clock.monotonic_s()
        self._next_ping_s = clock.monotonic_s()
        self._keep_notes = notes.TailingReader(config.collector.state_dir, clock)
        self._last: Totals | None = None

    def __call__(self, poller: Poller) -> None:
        """Do what is due; cheap when nothing is. Raises the error that ended the committer."""
        if self._committer.failure is not None:
            raise self._committer.failure
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_ping_s:
            self._next_ping_s = now_s + self._ping_s
            self._ping(poller, now_s)
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + self._report_s
            self._report(poller, now_s)

    def _ping(self, poller: Poller, now_s: float) -> None:
        age = "no sample yet" if poller.last_good_s is None else f"last sample {now_s - poller.last_good_s:.1f} s ago"
        trouble = f"; {self._committer.trouble}" if self._committer.trouble else ""
        status = status_line(f"{poller.state}; {age}; {self._committer.queue_rows} rows queued{trouble}")
        alive = now_s - self._committer.committed_at_s < COMMIT_PATIENCE_S
        notify(f"WATCHDOG=1\n{status}" if alive else status)

    def _report(self, poller: Poller, now_s: float) -> None:
        self._keep_notes(self._committer.clock_state)
        now = Totals(now_s, processor_s(), poller.turns, poller.turn_time_s, poller.skipped)
        before, self._last = self._last, now
        turns = now.turns - (before.turns if before else 0)
        turn_time_s = now.turn_time_s - (before.turn_time_s if before else 0.0)
        skipped = now.skipped - (before.skipped if before else 0)
        values: dict[str, float | None] = {
            "samples": poller.samples,
            "skipped": poller.skipped,
            "errors": sum(n for name, n in poller.outcomes.items() if name != "ok"),
            "reconnects": poller.reconnects,
            "last_sample_age_s": None if poller.last_good_s is None else now_s - poller.last_good_s,
            "latency_s": turn_time_s / turns if turns else None,
            "bytes_in": poller.bytes_in,
            "queue_rows": self._committer.queue_rows,
            "journal_bytes": self._committer.journal_bytes,
            "disk_free_bytes": self._committer.disk_free_bytes,
            "memory_bytes": resident_bytes(),
            "cpu_share": processor_share(before, now),
            "dropped": self._committer.dropped,
            "clock_state": self._committer.clock_state,
        }
        now_ns = self._clock.boottime_ns()
        self._committer.put(Reading("collector", now_ns, values))
        for name, count in poller.outcomes.items():
            self._committer.put(Reading("collector", now_ns, {"outcomes": count}, {"outcome": name}))
        if skipped > 0:
            detail = f"{skipped} slots passed while a turn still ran or the instrument was silent"
            self._committer.put(Event("slots_skipped", detail))


def linger(status: str, clock: Clock, stopping: Callable[[], bool]) -> None:
    """Wait WRONG_DEVICE_S with watchdog notifications, or until asked to stop: a restart would follow at once.

    The right instrument may be connected at any time, so the process must not give up. A start every few seconds would
    take more processor time than reading does, and write two events each.
    """
    until_s = clock.monotonic_s() + WRONG_DEVICE_S
    while clock.monotonic_s() < until_s and not stopping():
        notify(f"WATCHDOG=1\n{status}")
        clock.sleep_s(1.0)


def run(config: Config) -> None:
    """Collect until SIGTERM or SIGINT, then commit everything and return.

    Raises JournalError when the journal cannot be opened or written, WrongDevice when another device responds.
    """
    logging.basicConfig(level=logging.INFO, format=f"{config.collector.name}: %(message)s")
    stop_signals: Counter[int] = Counter()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: stop_signals.update([signum]))
    clock = system_clock()
    settings = config.collector
    committer = Committer(settings.state_dir, settings.name, config.tags, config.journal, clock)
    committer.start()
    reporter = Reporter(config, clock, committer)
    sink = LoggingSink(committer)
    poller = Poller(config, sink, clock, lambda: bool(stop_signals), lambda: reporter(poller))
    notify("READY=1\nSTATUS=starting")
    sink.put(Event("collector_start", f"{config.device.kind} on {settings.link}"))
    try:
        poller.run()
        sink.put(Event("collector_stop", f"asked to stop after {poller.samples} readings"))
    except BaseException as error:
        sink.put(Event("collector_stop", f"{type(error).__name__}: {error}"))
        if isinstance(error, WrongDevice) and has_manager():
            status = status_line(f"{error}; tried again every {WRONG_DEVICE_S:g} s")
            linger(status, clock, lambda: bool(stop_signals))
        raise
    finally:
        notify("STOPPING=1")
        committer.stop(STOP_S)
