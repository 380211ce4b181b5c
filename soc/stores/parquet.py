"""Parquet files: columns as in CSV; the JSON of a CSV's first line may be in the file's metadata, key `battfleet`.

Files are read in batches of rows and written in row groups, so memory does not grow with the file. Timestamps become
seconds since 1970. Results are written in single precision, times in double.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from soc.errors import FileError
from soc.files import opened, reason, shown, whole_file
from soc.stores import CHUNK_ROWS, Recording
from soc.stores._arrow import numbers
from soc.stores._columns import Columns, ColumnSource, Rules
from soc.stores._errors import StoreError
from soc.stores._files import parse_header, path_of
from soc.stores._results import Results
from soc.stores.csv import within

METADATA_KEY = b"battfleet"
BUFFER_BYTES = 1 << 20  # with the default, pre_buffer, all data read stay in memory until the file is closed


def read(place: str, rules: Rules, since_s: float | None = None, until_s: float | None = None) -> Recording:
    """Return the recording in a Parquet file, batch by batch. Raises `StoreError` naming file and column."""
    path = path_of(place, "parquet")
    opened(path).close()  # for its error message if there is no such file
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except pa.ArrowInvalid as error:  # before ValueError, its base class
        raise StoreError(f"{path}: not a Parquet file: {error}") from error
    except (OSError, ValueError) as error:
        raise FileError(f"{shown(path)}: {reason(error)}") from error
    names = file.schema_arrow.names
    sources = rules.resolve(names, str(path))
    twice = sorted(source.column for source in sources.values() if names.count(source.column) > 1)
    if twice:
        raise StoreError(f"{path}: column {', '.join(twice)} is there more than once")
    text = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    header = parse_header(text.decode("utf-8", "replace"), f"{path}, metadata") if text else {}
    chunks = _chunks(file, str(path), sources)
    return Recording(place, within(chunks, since_s, until_s), header, rules.unit_doubts(sources))


def _chunks(file: pq.ParquetFile, where: str, sources: Mapping[str, ColumnSource]) -> Iterator[Columns]:
    """Yield the columns under the names of `soc`, some rows at a time."""
    wanted = sorted({source.column for source in sources.values()})
    with file:
        try:
            for batch in file.iter_batches(CHUNK_ROWS, columns=wanted):
                raw = {name: numbers(batch.column(name), name, where) for name in wanted}
                yield {ours: source.of(raw[source.column]) for ours, source in sources.items()}
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{where}: damaged: {error}") from error


class Writer:
    """Writes results to a Parquet file; `columns` are those besides `time_s`."""

    def __init__(self, place: str, tags: Mapping[str, str], columns: Sequence[str]) -> None:  # noqa: ARG002 - files know no tags
        self._path = path_of(place, "parquet")
        self._schema = pa.schema([("time_s", pa.float64()), *((name, pa.float32()) for name in columns)])
        self._stack = ExitStack()
        self._warnings: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Begin the file."""
        file = self._stack.enter_context(whole_file(self._path))
        self._writer = self._stack.enter_context(
            pq.ParquetWriter(file, self._schema, compression="lz4", use_dictionary=False)
        )
        return self

    def write(self, results: Results) -> None:
        """Write rows."""
        self._warnings |= {warning.partition(":")[0]: warning for warning in results.warnings}
        columns: dict[str, Any] = {"time_s": results.time_s, **results.signals}
        table = [pa.array(columns[field.name].astype(field.type.to_pandas_dtype())) for field in self._schema]
        self._writer.write_table(pa.table(table, schema=self._schema))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, with its warnings in the metadata; after an error there is none."""
        if error is None:
            self._writer.add_key_value_metadata({METADATA_KEY: json.dumps({"warnings": [*self._warnings.values()]})})
        self._stack.__exit__(kind, error, trace)
