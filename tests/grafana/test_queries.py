"""Every query of every panel, variable and annotation, asked of a real InfluxDB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from grafana.downsampling.server import Server
from tests.grafana.asking import Asked, Range, annotations, asked, auto, dashboards, fill_in, panels
from tests.grafana.seed import END_S, VALUES

DASHBOARDS = dashboards()
PAGE = Path(__file__).parents[2] / "docs" / "dashboards.md"
SPANS = {
    "raw": Range(END_S - 6 * 3600, END_S),
    "m1": Range(END_S - 24 * 3600, END_S),
    "h1": Range(END_S - 30 * 86400, END_S),
}

INSTRUMENTS = 3
"""At the seeded battery; two of them measure its temperature."""


def is_beyond_the_last_instrument(one: Asked) -> bool:
    """Instruments are drawn one by one, up to six; here are three."""
    found = re.search(r"SOFFSET (\d)$", one.text)
    there = INSTRUMENTS - ("temperature_degc" in one.text)
    return found is not None and int(found[1]) >= there


def values_at(server: Server, dashboard: dict[str, Any], span: Range) -> dict[str, str]:
    """What the variables are: people's choices as seeded, the rest asked of the server as Grafana does."""
    values = dict(VALUES)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "interval":
            values[variable["name"]] = auto(variable, span)
        elif variable["hide"] == 2:
            (series,) = server.query(fill_in(variable["query"]["query"], values, span))
            (row,) = series["values"]
            values[variable["name"]] = row[1]
    return values


def answers(server: Server, one: Asked) -> int:
    """How many rows with a number or a word came back."""
    return sum(
        any(value is not None for value in row[1:]) for series in server.query(one.text) for row in series["values"]
    )


@pytest.mark.parametrize("grain", SPANS)
@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_query_of_every_panel_is_answered(seeded: Server, uid: str, grain: str) -> None:
    span = SPANS[grain]
    values = values_at(seeded, DASHBOARDS[uid], span)
    every = list(asked(uid, DASHBOARDS[uid], values, span))
    assert every
    wrong = [
        (one.panel, one.letter) for one in every if bool(answers(seeded, one)) == is_beyond_the_last_instrument(one)
    ]
    assert wrong == []


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_variable_has_values(seeded: Server, uid: str) -> None:
    for variable in DASHBOARDS[uid]["templating"]["list"]:
        if variable["type"] == "query" and variable["hide"] != 2:
            found = seeded.query(fill_in(variable["query"]["query"], VALUES, SPANS["raw"]))
            assert found, variable["name"]


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_annotations_find_events(seeded: Server, uid: str) -> None:
    for name, query in annotations(DASHBOARDS[uid]):
        assert seeded.query(fill_in(query, VALUES, SPANS["m1"])), name


def test_long_ranges_are_read_from_sums(seeded: Server) -> None:
    overview = DASHBOARDS["battfleet-overview"]
    read = {grain: values_at(seeded, overview, span)["mean"] for grain, span in SPANS.items()}
    assert read == {"raw": "autogen", "m1": "m1_mean", "h1": "h1_mean"}


def shares(server: Server, span: Range) -> list[float | None]:
    board = DASHBOARDS["battfleet-soc"]
    every = asked("soc", board, values_at(server, board, span), span)
    (text,) = (one.text for one in every if one.panel == "Share of innovations inside")
    (series,) = server.query(text)
    return [row[1] for row in series["values"]]


def test_a_share_is_a_share(seeded: Server) -> None:
    known = [share for share in shares(seeded, SPANS["raw"]) if share is not None]
    assert all(0.9 <= share <= 1 for share in known) and any(share < 1 for share in known)


def test_a_share_of_nothing_is_unknown(seeded: Server) -> None:
    found = shares(seeded, Range(END_S - 40 * 3600, END_S))  # begins 14 h before the first estimate
    assert None in found and 0 not in found


def test_before_downsampling_is_set_up_the_default_policy_answers(seeded: Server) -> None:
    """Then the hidden variables are empty; 1.x reads `"".` as the default policy."""
    assert seeded.query(f'SELECT mean("voltage_v") FROM ""."battery" WHERE {SPANS["raw"].filter}')


def test_as_many_panels_and_queries_as_the_page_says() -> None:
    every = [panel for board in DASHBOARDS.values() for panel in panels(board)]
    queries = sum("query" in target for panel in every for target in panel.get("targets", []))
    variables = sum(v["type"] == "query" for board in DASHBOARDS.values() for v in board["templating"]["list"])
    notes = sum(len(list(annotations(board))) for board in DASHBOARDS.values())
    words = f"{len(every)} panels with {queries} queries, {variables} variables and {notes} annotations"
    assert words in PAGE.read_text(), words
