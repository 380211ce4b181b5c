"""An answer of InfluxDB as the data frames that Grafana's server makes of it, for its own front end to work on.

Written after the server's `pkg/tsdb/influxdb/influxql` (buffered parser) and `pkg/expr` (Grafana 12 and 13):

    time series   a frame for each series and column, named by the alias, its values in a field "Value" with the tags
    table         one frame: Time, the tags, the columns; the tags stand in any order, because Go's maps have none
    expression    a frame whose field bears the target's letter
    annotation    as a time series; the front end's `influxdb/response_parser.ts` makes rows of the frames again and
                  takes each column for what its name says it is, in this order: title, tags, text
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Frame = dict[str, Any]
Series = Mapping[str, Any]


def field(name: str, values: Sequence[Any], labels: Mapping[str, str] | None = None, shown: str = "") -> dict[str, Any]:
    first = next((value for value in values if value is not None), None)
    kind = "string" if isinstance(first, str) else "boolean" if isinstance(first, bool) else "number"
    config = {"displayNameFromDS": shown} if shown else {}
    return {"name": name, "type": kind, "values": list(values), "config": config, "labels": dict(labels or {})}


def times(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {"name": "Time", "type": "time", "values": [row[0] * 1000 for row in rows], "config": {}}


def frame(letter: str, name: str, fields: list[dict[str, Any]]) -> Frame:
    return {"refId": letter, "name": name, "fields": fields, "length": len(fields[0]["values"])}


def named(alias: str, series: Series, column: str) -> str:
    tags: Mapping[str, str] = series.get("tags", {})
    if not alias:
        own = ", ".join(f"{key}: {value}" for key, value in tags.items())
        return f"{series['name']}.{column}" + (f" {{ {own} }}" if own else "")
    return re.sub(r"\$tag_(\w+)", lambda found: tags.get(found[1], found[0]), alias).replace("$col", column)


def time_series(letter: str, alias: str, answer: Sequence[Series]) -> list[Frame]:
    frames = []
    for series in answer:
        for at, column in enumerate(series["columns"]):
            if column == "time":
                continue
            shown = named(alias, series, column)
            values = field("Value", [row[at] for row in series["values"]], series.get("tags"), shown)
            frames.append(frame(letter, shown, [times(series["values"]), values]))
    return frames


def table(letter: str, answer: Sequence[Series], is_reversed: bool = False) -> list[Frame]:
    if not answer:
        return []
    first = answer[0]
    rows = [row for series in answer for row in series["values"]]
    tags = sorted(first.get("tags", {}), reverse=is_reversed)
    fields = [times(rows)]
    for tag in tags:
        own = [series["tags"][tag] for series in answer for _ in series["values"]]
        fields.append(field(tag, own, shown=tag))
    for at, column in enumerate(first["columns"][1:], 1):
        fields.append(field(column, [row[at] for row in rows], shown=column))
    return [frame(letter, first["name"], fields)]


def expression(letter: str, formula: str, inputs: Mapping[str, Sequence[Frame]]) -> list[Frame]:
    """The server's result for series without tags, at each time at which all of them have a value."""
    names = re.findall(r"\$([A-Z])", formula)
    if not all(inputs[name] for name in names):
        return []
    courses = {name: dict(zip(*(each["values"] for each in inputs[name][0]["fields"]), strict=True)) for name in names}
    at_ms = [ms for ms in courses[names[0]] if all(ms in course for course in courses.values())]
    python = re.sub(r"\$([A-Z])", r"\1", formula).replace("&&", "and")
    values = []
    for ms in at_ms:
        now = {name: course[ms] for name, course in courses.items()}
        unknown = any(value is None for value in now.values())
        values.append(None if unknown else float(eval(python, {"__builtins__": {}}, now)))
    stamps = {"name": "Time", "type": "time", "values": at_ms, "config": {}}
    return [frame(letter, "", [stamps, field(letter, values)])]


def annotations(target: Mapping[str, Any], answer: Sequence[Series]) -> list[dict[str, Any]]:
    """The events that are drawn."""
    frames = time_series("metricFindQuery", "", answer)
    if not frames:
        return []
    labels = list(frames[0]["fields"][1]["labels"])
    groups: dict[tuple[str, ...], list[Frame]] = {}
    for each in frames:
        groups.setdefault(tuple(each["fields"][1]["labels"].values()), []).append(each)
    columns = ["Time", *labels, *(each["name"] for each in frames)]
    wanted = [tag for tag in target.get("tagsColumn", "").replace(" ", "").split(",") if tag]
    title = text = 0
    tags = []
    for at, column in enumerate(columns[1:], 1):
        if column == target.get("titleColumn"):
            title = at
        elif any(tag in column for tag in wanted):
            tags.append(at)
        elif target["textColumn"] in column:
            text = at
        elif not title:
            title = at
    rows = []
    for own, group in groups.items():
        for at, at_ms in enumerate(group[0]["fields"][0]["values"]):
            cells = [each["fields"][1]["values"][at] for each in group]
            if None not in cells:
                rows.append([at_ms, *own, *cells, *[None] * len(columns)])
    return [
        {"time": row[0], "title": row[title], "text": row[text], "tags": [row[tag] for tag in tags if row[tag]]}
        for row in rows
    ]
