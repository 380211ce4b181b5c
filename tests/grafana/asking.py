"""Grafana's processing of a query before it is sent: variables and macros are replaced by text, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

BUILT = Path(__file__).parents[2] / "grafana" / "built"
STEPS_S = (
    *((1.5, 1), (3.5, 2), (7.5, 5), (12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120), (450, 300)),
    *((750, 600), (1050, 900), (1500, 1200), (2700, 1800), (5400, 3600), (9000, 7200), (16200, 10800)),
    *((32400, 21600), (86400, 43200), (604800, 86400)),
)
"""Below how many seconds Grafana rounds an automatic interval to how many."""
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Range(NamedTuple):
    from_s: int
    to_s: int

    @property
    def filter(self) -> str:
        return f"time >= {self.from_s * 1000}ms and time <= {self.to_s * 1000}ms"


class Asked(NamedTuple):
    """One query of one panel, ready to be sent."""

    dashboard: str
    panel: str
    letter: str
    empty: str
    text: str


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((BUILT / "dashboards").glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def duration_s(text: str) -> int:
    return int(text[:-1]) * UNITS_S[text[-1]]


def auto(variable: Mapping[str, Any], span: Range) -> str:
    """The value of an interval variable on "auto" for this range."""
    wanted_s = (span.to_s - span.from_s) / variable["auto_count"]
    rounded_s = next(step_s for below_s, step_s in STEPS_S if wanted_s < below_s)
    return f"{max(rounded_s, duration_s(variable['auto_min']))}s"


def fill_in(query: str, values: Mapping[str, str], span: Range) -> str:
    """The query with every variable in place; a variable without a value is an error."""
    for name, time_s in (("__from", span.from_s), ("__to", span.to_s)):
        query = query.replace(f"${{{name}:date:seconds}}", str(time_s))
    macros = {"timeFilter": span.filter}
    known = {**values, **macros}
    return re.sub(r"\$(\w+)", lambda found: known[found[1]], query)


def narrowed(panel: Mapping[str, Any], span: Range) -> Range:
    """The panel's own time range, where it has one."""
    own = panel.get("timeFrom")
    if not own:
        return span
    from_s = span.to_s // 86400 * 86400 if own == "now/d" else span.to_s - duration_s(own)
    return Range(from_s, span.to_s)


def annotations(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for annotation in dashboard["annotations"]["list"]:
        if "query" in annotation.get("target", {}):
            yield annotation["name"], annotation["target"]["query"]


def asked(uid: str, dashboard: Mapping[str, Any], values: Mapping[str, str], span: Range) -> Iterator[Asked]:
    for panel in panels(dashboard):
        own = narrowed(panel, span)
        for target in panel.get("targets", []):
            if target["datasource"]["uid"] == "__expr__":
                continue
            noted = panel["fieldConfig"]["defaults"].get("noValue", "")
            yield Asked(uid, panel["title"], target["refId"], noted, fill_in(target["query"], values, own))
