"""A writer to be killed: commits until it dies, and prints `A <last row>` after each COMMIT. Not a test by itself.

Usage: kill_writer.py STATE_DIR SEED. Row k has voltage_v = k; group sizes, compaction and roll-over are random.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from collectors.host.clock import SystemClock
from collectors.journal.backlog import EventAt, Row, Work
from collectors.journal.reader import JournalReader
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter


def main() -> None:
    state, seed = Path(sys.argv[1]), int(sys.argv[2])
    choose, clock = random.Random(seed), SystemClock()
    writer = JournalWriter(state / "load", {}, JournalSettings(ballast_mib=0.0), clock, lambda *_: None)
    chunks = JournalReader(state / "load").after(0, 10**9).chunks
    count = sum(len(chunk.boottime_ns) for chunk in chunks)
    while True:
        size = choose.randint(1, 30)
        stamps = [clock.boottime_ns() for _ in range(size)]
        rows = [Row(stamp, {"voltage_v": float(count + i + 1)}) for i, stamp in enumerate(stamps)]
        writer.commit(Work({("battery", "{}"): rows}, [EventAt(stamps[0], "group", str(size))]))
        count += size
        print("A", count, flush=True)  # noqa: T201
        if choose.random() < 0.1:
            writer.compact()
        if choose.random() < 0.03:
            writer.roll()


if __name__ == "__main__":
    main()
