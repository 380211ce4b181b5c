"""What Grafana does with a rule's answer: reduce each series to a number, compare it with the limit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from grafana.downsampling.server import Server
from tests.grafana.asking import Range, fill_in

REDUCERS = {"last": lambda values: values[-1], "mean": lambda values: sum(values) / len(values)}
COMPARES = {"gt": lambda value, limit: value > limit, "lt": lambda value, limit: value < limit}


def firing(server: Server, rule: Mapping[str, Any], now_s: int) -> list[dict[str, str]] | None:
    """The labels of every series for which the rule's condition holds; None: there were no series at all."""
    ask, reduce, threshold = (part["model"] for part in rule["data"])
    assert (reduce["expression"], threshold["expression"], rule["condition"]) == ("A", "B", "C")
    assert reduce["settings"]["mode"] == "dropNN"
    span = Range(now_s - rule["data"][0]["relativeTimeRange"]["from"], now_s)
    found = server.query(fill_in(ask["query"], {}, span))
    (condition,) = threshold["conditions"]
    holds, (limit,) = COMPARES[condition["evaluator"]["type"]], condition["evaluator"]["params"]
    return [series["tags"] for series in found if holds(_number(series, reduce["reducer"]), limit)] if found else None


def _number(series: Mapping[str, Any], reducer: str) -> float:
    assert len(series["columns"]) == 2, "an alert's query gives one number at a time"
    values = [row[1] for row in series["values"] if row[1] is not None]
    return REDUCERS[reducer](values) if values else math.nan


def meant(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A provisioned rule as Grafana reads it: variables of its environment, of which there are none here, are put in
    place of `$NAME`, and a double dollar is one; but queries and annotations are taken as they stand.
    """
    return {key: value if key in ("data", "annotations") else _expanded(value) for key, value in rule.items()}


def _expanded(value: Any) -> Any:
    if isinstance(value, str):
        return "$".join(re.sub(r"\$\{?\w+\}?", "", part) for part in value.split("$$"))
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return [_expanded(item) for item in value] if isinstance(value, list) else value
