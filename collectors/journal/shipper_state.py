"""What the journal reads of the shipper's state: how far each sink has read, and which offsets are frozen.

Both are in the shipper's own file, `<state>/ship.db`, because only the collector may write the collector's files:

    cursor(sink, collector, seq, …)                  the sink has stored everything up to seq
    frozen(collector, boot_id, bt, off, state)       key: the first three columns
    confirmed(sink, collector, day, seq, wall_ns)    at `wall_ns` everything up to seq was stored; one row a day

Freezing: before the first row of a segment of the clock table is sent, the shipper stores the offset (and its state)
with which it sends the row, keyed by the boottime at which the segment begins. Readers of the journal let these
override the clock table (`timeline.with_frozen`), so a resend has the same stamps whatever offset is found later. The
collector copies them into its own clock table when it compacts, so that they survive the loss of ship.db.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.journal.records import ClockStep
from collectors.journal.schema import connect_reader

PATIENCE_MS = 500
"""Maximum wait of the committer for the shipper's lock; it retries soon."""


def ship_db(directory: Path) -> Path:
    """Return the shipper's file for a collector's directory."""
    return directory.parent / "ship.db"


def read_frozen(path: Path, collector: str) -> dict[str, list[ClockStep]]:
    """Return the frozen segments of each boot; none if nothing was shipped."""
    found: dict[str, list[ClockStep]] = {}
    query = "SELECT boot_id, bt, off, state FROM frozen WHERE collector=? ORDER BY boot_id, bt"
    for boot_id, boottime_ns, offset_ns, state in _rows(path, query, collector):
        if not all(isinstance(number, int) for number in (boottime_ns, offset_ns, state)):  # the file is damaged
            continue
        found.setdefault(boot_id, []).append(ClockStep(boottime_ns, offset_ns, state, frozen=True))
    return found


def read_cursors(path: Path, collector: str) -> dict[str, int]:
    """Return for each sink the sequence number up to which it has everything; none if nothing was shipped."""
    rows = _rows(path, "SELECT sink, seq, live FROM cursor WHERE collector=?", collector)
    return {sink: seq for sink, seq, live in rows if _is_cursor(seq, live)}


def _is_cursor(seq: object, live: object) -> bool:
    """Return whether the two values are valid: a damaged ship.db must never cause the deletion of a journal."""
    return isinstance(seq, int) and isinstance(live, int) and 0 <= seq <= live < 2**62


def shipped_seq(path: Path, collector: str, sinks: Sequence[str]) -> int:
    """Return up to where every one of the sinks has everything; 0 if any has nothing yet or ship.db cannot be read."""
    cursors = read_cursors(path, collector)
    return min((cursors.get(sink, 0) for sink in sinks), default=0)


def confirmed_seq(path: Path, collector: str, sinks: Sequence[str], before_ns: int) -> int:
    """Return up to where every one of the sinks had everything at the wall time `before_ns`; 0 if that is not known."""
    query = "SELECT sink, max(seq) FROM confirmed WHERE collector=? AND wall_ns<=? GROUP BY sink"
    found = {sink: seq for sink, seq in _rows(path, query, collector, before_ns) if isinstance(seq, int)}
    return min((found.get(sink, 0) for sink in sinks), default=0)


def _rows(path: Path, query: str, *arguments: str | int) -> list[Any]:
    """Return the query's rows; none while there is no such file or table, or the shipper holds the lock for long.

    An empty result is safe: nothing counts as shipped, and earlier frozen offsets are in the clock table, too.
    """
    if not path.exists():
        return []
    try:
        connection = connect_reader(path, PATIENCE_MS)
    except sqlite3.DatabaseError:
        return []
    try:
        return connection.execute(query, arguments).fetchall()
    except sqlite3.DatabaseError:
        return []
    finally:
        connection.close()
