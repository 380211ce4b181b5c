"""A capture of a Libre Solar charge controller's line, explained line by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from collectors import thingset
from collectors.devices._libresolar_objects import (
    by_measurement,
    canonical,
    likeliest,
    possible,
    without_false_temperature,
)
from collectors.errors import FrameError
from collectors.thingset import Other, Publication, Response


def decode(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Return one object per line of a capture, and after each publication one per measurement in it.

    A line that is garbled has "error"; an answer that is an error of the device has "refused".
    """
    for text, message in thingset.messages(chunks):
        if isinstance(message, FrameError):
            yield {"type": "error", "error": type(message).__name__, "detail": str(message), "text": text}
        elif isinstance(message, Other):
            yield {"type": message.kind, "text": message.text}
        elif isinstance(message, Response):
            yield _describe_response(message)
        else:
            yield from _describe_publication(message)


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
    has_sensor = bool(values.get("battery.temperature_sensor"))
    for reading in by_measurement(without_false_temperature(values, has_sensor=has_sensor), 0):
        yield {"type": "reading", "measurement": reading.measurement, "values": dict(reading.values)}


def _remarks(message: Response | Publication) -> Mapping[str, Any]:
    """Return what is worth saying only where it is so."""
    return {
        **({"checked": True} if message.checked else {}),
        **({"duplicates": message.duplicates} if message.duplicates else {}),
    }
