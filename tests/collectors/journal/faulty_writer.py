"""A collector's committer on a disk that fails: accepts rows, stops, prints the accepted rows. Not a test by itself.

Usage: faulty_writer.py STATE_DIR CONTROL FAULTS ROWS FIRST. The file CONTROL gets the text FAULTS once the journal is
open (see tests/disk_faults/disk_faults.c). Row k has voltage_v = k. Ends with 74 and the reason when rows are lost.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from collectors.errors import JournalError
from collectors.host.clock import SystemClock
from collectors.journal import committer as module
from collectors.journal.committer import Committer
from collectors.journal.settings import JournalSettings
from collectors.reading import Reading

SETTINGS = JournalSettings(
    commit_window_s=0.01, ballast_mib=0.0, min_free_mib=0.0, queue_mib=0.05, compact_s=0.1, roll_mib=0.1
)


def main() -> None:
    state, control, faults = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    rows, first = int(sys.argv[4]), int(sys.argv[5])
    module.RETRY_S = 0.02
    clock = SystemClock()
    committer = Committer(state, "load", {"device": "load"}, SETTINGS, clock)
    committer.start()
    control.write_text(faults)
    for k in range(first, first + rows):
        committer.put(Reading("battery", clock.boottime_ns(), {"voltage_v": float(k)}))
        time.sleep(0.002)
    try:
        committer.stop(20.0)
    except JournalError as error:
        print(error)  # noqa: T201
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
