"""Every panel as Grafana's own data library shows it: real answers, its transformations, its overrides, its names.

`frames/` names the library's packages by version and hash; they are fetched once (npm ci) and stay there. What the
server does before (answers to frames, expressions) is `framing.py`.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from collectors.signals import EVENTS, HUMAN_EVENTS, VOCABULARY
from grafana.downsampling.server import Server
from tests.grafana import framing
from tests.grafana.asking import annotations, auto, dashboards, fill_in, narrowed, panels
from tests.grafana.test_queries import SPANS, values_at

pytestmark = pytest.mark.xdist_group("frames")  # npm fetches once, into one folder
FOLDER = Path(__file__).parent / "frames"
LIBRARIES = ("grafana-data-12", "grafana-data-13")
DASHBOARDS = dashboards()
INTERVALS = [
    (board, variable, span)
    for board in DASHBOARDS.values()
    for variable in board["templating"]["list"]
    if variable["type"] == "interval"
    for span in SPANS.values()
]
RAW_WORDS = {name for names in VOCABULARY.values() for name in names if "_" in name} | {"Value", *"ABCDEF"}


class Seen(NamedTuple):
    """A panel as displayed: for each frame its fields, for each override how many fields it matches."""

    dashboard: str
    grain: str
    panel: dict[str, Any]
    letters: set[str]
    frames: list[list[dict[str, Any]]]
    matched: list[int]
    empty: dict[str, str]
    """How a value that is missing is shown where there is no frame at all."""

    @property
    def name(self) -> str:
        return f"{self.dashboard}, {self.panel['title']}, {self.grain}"

    @property
    def numbers(self) -> list[dict[str, Any]]:
        return [field for frame in self.frames for field in frame if field["type"] == "number"]


@pytest.fixture(scope="session")
def library() -> Path:
    """The folder with the library installed; where it cannot be installed, the tests are skipped with the reason."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs Node.js and npm (apt-get install nodejs npm) to run Grafana's data library")
    installed = FOLDER / "node_modules" / ".package-lock.json"
    lock = FOLDER / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        try:
            subprocess.run([npm, "ci"], cwd=FOLDER, check=True, capture_output=True, timeout=300)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip("npm could not fetch Grafana's data library: is there a network?")
    return FOLDER


def asked(server: Server, grain: str, is_reversed: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel of every dashboard with the frames that Grafana's server would send."""
    for uid, board in DASHBOARDS.items():
        values = values_at(server, board, SPANS[grain])
        for panel in panels(board):
            span = narrowed(panel, SPANS[grain])
            made: dict[str, list[framing.Frame]] = {}
            for target in panel["targets"]:
                letter = target["refId"]
                if target["datasource"]["uid"] == "__expr__":
                    made[letter] = framing.expression(letter, target["expression"], made)
                    continue
                answer = server.query(fill_in(target["query"], values, span))
                is_table = target["resultFormat"] == "table"
                made[letter] = (
                    framing.table(letter, answer, is_reversed)
                    if is_table
                    else framing.time_series(letter, target.get("alias", ""), answer)
                )
            shown = [target["refId"] for target in panel["targets"] if not target.get("hide")]
            frames = [frame for letter in shown for frame in made[letter]]
            yield uid, {"panel": panel, "frames": frames, "variables": values}


def see(library: Path, name: str, questions: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    ranges = [(span.to_s - span.from_s, one["auto_count"], one["auto_min"]) for _, one, span in INTERVALS]
    done = subprocess.run(
        ["node", "see.cjs", name, str(folder / "answers.json")],
        cwd=library,
        input=json.dumps({"ranges": ranges, "panels": questions}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return answer


@pytest.fixture(scope="session")
def every(seeded: Server) -> list[tuple[str, str, dict[str, Any]]]:
    return [(grain, *one) for grain in SPANS for one in asked(seeded, grain)]


@pytest.fixture(scope="session", params=LIBRARIES)
def answer(
    request: pytest.FixtureRequest,
    library: Path,
    every: list[tuple[str, str, dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], list[Seen]]:
    folder = tmp_path_factory.mktemp("frames")
    found = see(library, request.param, [question for _, _, question in every], folder)
    seen = [
        Seen(
            uid,
            grain,
            one["panel"],
            {frame["refId"] for frame in one["frames"]},
            shown["frames"],
            shown["matched"],
            shown["empty"],
        )
        for (grain, uid, one), shown in zip(every, found["panels"], strict=True)
    ]
    return found, seen


@pytest.fixture(scope="session")
def seen(answer: tuple[dict[str, Any], list[Seen]]) -> list[Seen]:
    return answer[1]


def test_every_panel_has_something_to_show(seen: list[Seen]) -> None:
    assert len(seen) == len(SPANS) * sum(len(panels(board)) for board in DASHBOARDS.values())
    empty = [one.name for one in seen if not any(field["values"] for frame in one.frames for field in frame)]
    assert empty == []


def test_every_override_finds_its_field(seen: list[Seen]) -> None:
    idle = []
    for one in seen:
        for override, count in zip(one.panel["fieldConfig"]["overrides"], one.matched, strict=True):
            matcher = override["matcher"]
            is_absent = matcher["id"] == "byFrameRefID" and matcher["options"] not in one.letters  # no such instrument
            if not count and not is_absent:
                idle.append((one.name, matcher))
    assert idle == []


def test_series_of_a_panel_have_names_of_their_own(seen: list[Seen]) -> None:
    twice = []
    for one in seen:
        titles = [field["title"] for field in one.numbers]
        told_apart_by_number = any(re.search(r" \d+$", title) and not title.startswith("cell ") for title in titles)
        if len(set(titles)) < len(titles) or told_apart_by_number:
            twice.append((one.name, titles))
    assert twice == []


def test_names_are_words_and_not_what_the_database_calls_them(seen: list[Seen]) -> None:
    several = [one for one in seen if one.panel["type"] != "stat" or len(one.numbers) > 1]
    titles = {
        (one.name, field["title"])
        for one in several
        for frame in one.frames
        for field in frame
        if field["type"] != "time" or one.panel["type"] == "table"
    }
    assert titles
    raw = {one for one in titles if re.search(r"[${}]", one[1]) or set(re.split(r"\W+", one[1])) & RAW_WORDS}
    assert raw == set()


def test_every_number_has_its_unit(seen: list[Seen]) -> None:
    without = {(one.name, field["title"]) for one in seen for field in one.numbers if not field["unit"]}
    assert without == set()


def test_every_column_of_a_table_is_named_and_in_its_position(
    library: Path, seeded: Server, seen: list[Seen], tmp_path: Path
) -> None:
    tables = [one for one in seen if one.panel["type"] == "table" and one.grain == "raw"]
    assert tables
    for one in tables:
        (columns,) = one.frames
        assert all(column["title"] != column["name"] for column in columns), one.name
    backwards = [one for _, one in asked(seeded, "raw", is_reversed=True) if one["panel"]["type"] == "table"]
    again = see(library, LIBRARIES[-1], backwards, tmp_path)["panels"]
    order = [[column["title"] for column in one.frames[0]] for one in tables]
    assert [[column["title"] for column in one["frames"][0]] for one in again] == order


def test_links_are_made_of_columns_that_are_there(seen: list[Seen]) -> None:
    linked = [(one, field) for one in seen for frame in one.frames for field in frame if field["links"]]
    assert linked
    for one, field in linked:
        (url,) = field["links"]
        (columns,) = one.frames
        assert set(re.findall(r"__data\.fields\.(\w+)", url)) <= {column["name"] for column in columns}


def test_bands_end_at_a_series_that_is_shown(seen: list[Seen]) -> None:
    ends = 0
    for one in seen:
        for override in one.panel["fieldConfig"]["overrides"]:
            for item in override["properties"]:
                if item["id"] == "custom.fillBelowTo":
                    ends += 1
                    assert item["value"] in {field["title"] for field in one.numbers}, one.name
    assert ends


def test_a_gap_in_a_state_timeline_is_no_entry_of_its_legend(seen: list[Seen]) -> None:
    """Grafana's legend takes the text of each value, also of a missing one, unless the text is empty."""
    gaps = [field for one in seen if one.panel["type"] == "state-timeline" for field in one.numbers]
    with_words = [one for one in seen if one.panel["type"] == "state-timeline" and "mappings" in defaults(one)]
    assert gaps and with_words
    assert {field["missing"] for one in with_words for field in one.numbers} == {""}


def test_an_empty_cell_of_a_table_has_not_the_text_of_an_empty_table(seen: list[Seen]) -> None:
    cells = {field["missing"] for one in seen if one.panel["type"] == "table" for each in one.frames for field in each}
    assert cells == {"–"}


def test_a_missing_number_is_explained_in_no_colour_of_a_limit(seen: list[Seen]) -> None:
    numbers = [one for one in seen if one.panel["type"] == "stat"]
    assert any(defaults(one)["color"]["mode"] == "thresholds" for one in numbers)
    for one in numbers:
        limits = {step["color"] for step in defaults(one).get("thresholds", {}).get("steps", ())}
        shown = {(one.empty["text"], one.empty["colour"])}
        shown |= {(field["missing"], field["missing_colour"]) for field in one.numbers}
        assert {text for text, _ in shown} == {defaults(one)["noValue"]}, one.name
        assert not limits & {colour for _, colour in shown}, one.name


def test_numbers_of_a_panel_keep_their_names_when_only_one_is_present(seen: list[Seen]) -> None:
    several = [one for one in seen if one.panel["type"] == "stat" and len(shown_targets(one.panel)) > 1]
    assert several
    assert {one.panel["options"]["textMode"] for one in several} == {"value_and_name"}


def defaults(one: Seen) -> dict[str, Any]:
    found: dict[str, Any] = one.panel["fieldConfig"]["defaults"]
    return found


def shown_targets(panel: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for target in panel["targets"] if not target.get("hide")]


def overrides(question: dict[str, Any]) -> Any:
    return question["panel"]["fieldConfig"]["overrides"]


PLANTED: dict[str, tuple[str, str, Callable[[dict[str, Any]], object], Callable[[list[Seen]], None]]] = {
    "an override of a column that is not there": (
        "fleet",
        "Collectors",
        lambda one: overrides(one)[0]["matcher"].update(options="bnch"),
        test_every_override_finds_its_field,
    ),
    "two series of one name": (
        "overview",
        "Sun and load",
        lambda one: [frame["fields"][1]["config"].update(displayNameFromDS="power") for frame in one["frames"]],
        test_series_of_a_panel_have_names_of_their_own,
    ),
    "a column called as in the database": (
        "fleet",
        "Collectors",
        lambda one: overrides(one).clear(),
        test_names_are_words_and_not_what_the_database_calls_them,
    ),
    "an expression called by its letter": (
        "soc",
        "Distance to open circuit",
        lambda one: overrides(one).clear(),
        test_names_are_words_and_not_what_the_database_calls_them,
    ),
    "a number without a unit": (
        "cells",
        "Cell spread",
        lambda one: one["panel"]["fieldConfig"]["defaults"].pop("unit"),
        test_every_number_has_its_unit,
    ),
    "a link made of a column that is hidden": (
        "fleet",
        "Collectors",
        lambda one: one["panel"]["transformations"][0]["options"]["excludeByName"].update(bench=True),
        test_links_are_made_of_columns_that_are_there,
    ),
    "a band that ends nowhere": (
        "overview",
        "Voltage",
        lambda one: [item.update(value="lest") for item in overrides(one)[0]["properties"] if "Below" in item["id"]],
        test_bands_end_at_a_series_that_is_shown,
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_mistake_is_caught(
    planted: str, library: Path, every: list[tuple[str, str, dict[str, Any]]], tmp_path: Path
) -> None:
    uid, title, spoil, test = PLANTED[planted]
    question = next(
        copy.deepcopy(question)
        for grain, board, question in every
        if (grain, board, question["panel"]["title"]) == ("raw", f"battfleet-{uid}", title)
        and question["panel"]["type"] != "stat"
    )

    def looked_at() -> list[Seen]:
        (shown,) = see(library, LIBRARIES[-1], [question], tmp_path)["panels"]
        letters = {frame["refId"] for frame in question["frames"]}
        return [Seen(uid, "raw", question["panel"], letters, shown["frames"], shown["matched"], shown["empty"])]

    spoil(question)
    with pytest.raises(AssertionError):
        test(looked_at())


def test_automatic_intervals_are_those_of_grafana(answer: tuple[dict[str, Any], list[Seen]]) -> None:
    assert answer[0]["intervals"] == [int(auto(one, span)[:-1]) for _, one, span in INTERVALS]


def test_a_panels_own_time_range_is_applied(answer: tuple[dict[str, Any], list[Seen]]) -> None:
    assert answer[0]["misread"] == []


def test_automatic_intervals_are_not_finer_than_what_is_read(answer: tuple[dict[str, Any], list[Seen]]) -> None:
    """Finer than the stored step, every other point would be empty and a line would be lone points."""
    step_s = {"raw": 0, "m1": 60, "h1": 3600}
    grains = {span: grain for grain, span in SPANS.items()}
    for (_, variable, span), found_s in zip(INTERVALS, answer[0]["intervals"], strict=True):
        assert found_s >= step_s[grains[span]], (variable["name"], span)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_events_are_drawn_with_their_texts(seeded: Server, uid: str) -> None:
    board = DASHBOARDS[uid]
    kinds = EVENTS.keys() | HUMAN_EVENTS.keys()
    for annotation in board["annotations"]["list"]:
        if "query" not in annotation.get("target", {}):
            continue
        values = values_at(seeded, board, SPANS["m1"])
        answer = seeded.query(fill_in(annotation["target"]["query"], values, SPANS["m1"]))
        drawn = framing.annotations(annotation["target"], answer)
        assert drawn, annotation["name"]
        for event in drawn:
            assert event["title"] in kinds
            assert isinstance(event["text"], str) and event["text"] not in kinds
            assert event["tags"] and set(event["tags"]) <= {"mppt", "t7", "bms"}


def test_events_grouped_by_their_tags_would_lose_their_texts(seeded: Server) -> None:
    text = f'SELECT "detail" FROM "event" WHERE {SPANS["m1"].filter} GROUP BY "kind", "device"'
    target = {"textColumn": "detail", "tagsColumn": "kind,device"}
    drawn = framing.annotations(target, seeded.query(text))
    assert drawn and not any(isinstance(event["text"], str) for event in drawn)


def test_every_annotation_is_tested() -> None:
    assert all(len(list(annotations(board))) == 3 for board in DASHBOARDS.values())
