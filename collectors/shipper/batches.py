"""Groups encoded rows into request bodies, and prepares the next body while a request is under way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from collectors.shipper.journal_source import EncodedRows
from collectors.shipper.retry import BatchLimit

BATCH_BYTES = 2**20
"""Maximum size of one body in bytes, before compression."""


@dataclass(slots=True)
class LineBatch:
    """The lines of one request."""

    lines: list[str] = field(default_factory=list)
    body: bytes = b""
    pieces: list[EncodedRows] = field(default_factory=list)
    size: int = 0

    def add(self, piece: EncodedRows, lines: list[str], size: int) -> None:
        """Add some lines of encoded rows; `size` is their length in bytes."""
        self.lines += lines
        self.size += size
        self.pieces.append(piece)

    def seq_of(self, line: str) -> int:
        """Return the journal's sequence number from which the line comes."""
        return next(piece.seq for piece in self.pieces if line in piece.lines)


def batches(
    pieces: Iterable[EncodedRows], limit: BatchLimit, pack: Callable[[list[str]], bytes]
) -> Iterator[LineBatch]:
    """Yield the lines in batches that keep the limits of one request, each packed into its body."""
    batch = LineBatch()
    for piece in pieces:
        for start in range(0, len(piece.lines), limit.lines):
            lines = piece.lines[start : start + limit.lines]
            size = sum(map(len, lines)) + len(lines)
            if batch.lines and (len(batch.lines) + len(lines) > limit.lines or batch.size + size > BATCH_BYTES):
                batch.body = pack(batch.lines)
                yield batch
                batch = LineBatch()
            batch.add(piece, lines, size)
    if batch.lines:
        batch.body = pack(batch.lines)
        yield batch


class Prefetch:
    """An iterator of the same batches; `prepare` encodes the next one while the last one is under way."""

    def __init__(self, made: Iterator[LineBatch]) -> None:
        self._made = made
        self._next: LineBatch | None = None

    def prepare(self) -> None:
        """Encode the next batch, if there is one."""
        if self._next is None:
            self._next = next(self._made, None)

    def __iter__(self) -> Iterator[LineBatch]:
        """Yield the batches one by one."""
        self.prepare()
        while (batch := self._next) is not None:
            self._next = None
            yield batch
            self.prepare()
