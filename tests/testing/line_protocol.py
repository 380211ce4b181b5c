"""Line protocol read back: the independent opposite of `collectors.line_protocol`, for tests and stand-in servers.

Written from the protocol's reference, character by character, and shares nothing with the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Point(NamedTuple):
    """One parsed line."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | int | bool | str]
    stamp_ns: int

    @property
    def series(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The key by which a server separates series, besides the stamp."""
        return self.measurement, tuple(sorted(self.tags.items()))


def parse(body: str) -> list[Point]:
    """Return every point of a request body; ValueError naming what is wrong."""
    return [parse_line(line) for line in split_lines(body)]


def split_lines(body: str) -> Iterator[str]:
    """Return the lines; a line break inside double quotes does not end one."""
    start, quoted, at = 0, False, 0
    while at < len(body):
        if body[at] == "\\":
            at += 1
        elif body[at] == '"':
            quoted = not quoted
        elif body[at] == "\n" and not quoted:
            yield body[start:at]
            start = at + 1
        at += 1
    if start < len(body):
        yield body[start:]


def parse_line(line: str) -> Point:
    """Return the line's point."""
    key, rest = _until(line, " ", quotes=False)
    fields, stamp = _until(rest, " ", quotes=True)
    measurement, tags = _until(key, ",", quotes=False)
    return Point(
        _plain(measurement),
        {_plain(name): _plain(value) for name, value in _pairs(tags, quotes=False)},
        {_plain(name): _value(value) for name, value in _pairs(fields, quotes=True)},
        int(stamp),
    )


def _until(text: str, end: str, *, quotes: bool) -> tuple[str, str]:
    """Return what is before and after the first `end` that is neither escaped nor quoted."""
    at, quoted = 0, False
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"' and quotes:
            quoted = not quoted
        elif text[at] == end and not quoted:
            return text[:at], text[at + 1 :]
        at += 1
    return text, ""


def _pairs(text: str, *, quotes: bool) -> Iterator[tuple[str, str]]:
    while text:
        pair, text = _until(text, ",", quotes=quotes)
        name, value = _until(pair, "=", quotes=False)
        if not name or not value:
            raise ValueError(f"no pair: {pair!r}")
        yield name, value


def _plain(name: str) -> str:
    """Return the name without escapes; a backslash before any other character is itself."""
    for special in ",= ":
        name = name.replace("\\" + special, special)
    return name


def _value(text: str) -> float | int | bool | str:
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if text in ("t", "f"):
        return text == "t"
    if text.endswith("i"):
        return int(text[:-1])
    if any(letter not in "0123456789+-.e" for letter in text):
        raise ValueError(f"no value: {text!r}")
    return float(text)
