"""Grafana's evaluation of a rule: each series is reduced to a number and compared with the limit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from grafana.downsampling.server import Server
from tests.grafana.asking import Range, fill_in

REDUCERS = {"last": lambda values: values[-1], "mean": lambda values: sum(values) / len(values)}
COMPARES = {"gt": lambda value, limit: value > limit, "lt": lambda value, limit: value < limit}
Labels = frozenset[tuple[str, str]]


def firing(server: Server, rule: Mapping[str, Any], now_s: int) -> list[dict[str, str]] | None:
    """The labels of every series for which the rule's condition holds; None: there were no series at all."""
    judged = evaluated(server, rule, now_s)
    return [dict(labels) for labels, holds in judged.items() if holds] if judged else None


def evaluated(server: Server, rule: Mapping[str, Any], now_s: int) -> dict[Labels, bool]:
    """Whether the condition holds, for the labels of every series that it was evaluated for."""
    span = Range(now_s - rule["data"][0]["relativeTimeRange"]["from"], now_s)
    numbers: dict[str, dict[Labels, Any]] = {}
    for part in rule["data"]:
        model, letter = part["model"], part["refId"]
        assert model["refId"] == letter
        if "query" in model:
            found = server.query(fill_in(model["query"], {}, span))
            numbers[letter] = {frozenset(series["tags"].items()): series for series in found}
        elif model["type"] == "reduce":
            assert model["settings"]["mode"] == "dropNN"
            series = numbers[model["expression"]]
            numbers[letter] = {labels: _number(one, model["reducer"]) for labels, one in series.items()}
        elif model["type"] == "math":
            numbers[letter] = _math(model["expression"], numbers)
        else:
            (condition,) = model["conditions"]
            holds, (limit,) = COMPARES[condition["evaluator"]["type"]], condition["evaluator"]["params"]
            compared = numbers[model["expression"]]
            numbers[letter] = {labels: holds(number, limit) for labels, number in compared.items()}
    return numbers[rule["condition"]]


def _math(expression: str, numbers: Mapping[str, Mapping[Labels, float]]) -> dict[Labels, float]:
    """An expression over numbers of the same labels; a comparison in it is 1 or 0, in Python as in Grafana."""
    names = re.findall(r"\$([A-Z])", expression)
    shared = set.intersection(*(set(numbers[name]) for name in names))
    python = re.sub(r"\$([A-Z])", r"\1", expression)
    return {
        labels: float(eval(python, {"__builtins__": {}}, {name: numbers[name][labels] for name in names}))
        for labels in shared
    }


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
