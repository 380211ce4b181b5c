"""Every query of every panel, variable and annotation, sent to a real InfluxDB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from collectors.reading import Reading
from collectors.throughput import Integrator
from grafana.downsampling.backfill import backfill
from grafana.downsampling.install import install
from grafana.downsampling.server import Server
from tests.grafana import seed
from tests.grafana.asking import Asked, Range, annotations, asked, auto, dashboards, fill_in, panels
from tests.grafana.seed import END_S, VALUES
from tests.testing.influx import Influx

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
    """The values of the variables: user selections as seeded, the others queried from the server as Grafana does."""
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
    """Return how many rows with a number or a text the server sent."""
    return sum(
        any(value is not None for value in row[1:]) for series in server.query(one.text) for row in series["values"]
    )


@pytest.mark.parametrize("grain", SPANS)
@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_query_of_every_panel_has_a_result(seeded: Server, uid: str, grain: str) -> None:
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


def test_before_downsampling_is_provisioned_the_default_policy_is_queried(seeded: Server) -> None:
    """Then the hidden variables are empty; 1.x reads `"".` as the default policy."""
    assert seeded.query(f'SELECT mean("voltage_v") FROM ""."battery" WHERE {SPANS["raw"].filter}')


def test_the_page_gives_the_numbers_of_panels_and_queries() -> None:
    every = [panel for board in DASHBOARDS.values() for panel in panels(board)]
    queries = sum("query" in target for panel in every for target in panel.get("targets", []))
    variables = sum(v["type"] == "query" for board in DASHBOARDS.values() for v in board["templating"]["list"])
    notes = sum(len(list(annotations(board))) for board in DASHBOARDS.values())
    words = f"{len(every)} panels with {queries} queries, {variables} variables and {notes} annotations"
    assert words in PAGE.read_text(), words


def numbers(server: Server, text: str) -> list[float | None]:
    """The first column of every row of every series."""
    return [row[1] for series in server.query(text) for row in series["values"]]


def query_of(uid: str, title: str, values: dict[str, str], span: Range, letter: str = "A") -> str:
    every = asked(uid, DASHBOARDS[f"battfleet-{uid}"], values, span)
    (text,) = (one.text for one in every if (one.panel, one.letter) == (title, letter))
    return text


@pytest.fixture(scope="module")
def swinging(influx: Influx) -> Server:
    """Two days up to END_S of a current that swings within every minute, as a collector integrates it.

    For 40 s +6 A, for 20 s −4 A: in each hour 4 Ah in and 4/3 Ah out, where minutes' means of 8/3 A show 8/3 Ah in and
    nothing out. In the last day 16 hours are there, the rest is a gap: true 64 Ah in, 21 1/3 Ah out.
    """
    database = influx.create_database()
    integrator = Integrator(5.0)
    lines: list[str] = []
    for at_s in range(END_S - 86_400, END_S + 1, 5):
        if END_S - 12 * 3600 < at_s < END_S - 4 * 3600:
            continue
        reading = Reading("battery", at_s * 10**9, {"current_a": 6.0 if at_s % 60 < 40 else -4.0, "voltage_v": 10.0})
        lines += [
            seed.line(row.measurement, f"{seed.TAGS},device=mppt", row.values, row.boottime_ns // 10**9)
            for row in (reading, *integrator.add(reading))
        ]
    seed.write(influx, database, lines)
    server = Server(influx.url, database, influx.admin, influx.password)
    install(server)
    backfill(server, END_S - 2 * 86_400, END_S)
    return server


def swings(hours: float) -> tuple[float, float]:
    """Charge in and out by hand: each minute two lines of 5 s cross zero, after 3 s from +6 A or 2 s from −4 A."""
    inward_as = 7 * 5 * 6 + 2 * 6 * 3 / 2
    outward_as = 3 * 5 * 4 + 2 * 4 * 2 / 2
    return hours * 60 * inward_as / 3600, hours * 60 * outward_as / 3600


@pytest.mark.parametrize("grain", ("raw", "m1", "h1"))
def test_charge_and_energy_that_flowed_are_those_of_the_samples(swinging: Server, grain: str) -> None:
    span = SPANS[grain]
    values = values_at(swinging, DASHBOARDS["battfleet-agreement"], span) | {"block": "5m"}
    inward, outward = swings(4.0 if grain == "raw" else 16.0)
    for title, factor in (("Charge in range", 1.0), ("Energy in range", 10.0)):
        found = [numbers(swinging, query_of("overview", title, values, span, letter)) for letter in "AB"]
        for wanted, number in zip((inward, outward), found, strict=True):
            assert number == [pytest.approx(wanted * factor, abs=0.07 * factor)], "within the minute at either end"
    net = numbers(swinging, query_of("agreement", "Charge counted by each", values, span))
    assert net[-1] == pytest.approx(inward - outward, abs=0.07)


def test_means_of_a_minute_would_have_cancelled_it(swinging: Server) -> None:
    """The panels' former query: the sum of the charge in and out that means of a minute give."""
    means = 'SELECT mean("current_a") / 60 AS "q" FROM "battery" WHERE {} GROUP BY time(1m) fill(none)'
    text = f'SELECT sum("q") FROM ({means.format(SPANS["m1"].filter)}) WHERE "q" {{}} 0'
    ((inward,), outward) = (numbers(swinging, text.format(sign)) for sign in "><")
    assert inward is not None and inward < 0.75 * swings(16.0)[0]
    assert outward in ([], [None])


@pytest.fixture(scope="module")
def interrupted(influx: Influx) -> Server:
    """Two instruments that agree to 2 mA, at a current of +10 A in every first half hour and −10 A in every second.

    For a day of the last three weeks one of them sends data only in the first halves, so its hourly mean is 10 A off.
    """
    database = influx.create_database()
    lines: list[str] = []
    for at_s in range(END_S - 21 * 86_400, END_S, 30):
        current_a = 10.0 if at_s % 3600 < 1800 else -10.0
        lines.append(
            seed.line("battery", f"{seed.TAGS},device=mppt", {"current_a": current_a, "voltage_v": 13.0}, at_s)
        )
        if at_s % 3600 < 1800 or not END_S - 11 * 86_400 <= at_s < END_S - 10 * 86_400:
            values = {"current_a": current_a + 0.002, "voltage_v": 13.001}
            lines.append(seed.line("battery", f"{seed.TAGS},device=t7", values, at_s))
    seed.write(influx, database, lines)
    server = Server(influx.url, database, influx.admin, influx.password)
    install(server)
    backfill(server, END_S - 22 * 86_400, END_S)
    return server


@pytest.mark.parametrize(
    "title", ["Drift over weeks, current", "Residual current, mA", "Running bias and noise, current"]
)
def test_an_hour_that_one_instrument_measured_in_part_is_not_compared(interrupted: Server, title: str) -> None:
    span = SPANS["h1"]
    values = values_at(interrupted, DASHBOARDS["battfleet-agreement"], span)
    known = [
        number for number in numbers(interrupted, query_of("agreement", title, values, span)) if number is not None
    ]
    assert len(known) >= 20
    assert known == [pytest.approx(2.0, abs=1e-6)] * len(known)


def test_a_point_of_the_scatter_has_both_its_numbers(seeded: Server) -> None:
    span = SPANS["raw"]
    values = values_at(seeded, DASHBOARDS["battfleet-agreement"], span)
    for compared, one_alone in (("t7", 240), ("bms", 240)):  # mppt sends no data for 40 minutes
        text = query_of("agreement", "Scatter, current", values | {"compared": compared}, span)
        (series,) = seeded.query(text)
        assert len(series["values"]) == 6 * 360 - one_alone
        assert all(None not in row for row in series["values"])


def test_a_short_error_does_not_colour_a_month(seeded: Server) -> None:
    """In the seeded day errors last 5 min of every 2 h, so 1/24 of the time, of which a gap takes a part."""
    span = SPANS["h1"]
    values = values_at(seeded, DASHBOARDS["battfleet-overview"], span)
    shares = numbers(seeded, query_of("overview", "Charger errors, share of time", values, span))
    known = [share for share in shares if share is not None]
    assert known and max(known) < 0.2 and 0.03 < sum(known) / len(known) < 0.06
    ((worst, times),) = [row[1:] for series in seeded.query(query_of("overview", "Charger errors", values, span))
                         for row in series["values"]]  # fmt: skip
    assert (worst, times) == (2, 12 * 5 + 5), "minutes of 13 times, the last one whole"


def test_data_are_healthy_by_the_share_of_reports(seeded: Server) -> None:
    span = SPANS["m1"]
    values = values_at(seeded, DASHBOARDS["battfleet-overview"], span)
    found = {
        series["tags"]["device"]: series for series in seeded.query(query_of("overview", "Data health", values, span))
    }
    assert {row[1] for row in found["t7"]["values"]} <= {1, None}
    assert 0 in {row[1] for row in found["mppt"]["values"]}, "the gap of 40 minutes"
