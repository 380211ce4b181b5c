"""Decode a capture of a Libre Solar charge controller's line, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from collectors.devices.libresolar_mppt.objects import (
    by_measurement,
    canonical,
    full_name,
    likeliest,
    located,
    possible,
    without_false_temperature,
)
from collectors.errors import FrameError
from collectors.protocols import thingset
from collectors.protocols.thingset import Json, Other, Publication, Response
from collectors.reading import Value


def decode(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Return one object per line of a capture, and after each publication one per measurement in it.

    The same after a response whose request is in the capture and names the requested members: a response carries no
    names. A garbled line has "error"; a response that is an error of the device has "refused".
    """
    asked: Asked | None = None
    for text, message in thingset.messages(chunks):
        if isinstance(message, FrameError):
            yield {"type": "error", "error": type(message).__name__, "detail": str(message), "text": text}
        elif isinstance(message, Other):
            yield {"type": message.kind, "text": message.text}
            asked = _asked(message.text) if message.kind == "echo" else asked
        elif isinstance(message, Response):
            yield _describe_response(message)
            yield from _readings_of(message, asked)
            asked = None
        else:
            yield from _describe_publication(message)


class Asked(NamedTuple):
    """What a request asks for."""

    group: str
    names: list[str]


_FETCH = re.compile(r"""[?!](?P<group>[^ ]+) (?P<names>[\["].*?[\]"])(?: [0-9A-F]{8}#?)?""")


def _asked(text: str) -> Asked | None:
    """Return what a request for members of a group asks for; None for any other. In a shell, JSON is escaped."""
    if text.startswith(thingset.COMMAND):
        text = re.sub(r"\\(.)", r"\1", text.removeprefix(thingset.COMMAND))
    found = _FETCH.fullmatch(text)
    if not found:
        return None
    try:
        payload, _ = thingset.load_json(found["names"])
    except FrameError:
        return None
    names: list[Json] = payload if isinstance(payload, list) else [payload]
    return Asked(found["group"], names) if all(isinstance(name, str) for name in names) else None


def _readings_of(message: Response, asked: Asked | None) -> Iterator[Mapping[str, Any]]:
    """Yield the readings in a response that has as many values as were requested by name."""
    values = message.payload if isinstance(message.payload, list) else [message.payload]
    if asked is None or not (message.ok and message.has_payload) or len(values) != len(asked.names):
        return
    places = [(asked.group, name) for name in asked.names]
    generation = max(possible(message), key=lambda g: (sum(place in located(g) for place in places), g))
    names = [full_name(generation, *place) for place in places if place in located(generation)]
    here = [value for value, place in zip(values, places, strict=True) if place in located(generation)]
    found, _ = canonical(generation, dict(zip(names, here, strict=True)))
    yield from _readings(found)


def _readings(values: Mapping[str, Value]) -> Iterator[Mapping[str, Any]]:
    has_sensor = bool(values.get("battery.temperature_sensor"))
    for reading in by_measurement(without_false_temperature(values, has_sensor=has_sensor), 0):
        yield {"type": "reading", "measurement": reading.measurement, "values": dict(reading.values)}


def _describe_response(message: Response) -> Mapping[str, Any]:
    return {
        "type": "response",
        "generations": sorted(possible(message)),
        "code": message.code,
        "status": message.status,
        **({"payload": message.payload} if message.has_payload else {}),
        **({} if message.ok else {"refused": message.status}),
        **_remarks(message),
    }


def _describe_publication(message: Publication) -> Iterator[Mapping[str, Any]]:
    form = thingset.generations(message)
    candidates = sorted(form if form == {"0.4", "0.5"} else possible(message))
    values, unknown = canonical(likeliest(message), message.values)
    yield {
        "type": "publication",
        "generations": candidates,
        "path": message.path,
        "values": dict(message.values),
        **({"unknown": unknown} if unknown else {}),
        **_remarks(message),
    }
    yield from _readings(values)


def _remarks(message: Response | Publication) -> Mapping[str, Any]:
    """Return the optional entries of an object: each is present only if it applies."""
    return {
        **({"checked": True} if message.checked else {}),
        **({"duplicates": message.duplicates} if message.duplicates else {}),
    }
