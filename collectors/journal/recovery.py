"""Recovery of a damaged file: every row with a correct checksum is appended to the active file under a new number.

It runs in slices between commits. Each slice and the progress are one transaction, so a crash repeats nothing. An
unreadable page is approached from both sides by halving the range of row numbers. Rows that were shipped before are
sent again and overwrite themselves. A disk with intermittent errors may return later what it does not return now: only
after PATIENCE attempts does unreadable data count as lost.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collectors.journal.active_file import ActiveFile
from collectors.journal.backlog import EventAt
from collectors.journal.codec import Undecodable, encode_hot
from collectors.journal.compact import compact, store_block
from collectors.journal.records import Chunk, Corruption
from collectors.journal.row_mapping import BLK, HOT, Lookup, canonical, read_boots
from collectors.journal.schema import EVENT_TAGS, connect_reader, get_meta, naming, put_meta, snapshot, transaction

SLICE_ROWS = 50
PATIENCE = 30
"""Attempts to read a slice, one after each commit, before a disk error is regarded as permanent."""
FOR_GOOD = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Errors of the file's content, which a second attempt cannot remove. Others are errors of the disk or of memory."""
KEY = "salvage:"
ORDER = ("blk", "hot", "event")
_ROWID = {"blk": "id", "hot": "seq", "event": "seq"}
_COLUMNS = {"blk": f"id, {BLK}", "hot": f"seq, {HOT}", "event": "seq, seq, boot, bt, kind, detail"}


@dataclass(slots=True)
class Progress:
    """How far one file has been read, as stored in the active file's meta table."""

    upto: int | None
    """Rows above this seq were never acknowledged and are written again from memory; None: copy all."""
    table: str = ORDER[0]
    after: int = 0
    rows: int = 0
    lost: int = 0
    """Rows, or whole tables, that could not be read."""

    def text(self) -> str:
        """Return the progress as it is stored."""
        return json.dumps([self.upto, self.table, self.after, self.rows, self.lost])

    @classmethod
    def parse(cls, text: str) -> Progress:
        """Return the progress that `text` stores."""
        return cls(*json.loads(text))


class NotNow(Exception):
    """The disk did not return the next slice; a later attempt may succeed."""


def begun(connection: sqlite3.Connection) -> dict[str, Progress]:
    """Return the recoveries that the active file has recorded, by the damaged file's name."""
    return {k.removeprefix(KEY): Progress.parse(v) for k, v in get_meta(connection).items() if k.startswith(KEY)}


def salvage_slice(live: ActiveFile, bad: Path, progress: Progress, *, is_last_try: bool = True) -> bool:
    """Append the next rows of `bad` to the active file; return whether more is left. Advances `progress`.

    Raises NotNow when the disk did not return them and this is not the last attempt; nothing has changed then.
    """
    table = progress.table
    try:
        with snapshot(connect_reader(bad)) as source:
            lookup, boots = Lookup(source), {b.boot_id: b for b in read_boots(source)}
            tags = _event_tags(source) if table == "event" else {}
            rows = list(_readable(source, table, progress, is_last_try=is_last_try))
    except sqlite3.Error as error:  # the tables' roots cannot be read: nothing to recover
        if not is_last_try and not _is_for_good(error):
            raise NotNow from error
        rows, lookup, boots, tags = [], None, {}, {}
        progress.lost += 1
    with naming(live.path), transaction(live.connection):
        compact(live.connection, live.path.name)  # so that every block's seq is above every hot row's
        for row in rows:
            progress.after = row[0]
            if lookup is not None:
                _append(live, table, row[1:], lookup, boots, tags, progress)
        if not rows:
            later = ORDER[ORDER.index(table) + 1 :]
            progress.table, progress.after = (later[0], 0) if later else ("", 0)
        put_meta(live.connection, **{KEY + bad.name: progress.text()})
    live.acknowledged = live.seq  # if this file is quarantined, too, what was copied must be copied again
    return bool(progress.table)


def _append(
    live: ActiveFile,
    table: str,
    row: tuple[Any, ...],
    lookup: Lookup,
    boots: dict[str, Any],
    tags: dict[int, str],
    progress: Progress,
) -> None:
    if table == "event":
        seq, boot, boottime_ns, kind, detail = row
        if (progress.upto is None or seq <= progress.upto) and boot in lookup.boot_ids:
            number = _boot(live, lookup.boot_ids[boot], boots)
            live.insert_events(number, [EventAt(boottime_ns, kind, detail, tags.get(seq, ""))])
        return
    try:
        chunk = lookup.block(row) if table == "blk" else lookup.hot(row)
    except (Undecodable, TypeError):  # TypeError: a column has a type that is never written
        progress.lost += 1
        return
    if progress.upto is None or chunk.hi <= progress.upto:
        _append_chunk(live, table, chunk, _boot(live, chunk.boot_id, boots))
        progress.rows += len(chunk.boottime_ns)


def _event_tags(source: sqlite3.Connection) -> dict[int, str]:
    """Return the events' own tags, by seq; none if they cannot be read: the events are recovered without them."""
    with suppress(sqlite3.DatabaseError, ValueError):
        meta = get_meta(source).items()
        return {int(key.removeprefix(EVENT_TAGS)): text for key, text in meta if key.startswith(EVENT_TAGS)}
    return {}


def _append_chunk(live: ActiveFile, table: str, chunk: Chunk, boot: int) -> None:
    stream = live.stream_number((chunk.stream.measurement, canonical(chunk.stream.tags)), chunk.stream.fields)
    if table == "hot":
        payload = encode_hot(chunk.boottime_ns, chunk.columns)
        live.insert_hot(stream, boot, int(chunk.boottime_ns[0]), len(chunk.boottime_ns), payload)
        return
    live.seq += 1
    moved = Chunk(live.seq, live.seq, chunk.stream, chunk.boot_id, chunk.boottime_ns, chunk.columns)
    store_block(live.connection, stream, boot, [moved], live.path.name, list[Corruption]())


def _boot(live: ActiveFile, boot_id: str, boots: dict[str, Any]) -> int:
    """Return the active file's number of a boot; a new one is inserted with its clock table."""
    known = live.connection.execute("SELECT boot FROM boot WHERE boot_id=?", (boot_id,)).fetchone()
    if known:
        return int(known[0])
    number = live.boot_number(boot_id, boots[boot_id].first_ns)
    live.connection.executemany(
        "INSERT INTO clock (boot, bt, off, state, frozen) VALUES (?, ?, ?, ?, ?)",
        [(number, s.boottime_ns, s.offset_ns, s.state, s.frozen) for s in boots[boot_id].steps],
    )
    return number


def _is_for_good(error: sqlite3.Error) -> bool:
    """Return whether the error is permanent; an error without a code is text that is not UTF-8, found by Python."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in FOR_GOOD


def _readable(
    source: sqlite3.Connection, table: str, progress: Progress, *, is_last_try: bool
) -> Iterator[tuple[Any, ...]]:
    """Yield up to SLICE_ROWS rows after `progress.after`, leaving out what cannot be read."""
    rowid = _ROWID[table]
    try:
        (last,) = source.execute(f"SELECT max({rowid}) FROM {table}").fetchone()  # noqa: S608 - constants
    except sqlite3.DatabaseError as error:  # the number of rows is unknown
        if not is_last_try and not _is_for_good(error):
            raise NotNow from error
        progress.lost += 1
        return
    found = 0
    ranges = [(progress.after + 1, last)] if last is not None else []
    while ranges and found < SLICE_ROWS:
        low, high = ranges.pop()
        query = (
            f"SELECT {_COLUMNS[table]} FROM {table} "  # noqa: S608 - constants
            f"WHERE {rowid} BETWEEN ? AND ? ORDER BY {rowid} LIMIT ?"
        )
        try:
            rows = source.execute(query, (low, high, SLICE_ROWS - found)).fetchall()
        except sqlite3.DatabaseError as error:
            if not is_last_try and not _is_for_good(error):
                raise NotNow from error
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]
            else:
                progress.lost += 1
            continue
        found += len(rows)
        yield from rows
