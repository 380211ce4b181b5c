"""A dashboard around its panels: variables, annotations, links, and where each panel stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collectors.signals import EVENTS, HUMAN_EVENTS
from grafana.panels import SOURCE, Json, Panel, Row, panel_json
from grafana.units import BLUE, ORANGE, PURPLE, RED

SCHEMA_VERSION = 41
COLUMNS = 24
TAG = "battfleet"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `asks` is the question that brings a person here."""

    uid: str
    title: str
    asks: str
    content: tuple[Panel | Row, ...]
    variables: tuple[Json, ...]
    range: str = "now-24h"
    refresh: str = "30s"


def tag_values(tag: str, measurement: str, where: str = "") -> str:
    """Return the query for the values that a tag has, among points that hold `where`."""
    return f'SHOW TAG VALUES FROM "{measurement}" WITH KEY = "{tag}"' + (f" WHERE {where}" if where else "")


def choice(name: str, label: str, query: str, description: str, several: bool = False, everything: str = ".*") -> Json:
    """Return a variable whose values the database tells; `several`: more than one may be chosen, all at first.

    `everything` is the pattern that "All" stands for; empty: each of the values.
    """
    variable: Json = {
        "name": name,
        "label": label,
        "type": "query",
        "description": description,
        "datasource": SOURCE,
        "query": {"refId": f"variable-{name}", "query": query},
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "hide": 0,
        "multi": several,
        "includeAll": several,
        "skipUrlSync": False,
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]} if several else {"text": "", "value": ""},
    }
    return variable | ({"allValue": everything} if several and everything else {})


def grain(name: str, field: str, value: str) -> Json:
    """Return a hidden variable that follows the time range; `value` is what holds before it was asked."""
    span = "${__to:date:seconds} - ${__from:date:seconds}"
    query = f'SELECT "{field}" FROM "h1_mean"."grain" WHERE "from_s" < {span} AND "to_s" >= {span}'
    return choice(name, name, query, "Follows the time range: which stored series is read.") | {
        "hide": 2,
        "sort": 0,
        "skipUrlSync": True,
        "current": {"text": value, "value": value},
    }


GRAINS = (
    grain("mean", "mean", "m1_mean"),
    grain("least", "least", "m1_min"),
    grain("most", "most", "m1_max"),
    grain("step", "step", "1m"),
    grain("sum", "sum", "m1_sum"),
    grain("minutes", "minutes", "m1_mean"),
    grain("states", "states", "m1_max"),
    grain("per_hour", "per_hour", "60"),
    grain("least_minutes", "least_minutes", "1"),
)


def interval(name: str, label: str, points: int, least: str, hide: int = 0) -> Json:
    """Return a variable that is the time range divided by about `points`, never below `least`, unless one is chosen."""
    return {
        "name": name,
        "label": label,
        "type": "interval",
        "description": f"Width of one point. auto: the range in about {points} parts, at least {least}.",
        "query": "10s,1m,10m,1h,6h,1d",
        "auto": True,
        "auto_count": points,
        "auto_min": least,
        "refresh": 2,
        "hide": hide,
        "skipUrlSync": False,
        "options": [],
        "current": {"text": "auto", "value": f"$__auto_interval_{name}"},
    }


BENCH_HERE = '"bench" =~ /^$bench$/'
BATTERY_HERE = BENCH_HERE + ' AND "battery" =~ /^$battery$/'
BENCH = choice("bench", "Bench", tag_values("bench", "collector"), "Where the instruments stand.")
BENCHES = choice("bench", "Bench", tag_values("bench", "collector"), "Where the instruments stand.", several=True)
BATTERY = choice("battery", "Battery", tag_values("battery", "battery", BENCH_HERE), "The battery under test.")
REFERENCE = choice(
    "reference",
    "Reference",
    tag_values("device", "battery", BATTERY_HERE),
    "The instrument that speaks for the battery, and that the others are compared with.",
)
COMPARED = choice(
    "compared",
    "Compared",
    tag_values("device", "battery", BATTERY_HERE + ' AND "device" !~ /^$reference$/'),
    "The instruments that are compared with the reference, one after the other.",
    several=True,
    everything="",
)
DEVICE = choice(
    "device", "Device", tag_values("device", "battery", BATTERY_HERE), "Instruments at this battery.", several=True
)
COLLECTOR = choice(
    "device", "Device", tag_values("device", "collector", BENCH_HERE), "Collectors and shippers.", several=True
)
INTERVAL = interval("bin_width", "Interval", 400, "1s")
BLOCK = interval("block", "Block", 200, "1m", hide=2)
"""For states: a block ends where an interval is empty, so an interval must be longer than the slowest instrument's."""
WINDOW = interval("window", "Window", 40, "1m")


def events(name: str, kinds: Sequence[str], colour: str, enable: bool = True) -> Json:
    """Return an annotation of the events of these kinds on the chosen bench: kind, what happened, and the device.

    Grafana's server answers an annotation with a column "event.<name>" for each selected name. Tags are selected, not
    grouped by: a group's tags become part of the name, and each column whose name holds a tag's is taken for that tag.
    """
    pattern = "|".join(sorted(kinds))
    target = {
        "refId": "Anno",
        "fromAnnotations": True,
        "rawQuery": True,
        "query": f'SELECT "detail", "kind", "device" FROM "event" WHERE {BENCH_HERE} AND "kind" =~ /^({pattern})$/ '
        "AND $timeFilter ORDER BY time DESC LIMIT 200",
        "titleColumn": "event.kind",
        "textColumn": "event.detail",
        "tagsColumn": "event.device",
        "limit": 200,
        "matchAny": False,
        "tags": [],
        "type": "tags",
    }
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": enable,
        "hide": False,
        "iconColor": colour,
        "target": target,
    }


ALERT_STATES: Json = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": BLUE,
    "name": "Annotations & Alerts",
    "type": "dashboard",
}
LOSSES = tuple(kind for kind, event in EVENTS.items() if event.is_loss)
ANNOTATIONS = (
    ALERT_STATES,
    events("Gaps and losses", LOSSES, RED),
    events("Flash, deploy, calibration", tuple(HUMAN_EVENTS), PURPLE),
    events(
        "Starts, stops, links",
        ("collector_start", "collector_stop", "link_up", "device_restart"),
        ORANGE,
        enable=False,
    ),
)

LINKS: Json = {
    "type": "dashboards",
    "title": "battfleet",
    "tags": [TAG],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "The other dashboards, same bench, same time",
    "url": "",
}


def place(content: Sequence[Panel | Row]) -> list[Json]:
    """Return the panels' JSON, from left to right and down, a new line when one is full or a row begins."""
    placed: list[Json] = []
    x, y, height = 0, 0, 0

    def put(panel: Panel) -> None:
        nonlocal x, y, height
        if x + panel.size[0] > COLUMNS:
            x, y, height = 0, y + height, 0
        placed.append(panel_json(panel, len(placed) + 1, x, y))
        x, height = x + panel.size[0], max(height, panel.size[1])

    for item in content:
        if isinstance(item, Panel):
            put(item)
            continue
        x, y, height = 0, y + height, 0
        placed.append(_row(item, len(placed) + 1, y))
        y += 1
        for panel in item.panels:
            put(panel)
    return placed


def _row(row: Row, number: int, y: int) -> Json:
    made: Json = {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        "panels": [],
    }
    return made | ({"repeat": row.repeat} if row.repeat else {})


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return the dashboard as Grafana reads it from a file."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.asks,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": dashboard.range, "to": "now"},
        "refresh": dashboard.refresh,
        "timepicker": {"refresh_intervals": ["10s", "30s", "1m", "5m", "15m"]},
        "annotations": {"list": list(ANNOTATIONS)},
        "templating": {"list": list(dashboard.variables)},
        "links": [LINKS],
        "panels": place(dashboard.content),
    }
