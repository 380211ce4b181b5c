"""Records that the journal returns to its readers: the shipper, export, status and estimation.

A *stream* is a fixed list of fields under one measurement and tag set. Its rows carry CLOCK_BOOTTIME stamps of
one boot; the boot's clock table turns them into wall time, once that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from collectors.host.clock import SET_BY_PERSON as SET_BY_PERSON
from collectors.host.clock import SYNCHRONISED as SYNCHRONISED
from collectors.host.clock import UNSYNCHRONISED as UNSYNCHRONISED

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a stream: name, type ("f" float, "i" integer, "b" boolean, "s" text) and unit."""

    name: str
    type: str = "f"
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """The constant properties of a series of rows."""

    stream: int
    """Number within its journal file; the same content may have another number in another file."""
    measurement: str
    tags: Mapping[str, str]
    fields: Sequence[FieldSpec]


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one field; `missing` marks rows without a value (None: every row has one)."""

    values: FloatArray | IntArray | Sequence[str]
    """This version writes floats only; a missing value reads as NaN."""
    missing: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of one stream and one boot, as stored; lo..hi are the journal's sequence numbers."""

    lo: int
    hi: int
    """A cursor at `hi` has read everything up to and including this chunk."""
    stream: Stream
    boot_id: str
    boottime_ns: IntArray
    """Shape (n,), strictly increasing."""
    columns: Sequence[Column]
    """One for each of `stream.fields`, each of length n."""


@dataclass(frozen=True, slots=True)
class ClockStep:
    """From `boottime_ns` on, wall time = boottime + `offset_ns`, until the next step of the same boot."""

    boottime_ns: int
    offset_ns: int
    state: int
    """0 unsynchronised, 1 synchronised, 2 set manually."""
    frozen: bool
    """Whether rows were shipped with this offset: it never changes again."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event as stored; it shares its sequence numbers with the chunks."""

    seq: int
    boot_id: str
    boottime_ns: int
    kind: str
    detail: str
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags that override the journal's own; most events have none."""


def event_stamp_ns(event: EventRecord, wall_ns: int) -> int:
    """Return the stamp with which an event of this time leaves the journal.

    Events of one kind and one instant (two fields of one frame out of range) would overwrite each other on the
    server, so the stamp's last three digits are the journal's sequence number: at most 1 µs off, the same on a resend.
    """
    return wall_ns - wall_ns % 1000 + event.seq % 1000


@dataclass(frozen=True, slots=True)
class Chunks:
    """Everything between two positions of a cursor."""

    chunks: Sequence[Chunk]
    """In order of `hi`."""
    events: Sequence[EventRecord]
    """In order of `seq`."""
    hi: int
    """The cursor's new position once all chunks and events of the batch are processed."""


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows of one stream in wall time."""

    stream: Stream
    wall_ns: IntArray
    columns: Sequence[Column]


@dataclass(frozen=True, slots=True)
class RollUp:
    """One field of one stream in bins of equal width; only bins with a value are present."""

    stream: Stream
    field: FieldSpec
    wall_ns: IntArray
    """The bin's start."""
    count: IntArray
    least: FloatArray
    greatest: FloatArray
    mean: FloatArray


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of the host and what is known about its clock."""

    boot_id: str
    first_ns: int
    """CLOCK_BOOTTIME in ns when this journal first saw the boot."""
    steps: Sequence[ClockStep]
    """In order of `boottime_ns`."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """A row that is in the file but is damaged, and was left out."""

    file: str
    table: str
    row: int
    why: str
