"""kill -9 at any moment: every acknowledged row is stored once, in order, and no row is torn.

BATTFLEET_KILLS=200 makes the test longer. (It proves little about power cuts, after which the kernel's buffers are lost
too. synchronous=FULL is checked by `test_writer`.)
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from collectors.journal.reader import JournalReader
from collectors.journal.schema import connect_reader, journal_files
from tests.testing.journal import column

KILLS = int(os.environ.get("BATTFLEET_KILLS", "20"))
WRITER = Path(__file__).with_name("kill_writer.py")


def run_and_kill(state: Path, seed: int, delay_s: float) -> int:
    """Return the last row that the killed writer acknowledged; 0 if it acknowledged none."""
    command = [sys.executable, str(WRITER), str(state), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()  # the delay counts from its first acknowledgement
        timer = threading.Timer(delay_s, writer.kill)
        timer.start()
        output = first + writer.stdout.read()
        timer.cancel()
        assert writer.stderr is not None
        errors = writer.stderr.read()
    assert not errors
    whole = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return int(whole[-1].split()[1]) if whole else 0


@pytest.mark.skipif(KILLS > 60 and "CI" in os.environ, reason="a campaign is not for every run")
def test_no_acknowledged_row_is_lost_duplicated_or_torn(tmp_path: Path) -> None:
    choose = random.Random(1)
    reader = JournalReader(tmp_path / "load")
    for trial in range(KILLS):
        acknowledged = run_and_kill(tmp_path, trial, choose.uniform(0.0, 0.25))
        values = [v for chunk in reader.after(0, 10**9).chunks for v in column(chunk, "voltage_v")]
        assert values == [float(i + 1) for i in range(len(values))], f"trial {trial}: doubled, lost or out of order"
        assert len(values) >= acknowledged, f"trial {trial}: acknowledged {acknowledged}, found {len(values)}"
        assert reader.take_damage() == []
    for path in journal_files(tmp_path / "load"):
        connection: sqlite3.Connection = connect_reader(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
