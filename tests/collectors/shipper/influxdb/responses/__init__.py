"""Responses of supported servers to writes, one TOML file for each server, its source named in the first lines."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from collectors.shipper.influxdb.responses import Outcome


@dataclass(frozen=True)
class Recorded:
    """One response to a write."""

    server: str
    name: str
    status: int
    body: str
    verdict: Outcome
    """What it means."""
    conflict: tuple[str, ...] = ()
    """Of a field type conflict: field, measurement and the type that the server has."""


def recorded() -> list[Recorded]:
    """Return all of them."""
    found = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        found += [
            Recorded(
                table["server"], r["name"], r["status"], r["body"], Outcome[r["verdict"]], tuple(r.get("conflict", ()))
            )
            for r in table["response"]
        ]
    return found
