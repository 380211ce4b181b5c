"""Reads the state of shipping from ship.db, for people and other programs. Never writes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from collectors.errors import JournalError
from collectors.journal.directory_view import unreadable
from collectors.journal.schema import connect_reader
from collectors.shipper.cursors import UNSORTED, Health

PATIENCE_MS = 2000


@dataclass(frozen=True, slots=True)
class SinkState:
    """The state of one sink as the shipper last saved it."""

    sink: str
    health: Health | None
    """None before the first request."""
    cursors: dict[str, int]
    """Collector to the sequence number up to which every row is confirmed."""
    dead_letters: dict[str, int]
    """Collector to how many of its lines the sink rejected permanently."""


def sinks(state_dir: Path) -> list[SinkState]:
    """Return every sink that ever had a cursor or a state here; an empty list when nothing was shipped.

    JournalError with advice when ship.db cannot be read.
    """
    path = state_dir / "ship.db"
    try:
        if not path.exists():
            return []
        with path.open("rb"):
            pass
        connection = connect_reader(path, PATIENCE_MS)
        try:
            health = {row[0]: Health(*row[1:]) for row in connection.execute("SELECT * FROM health")}
            cursors = connection.execute("SELECT sink, collector, seq FROM cursor").fetchall()
            dead = connection.execute(
                "SELECT sink, collector, count(*) FROM dead WHERE reason<>? GROUP BY sink, collector", [UNSORTED]
            ).fetchall()
        finally:
            connection.close()
    except OSError as error:
        raise unreadable(path, error) from error
    except (sqlite3.Error, TypeError) as error:
        raise JournalError(
            f"{path}: {error}; if it is damaged, `collectors ship` puts it aside at its next start and sends all again"
        ) from error
    return [
        SinkState(
            name,
            health.get(name),
            {collector: seq for sink, collector, seq in cursors if sink == name and isinstance(seq, int)},
            {collector: count for sink, collector, count in dead if sink == name},
        )
        for name in sorted({str(name) for name in (*health, *(row[0] for row in cursors))})
    ]
