"""A journal and a server in memory, as simple as possible: the first test doubles of the shipper."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from collectors.journal.records import Chunk, Chunks, ClockStep, Column, EventRecord, FieldSpec, Stream
from collectors.journal.shipper_state import read_frozen
from collectors.journal.timeline import Timeline, resolve, with_frozen
from collectors.shipper.influxdb.responses import WriteResponse
from tests.testing.line_protocol import parse

OFFSET_NS = 1_700_000_000 * 10**9


@dataclass
class TwinJournal:
    """One collector's journal. A row is one commit; `compact` joins rows as the real one does."""

    ship_db: Path
    name: str = "mppt"
    hot: list[Chunk] = field(default_factory=list)
    blocks: list[Chunk] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)
    steps: dict[str, list[ClockStep]] = field(default_factory=dict)
    seq: int = 0

    def sync(self, boot_id: str = "boot-1", boottime_ns: int = 0, offset_ns: int = OFFSET_NS, state: int = 1) -> None:
        """Add a row to the boot's clock table."""
        self.steps.setdefault(boot_id, []).append(ClockStep(boottime_ns, offset_ns, state, frozen=False))

    def append(
        self, boottime_ns: Sequence[int], *, boot_id: str = "boot-1", measurement: str = "battery", kind: str = "f"
    ) -> None:
        """Commit some rows of a stream; each row's value is its stamp."""
        self.seq += 1
        stream = Stream(1, measurement, {"device": self.name}, [FieldSpec("value", kind)])
        stamps = np.array(boottime_ns, dtype=np.int64)
        values = stamps.astype(np.float64) if kind == "f" else stamps
        self.hot.append(Chunk(self.seq, self.seq, stream, boot_id, stamps, [Column(values)]))

    def event(self, boottime_ns: int, *, boot_id: str = "boot-1", kind: str = "link_down") -> None:
        """Commit one event."""
        self.seq += 1
        self.events.append(EventRecord(self.seq, boot_id, boottime_ns, kind, f"number {self.seq}"))

    def compact(self) -> None:
        """Join the hot rows of each stream and boot into one block, which spans the seqs of its own rows only."""
        groups: dict[tuple[str, str, str], list[Chunk]] = {}
        for chunk in self.hot:
            key = chunk.stream.measurement, chunk.stream.fields[0].type, chunk.boot_id
            groups.setdefault(key, []).append(chunk)
        for chunks in groups.values():
            stamps = np.concatenate([c.boottime_ns for c in chunks])
            values = np.concatenate([np.asarray(c.columns[0].values) for c in chunks])
            lo, hi = chunks[0].lo, chunks[-1].hi
            self.blocks.append(Chunk(lo, hi, chunks[0].stream, chunks[0].boot_id, stamps, [Column(values)]))
        self.blocks.sort(key=lambda block: block.hi)
        self.hot.clear()

    def newest_seq(self) -> int:
        """Return the highest sequence number."""
        return self.seq

    def commits_between(self, after: int, upto: int) -> int:
        """Return how many numbers were used in (after, upto]."""
        return max(0, min(self.seq, upto) - after)

    def after(self, seq: int, max_rows: int) -> Chunks:
        """Return the next chunks and events, and the cursor's position after them."""
        chunks: list[Chunk] = []
        for chunk in [*self.blocks, *self.hot]:
            if chunk.hi > seq and sum(len(c.boottime_ns) for c in chunks) < max_rows:
                chunks.append(chunk)
        is_all = not any(chunk.hi > (chunks[-1].hi if chunks else seq) for chunk in [*self.blocks, *self.hot])
        hi = self.seq if is_all else chunks[-1].hi
        return Chunks(chunks, [event for event in self.events if seq < event.seq <= hi], hi)

    def tags(self) -> dict[str, str]:
        """Return the collector's own tags."""
        return {"device": self.name}

    def timeline(self, boot_id: str) -> Timeline:
        """Return the boot's segments with the frozen ones put over them."""
        frozen = read_frozen(self.ship_db, self.name).get(boot_id, [])
        return resolve(with_frozen(self.steps.get(boot_id, []), frozen))

    def rows(self) -> int:
        """Return how many rows and events were ever committed."""
        return sum(len(c.boottime_ns) for c in [*self.blocks, *self.hot]) + len(self.events)


Key = tuple[str, tuple[tuple[str, str], ...], int]


@dataclass
class TwinServer:
    """Stores points as InfluxDB does: same series and stamp overwrite. `mood` sets the response to a request."""

    mood: Callable[[list[str]], str] = lambda _lines: "store"
    points: dict[Key, dict[str, float | int | bool | str]] = field(default_factory=dict)
    requests: list[list[str]] = field(default_factory=list)
    refuses: Callable[[str], str | None] = lambda _line: None
    """The words with which a line is refused, None for none."""

    def pack(self, lines: list[str]) -> bytes:
        """Return the body."""
        return "\n".join(lines).encode()

    def send(self, body: bytes) -> WriteResponse | None:
        """Accept the body."""
        self.requests.append(body.decode().split("\n"))
        return None

    def answer(self) -> WriteResponse:
        """Return the response that the mood gives."""
        lines = self.requests[-1]
        mood = self.mood(lines)
        if mood in ("silent", "late"):
            return WriteResponse(None, mood, timed_out=mood == "late")
        if mood not in ("store", "store and stay silent"):
            return WriteResponse(int(mood), mood)
        good = [line for line in lines if self.refuses(line) is None]
        for point in parse("\n".join(good)):
            self.points.setdefault((*point.series, point.stamp_ns), {}).update(point.fields)
        if mood == "store and stay silent":
            return WriteResponse(None, "reset")
        words = next((text for line in lines if (text := self.refuses(line))), None)
        return WriteResponse(400, json.dumps({"error": words})) if words else WriteResponse(204)

    def stamps(self) -> list[int]:
        """Return the stamps of all points, in order."""
        return sorted(key[2] for key in self.points)
