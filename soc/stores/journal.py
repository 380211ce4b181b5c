"""The journals of this host, through the `collectors` command: no database is needed.

    journal:/var/lib/collectors?device=t7&from=-1d            which signals: see `_select`

The journal's files belong to the `collectors` package, which `soc` never imports. So `collectors export` is run and its
line protocol is read; the vocabulary defines the names for both. Instruments are joined as in `_join`, a day at a time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from urllib.parse import parse_qsl, unquote

import numpy as np

from soc.stores import Recording, _select
from soc.stores._columns import Rules
from soc.stores._errors import StoreDown, StoreError
from soc.stores._join import Signal, joined
from soc.stores._select import SIGNALS, TAGS, Group

DAY_NS = 86_400 * 10**9
END_S = 10.0
NOTHING_THERE = 78  # the command's exit code for "no such journal or signal": it may appear later


def read(place: str, rules: Rules, since_s: float | None = None, until_s: float | None = None) -> Recording:
    """Return the samples in the journals of a directory, later than `since_s` and not later than `until_s`."""
    given = dict(parse_qsl(place.partition("?")[2], keep_blank_values=True))
    _select.refuse_unknown(given, _select.WORDS, place)
    sources = rules.resolve(("time_s", *SIGNALS), place)
    chunks = joined(Journals(_folder(place), place), _select.select(given, place), since_s, until_s)
    return Recording(place, ({ours: s.of(raw[s.column]) for ours, s in sources.items()} for raw in chunks))


def local_files(place: str) -> Sequence[Path]:
    """Return the directory of the journals."""
    return [_folder(place)]


def _folder(place: str) -> Path:
    return Path(unquote(place.removeprefix("journal:").partition("?")[0]))


class Journals:
    """The journals of one directory as a source of signals."""

    window_ns = DAY_NS

    def __init__(self, folder: Path, place: str) -> None:
        self._folder, self._place = folder, place

    def close(self) -> None:
        """Do nothing: no resource is open between two calls."""

    def first(self, group: Group, field: str, after: int | None, until: int) -> int | None:
        """Return the time of the field's first value, or None."""
        with self._exported(group, after, until) as lines:
            times = (time for time, _ in self._points(lines, group, (field,)))
            return next((time for time in times if (after is None or time > after) and time <= until), None)

    def fetch(self, group: Group, fields: Sequence[str], after: int, until: int) -> Mapping[str, Signal]:
        """Return times and values of each field."""
        found: dict[str, tuple[list[int], list[float]]] = {field: ([], []) for field in fields}
        with self._exported(group, after, until) as lines:
            for time, values in self._points(lines, group, fields):
                for field, value in values.items() if after < time <= until else ():
                    found[field][0].append(time)
                    found[field][1].append(value)
        return {f: (np.array(t, dtype=np.int64), np.array(v, dtype=np.float64)) for f, (t, v) in found.items()}

    def _points(self, lines: IO[str], group: Group, fields: Sequence[str]) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield time and values of the group's lines with one of the fields. Raises `StoreError` if ambiguous."""
        heads: dict[str, bool] = {}
        for line in lines:
            parts = PARTS.fullmatch(line)
            if parts is None:
                raise StoreError(f"{self._place}: expected line protocol from `collectors export`, got {line[:80]!r}")
            head, values, stamp = parts.groups()
            if head not in heads:
                heads[head] = set(group.tags) <= set(_tags(head).items())
                if sum(heads.values()) > 1:
                    choice = "; ".join(h for h, ours in heads.items() if ours)
                    raise StoreError(f"{self._place}: {group} is several series ({choice}): say which, with device=…")
            if heads[head]:
                try:
                    found = {name: float(value) for name, value in FIELD.findall(values) if name in fields}
                    moment = int(stamp)
                except ValueError as error:
                    raise StoreError(f"{self._place}: expected line protocol, got {line[:80]!r}") from error
                if found:
                    yield moment, found

    @contextmanager
    def _exported(self, group: Group, after: int | None, until: int) -> Iterator[IO[str]]:
        """Open the export of one measurement. Raises `StoreError` with the command's message if it fails."""
        device = dict(group.tags).get("device")
        command = [_collectors(), "export", "--format", "lp", "--no-progress", "--state", str(self._folder)]
        command += ["--measurement", group.measurement, *(["--device", device] if device else [])]
        # The command takes microseconds: it is asked for slightly more, and the excess is left out here.
        command += ["--to", _iso(until + 1000), *([] if after is None else ["--from", _iso(after)])]
        with TemporaryFile("w+", encoding="utf-8") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8")
            assert process.stdout is not None
            try:
                yield process.stdout
                cut_off = process.stdout.read(1) != ""
            except BaseException:
                cut_off = True
                raise
            finally:
                process.stdout.close()
                process.terminate() if cut_off else process.wait(END_S)
                code = process.wait(END_S)
            if code and not cut_off:
                errors.seek(0)
                kind = StoreDown if code == NOTHING_THERE else StoreError
                raise kind(f"{self._place}: {errors.read().strip()}")


NUMBER = r"[-+0-9.eE]+"
PARTS = re.compile(r"((?:\\.|[^ \\])+) (.*) (\d+)\n?", re.DOTALL)
FIELD = re.compile(rf"([^,= ]+)=({NUMBER})i?(?=,|$)")


def _tags(head: str) -> dict[str, str]:
    """Return the tags in a line's head that select a series, unescaped."""
    parts = [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\)[,=]", head)[1:]]
    return {key: value for key, value in zip(parts[::2], parts[1::2], strict=False) if key in TAGS}


def _iso(moment: int) -> str:
    """Format a time for the command, to the microsecond."""
    seconds, rest = divmod(moment, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _collectors() -> str:
    """Return the command of this installation, else the one on the path. Raises `StoreError` if there is none."""
    beside = Path(sys.executable).with_name("collectors")
    found = str(beside) if beside.exists() else shutil.which("collectors")
    if found is None:
        raise StoreError(
            "journal: the command `collectors` is not installed here; export on the host, then read the file"
        )
    return found
