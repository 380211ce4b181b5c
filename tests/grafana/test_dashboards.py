"""Rules for every dashboard beyond Grafana's schema: names, positions, texts, colours."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.signals import VOCABULARY
from grafana import build
from grafana.downsampling import influxdb1
from grafana.units import BY_TURN, GREY
from tests.grafana.asking import BUILT, annotations, dashboards, panels

ROOT = Path(__file__).parents[2]
DASHBOARDS = dashboards()
TITLES = (
    "1 Bench overview",
    "2 Measurement agreement",
    "3 State of charge",
    "4 Battery and cells",
    "5 Fleet",
    "6 Collector detail",
)
BUILT_IN = {"timeFilter", "__from", "__to", "__url_time_range", "__data", "__auto_interval_bin_width", "__all"}
CORE = {"timeseries", "stat", "state-timeline", "table", "xychart", "histogram", "text"}
TAGS = {"bench", "device", "kind", "battery", "cell", "channel", "outcome", "sink"}
TEXT_FIELDS = {"detail", "model", "version"}
COLUMNS = {
    "a",
    "b",
    "s",
    "d",
    "ss",
    "dd",
    "sd",
    "q",
    "r",
    "v",
    "w",
    "gap",
    "hit",
    "a_minutes",
    "b_minutes",
    "n",
    "every",
    "bound",
    "hits",
    "all",
    "share",
}
"""Names that queries give to their own columns."""
NAMED = {"reference", "compared", "voltage", "memory", "worst", "times"}
GRAIN_FIELDS = {"mean", "least", "most", "sum", "minutes", "states"} | {
    *("step", "per_hour", "least_minutes", "from_s", "to_s"),
}
WORDS = {field for fields in VOCABULARY.values() for field in fields}


@pytest.fixture(params=DASHBOARDS)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return DASHBOARDS[request.param]


def queries(board: dict[str, Any]) -> list[str]:
    asked = [target["query"] for panel in panels(board) for target in panel.get("targets", []) if "query" in target]
    chosen = [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return [*asked, *chosen, *(query for _, query in annotations(board))]


def test_committed_files_are_what_the_code_builds() -> None:
    assert build.differences(build.files(build.load()), BUILT) == []


def test_a_changed_file_is_reported_with_its_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--out", str(tmp_path)]) == 0
    assert build.main(["--out", str(tmp_path), "--check"]) == 0
    changed = tmp_path / "dashboards" / "battfleet-soc.json"
    changed.write_text(changed.read_text().replace("State of charge", "Charge of state"))
    (tmp_path / "dashboards" / "old.json").write_text("{}\n")
    assert build.main(["--out", str(tmp_path), "--check"]) == 1
    shown = capsys.readouterr()
    assert "-" in shown.out and "Charge of state" in shown.out and "old.json" in shown.out
    assert "python -m grafana.build" in shown.err
    assert build.main(["--out", str(tmp_path)]) == 0
    assert not (tmp_path / "dashboards" / "old.json").exists()


def test_a_site_builds_its_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"contact_points": ["mail"], "limits": {"soc_low": [0.3, 0.1]}}')
    assert build.main(["--out", str(tmp_path / "built"), "--settings", str(own)]) == 0
    assert (tmp_path / "built" / "alerting" / "contact-points.yaml").exists()
    own.write_text('{"contact": []}')
    assert build.main(["--out", str(tmp_path / "built"), "--settings", str(own)]) == 2
    assert "contact: unknown key" in capsys.readouterr().err
    own.write_text("[]")
    assert build.main(["--out", str(tmp_path / "built"), "--settings", str(own)]) == 2


def test_there_are_six_dashboards_in_their_order() -> None:
    assert sorted(board["title"] for board in DASHBOARDS.values()) == list(TITLES)


def test_ids_are_fixed_and_unique(board: dict[str, Any]) -> None:
    assert re.fullmatch(r"battfleet-[a-z]+", board["uid"])
    numbers = [panel["id"] for panel in board["panels"]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_panels_stay_in_the_grid_and_apart(board: dict[str, Any]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        across, down = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        mine = set(itertools.product(across, down))
        assert place["x"] + place["w"] <= 24
        assert not mine & cells, panel["title"]
        cells |= mine


def test_panels_are_wide_enough_for_1366_pixels_and_titles_for_a_phone(board: dict[str, Any]) -> None:
    for panel in panels(board):
        least = 4 if panel["type"] == "stat" else 12
        assert panel["gridPos"]["w"] >= least, panel["title"]
        assert len(panel["title"]) <= 42, panel["title"]


def test_every_panel_has_a_query_and_explains_why_it_may_be_empty(board: dict[str, Any]) -> None:
    for panel in panels(board):
        question, _, how = panel["description"].partition("\n\n")
        assert question.endswith("?"), panel["title"]
        assert how, f"{panel['title']}: how is it read?"
        assert len(panel["fieldConfig"]["defaults"]["noValue"]) > 20, panel["title"]


def test_numbers_have_units(board: dict[str, Any]) -> None:
    for panel in panels(board):
        if panel["type"] in ("timeseries", "stat", "histogram"):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_only_core_panels_and_the_one_data_source(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["type"] in CORE
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] in ("battfleet", "__expr__")


def test_every_variable_that_is_used_exists(board: dict[str, Any]) -> None:
    known = {variable["name"] for variable in board["templating"]["list"]} | BUILT_IN
    texts = [*queries(board), *(f"{panel['title']} {panel['description']}" for panel in panels(board))]
    used = {name for text in texts for name in re.findall(r"\$\{?(\w+)", text)}
    assert used <= known


def test_no_variable_is_taken_for_a_macro(board: dict[str, Any]) -> None:
    """The data source replaces `$interval` and `$timeFilter` wherever they occur, also at the start of a name."""
    for variable in board["templating"]["list"]:
        assert not variable["name"].startswith(("interval", "timeFilter", "__")), variable["name"]


def test_every_variable_that_exists_is_used(board: dict[str, Any]) -> None:
    linked = {"reference", "device", "battery", "bin_width"}  # kept for links to other dashboards
    text = " ".join([*queries(board), *(row.get("repeat", "") for row in board["panels"])])
    unused = {v["name"] for v in board["templating"]["list"] if f"${v['name']}" not in text and v["hide"] != 2}
    assert unused <= linked


def test_queries_use_only_names_of_the_vocabulary(board: dict[str, Any]) -> None:
    known = WORDS | TAGS | TEXT_FIELDS | COLUMNS | NAMED | GRAIN_FIELDS | {"lo", "hi", "stated", "kind"}
    for query in queries(board):
        without_sources = re.sub(r'(FROM|KEY =) ("[^"]*"\.)?"(\w+)"', r"\1", query)
        for name in re.findall(r'"([^"$]*)"', without_sources):
            assert name in known, f"{name} in {query}"
        for measurement in re.findall(r'FROM (?:"[^"]*"\.)?"(\w+)"', query):
            assert measurement in {*VOCABULARY, "event", "grain"}, query


def test_colours_are_of_the_safe_palette(board: dict[str, Any]) -> None:
    safe = {*BY_TURN, GREY, "text"}
    for panel in panels(board):
        for colour in re.findall(r"'(?:fixedColor|color)': '([^']+)'", str(panel["fieldConfig"])):
            assert colour in safe, panel["title"]


def test_states_are_shown_by_texts_or_by_limits_but_not_by_both() -> None:
    """With colours from thresholds, Grafana's state timeline leaves value mappings out."""
    timelines = [panel for board in DASHBOARDS.values() for panel in panels(board) if panel["type"] == "state-timeline"]
    assert timelines
    for panel in timelines:
        defaults = panel["fieldConfig"]["defaults"]
        assert (defaults["color"]["mode"] == "thresholds") == ("thresholds" in defaults) == ("mappings" not in defaults)


def test_bands_end_at_a_series_of_their_panel(board: dict[str, Any]) -> None:
    """Grafana looks for the series by its name, which is the target's alias."""
    for panel in panels(board):
        names = {target.get("alias") for target in panel["targets"]}
        properties = [item for look in panel["fieldConfig"]["overrides"] for item in look["properties"]]
        ends = {item["value"] for item in properties if item["id"] == "custom.fillBelowTo"}
        assert ends <= names, panel["title"]


def test_a_table_fits_on_a_screen_of_1366_pixels(board: dict[str, Any]) -> None:
    """Grafana leaves about 1290 for 24 columns of the grid, and gives a column without a width 150 at least."""
    for panel in panels(board):
        if panel["type"] == "table":
            look = [
                {item["id"]: item["value"] for item in one["properties"]} for one in panel["fieldConfig"]["overrides"]
            ]
            wide = sum(each.get("custom.width", 150) for each in look)
            assert wide <= 1290 * panel["gridPos"]["w"] / 24, panel["title"]


def test_links_keep_time_and_variables(board: dict[str, Any]) -> None:
    (link,) = board["links"]
    assert (link["includeVars"], link["keepTime"], link["tags"]) == (True, True, ["battfleet"])
    assert board["tags"] == ["battfleet"]


def test_settings_are_read_from_standard_input_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"database": "lab", "policy": "all"}'))
    assert build.main(["--out", str(tmp_path), "--settings", "-"]) == 0
    source = yaml.safe_load((tmp_path / "provisioning" / "influxdb.yaml").read_text())["datasources"][0]
    assert source["jsonData"]["dbName"] == "lab"
    assert '"lab"."all"."battery"' in (tmp_path / "downsampling" / "influxdb1.iql").read_text()
    assert 'mean="all"' in (tmp_path / "downsampling" / "grain.lp").read_text()
    assert 'from(bucket: "lab/all")' in (tmp_path / "downsampling" / "influxdb2" / "h1_min-live.flux").read_text()


def test_contact_points_without_their_variables_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"contact_points": ["mail", "ntfy"]}')
    command = ["--out", str(tmp_path / "built"), "--settings", str(own), "--variables"]
    assert build.main([*command, "BATTFLEET_NTFY_URL"]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert [line.partition(" in ")[0] for line in shown] == [
        "contact_points: mail needs BATTFLEET_MAIL_TO",
        "contact_points: ntfy needs BATTFLEET_NTFY_TOKEN",
    ]
    assert not (tmp_path / "built").exists()
    assert build.main([*command, "BATTFLEET_NTFY_URL,BATTFLEET_NTFY_TOKEN,BATTFLEET_MAIL_TO"]) == 0


def test_there_is_one_name_of_the_database() -> None:
    assert build.load().database == influxdb1.DATABASE == "bat"


def test_the_data_source_takes_secrets_and_address_from_the_environment_only() -> None:
    (source,) = yaml.safe_load((BUILT / "provisioning" / "influxdb.yaml").read_text())["datasources"]
    assert source["secureJsonData"] == {"basicAuthPassword": "$BATTFLEET_INFLUXDB_PASSWORD"}
    assert (source["basicAuth"], source["basicAuthUser"]) == (True, "$BATTFLEET_INFLUXDB_USER")
    assert source["url"] == "$BATTFLEET_INFLUXDB_URL"
    named = re.findall(r"\$(\w+)", (ROOT / "docs" / "dashboards.md").read_text())
    assert {"BATTFLEET_INFLUXDB_URL", "BATTFLEET_INFLUXDB_USER", "BATTFLEET_INFLUXDB_PASSWORD"} <= set(named)
