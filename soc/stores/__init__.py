"""The stores that recordings are read from and estimates are written to. Each module here is one store.

    cycle.csv, -            a CSV file, standard input       soc.stores.csv
    cycle.parquet           a Parquet file                   soc.stores.parquet
    journal:/var/lib/collectors?device=t7                    soc.stores.journal
    influx:http://host:8086/bat?device=t7                    soc.stores.influx

A place is a string. The scheme before its first colon, or else the suffix of the file, names the module. Each module
has `read(place, rules, since_s, until_s) -> Recording`; modules that can write have `Writer(place, tags, columns)`.

A recording is read in chunks, so memory does not grow with its length. Times from stores are seconds since 1970.

May import `soc.series`, `soc.errors` and `soc.files`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath
from pkgutil import iter_modules
from types import TracebackType
from typing import Any, Protocol, Self, cast

import numpy as np

from soc.files import shown
from soc.series import Series
from soc.stores._columns import Columns, Rules
from soc.stores._errors import StoreDown, StoreError
from soc.stores._results import FILE_COLUMNS, SIGNALS, Results

__all__ = ["Columns", "Recording", "Results", "Rules", "StoreDown", "StoreError", "Writer", "read", "series", "writer"]

NAMES = sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))
SUFFIXES = {"csv": "csv", "tsv": "csv", "txt": "csv", "parquet": "parquet"}  # suffixes of files, and their stores
FILES = ("csv", "parquet")  # the stores whose places are files
CHUNK_ROWS = 131_072


@dataclass(frozen=True, eq=False)
class Recording:
    """Columns of one recording, in chunks, under the names of `soc`; `header` is the recording's own description."""

    place: str
    chunks: Iterator[Columns]
    header: Mapping[str, Any] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    """Suspicious names and units of columns."""


class Writer(Protocol):
    """Writes results in order; after `write` returns they are stored. A context: an error leaves no partial file."""

    def write(self, results: Results) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """The interface of a store's module."""

    def read(
        self, place: str, rules: Rules, since_s: float | None = None, until_s: float | None = None
    ) -> Recording: ...

    def local_files(self, place: str) -> Sequence[Path]: ...  # not called for a place that is a file


def name_of(place: str) -> str:
    """Return the name of the store that a place belongs to. Raises `StoreError` if there is none."""
    scheme = place.partition(":")[0]
    name = "csv" if place == "-" else scheme if scheme in NAMES else _name_of_file(place)
    if name not in NAMES:
        suffixes = ", ".join(f".{suffix}" for suffix in SUFFIXES)
        raise StoreError(
            f"{shown(place)}: no store for this; there are {', '.join(NAMES)}: files by suffix ({suffixes}; text also "
            f"with .gz) or as `csv:{shown(place)}`, others as `name:…`"
        )
    return name


def _name_of_file(place: str) -> str:
    """Return the store of a file with this name; empty if it has none."""
    path = PurePath(place)
    if path.suffix.lower() == ".gz":
        inner = SUFFIXES.get(PurePath(path.stem).suffix.lower().lstrip("."), "")
        return inner if inner == "csv" else ""
    return SUFFIXES.get(path.suffix.lower().lstrip("."), "")


def is_file(place: str) -> bool:
    """Return whether a place is a plain path. Raises `StoreError` if it belongs to no store."""
    return place.partition(":")[0] not in NAMES and place != "-" and name_of(place) in FILES


def find(place: str) -> Store:
    """Return the module for a place. Raises `StoreError` if there is none."""
    return cast("Store", importlib.import_module(f"{__name__}.{name_of(place)}"))


def local_files(place: str) -> Sequence[Path]:
    """Return the files and directories of this machine that a place consists of or needs; `-` for a standard stream.

    Raises `StoreError` if it belongs to no store.
    """
    file = file_of(place)
    return find(place).local_files(place) if file is None else [file]


def file_of(place: str) -> Path | None:
    """Return the file at a place; None for a server or a directory. Raises `StoreError` if it belongs to no store."""
    name = name_of(place)
    return Path(place.removeprefix(f"{name}:")) if name in FILES else None


def read(
    place: str, rules: Rules | None = None, since_s: float | None = None, until_s: float | None = None
) -> Recording:
    """Return the recording at a place: all of it, or the rows later than `since_s` and not later than `until_s`.

    Raises `StoreError` naming place and column, `StoreDown` if a server does not respond.
    """
    return find(place).read(place, rules or Rules(), since_s, until_s)


def series(place: str, rules: Rules | None = None) -> Series:
    """Return all rows of a recording. Raises `StoreError`; `SeriesError` for what `Series` rejects, such as NaN."""
    pieces = list(read(place, rules).chunks)
    if not pieces:
        raise StoreError(f"{place}: no rows")
    names = [f.name for f in fields(Series) if f.name in pieces[0]]
    columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
    columns.setdefault("temperature_degc", np.full(len(columns["time_s"]), np.nan))
    return Series(**columns)


def writer(place: str, tags: Mapping[str, str] | None = None, *, all_columns: bool = False) -> Writer:
    """Return a writer for results at a place; `tags` mark them where the store has tags, `all_columns`: in files, too.

    Raises `StoreError` if the place cannot be written to.
    """
    store = find(place)
    if not hasattr(store, "Writer"):
        raise StoreError(f"{place}: this store cannot be written to; give a .csv or .parquet file or influx:…")
    return cast("Writer", store.Writer(place, tags or {}, SIGNALS if all_columns else FILE_COLUMNS))


def appender(place: str, tags: Mapping[str, str] | None = None) -> Writer:
    """Return a writer that appends results to those at a place, for a service; repeated results do no harm.

    Raises `StoreError` if the place cannot be appended to.
    """
    store = find(place)
    if hasattr(store, "Appender") and place.endswith((".gz", ".tsv")):
        raise StoreError(f"{place}: results cannot be added to such a file; give influx:… or a .csv file")
    if hasattr(store, "Appender"):
        return cast("Writer", store.Appender(place, SIGNALS))
    if name_of(place) == "influx":
        return writer(place, tags)
    raise StoreError(f"{place}: this store cannot be added to; give influx:… or a .csv file")
