"""Dashboards against schemas generated from Grafana's own package, for Grafana 12 and 13; mistakes are detected."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.grafana.asking import dashboards
from tests.grafana.schema import make
from tests.grafana.shape import SCHEMAS, mistakes

DASHBOARDS = dashboards()


def panel_of(dashboard: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


PLANTED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a mistyped key of the dashboard": lambda board: board.update(tme={"from": "now-6h", "to": "now"}),
    "a mistyped key of a panel": lambda board: board["panels"][0].update(fieldConfg={}),
    "a panel without a type": lambda board: board["panels"][0].pop("type"),
    "a number for a title": lambda board: board["panels"][0].update(title=7),
    "a variable of no known type": lambda board: board["templating"]["list"][0].update(type="querry"),
    "a mistyped key of an interval": lambda board: board["templating"]["list"][4].update(auto_cont=3),
    "a colour mode that does not exist": lambda board: board["panels"][0]["fieldConfig"]["defaults"].update(
        color={"mode": "colourful"}
    ),
    "a threshold without a colour": lambda board: board["panels"][0]["fieldConfig"]["defaults"].update(
        thresholds={"mode": "absolute", "steps": [{"value": 1}]}
    ),
    "an option that a stat does not have": lambda board: panel_of(board, "stat")["options"].update(sparkline=True),
    "an option with a wrong word": lambda board: panel_of(board, "stat")["options"].update(colorMode="rainbow"),
    "a missing option": lambda board: panel_of(board, "stat")["options"].pop("reduceOptions"),
    "a line style that does not exist": lambda board: panel_of(board, "timeseries")["fieldConfig"]["defaults"][
        "custom"
    ].update(drawStyle="lines"),
    "a mistyped override": lambda board: panel_of(board, "timeseries")["fieldConfig"]["overrides"].append(
        {"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "custom.lineWith", "value": 2}]}
    ),
    "a mistyped standard override": lambda board: panel_of(board, "timeseries")["fieldConfig"]["overrides"].append(
        {"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "untit", "value": "volt"}]}
    ),
    "a panel type of a plugin": lambda board: board["panels"][0].update(type="natel-plotly-panel"),
    "a link without its tags": lambda board: board["links"][0].pop("tags"),
}


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_fits_grafanas_schema(uid: str, version: str) -> None:
    assert mistakes(DASHBOARDS[uid], SCHEMAS[version]) == []


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_mistake_is_caught(planted: str, version: str) -> None:
    board = copy.deepcopy(DASHBOARDS["battfleet-overview"])
    PLANTED[planted](board)
    assert mistakes(board, SCHEMAS[version])


def test_both_versions_are_checked() -> None:
    assert [schema["version"] for schema in SCHEMAS.values()] == list(make.VERSIONS)


@pytest.mark.slow
@pytest.mark.parametrize("version", make.VERSIONS)
def test_the_schemas_are_made_from_grafanas_package(version: str) -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm (apt-get install npm) to fetch @grafana/schema")
    try:
        made = make.make(version)
    except subprocess.CalledProcessError as error:
        if "npm" in error.cmd[0]:
            pytest.skip(f"npm could not fetch @grafana/schema@{version}: is there a network?")
        raise
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch @grafana/schema@{version} in time: is there a network?")
    assert made == SCHEMAS[f"grafana-{version}"]
