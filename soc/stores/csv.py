"""CSV files, and standard input and output as `-`.

Reading: an optional first line `# {json}` (see `_files.HEADER_KEYS`), then names, then numbers, separated by comma,
semicolon or tab, whichever the line of names has. Numbers may have a decimal comma. An empty cell, NaN and null are
missing values. Times may be ISO 8601 and become seconds since 1970; those without a zone are UTC. Text may be UTF-8,
UTF-16 or cp1252, with any line ends, and compressed by gzip. Cells that are not numbers are reported with line and
column, up to ten of them.

Writing: `time_s,soc,soc_lo,soc_hi`, times with every bit of the input; the file appears when it is complete. A file
whose name ends in `.gz` is compressed; `.tsv` is separated by tabs.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from soc.errors import FileError
from soc.files import opened, reason, shown, whole_file
from soc.stores import Recording
from soc.stores._arrow import numbers
from soc.stores._columns import Columns, ColumnSource, Rules
from soc.stores._errors import StoreError
from soc.stores._files import parse_header, path_of
from soc.stores._results import SIGNALS, Results
from soc.stores._text import text_bytes

MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "None"]
SEPARATORS = ",;\t"
BLOCK_BYTES = 4 << 20  # about 100 000 rows
LOOK_BYTES = 8192  # this much of the rows is read to detect how numbers and times are written
HEAD_LINE_BYTES = 1 << 20  # a longer line of names is an error
LINE_BYTES = 4096
ZONED = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)")
NAIVE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?")
TIMES = {ZONED: pa.timestamp("ns", tz="UTC"), NAIVE: pa.timestamp("ns")}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)
COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
YEARS = range(1678, 2262)  # the range of nanoseconds since 1970
MOST_MISTAKES = 10
CELL_SHOWN = 60  # characters of a cell in a message
TAIL_BYTES = 4096  # longer than any row that is written


@dataclass(frozen=True)
class Head:
    """The lines above the numbers: header values, names, number of lines; and how the rows are written."""

    header: Mapping[str, Any]
    names: Sequence[str]
    separator: str
    lines: int
    decimal: str
    """The decimal sign: a point or a comma."""
    dated: Mapping[str, re.Pattern[str]]
    """Columns whose first value is an ISO 8601 time, and the form of all their values."""


def read(place: str, rules: Rules, since_s: float | None = None, until_s: float | None = None) -> Recording:
    """Return the recording in a CSV file, block by block. Raises `StoreError` (file, line, column), `FileError`."""
    path = path_of(place, "csv")
    where = "standard input" if str(path) == "-" else str(path)
    file = text_bytes(path)
    try:
        head = _head(file, where)
        sources = rules.resolve(head.names, where)
    finally:
        if str(path) != "-":
            file.close()  # and opened again for the rows: a recording that is not read keeps no file open
    chunks = _chunks(path, where, head, sources, file)
    return Recording(place, within(chunks, since_s, until_s), head.header, rules.unit_doubts(sources))


def within(chunks: Iterator[Columns], since_s: float | None, until_s: float | None) -> Iterator[Columns]:
    """Yield the rows after one time and not after another; rows whose time is NaN remain, so that they are counted."""
    for chunk in chunks:
        if since_s is None and until_s is None:
            yield chunk
            continue
        time_s = chunk["time_s"]
        outside = (time_s <= (-np.inf if since_s is None else since_s)) | (
            time_s > (np.inf if until_s is None else until_s)
        )
        yield {name: values[~outside] for name, values in chunk.items()}


def _head(file: io.BufferedReader[Any], where: str) -> Head:
    """Return the lines above the numbers; the file is then at the first number."""
    line, lines = _line(file, where, 1).lstrip("\ufeff"), 1
    header: Mapping[str, Any] = {}
    if line.startswith("#"):
        header = parse_header(line[1:], f"{where}:1")
        line, lines = _line(file, where, 2), 2
    if not line.strip():
        raise StoreError(f"{where}: empty; expected a line of column names, then numbers")
    separator = max(SEPARATORS, key=line.count)
    names = [name.strip() for name in _cells(line, separator)]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise StoreError(f"{where}:{lines}: column {', '.join(twice[:MOST_MISTAKES])} is there more than once")
    rows = _first_rows(file, separator)
    return Head(header, names, separator, lines, _decimal(rows, separator), _dated(rows, names))


def _line(file: io.BufferedReader[Any], where: str, number: int) -> str:
    """Return the next line as text. Raises `StoreError` if it is not text or has no end."""
    line = file.readline(HEAD_LINE_BYTES)
    if len(line) == HEAD_LINE_BYTES:
        raise StoreError(f"{where}:{number}: a line of more than {HEAD_LINE_BYTES} bytes; is this a CSV file?")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(f"{where}:{number}: not UTF-8 text ({error.reason}); is this a CSV file?") from error


def _cells(line: str, separator: str) -> list[str]:
    """Return the cells of one line; none if its quotes are invalid."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a field of more than 128 KiB
        return line.split(separator)


def _first_rows(file: io.BufferedReader[Any], separator: str) -> list[list[str]]:
    """Return the cells of the first rows available without waiting; the file's position does not change."""
    lines = file.peek(LOOK_BYTES)[:LOOK_BYTES].decode("utf-8", "replace").splitlines(keepends=True)
    whole = lines[: max(1, len(lines) - (not lines[-1].endswith("\n")))] if lines else []
    return [_cells(line, separator) for line in whole]


def _decimal(rows: Iterable[Sequence[str]], separator: str) -> str:
    """Return the decimal sign of these rows: a comma if one cell has it and none has a point."""
    cells = [cell.strip() for row in rows for cell in row]
    if separator == "," and not any("," in cell for cell in cells):
        return "."
    has_point = any("." in cell and NUMBER.fullmatch(cell) for cell in cells)
    return "," if not has_point and any(COMMA_NUMBER.fullmatch(cell) for cell in cells) else "."


def _dated(rows: Iterable[Sequence[str]], names: Sequence[str]) -> dict[str, re.Pattern[str]]:
    """Return the columns whose first value is a time with a date, and how their times are written."""
    first: dict[str, str] = {}
    for row in rows:
        for name, cell in zip(names, row, strict=False):
            if cell.strip() not in MISSING:
                first.setdefault(name, cell)
    return {name: form for name, cell in first.items() for form in TIMES if form.fullmatch(cell)}


def _chunks(
    path: Path, where: str, head: Head, sources: Mapping[str, ColumnSource], begun: io.BufferedReader[Any]
) -> Iterator[Columns]:
    """Yield the columns under the names of `soc`, in blocks; `begun` is standard input after the head, or closed."""
    wanted = sorted({source.column for source in sources.values()})
    try:
        with _rows_of(path, head, begun) as file, _reader(file, head, wanted) as reader:
            for batch in reader:
                raw = {name: numbers(batch.column(name), name, where) for name in wanted}
                yield {ours: source.of(raw[source.column]) for ours, source in sources.items()}
    except pa.ArrowInvalid as error:
        raise StoreError(_mistakes(path, where, head, wanted) or _arrow_words(error, where, head)) from error


@contextmanager
def _rows_of(path: Path, head: Head, begun: io.BufferedReader[Any]) -> Iterator[io.BufferedReader[Any]]:
    """Open the text after the head."""
    if str(path) == "-":
        yield begun
        return
    with text_bytes(path) as file:
        for _ in range(head.lines):
            file.readline()
        yield file


def _reader(file: IO[bytes], head: Head, wanted: Sequence[str]) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        file,
        read_options=pa_csv.ReadOptions(column_names=head.names, block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=head.separator),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: TIMES[head.dated[name]] if name in head.dated else pa.float64() for name in wanted},
            include_columns=wanted,
            null_values=MISSING,
            decimal_point=head.decimal,
        ),
    )


def _mistakes(path: Path, where: str, head: Head, wanted: Sequence[str]) -> str:
    """Return one line for each cell that is no number and each row of wrong length; empty if rereading fails."""
    if str(path) == "-":
        return ""
    found: list[str] = []
    rows = None
    with text_bytes(path) as file:
        for _ in range(head.lines):
            file.readline()
        rows = csv.reader(io.TextIOWrapper(file, "utf-8", "replace", newline=""), delimiter=head.separator)
        try:
            for row in rows:
                found += [f"{where}:{head.lines + rows.line_num}: {m}" for m in _row_mistakes(row, head, wanted)]
                if len(found) >= MOST_MISTAKES:
                    found[MOST_MISTAKES:] = ["… and perhaps more"]
                    break
        except csv.Error as error:
            found.append(f"{where}:{head.lines + rows.line_num + 1}: {error}")
    if not found and rows.line_num == 0:
        return f"{where}: no rows below the column names"
    return "\n".join(found)


def _row_mistakes(row: Sequence[str], head: Head, wanted: Sequence[str]) -> Iterator[str]:
    if not row:  # an empty line is not a mistake
        return
    if len(row) != len(head.names):
        yield f"{len(row)} cells, but {len(head.names)} column names"
        return
    for name, cell in zip(head.names, row, strict=True):
        if name in wanted and cell.strip() not in MISSING:
            wrong = _time_mistake(cell, head.dated[name]) if name in head.dated else _number_mistake(cell, head.decimal)
            if wrong:
                yield f"{name}: {shortened(cell)} {wrong}"


def _number_mistake(cell: str, decimal: str) -> str:
    """Describe what is wrong with a cell that should be a number; empty if nothing is."""
    text = cell.strip()
    if NUMBER.fullmatch(text.replace(",", ".") if decimal == "," else text):
        return ""
    if COMMA_NUMBER.fullmatch(text):
        return "is not a number: a decimal comma, but the first rows have points"
    if NUMBER.fullmatch(text):
        return "is not a number: a decimal point, but the first rows have commas"
    if ZONED.fullmatch(text) or NAIVE.fullmatch(text):
        return "is not a number: a time, but the first rows have none there"
    return "is not a number"


def _time_mistake(cell: str, form: re.Pattern[str]) -> str:
    """Describe what is wrong with a cell that should be a time of this form; empty if nothing is."""
    if not form.fullmatch(cell):
        zone = "with a zone (Z, +01:00)" if form is ZONED else "without a zone"
        return f"is not a time as in the first rows: ISO 8601 {zone}"
    try:
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", cell))
    except ValueError as error:
        return f"is not a time: {error}"
    return "" if moment.year in YEARS else f"is not a time between {YEARS[0]} and {YEARS[-1]}"


def _arrow_words(error: pa.ArrowInvalid, where: str, head: Head) -> str:
    """Return pyarrow's message with the line in place of its row: for standard input, which cannot be read again."""
    text = str(error)
    row = re.search(r"Row #(\d+): ", text)
    column = re.search(r"column #(\d+)", text)
    value = re.search(r"'(.*)'", text, re.DOTALL)
    if row is None:
        return f"{where}: cannot be read as CSV: {text}"
    line = f"{where}:{head.lines + int(row[1])}"
    if column is not None and value is not None and int(column[1]) < len(head.names):
        name = head.names[int(column[1])]
        wrong = "is not a time as in the first rows" if name in head.dated else "is not a number"
        return f"{line}: {name}: {shortened(value[1])} {wrong}"
    return f"{line}: {text[row.end() :].partition(': ')[0]}"


def shortened(cell: str) -> str:
    """Return a cell in quotes, cut if it is long."""
    return repr(cell if len(cell) <= CELL_SHOWN else cell[:CELL_SHOWN] + "…")


class Writer:
    """Writes results to a CSV file; `columns` are those besides `time_s`."""

    def __init__(self, place: str, tags: Mapping[str, str], columns: Sequence[str]) -> None:  # noqa: ARG002 - files know no tags
        self._path, self._columns = path_of(place, "csv"), columns
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begin the file."""
        suffixes = [suffix.lower() for suffix in self._path.suffixes[-2:]]
        self._separator = "\t" if ".tsv" in suffixes else ","
        if suffixes[-1:] == [".gz"]:
            packed = gzip.GzipFile(fileobj=self._stack.enter_context(whole_file(self._path)), mode="wb", mtime=0)
            stream = io.TextIOWrapper(cast("IO[bytes]", packed), encoding="utf-8", newline="\n")
            self._file: IO[str] = self._stack.enter_context(stream)
        else:
            self._file = self._stack.enter_context(whole_file(self._path, "w"))
        self._file.write(self._separator.join(("time_s", *self._columns)) + "\n")
        return self

    def write(self, results: Results) -> None:
        """Write rows."""
        every = np.ones(len(results.time_s), dtype=np.bool_)
        self._file.writelines(_rows(results, self._columns, every, self._separator))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file; after an error there is none."""
        self._stack.__exit__(kind, error, trace)


class Appender:
    """Appends results to a CSV file and flushes each to the disk; rows not later than its last row are skipped."""

    def __init__(self, place: str, columns: Sequence[str]) -> None:
        """Set the columns besides `time_s` of a new file; an existing one keeps its own."""
        self._path, self._columns = path_of(place, "csv"), columns

    def __enter__(self) -> Self:
        """Open the file, or begin one; an incomplete last row is dropped.

        Raises `StoreError` for a file that does not contain results, `FileError`.
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
        """Write the rows that are later than the last one."""
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
    """Return the columns of the results in a file; the given ones if it is empty or does not exist.

    Raises `StoreError` for a file of another kind: nothing is appended to it.
    """
    if not path.exists():
        return columns
    with opened(path) as file:
        line = file.readline(LINE_BYTES)
    if not line.endswith(b"\n"):
        if ",".join(("time_s", *columns)).encode().startswith(line):
            return columns  # empty, or cut off in its first line
        raise StoreError(f"{path}: has no results of `soc`; give another name, nothing was written")
    first, *others = line.decode("utf-8", "replace").strip().split(",")
    if first != "time_s" or not others or not set(others) <= {*SIGNALS}:
        raise StoreError(f"{path}: has no results of `soc`; give another name, nothing was written")
    return others


def _mend_tail(path: Path) -> float:
    """Return the time of the file's last complete row, −inf if it has none; cuts off an incomplete row after it."""
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
    return float(first) if NUMBER.fullmatch(first) else -np.inf


def _rows(
    results: Results, columns: Sequence[str], which: np.ndarray[Any, np.dtype[np.bool_]], separator: str = ","
) -> Iterator[str]:
    """Yield lines of CSV: times with every bit, other values to a millionth, empty where there is no value."""
    texts = [_texts(results.signals[name][which]) for name in columns]
    for time_s, *cells in zip(results.time_s[which].tolist(), *texts, strict=True):
        yield f"{time_s!r}{separator}{separator.join(cells)}\n"


def _texts(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[str]:
    """Format numbers to a millionth, empty where there is none."""
    return ["" if value != value else f"{value:.6f}" for value in values.tolist()]
