"""Reads the rows and events of a journal after a cursor, and encodes those whose wall time is known as lines.

Rows of a clock segment whose offset is not known are never sent. Before the first row of a segment is sent, the
segment's offset is frozen in ship.db. A row that is sent again therefore has the same time stamp, even if a better
offset is known by then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from collectors import line_protocol
from collectors.journal.directory_view import unreadable
from collectors.journal.records import SET_BY_PERSON, Chunk, Chunks, Column, EventRecord, FieldSpec, IntArray
from collectors.journal.timeline import Timeline
from collectors.shipper.cursors import ShipStore
from collectors.shipper.retry import Refusal

PIECE_ROWS = 1000
"""Number of rows that are encoded at a time; it is the smallest unit of a batch and bounds memory."""
TYPE_NAMES = {"f": "float", "i": "integer", "b": "boolean", "s": "string"}


class JournalAccess(Protocol):
    """The shipper's interface to one collector's journal; `collectors.journal.reader.JournalReader` implements it."""

    def newest_seq(self) -> int:
        """Return the highest sequence number; 0 when there is none."""
        ...

    def commits_between(self, after: int, upto: int) -> int:
        """Return how many sequence numbers in (after, upto] were assigned; gaps between files do not count."""
        ...

    def after(self, seq: int, max_rows: int) -> Chunks:
        """Return the next chunks (hi > seq, in order of hi) and events, about `max_rows` rows."""
        ...

    def timeline(self, boot_id: str) -> Timeline:
        """Return the boot's clock segments; offsets frozen in ship.db take precedence."""
        ...

    def tags(self) -> Mapping[str, str]:
        """Return the tags of all rows of this collector; none before its first run."""
        ...


class EncodedRows(NamedTuple):
    """Lines of rows that have the same sequence number in the journal."""

    seq: int
    lines: list[str]


class ClockWait(NamedTuple):
    """Rows lo..hi, some of which wait for the clock offset of their boot."""

    lo: int
    hi: int
    boot_id: str


@dataclass(slots=True)
class Page:
    """All rows between two cursor positions. `holds` and `refused` are complete once `pieces` was read to its end."""

    collector: str
    hi: int
    """The cursor's position once all rows are confirmed, wait for their clock, or are rejected."""
    pieces: Iterator[EncodedRows] = field(default_factory=lambda: iter(()))
    holds: list[ClockWait] = field(default_factory=list)
    refused: list[tuple[int, Refusal]] = field(default_factory=list)


class JournalSource:
    """One collector's journal, read for one sink. Not thread-safe."""

    def __init__(
        self, collector: str, source: JournalAccess, store: ShipStore, sink: str, types: dict[tuple[str, str], str]
    ) -> None:
        """`types`: the field types of the sink, shared by all of its journal sources."""
        self.collector = collector
        self.source = source
        self._store = store
        self._sink = sink
        self._types = types
        self._timelines: dict[str, Timeline] = {}
        self._waiting_for: dict[str, Timeline] = {}

    def window(self, after: int, upto: int | None, max_rows: int) -> Page | None:
        """Return the next page, or None at the journal's end. `upto`: omit chunks that begin after it.

        A block may contain rows from both sides of `upto`, and blocks are ordered by their ends. Therefore only a
        reader that has reached the live cursor has seen every row up to `upto`.
        """
        batch = self.source.after(after, max_rows)
        if batch.hi <= after:
            return None
        self._timelines.clear()
        chunks = [c for c in batch.chunks if upto is None or c.lo <= upto]
        events = [e for e in batch.events if upto is None or e.seq <= upto]
        window = Page(self.collector, batch.hi)
        window.pieces = self._pieces(window, chunks, events)
        return window

    def age_after_s(self, seq: int) -> float | None:
        """Return the age of the first row or event after `seq`; None when there is none or its time is not known."""
        batch = self.source.after(seq, 1)
        firsts = [(c.lo, c.boot_id, int(c.boottime_ns[0])) for c in batch.chunks[:1]]
        firsts += [(e.seq, e.boot_id, e.boottime_ns) for e in batch.events[:1]]
        if not firsts:
            return None
        _, boot_id, boottime_ns = min(firsts)
        wall_ns, known = self.source.timeline(boot_id).to_wall(np.array([boottime_ns], dtype=np.int64))
        return max(0.0, (time.time_ns() - int(wall_ns[0])) / 1e9) if known[0] else None

    def clock_has_news(self, boot_id: str) -> bool:
        """Return whether the boot's clock segments changed since its rows were last found to wait for them."""
        return self._waiting_for.get(boot_id) != self.source.timeline(boot_id)

    def _pieces(self, window: Page, chunks: Sequence[Chunk], events: Sequence[EventRecord]) -> Iterator[EncodedRows]:
        for chunk in chunks:
            try:
                yield from self._chunk(window, chunk)
            except line_protocol.Unencodable as error:
                what = f"{chunk.stream.measurement} {dict(chunk.stream.tags)} rows {chunk.lo}..{chunk.hi}"
                window.refused.append((chunk.hi, Refusal(what, None, "unencodable", str(error))))
        for event in events:
            stamp = np.array([event.boottime_ns], dtype=np.int64)
            wall_ns, known = self._stamp(event.boot_id, stamp)
            if not known[0]:
                window.holds.append(ClockWait(event.seq, event.seq, event.boot_id))
                continue
            yield EncodedRows(event.seq, [line_protocol.encode_event(event, int(wall_ns[0]), self.source.tags())])

    def _chunk(self, window: Page, chunk: Chunk) -> Iterator[EncodedRows]:
        conflicts = self._conflicts(chunk)
        wall_ns, known = self._stamp(chunk.boot_id, chunk.boottime_ns)
        by_person = self._timeline(chunk.boot_id).states(chunk.boottime_ns) == SET_BY_PERSON
        if not known.all():
            window.holds.append(ClockWait(chunk.lo, chunk.hi, chunk.boot_id))
        for start in range(0, len(wall_ns), PIECE_ROWS):
            rows = np.zeros(len(wall_ns), bool)
            rows[start : start + PIECE_ROWS] = known[start : start + PIECE_ROWS]
            if not rows.any():
                continue
            for index, why in conflicts.items():
                clash = rows & _present(chunk, index)
                refused = line_protocol.encode(line_protocol.take(chunk, clash), wall_ns[clash])
                window.refused += [(chunk.hi, Refusal(line, None, "type", why)) for line in refused]
                rows &= ~clash
            for chosen, form in ((rows & ~by_person, chunk), (rows & by_person, set_manually(chunk))):
                if chosen.any():
                    yield EncodedRows(chunk.hi, line_protocol.encode(line_protocol.take(form, chosen), wall_ns[chosen]))

    def _stamp(self, boot_id: str, boottime_ns: IntArray) -> tuple[IntArray, line_protocol.BoolArray]:
        """Return wall time and whether it is known; offsets that are used are frozen from now on."""
        timeline = self._timeline(boot_id)
        wall_ns, known = timeline.to_wall(boottime_ns)
        if not known.all():
            self._waiting_for[boot_id] = timeline
        if new := timeline.used(boottime_ns):
            self._store.freeze(self.collector, boot_id, new)
            del self._timelines[boot_id]
        return wall_ns, known

    def _timeline(self, boot_id: str) -> Timeline:
        """Return the boot's clock segments as they were at the page's beginning or at the last freeze."""
        if boot_id not in self._timelines:
            self._timelines[boot_id] = self.source.timeline(boot_id)
        return self._timelines[boot_id]

    def _conflicts(self, chunk: Chunk) -> dict[int, str]:
        """Return by column why the sink would reject it. A field that is new to the sink is recorded with its type."""
        measurement = chunk.stream.measurement
        wanted = {(measurement, spec.name): spec.type for spec in chunk.stream.fields}
        new = {key: kind for key, kind in wanted.items() if key not in self._types}
        if new:
            self._store.set_types(self._sink, new)
            self._types |= new
        return {
            index: f"field {name!r} of {measurement!r} is {TYPE_NAMES[kind]}, {self._sink} has it as "
            f"{TYPE_NAMES[self._types[measurement, name]]}"
            for index, ((_, name), kind) in enumerate(wanted.items())
            if self._types[measurement, name] != kind
        }


def set_manually(chunk: Chunk) -> Chunk:
    """Return the chunk with the field `clock_state`, which marks time stamps of a manual clock."""
    stream = replace(chunk.stream, fields=[*chunk.stream.fields, FieldSpec("clock_state")])
    states = Column(np.full(len(chunk.boottime_ns), float(SET_BY_PERSON)))
    return replace(chunk, stream=stream, columns=[*chunk.columns, states])


def _present(chunk: Chunk, index: int) -> line_protocol.BoolArray:
    """Return which rows have a value in this column."""
    missing = chunk.columns[index].missing
    return np.ones(len(chunk.boottime_ns), bool) if missing is None else ~missing


def collectors_of(state_dir: Path) -> list[str]:
    """Return the names of the collectors that have a journal here, including journals this user may not read.

    The list is empty when the directory does not exist. JournalError when the directory cannot be read.
    """
    try:
        folders = [entry.name for entry in state_dir.iterdir() if entry.name != "lost+found" and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(state_dir, error) from error
    return sorted(name for name in folders if _holds_journal(state_dir / name))


def _holds_journal(folder: Path) -> bool:
    try:
        return any(entry.name.startswith("j-") and entry.name.endswith(".db") for entry in folder.iterdir())
    except FileNotFoundError:  # deleted since the directory was listed
        return False
    except OSError:  # the reader of this journal reports the error
        return True
