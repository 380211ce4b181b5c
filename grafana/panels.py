"""Panels as frozen data, and their JSON in Grafana's classic schema (version 41; Grafana 12 and 13 read it).

A panel says which question it answers (`asks`), how to read it (`reads`), and why it may be empty (`empty`); the
first two become its description, the third what stands there instead of data. Core panel types only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from grafana.units import GREY

Json = dict[str, Any]

FOLDER = "battfleet"
"""Grafana's folder for dashboards and rules."""

SOURCE: Json = {"type": "influxdb", "uid": "battfleet"}
EXPRESSION: Json = {"type": "__expr__", "uid": "__expr__"}
"""The one data source, by its fixed id; `grafana.provisioning` makes it."""

GAP_MS = 90_000
"""A line is drawn over gaps shorter than this, so over what is heard once a minute; a longer one stays a gap."""


@dataclass(frozen=True, slots=True)
class Target:
    """One query; `alias` names its series, `$tag_x` being the value of tag x."""

    query: str
    alias: str = ""
    table: bool = False
    colour: str = ""
    dash: tuple[int, ...] = ()
    width: int | None = None
    below: str = ""
    """Alias of another target of this panel: the space between the two is filled."""
    is_hidden: bool = False
    """Only an input of another target's expression."""
    is_math: bool = False
    """The query is an expression over other targets ($A − $B), which Grafana's server computes: InfluxQL cannot
    put two measurements side by side."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `size` is width and height in cells of the 24-column grid."""

    kind: str
    title: str
    asks: str
    targets: tuple[Target, ...] = ()
    reads: str = ""
    empty: str = ""
    size: tuple[int, int] = (12, 8)
    options: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    time_from: str = ""
    links: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and its panels; `repeat` names the variable for whose every value the row stands once."""

    title: str
    panels: tuple[Panel, ...]
    repeat: str = ""


def letter(number: int) -> str:
    """Return "A" for 0, "B" for 1 …, as Grafana names targets."""
    return chr(ord("A") + number)


def _target(number: int, target: Target) -> Json:
    if target.is_math:
        return {"refId": letter(number), "datasource": EXPRESSION, "type": "math", "expression": target.query}
    return {
        "refId": letter(number),
        "datasource": SOURCE,
        "rawQuery": True,
        "query": target.query,
        "resultFormat": "table" if target.table else "time_series",
        **({"alias": target.alias} if target.alias else {}),
        **({"hide": True} if target.is_hidden else {}),
    }


def _look(number: int, target: Target) -> Json | None:
    """Return the override that gives a target's series their colour and line, or None."""
    properties: list[Json] = []
    if target.is_math and target.alias:
        properties.append({"id": "displayName", "value": target.alias})  # an expression's series bears its letter
    if target.colour:
        properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": target.colour}})
    if target.dash:
        properties.append({"id": "custom.lineStyle", "value": {"fill": "dash", "dash": list(target.dash)}})
    if target.width is not None:
        properties.append({"id": "custom.lineWidth", "value": target.width})
    if target.below:
        properties += [
            {"id": "custom.fillBelowTo", "value": target.below},
            {"id": "custom.fillOpacity", "value": 15},
        ]
    if not properties:
        return None
    return {"matcher": {"id": "byFrameRefID", "options": letter(number)}, "properties": properties}


def panel_json(panel: Panel, number: int, x: int, y: int) -> Json:
    """Return a panel's JSON at this place; `number` is its id within the dashboard."""
    looks = [look for at, target in enumerate(panel.targets) if (look := _look(at, target))]
    defaults = dict(panel.defaults)
    if panel.empty:
        defaults["noValue"] = panel.empty
    if panel.custom:
        defaults["custom"] = panel.custom
    width, height = panel.size
    made: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": "\n\n".join(text for text in (panel.asks, panel.reads) if text),
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "options": panel.options,
        "fieldConfig": {"defaults": defaults, "overrides": [*looks, *panel.overrides]},
    }
    if panel.targets:
        made["datasource"] = SOURCE
        made["targets"] = [_target(at, target) for at, target in enumerate(panel.targets)]
    if panel.transformations:
        made["transformations"] = list(panel.transformations)
    if panel.time_from:
        made |= {"timeFrom": panel.time_from, "hideTimeOverride": False}
    if panel.links:
        made["links"] = list(panel.links)
    return made


def unknown(text: str) -> Json:
    """Return the value mapping that shows a missing value as this text, in no colour that means something.

    Without it Grafana takes the panel's `noValue`, in the colour of the lowest threshold; a state timeline puts it into
    the legend, and a text of no length there is left out.
    """
    return {"type": "special", "options": {"match": "null+nan", "result": {"text": text, "color": "text", "index": 99}}}


TOOLTIP = {"mode": "multi", "sort": "desc"}
LEGEND = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
LINES: Json = {
    "drawStyle": "line",
    "lineWidth": 1,
    "fillOpacity": 0,
    "showPoints": "auto",
    "pointSize": 4,
    "spanNulls": GAP_MS,
    "axisBorderShow": False,
}


def timeseries(
    title: str, asks: str, targets: Sequence[Target], unit: str, *, calcs: Sequence[str] = (), **more: Any
) -> Panel:
    """Return lines over time; with `calcs` ("min", "mean", …) the legend is a table of these."""
    legend = LEGEND | ({"displayMode": "table", "calcs": list(calcs)} if calcs else {})
    defaults = {"unit": unit, "color": {"mode": "palette-classic"}} | more.pop("defaults", {})
    custom = LINES | more.pop("custom", {})
    return Panel(
        "timeseries",
        title,
        asks,
        tuple(targets),
        options={"legend": legend, "tooltip": TOOLTIP},
        defaults=defaults,
        custom=custom,
        **more,
    )


def stat(title: str, asks: str, targets: Sequence[Target], unit: str, *, graph: bool = False, **more: Any) -> Panel:
    """Return a big number; with `graph` over a small line of its course; with `is_word` room for words.

    Of several numbers each keeps its name, also where only one of them has a value.
    """
    is_word = more.pop("is_word", False)
    shown = [target for target in targets if not target.is_hidden]
    options: Json = {
        "colorMode": "value",
        "graphMode": "area" if graph else "none",
        "justifyMode": "auto",
        "orientation": "horizontal" if is_word else "auto",
        "textMode": "value_and_name" if len(shown) > 1 else "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "reduceOptions": {
            "calcs": [more.pop("calc", "lastNotNull")],
            "fields": more.pop("fields", ""),
            "values": False,
        },
    }
    if is_word:
        options["text"] = {"titleSize": 14, "valueSize": 22}
    plain = {"mode": "fixed", "fixedColor": "text"}
    defaults = {"unit": unit, "color": plain} | more.pop("defaults", {})
    if empty := more.get("empty"):
        defaults["mappings"] = [*defaults.get("mappings", ()), unknown(empty)]
    return Panel(
        "stat", title, asks, tuple(targets), options=options, defaults=defaults, size=more.pop("size", (4, 4)), **more
    )


def timeline(title: str, asks: str, targets: Sequence[Target], unit: str = "none", **more: Any) -> Panel:
    """Return states over time; stretches of one state are one block.

    With value mappings (`defaults`) a state is its word; with thresholds, the stretch between two of them. Not both:
    where colours come from thresholds, Grafana writes these into the blocks, whatever the mappings say.
    """
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": LEGEND,
        "tooltip": {"mode": "single", "sort": "none"},
    }
    defaults = {"unit": unit, "color": {"mode": "fixed", "fixedColor": GREY}} | more.pop("defaults", {})
    if "mappings" in defaults:
        defaults["mappings"] = [*defaults["mappings"], unknown("")]
    custom = {"fillOpacity": 75, "lineWidth": 0}
    return Panel(
        "state-timeline", title, asks, tuple(targets), options=options, defaults=defaults, custom=custom, **more
    )


NO_CELL = "–"
"""What stands in a table's empty cell; the panel's own `noValue` says why the whole table is empty."""


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: what the query calls it, its heading, unit and width in pixels (0: what is left)."""

    name: str
    title: str
    unit: str = ""
    width: int = 0
    more: Json = field(default_factory=dict)

    def override(self) -> Json:
        """Return the override that makes it so."""
        width = {"custom.width": self.width} if self.width else {}
        return column(self.name, self.unit, self.title, **width, **{"noValue": NO_CELL} | self.more)


EVENT_COLUMNS = (
    Column("Time", "When", "dateTimeAsIso", 160),
    Column("device", "Who", width=90),
    Column("kind", "Event", width=130),
    Column("detail", "What happened"),
)


def table(
    title: str, asks: str, targets: Sequence[Target], columns: Sequence[Column], hidden: Sequence[str] = (), **more: Any
) -> Panel:
    """Return a table of these columns in this order.

    The order is stated for all of them, because Grafana's server has none for the tags by which a query groups.
    """
    options = {"showHeader": True, "cellHeight": "sm", "frameIndex": 0} | more.pop("options", {})
    order: Json = {
        "id": "organize",
        "options": {
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {column.name: at for at, column in enumerate(columns)},
            "renameByName": {},
        },
    }
    return Panel(
        "table",
        title,
        asks,
        tuple(replace(target, table=True) for target in targets),
        options=options,
        transformations=(order,),
        overrides=tuple(column.override() for column in columns),
        **more,
    )


def scatter(title: str, asks: str, target: Target, **more: Any) -> Panel:
    """Return points of the target's second number over its first."""
    options = {
        "mapping": "auto",
        "series": [],
        "legend": LEGEND | {"showLegend": False},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"show": "points", "pointSize": {"fixed": 4}, "pointShape": "circle", "fillOpacity": 40}
    defaults = {"color": {"mode": "palette-classic"}} | more.pop("defaults", {})
    return Panel(
        "xychart",
        title,
        asks,
        (replace(target, table=True),),
        options=options,
        defaults=defaults,
        custom=custom,
        **more,
    )


def histogram(title: str, asks: str, target: Target, unit: str, **more: Any) -> Panel:
    """Return how often the target's values fall into each of 40 bins."""
    options = {"bucketCount": 40, "combine": False, "legend": LEGEND | {"showLegend": False}, "tooltip": TOOLTIP}
    custom = {"fillOpacity": 70, "lineWidth": 0}
    defaults = {"unit": unit, "color": {"mode": "palette-classic"}} | more.pop("defaults", {})
    return Panel("histogram", title, asks, (target,), options=options, defaults=defaults, custom=custom, **more)


def column(name: str, unit: str, title: str = "", **properties: Any) -> Json:
    """Return the override of one table column."""
    named = ({"unit": unit} if unit else {}) | ({"displayName": title} if title else {}) | properties
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": value} for key, value in named.items()],
    }


def by_turn(query: str, alias: str, colours: Sequence[str]) -> tuple[Target, ...]:
    """Return one target for each of the first series of a query grouped by one tag, each in its own colour and dash.

    Grafana gives series of an unknown number colours from a palette that is not safe for all eyes; so the series are
    taken one by one, in the order of the tag's values.
    """
    dashes = ((), (), (), (6, 4), (6, 4), (6, 4))
    return tuple(
        Target(f"{query} SLIMIT 1 SOFFSET {turn}", alias, colour=colour, dash=dashes[turn % len(dashes)])
        for turn, colour in enumerate(colours)
    )
