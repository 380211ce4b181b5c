"""Every rule against a real InfluxDB: just beyond its limit it fires, just within it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.alerts import files
from grafana.alerts.files import (
    SECRETS,
    UNKNOWN,
    alerting,
    contact_points,
    groups,
    no_contact_points,
    policies,
    retired,
)
from grafana.alerts.rules import Rule, rules
from grafana.alerts.settings import CONTACT_POINTS, SettingsError, load
from grafana.downsampling.server import Server
from tests.grafana import seed
from tests.grafana.asking import BUILT, dashboards, panels
from tests.grafana.judging import evaluated, firing, meant
from tests.testing.influx import Influx

ROOT = Path(__file__).parents[2]
END_S = seed.END_S
CAPACITY_AH = 40.0
CELLS = 4
OWN = {
    "batteries": {
        f"{chemistry}-1": {"chemistry": chemistry, "cells": CELLS, "capacity_ah": CAPACITY_AH}
        for chemistry in ("lfp", "nmc")
    }
}
RULES = rules(load(OWN))
BUILT_RULES = [
    meant(rule)
    for group in yaml.safe_load((BUILT / "alerting" / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SILENT = "bf-collector-silent-critical"
MID_V = {"lfp": 3.2, "nmc": 3.6}

SIMPLE = {
    "sample-stale": ("collector", "last_sample_age_s"),
    "queue-growing": ("collector", "unsent_age_s"),
    "dead-letters": ("collector", "dead_letters"),
    "clock-unsynchronised": ("collector", "clock_state"),
    "disk-low": ("collector", "disk_free_bytes"),
    "soc-low": ("soc", "soc"),
    "soc-high": ("soc", "soc"),
    "temperature-high": ("battery", "temperature_degc"),
    "cell-voltage-high": ("cell", "voltage_v"),
    "cell-voltage-low": ("cell", "voltage_v"),
}
"""Rules that look at one signal as it is."""


def tags(bench: str, rule: Rule, device: str = "x") -> str:
    return f"bench={bench},battery={rule.chemistry or 'lfp'}-1,device={device}"


def scene(rule: Rule, bench: str, value: float, current_a: float | None = None) -> Iterator[str]:
    """Points of the last quarter of an hour in which the quantity of the rule has this value."""
    for at_s in range(END_S - 900, END_S, 10):
        if rule.name in SIMPLE:
            measurement, name = SIMPLE[rule.name]
            cell = ",cell=2" if measurement == "cell" else ""
            yield seed.line(measurement, tags(bench, rule) + cell, {name: value}, at_s)
        elif rule.name.endswith("-disagreement"):
            name = {"current": "current_a", "voltage": "voltage_v"}[rule.name.split("-")[0]]
            yield seed.line("battery", tags(bench, rule, "a"), {name: 3.0}, at_s)
            yield seed.line("battery", tags(bench, rule, "b"), {name: 3.0 + value}, at_s)
        elif rule.name.startswith("pack-"):
            yield seed.line("battery", tags(bench, rule), {"voltage_v": value * CELLS}, at_s)
        elif rule.name == "cell-spread":
            for cell, cell_v in (("1", MID_V[rule.chemistry]), ("2", MID_V[rule.chemistry] + value)):
                yield seed.line("cell", f"{tags(bench, rule)},cell={cell}", {"voltage_v": cell_v}, at_s)
        else:
            flow_a = CAPACITY_AH / 10 * (-1 if rule.name.startswith("discharge") else 1)
            values = {"temperature_degc": value, "current_a": flow_a if current_a is None else current_a}
            yield seed.line("battery", tags(bench, rule), values, at_s)


def is_of_current(rule: Rule) -> bool:
    return rule.name in ("charge-cold", "charge-hot", "discharge-cold")


@pytest.fixture(scope="module")
def scenes(influx: Influx) -> Server:
    """For each rule a bench just beyond its limit and one just within; for rules of current, one without current."""
    database = influx.create_database()
    lines: list[str] = []
    for rule in RULES:
        if rule.name == "collector-silent":
            for bench, last_s in ((f"{rule.uid}.beyond", END_S - 900), (f"{rule.uid}.within", END_S)):
                stamps = range(END_S - 7200, last_s, 60)
                lines += [seed.line("collector", tags(bench, rule), {"memory_bytes": 3e7}, at_s) for at_s in stamps]
            continue
        little = max(abs(rule.limit) * 1e-3, 1e-3) * (1 if rule.compare == "gt" else -1)
        lines += scene(rule, f"{rule.uid}.beyond", rule.limit + little)
        lines += scene(rule, f"{rule.uid}.within", rule.limit - little)
        if is_of_current(rule):
            lines += scene(rule, f"{rule.uid}.rests", rule.limit + little, current_a=0.0)
    seed.write(influx, database, lines)
    return Server(influx.url, database, influx.admin, influx.password)


def provisioned(rule: Rule) -> dict[str, Any]:
    every = (meant(found) for group in groups(load(OWN)) for found in group["rules"])
    return next(found for found in every if found["uid"] == rule.uid)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.uid)
def test_a_rule_fires_beyond_its_limit_and_not_within(scenes: Server, rule: Rule) -> None:
    benches = {labels["bench"] for labels in firing(scenes, provisioned(rule), END_S) or []}
    assert f"{rule.uid}.beyond" in benches
    assert not benches & {f"{rule.uid}.within", f"{rule.uid}.rests"}


@pytest.mark.parametrize("rule", BUILT_RULES, ids=lambda rule: rule["uid"])
def test_a_healthy_bench_is_quiet(seeded: Server, rule: dict[str, Any]) -> None:
    found = firing(seeded, rule, END_S)
    assert not found
    assert rule["isPaused"] or found is not None, "there is what the rule looks at, so that quiet means something"


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.gate], ids=lambda rule: rule.uid)
def test_an_unmet_gate_is_a_result_and_not_a_missing_series(scenes: Server, rule: Rule) -> None:
    """Otherwise the alarm would be held when the current stops, as if the instrument sent no data."""
    judged = {dict(labels)["bench"]: holds for labels, holds in evaluated(scenes, provisioned(rule), END_S).items()}
    assert judged[f"{rule.uid}.rests"] is False
    assert judged[f"{rule.uid}.beyond"] is True


def test_one_instrument_alone_is_no_agreement(influx: Influx) -> None:
    """The difference of one instrument is zero: its rule must not see a result that ends the alarm."""
    database = influx.create_database()
    server = Server(influx.url, database, influx.admin, influx.password)
    alone = {"voltage_v": 13.0, "current_a": 1.0}
    seed.write(
        influx,
        database,
        [seed.line("battery", "bench=alone,battery=lfp-1,device=a", alone, at_s) for at_s in range(END_S - 900, END_S)]
        + [seed.line("cell", "bench=alone,battery=lfp-1,device=a,cell=1", {"voltage_v": 3.2}, END_S - 5)],
    )
    for uid in ("current-disagreement-warning", "voltage-disagreement-warning", "cell-spread-lfp-critical"):
        (rule,) = (rule for rule in BUILT_RULES if rule["uid"] == f"bf-{uid}")
        assert firing(server, rule, END_S) is None, uid


def test_nothing_at_all_is_an_alert_of_one_rule_only() -> None:
    assert [rule["uid"] for rule in BUILT_RULES if rule["noDataState"] == "Alerting"] == [SILENT]


def test_a_value_rule_keeps_its_state_when_its_instrument_sends_no_data() -> None:
    """As OK, an alarm would resolve minutes after data stopped: with an empty battery, a false all-clear."""
    assert {rule["noDataState"] for rule in BUILT_RULES if rule["uid"] != SILENT} == {"KeepLast"}


def test_an_alert_whose_series_is_missing_is_held_for_a_week() -> None:
    built = yaml.safe_load((BUILT / "alerting" / "rules.yaml").read_text())["groups"]
    for group in built:
        every_s = int(group["interval"].removesuffix("s"))
        held_s = {rule["missing_series_evals_to_resolve"] * every_s for rule in group["rules"]}
        assert held_s == {7 * 86_400}
    for hold_s, evaluations in ((86_400, {2880, 1440}), (983_010, {32_767, 16_384}), (61, {3, 2}), (0, {2})):
        made = groups(load({"limits": {"silence_hold_s": hold_s}}))
        assert {rule["missing_series_evals_to_resolve"] for group in made for rule in group["rules"]} == evaluations


def test_a_dead_database_is_an_alert_of_one_rule_only() -> None:
    assert [rule["uid"] for rule in BUILT_RULES if rule["execErrState"] == "Error"] == [SILENT]


def test_the_page_gives_the_number_of_rules() -> None:
    assert f"{len(BUILT_RULES)} rules with fixed ids" in (ROOT / "docs" / "dashboards.md").read_text()


def test_ids_are_unique_short_enough_and_never_both_live_and_retired() -> None:
    uids = [rule["uid"] for rule in BUILT_RULES]
    assert len(set(uids)) == len(uids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", uid) for uid in uids)
    assert not set(uids) & set(retired())
    titles = [rule["title"] for rule in BUILT_RULES]
    assert len(set(titles)) == len(titles), "titles are unique in a folder"


def test_ids_do_not_depend_on_a_sites_batteries() -> None:
    assert {rule.uid for rule in rules(load({"batteries": {}}))} == {rule.uid for rule in RULES}


def test_rules_of_an_unused_chemistry_are_paused() -> None:
    assert {rule.chemistry for rule in rules(load()) if rule.is_paused} == {"nmc"}


@pytest.mark.parametrize("name", sorted({rule.name for rule in RULES}))
def test_every_rule_has_a_runbook_page(name: str) -> None:
    page = (ROOT / "docs" / "runbook" / f"{name}.md").read_text()
    for heading in ("## What it means", "## First", "## Then", "## If it is a false alarm"):
        assert heading in page


def test_runbook_pages_have_rules() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbook").glob("*.md")} - {"README"}
    assert pages == {rule.name for rule in RULES}


def test_runbook_pages_name_panels_that_exist() -> None:
    titles = {panel["title"] for board in dashboards().values() for panel in panels(board)}
    pages = " ".join(path.read_text() for path in (ROOT / "docs" / "runbook").glob("*.md"))
    named = {" ".join(title.split()) for title in re.findall(r"→\s+\*([^*]+)\*", pages)}
    assert len(named) >= 4
    assert named <= titles


def test_rules_link_to_their_pages() -> None:
    for rule in BUILT_RULES:
        assert (ROOT / rule["annotations"]["runbook_url"]).is_file()


def test_recovery_is_on_the_other_side_of_the_limit() -> None:
    for rule in BUILT_RULES:
        (condition,) = rule["data"][-1]["model"]["conditions"]
        limit, back = condition["evaluator"], condition.get("unloadEvaluator")
        if back:
            assert {limit["type"], back["type"]} == {"gt", "lt"}
            assert (back["params"][0] < limit["params"][0]) == (limit["type"] == "gt")


def test_only_known_secrets_are_taken_from_the_environment() -> None:
    text = (BUILT / "examples" / "contact-points.yaml").read_text()
    named = set(re.findall(r"(?<!\$)\$(\w+)", text))
    assert named == {name for names in SECRETS.values() for name in names}


def test_dollars_are_for_macros_and_templates_alone() -> None:
    """Grafana does not expand queries and annotations, so that a doubled dollar would stay two."""
    for rule in BUILT_RULES:
        assert "$timeFilter" in rule["data"][0]["model"]["query"]
        assert "$$" not in str(rule)
        assert "${" not in str(rule["annotations"]), "later versions put the environment in place of this"
        elsewhere = {key: value for key, value in rule.items() if key not in ("data", "annotations")}
        assert "$" not in str(elsewhere)


def test_rules_are_drawn_in_a_panel_that_exists() -> None:
    boards = dashboards()
    for rule in BUILT_RULES:
        panel = next(one for one in panels(boards[rule["dashboardUid"]]) if one["id"] == rule["panelId"])
        assert panel["type"] in ("timeseries", "state-timeline")
        assert rule["annotations"]["__dashboardUid__"] == rule["dashboardUid"]
        assert rule["annotations"]["__panelId__"] == str(rule["panelId"])


def test_rules_and_dashboards_share_one_folder_by_its_name() -> None:
    (provider,) = yaml.safe_load((BUILT / "provisioning" / "dashboards.yaml").read_text())["providers"]
    assert "folderUid" not in provider
    rules_file = yaml.safe_load((BUILT / "alerting" / "rules.yaml").read_text())
    assert {group["folder"] for group in rules_file["groups"]} == {provider["folder"]}


def test_values_are_formatted_for_reading() -> None:
    said = {rule["uid"]: rule["annotations"]["description"] for rule in BUILT_RULES}
    assert known(said["bf-soc-low-warning"]) == ("{{ humanizePercentage .Value }}", "limit 20%.")
    assert known(said["bf-disk-low-warning"]) == ("{{ humanize .Value }}B", "limit 5 GB.")
    assert known(said["bf-sample-stale-warning"]) == ("{{ humanizeDuration .Value }}", "limit 300 s.")
    assert known(said["bf-charge-cold-lfp-critical"]) == ('{{ printf "%.4g" .Value }} °C', "limit 0 °C.")


def known(description: str) -> tuple[str, str]:
    """The text where a value is present, and the limit; the template must be guarded in this form."""
    guarded = re.escape("{{ else }}" + UNKNOWN + "{{ end }}")
    begin = re.escape("Now {{ with $values.B }}{{ if eq .Value .Value }}")
    found = re.match(rf"{begin}(.*){guarded}{guarded}, (limit .*?\.)(?: |$)", description)
    assert found, description
    return found[1], found[2]


def test_no_template_uses_a_value_or_label_that_may_be_missing() -> None:
    """Without data `$values.B` is missing, or NaN; without a series so are the labels."""
    for rule in BUILT_RULES:
        annotations = rule["annotations"]
        value, _ = known(annotations["description"])
        assert len(re.findall(r"\{\{", value)) == 1 and "$" not in value
        assert annotations["description"].count("$") == 1
        labels = re.findall(r"\{\{([^}]*\$labels[^}]*)\}\}", annotations["summary"])
        assert labels and all(re.fullmatch(r" with \$labels\.\w+ ", use) for use in labels), annotations["summary"]


def test_a_warning_and_its_alarm_are_one_message() -> None:
    """They differ in severity only, and no route or group of the policy depends on it."""
    (tree,) = yaml.safe_load((BUILT / "examples" / "policies.yaml").read_text())["policies"]
    looked_at = {*tree["group_by"], *(name for route in tree["routes"] for name, _, _ in route["object_matchers"])}
    pairs: dict[str, list[dict[str, str]]] = {}
    for rule in BUILT_RULES:
        pairs.setdefault(rule["uid"].rsplit("-", 1)[0], []).append(rule["labels"])
    both = [labels for labels in pairs.values() if len(labels) == 2]
    assert len(both) > 20
    for one, other in both:
        assert {key for key in one if one[key] != other[key]} == {"severity"}
    assert looked_at == {"bench", "battery", "rule", "urgency"}
    assert all(tree["receiver"] == route["receiver"] for route in tree["routes"])


def test_rules_that_endanger_a_battery_or_hide_all_data_are_urgent() -> None:
    urgent = {rule["labels"]["rule"] for rule in BUILT_RULES if rule["labels"]["urgency"] == "high"}
    assert {"collector-silent", "cell-voltage-low", "pack-voltage-high", "charge-cold", "temperature-high"} <= urgent
    assert not urgent & {"soc-low", "disk-low", "current-disagreement"}


def test_contact_points_that_are_not_named_are_deleted() -> None:
    """Grafana keeps provisioned contact points, and nobody can delete them by hand."""
    made = contact_points(("mail", "mqtt"))
    (point,) = made["contactPoints"]
    assert [receiver["uid"] for receiver in point["receivers"]] == ["battfleet-mail", "battfleet-mqtt"]
    deleted = [{"orgId": 1, "uid": f"battfleet-{name}"} for name in ("webhook", "ntfy")]
    assert made["deleteContactPoints"] == deleted
    assert "deleteContactPoints" not in contact_points(CONTACT_POINTS)


def test_the_last_contact_point_is_deleted_after_the_policies_that_use_it() -> None:
    """A contact point that a policy uses cannot be deleted, and Grafana would not start."""
    gone = no_contact_points()
    assert gone == yaml.safe_load((BUILT / "retired" / "contact-points.yaml").read_text())
    assert gone["resetPolicies"] == [1]
    assert {each["uid"] for each in gone["deleteContactPoints"]} == {f"battfleet-{name}" for name in CONTACT_POINTS}


def test_a_site_that_names_contact_points_gets_them_and_the_policy() -> None:
    made = alerting(load({"contact_points": ["mail", "mqtt"]}))
    assert set(made) == {"rules.yaml", "contact-points.yaml", "policies.yaml"}
    assert made["contact-points.yaml"] == contact_points(("mail", "mqtt"))
    assert made["policies.yaml"] == policies()
    assert set(alerting(load())) == {"rules.yaml"}
    assert tuple(SECRETS) == CONTACT_POINTS


def test_retired_rules_are_deleted_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "retired.toml"
    gone.write_text('uids = ["bf-old-warning"]')
    monkeypatch.setattr(files, "RETIRED", gone)
    deleted = alerting(load())["retired.yaml"]
    assert deleted == {"apiVersion": 1, "deleteRules": [{"orgId": 1, "uid": "bf-old-warning"}]}


def test_a_site_can_change_a_limit() -> None:
    own = {"chemistries": {"lfp": {"cell_voltage_high_v": [3.45, 3.6]}}}
    limits = {rule.severity: rule.limit for rule in rules(load(own)) if rule.uid.startswith("bf-cell-voltage-high-lfp")}
    assert limits == {"warning": 3.45, "critical": 3.6}


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"limit": {}}, "limit: unknown key"),
        ({"limits": {"soc_lov": [0.2, 0.1]}}, "limits.soc_lov: unknown key"),
        ({"limits": {"soc_low": [0.2]}}, "limits.soc_low: expected something like"),
        ({"limits": {"soc_low": "20 %"}}, "limits.soc_low: expected something like"),
        ({"limits": 3}, "limits: expected a table"),
        ({"contact_points": ["pager"]}, "contact_points: "),
        ({"batteries": {"b": {"chemistry": "lto", "cells": 4, "capacity_ah": 10}}}, "batteries.b.chemistry: 'lto'"),
        ({"batteries": {"b": {"chemistry": "lfp", "cells": 4}}}, "batteries.b: expected chemistry, cells"),
        ({"batteries": {"b": {"chemistry": "lfp", "cells": 0, "capacity_ah": 1}}}, "batteries.b: expected cells"),
        ({"batteries": {"b": {"chemistry": "lfp", "cells": True, "capacity_ah": 1}}}, "batteries.b: expected cells"),
        ({"batteries": {"b": {"chemistry": "lfp", "cells": 4, "capacity_ah": "40"}}}, "batteries.b: expected cells"),
        ({"batteries": {"b": {"chemistry": ["lfp"], "cells": 4, "capacity_ah": 1}}}, "batteries.b.chemistry: ['lfp']"),
        ({"batteries": {"b": 4}}, "batteries.b: expected chemistry, cells and capacity_ah, got 4"),
        ({"limits": {"soc_low": [0.2, math.nan]}}, "limits.soc_low: expected something like"),
        ({"limits": {"silence_hold_s": 1_000_000}}, "limits.silence_hold_s: expected 0 to 983010, got 1e+06"),
        ({"limits": {"silence_hold_s": -1}}, "limits.silence_hold_s: expected 0 to 983010, got -1"),
        ({"limits": {"charge_c_rate": True}}, "limits.charge_c_rate: expected something like"),
        ({"database": "my lab"}, "database: expected a name"),
        ({"policy": ""}, "policy: expected a name"),
        ({"batteries": {"b b": {"chemistry": "lfp", "cells": 1, "capacity_ah": 1}}}, "batteries.b b: expected a name"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(own: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        load(own)
