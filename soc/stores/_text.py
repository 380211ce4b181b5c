"""Read text files of several encodings as UTF-8 bytes: compressed by gzip, UTF-16, the older Windows code page.

The first bytes of a file determine its format: gzip's magic number, a byte order mark, the zero bytes of UTF-16, line
ends. A plain UTF-8 file is passed through unchanged. Others are converted while they are read, so memory does not grow
with their size.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from soc.errors import FileError
from soc.files import STANDARD, opened, reason, shown
from soc.stores._errors import StoreError

GZIP_MAGIC = b"\x1f\x8b"
LOOK_BYTES = 4096
COPY_SIZE = 1 << 18  # bytes, or characters
CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f")  # never in a text


def text_bytes(path: Path) -> io.BufferedReader[Any]:
    """Open the file's text as UTF-8, to be closed by the caller; `-` is standard input, which stays open.

    Raises `FileError` if it cannot be opened, `StoreError` if it is not text. Reading raises `StoreError` for damaged
    data.
    """
    is_standard = str(path) == STANDARD
    where = "standard input" if is_standard else shown(path)
    raw: IO[bytes] = sys.stdin.buffer if is_standard else opened(path)
    file: io.BufferedReader[Any]
    file = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(_Source(raw, where, ()))
    mine: list[io.IOBase] = [] if is_standard else [file]
    try:
        if file.peek(2).startswith(GZIP_MAGIC):
            unzipped = gzip.GzipFile(fileobj=file)
            file = io.BufferedReader(_Source(unzipped, where, (unzipped, *mine)), COPY_SIZE)
            mine = [file]
        start = file.peek(LOOK_BYTES)[:LOOK_BYTES]
        encoding = _encoding(start, where)
    except OSError as error:
        _close(mine)
        raise FileError(f"{where}: {reason(error)}") from error
    except StoreError:
        _close(mine)
        raise
    if encoding == "utf-8" and (b"\n" in start or b"\r" not in start):
        return file
    text = io.TextIOWrapper(file, encoding, newline=None)  # any line end becomes a line feed
    return io.BufferedReader(_Recoded(text, where, is_standard=is_standard), COPY_SIZE)


def _close(streams: Iterable[io.IOBase]) -> None:
    for stream in streams:
        stream.close()


def _encoding(start: bytes, where: str) -> str:
    """Return the encoding of a text that begins with these bytes. Raises `StoreError` if it is not text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = start[0:64:2], start[1:64:2]
    if len(start) >= 4 and 0 in start[:64] and (not any(even) or not any(odd)):
        return "utf-16-be" if not any(even) else "utf-16-le"
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # otherwise the end of these first bytes only cut a character
            if CONTROLS & set(start):
                raise StoreError(f"{where}: not UTF-8 text ({error.reason}); is this a CSV file?") from error
            return "cp1252"
    if CONTROLS & set(start):
        raise StoreError(f"{where}: not UTF-8 text (control characters); is this a CSV file?")
    return "utf-8"


class _Source(io.RawIOBase):
    """A stream of bytes; damaged data raise `StoreError`. Closing it closes the streams in `mine`."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, where: str, mine: Iterable[io.IOBase]) -> None:
        self._stream, self._where, self._mine = stream, where, mine

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer with the available bytes. Raises `StoreError` for damaged gzip data."""
        read = getattr(self._stream, "read1", self._stream.read)
        try:
            found: bytes = read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise StoreError(f"{self._where}: damaged gzip data: {error}") from error
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Close the streams in `mine`."""
        _close(self._mine)
        super().close()


class _Recoded(io.RawIOBase):
    """A decoded text as a stream of UTF-8 bytes."""

    def __init__(self, text: io.TextIOWrapper, where: str, *, is_standard: bool) -> None:
        self._text, self._where, self._left, self._is_standard = text, where, b"", is_standard

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer with the available text. Raises `StoreError` for bytes that are not text in this encoding."""
        if not self._left:
            try:
                self._left = self._text.read(COPY_SIZE).encode("utf-8")
            except UnicodeError as error:
                raise StoreError(f"{self._where}: not {self._text.encoding} text: {error}") from error
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        """Close the text unless it is standard input."""
        if self._is_standard:
            self._is_standard = False
            if not self._text.closed:  # the collector of cycles may have closed its stream before this one
                self._text.detach()
        else:
            self._text.close()
        super().close()
