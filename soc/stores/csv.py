"""CSV files, and standard input and output as `-`.

Reading: an optional first line `# {json}` (see `_files.HEADER_KEYS`), then names, then numbers; separated by comma,
semicolon or tab, whichever the line of names has. An empty cell, NaN and null are missing values. Times may be ISO 8601
with a zone and become seconds since 1970. What is not a number is named with its line and column, up to ten of them.

Writing: `time_s,soc,soc_lo,soc_hi`, times as they came, to the last bit; the file appears when it is whole.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from soc.errors import FileError
from soc.files import opened, reason, shown, whole_file
from soc.stores import Recording
from soc.stores._arrow import numbers
from soc.stores._columns import Columns, Rules, Source
from soc.stores._errors import StoreError
from soc.stores._files import parse_header, path_of
from soc.stores._results import SIGNALS, Results

MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "None"]
SEPARATORS = ",;\t"
BLOCK_BYTES = 4 << 20  # about 100 000 rows
LINE_BYTES = 4096
DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]")
TIME = pa.timestamp("ns", tz="UTC")
MOST_MISTAKES = 10
TAIL_BYTES = 4096  # longer than any row we write


@dataclass(frozen=True)
class Head:
    """What stands above the numbers: header values, names, their separator, and how many lines it takes."""

    header: Mapping[str, Any]
    names: Sequence[str]
    separator: str
    lines: int
    dated: frozenset[str]
    """Columns whose first value is an ISO 8601 time."""


def read(place: str, rules: Rules, since_s: float | None = None, until_s: float | None = None) -> Recording:
    """The recording in a CSV file, block by block. Raises `StoreError` naming file, line and column."""
    path = path_of(place, "csv")
    where = "standard input" if str(path) == "-" else str(path)
    with _opened(path) as file:
        head = _head(file, where)
    sources = rules.resolve(head.names, where)
    return Recording(place, within(_chunks(path, where, head, sources), since_s, until_s), head.header)


def within(chunks: Iterator[Columns], since_s: float | None, until_s: float | None) -> Iterator[Columns]:
    """The rows after one time and not after another; rows whose time is no number stay, for others to count."""
    for chunk in chunks:
        if since_s is None and until_s is None:
            yield chunk
            continue
        time_s = chunk["time_s"]
        outside = (time_s <= (-np.inf if since_s is None else since_s)) | (
            time_s > (np.inf if until_s is None else until_s)
        )
        yield {name: values[~outside] for name, values in chunk.items()}


@contextmanager
def _opened(path: Path, after_lines: int = 0) -> Iterator[IO[bytes]]:
    """The file behind so many lines; standard input is where it is and stays open."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    with opened(path) as file:
        for _ in range(after_lines):
            file.readline()
        yield file


def _head(file: IO[bytes], where: str) -> Head:
    """What stands above the numbers; leaves the file at the first number."""
    line, lines = _text(file.readline(), where, 1).lstrip("\ufeff"), 1
    header: Mapping[str, Any] = {}
    if line.startswith("#"):
        header = parse_header(line[1:], f"{where}:1")
        line, lines = _text(file.readline(), where, 2), 2
    if not line.strip():
        raise StoreError(f"{where}: empty; expected a line of column names, then numbers")
    separator = max(SEPARATORS, key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=separator))]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StoreError(f"{where}:{lines}: column {', '.join(twice)} is there more than once")
    return Head(header, names, separator, lines, _dated(file, names, separator))


def _dated(file: IO[bytes], names: Sequence[str], separator: str) -> frozenset[str]:
    """The columns whose first value is a time with a date; the file stays where it is."""
    ahead = file.peek(LINE_BYTES) if isinstance(file, io.BufferedReader) else b""
    cells = ahead.partition(b"\n")[0].decode("utf-8", "replace").strip().split(separator)
    return frozenset(name for name, cell in zip(names, cells, strict=False) if DATE.match(cell))


def _text(line: bytes, where: str, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(f"{where}:{number}: not UTF-8 text ({error.reason}); is this a CSV file?") from error


def _chunks(path: Path, where: str, head: Head, sources: Mapping[str, Source]) -> Iterator[Columns]:
    """The columns under our names, a block at a time."""
    wanted = sorted({source.column for source in sources.values()})
    try:
        with _opened(path, head.lines) as file, _reader(file, head, wanted) as reader:
            for batch in reader:
                raw = {name: numbers(batch.column(name), name, where) for name in wanted}
                yield {ours: source.of(raw[source.column]) for ours, source in sources.items()}
    except pa.ArrowInvalid as error:
        raise StoreError(_mistakes(path, where, head, wanted) or f"{where}: {error}") from error


def _reader(file: IO[bytes], head: Head, wanted: Sequence[str]) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        file,
        read_options=pa_csv.ReadOptions(column_names=head.names, block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=head.separator),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: TIME if name in head.dated else pa.float64() for name in wanted},
            include_columns=wanted,
            null_values=MISSING,
        ),
    )


def _mistakes(path: Path, where: str, head: Head, wanted: Sequence[str]) -> str:
    """One line for each cell that is no number and each row of the wrong length; empty if the file cannot be reread."""
    if str(path) == "-":
        return ""
    found: list[str] = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for _ in range(head.lines):
            file.readline()
        rows = csv.reader(file, delimiter=head.separator)
        for row in rows:
            found += [f"{where}:{head.lines + rows.line_num}: {m}" for m in _row_mistakes(row, head.names, wanted)]
            if len(found) >= MOST_MISTAKES:
                found[MOST_MISTAKES:] = ["… and perhaps more"]
                break
    if not found and rows.line_num == 0:
        return f"{where}: no rows below the column names"
    return "\n".join(found)


def _row_mistakes(row: Sequence[str], names: Sequence[str], wanted: Sequence[str]) -> Iterator[str]:
    if not row:  # an empty line is nobody's mistake
        return
    if len(row) != len(names):
        yield f"{len(row)} cells, but {len(names)} column names"
        return
    for name, cell in zip(names, row, strict=True):
        if name in wanted and cell.strip() not in MISSING and not (_is_number(cell) or DATE.match(cell)):
            yield f"{name}: {cell!r} is not a number"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Writer:
    """Takes results into a CSV file; `columns` besides `time_s`."""

    def __init__(self, place: str, tags: Mapping[str, str], columns: Sequence[str]) -> None:  # noqa: ARG002 - files know no tags
        self._path, self._columns = path_of(place, "csv"), columns
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begin the file."""
        self._file = self._stack.enter_context(whole_file(self._path, "w"))
        self._file.write(",".join(("time_s", *self._columns)) + "\n")
        return self

    def write(self, results: Results) -> None:
        """Add rows."""
        self._file.writelines(_rows(results, self._columns, np.ones(len(results.time_s), dtype=np.bool_)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the file; after an error there is none."""
        self._stack.__exit__(kind, error, trace)


class Appender:
    """Adds results to a CSV file, each flushed to the disk; what is not later than its last row is there already."""

    def __init__(self, place: str, columns: Sequence[str]) -> None:
        """Columns besides `time_s`, for a new file; one that exists keeps its own."""
        self._path, self._columns = path_of(place, "csv"), columns

    def __enter__(self) -> Self:
        """Open the file, or begin one; a last row that was cut off is dropped.

        Raises `StoreError` for a file that has no results, `FileError`.
        """
        self._columns = _result_columns(self._path, self._columns)
        try:
            self._last_s = _mend_tail(self._path)
            self._file = self._path.open("a", encoding="utf-8", newline="\n")
        except (OSError, ValueError) as error:
            raise FileError(f"{shown(self._path)}: cannot be written: {reason(error)}") from error
        if self._file.tell() == 0:
            self._file.write(",".join(("time_s", *self._columns)) + "\n")
        return self

    def write(self, results: Results) -> None:
        """Add the rows that are later than the last."""
        new = results.time_s > self._last_s
        for row in _rows(results, self._columns, new):
            self._file.write(row)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last_s = max(self._last_s, float(results.time_s[-1]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()


def _result_columns(path: Path, columns: Sequence[str]) -> Sequence[str]:
    """The columns of the results that a file has; the given ones if it is empty or not there.

    Raises `StoreError` for a file of another kind: nothing is added to it.
    """
    if not path.exists():
        return columns
    with opened(path) as file:
        line = file.readline(LINE_BYTES)
    if not line.endswith(b"\n"):
        if ",".join(("time_s", *columns)).encode().startswith(line):
            return columns  # empty, or begun and cut off
        raise StoreError(f"{path}: has no results of `soc`; give another name, nothing was written")
    first, *others = line.decode("utf-8", "replace").strip().split(",")
    if first != "time_s" or not others or not set(others) <= {*SIGNALS}:
        raise StoreError(f"{path}: has no results of `soc`; give another name, nothing was written")
    return others


def _mend_tail(path: Path) -> float:
    """The time of the file's last whole row, −inf if it has none; what follows the last line break is cut off."""
    if not path.exists():
        return -np.inf
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        file.truncate(size - len(tail) + whole)
    lines = tail[:whole].splitlines()
    first = lines[-1].split(b",")[0].decode() if lines else ""
    return float(first) if _is_number(first) else -np.inf


def _rows(results: Results, columns: Sequence[str], which: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[str]:
    """Lines of CSV: times to the last bit, the rest to a millionth, empty where there is no value."""
    texts = [_texts(results.signals[name][which]) for name in columns]
    for time_s, *cells in zip(results.time_s[which].tolist(), *texts, strict=True):
        yield f"{time_s!r},{','.join(cells)}\n"


def _texts(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[str]:
    """Numbers to a millionth, empty where there is none."""
    return ["" if value != value else f"{value:.6f}" for value in values.tolist()]
