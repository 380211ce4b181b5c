"""Row ranges to files that other programs read: CSV, Parquet, line protocol. Row by row, in bounded memory.

CSV and Parquet are one table: time, measurement, one column for each tag, one for each field (empty where missing).
The file appears under its name once it is complete.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from collectors import libraries, line_protocol
from collectors.errors import ConfigError
from collectors.journal.records import Chunk, Column, RowRange, Stream
from collectors.journal.timestamps import iso

STDOUT = Path("-")


class Output(Protocol):
    """Writes row ranges one after the other."""

    def write(self, span: RowRange) -> None:
        """Append the rows of the range."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a table that can hold all of these streams."""

    tags: tuple[str, ...]
    fields: tuple[str, ...]
    texts: frozenset[str]
    """The names of the text fields."""

    @classmethod
    def of(cls, streams: Sequence[Stream]) -> Layout:
        """Return tags by name, and fields in the order in which the streams list them."""
        tags = sorted({tag for stream in streams for tag in stream.tags})
        fields = dict.fromkeys(field.name for stream in streams for field in stream.fields)
        texts = frozenset(field.name for stream in streams for field in stream.fields if field.type == "s")
        return cls(tuple(tags), tuple(fields), texts)


class CsvOutput:
    """Comma-separated, UTF-8, one header line; times in UTC with nanoseconds; numbers as Python writes them."""

    def __init__(self, file: IO[str], layout: Layout) -> None:
        self._layout = layout
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(["time", "measurement", *layout.tags, *layout.fields])

    def write(self, span: RowRange) -> None:
        """Append the rows of the range."""
        head = [span.stream.measurement, *(span.stream.tags.get(tag, "") for tag in self._layout.tags)]
        columns = by_name(span)
        nothing = [""] * len(span.wall_ns)
        values = [_texts(columns[name]) if name in columns else nothing for name in self._layout.fields]
        for stamp, *row in zip(span.wall_ns.tolist(), *values, strict=True):
            self._writer.writerow([iso(stamp), *head, *row])


class LineOutput:
    """InfluxDB line protocol with ns stamps."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, span: RowRange) -> None:
        """Append the rows of the range."""
        chunk = Chunk(0, 0, span.stream, "", span.wall_ns, span.columns)
        self._file.writelines(f"{line}\n" for line in line_protocol.encode(chunk, span.wall_ns))


class ParquetOutput:
    """Parquet: time as timestamp[ns, UTC], tags as text, fields as float64 or text, null where missing."""

    def __init__(self, path: Path, layout: Layout) -> None:
        """Raise ConfigError if pyarrow is not installed."""
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ConfigError(f"Parquet: {libraries.advice(error) or error}; or use CSV") from error
        self._pa = pa
        self._layout = layout
        texts = [(name, pa.string()) for name in ("measurement", *layout.tags)]
        values = [(name, pa.string() if name in layout.texts else pa.float64()) for name in layout.fields]
        self._schema = pa.schema([("time", pa.timestamp("ns", tz="UTC")), *texts, *values])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, span: RowRange) -> None:
        """Append the rows of the range as one row group."""
        pa, n = self._pa, len(span.wall_ns)
        columns = by_name(span)
        texts = [span.stream.measurement, *(span.stream.tags.get(tag) for tag in self._layout.tags)]
        arrays: list[Any] = [pa.array(span.wall_ns).cast(self._schema.field("time").type)]
        arrays += [pa.array([text] * n, pa.string()) for text in texts]
        for name in self._layout.fields:
            column, kind = columns.get(name), self._schema.field(name).type
            arrays.append(pa.array(column.values, kind, mask=column.missing) if column else pa.nulls(n, kind))
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """Write the footer: without it the file is not valid."""
        self._writer.close()


def by_name(span: RowRange) -> dict[str, Column]:
    """Return the columns of the range by field name."""
    return {field.name: column for field, column in zip(span.stream.fields, span.columns, strict=True)}


def _texts(column: Column) -> list[str]:
    texts = [value if isinstance(value, str) else repr(value) for value in np.asarray(column.values).tolist()]
    if column.missing is None:
        return texts
    return ["" if gap else text for text, gap in zip(texts, column.missing.tolist(), strict=True)]


@contextmanager
def opened(path: Path, form: str, layout: Layout) -> Iterator[Output]:
    """Yield an output of `form` "csv", "parquet" or "lp"; `path` appears once complete. "-" is standard output."""
    if path == STDOUT:
        if form == "parquet":
            raise ConfigError("Parquet is not text: name a file with --output")
        yield LineOutput(sys.stdout) if form == "lp" else CsvOutput(sys.stdout, layout)
        return
    path = path.resolve()  # a symbolic link stays one: the file it points to is replaced
    is_special = path.exists() and not path.is_file()  # a device or a pipe is written to, not replaced
    part = path if is_special else path.with_name(f".{path.name}.part")
    try:
        if form == "parquet":
            table = ParquetOutput(part, layout)
            yield table
            table.close()
        else:
            with part.open("w", encoding="utf-8", newline="") as file:
                yield LineOutput(file) if form == "lp" else CsvOutput(file, layout)
        if not is_special:
            part.replace(path)
    finally:
        if not is_special:
            part.unlink(missing_ok=True)
