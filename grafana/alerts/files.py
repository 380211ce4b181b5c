"""Alerting as Grafana's provisioning files: rules, retired rules, contact points and the policy that uses them.

In these files Grafana replaces `$NAME` by the environment: in contact points that is wanted, there it names a variable
that holds a secret or an address (see `SECRETS`). A rule's queries and annotations are the exception: Grafana takes
them as they stand, so their dollars are written once.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from grafana import dashboards
from grafana.alerts.rules import Rule, rules
from grafana.alerts.settings import Settings
from grafana.dashboard import dashboard_json
from grafana.panels import FOLDER, SOURCE

Json = dict[str, Any]

RETIRED = Path(__file__).with_name("retired.toml")
ORG = 1
CONTACT = "battfleet"
INTERVALS = {"critical": "30s", "warning": "1m"}

RECEIVERS: dict[str, Json] = {
    "mail": {"type": "email", "settings": {"addresses": "$BATTFLEET_MAIL_TO", "singleEmail": True}},
    "webhook": {
        "type": "webhook",
        "settings": {
            "url": "$BATTFLEET_WEBHOOK_URL",
            "httpMethod": "POST",
            "authorization_scheme": "Bearer",
            "authorization_credentials": "$BATTFLEET_WEBHOOK_TOKEN",
        },
    },
    "ntfy": {
        "type": "webhook",
        "settings": {
            "url": "$BATTFLEET_NTFY_URL?template=grafana",
            "httpMethod": "POST",
            "authorization_scheme": "Bearer",
            "authorization_credentials": "$BATTFLEET_NTFY_TOKEN",
        },
    },
    "mqtt": {
        "type": "mqtt",
        "settings": {
            "brokerUrl": "$BATTFLEET_MQTT_URL",
            "topic": "battfleet/alerts",
            "username": "$BATTFLEET_MQTT_USER",
            "password": "$BATTFLEET_MQTT_PASSWORD",
            "messageFormat": "json",
            "qos": 1,
            "retain": False,
        },
    },
}
"""How each contact point is reached; ntfy's own template for Grafana makes its messages readable."""

SECRETS = {
    "mail": ("BATTFLEET_MAIL_TO",),
    "webhook": ("BATTFLEET_WEBHOOK_URL", "BATTFLEET_WEBHOOK_TOKEN"),
    "ntfy": ("BATTFLEET_NTFY_URL", "BATTFLEET_NTFY_TOKEN"),
    "mqtt": ("BATTFLEET_MQTT_URL", "BATTFLEET_MQTT_USER", "BATTFLEET_MQTT_PASSWORD"),
}
"""Variables of Grafana's environment that a contact point needs."""


@cache
def panels() -> dict[tuple[str, str], int]:
    """Return (dashboard, title) to id of the panels that can show when an alert began and ended."""
    boards = [dashboard_json(board) for board in dashboards.ALL]
    return {
        (board["uid"], panel["title"]): panel["id"]
        for board in boards
        for panel in board["panels"]
        if panel["type"] in ("timeseries", "state-timeline")
    }


def spoken(rule: Rule) -> tuple[str, str]:
    """Return the template of the value as people say it, and the limit in the same words."""
    number = "$values.B.Value"
    match rule.unit:
        case "%":
            return f"{{{{ humanizePercentage {number} }}}}", f"{rule.limit:.0%}"
        case "bytes":
            return f"{{{{ humanize {number} }}}}B", f"{rule.limit / 1e9:g} GB"
        case "s":
            return f"{{{{ humanizeDuration {number} }}}}", f"{rule.limit:g} s"
        case unit:
            return f'{{{{ printf "%.4g" {number} }}}} {unit}'.rstrip(), f"{rule.limit:g} {unit}".rstrip()


def rule_json(rule: Rule, runbook_base: str) -> Json:
    """Return a rule: A asks, B makes one number of each series, C compares; C is the condition."""
    window = {"from": rule.window_s, "to": 0}
    grouped = rule.query.rsplit("GROUP BY", 1)[1]
    tags = [tag for tag in ("bench", "battery", "device", "cell") if f'"{tag}"' in grouped]
    where = " ".join(f"{{{{ $labels.{tag} }}}}" for tag in tags)
    labels = {"severity": rule.severity} | ({"chemistry": rule.chemistry} if rule.chemistry else {})
    now, limit = spoken(rule)
    dashboard, panel = f"battfleet-{rule.seen_in[0]}", panels()[f"battfleet-{rule.seen_in[0]}", rule.seen_in[1]]
    return {
        "uid": rule.uid,
        "title": f"{rule.title} ({', '.join(part for part in (rule.chemistry, rule.severity) if part)})",
        "condition": "C",
        "data": [
            {"refId": "A", "relativeTimeRange": window, "datasourceUid": SOURCE["uid"], "model": _query(rule)},
            {"refId": "B", "relativeTimeRange": window, "datasourceUid": "__expr__", "model": _reduce(rule)},
            {"refId": "C", "relativeTimeRange": window, "datasourceUid": "__expr__", "model": _threshold(rule)},
        ],
        "noDataState": rule.no_data,
        "execErrState": "Error" if rule.no_data == "Alerting" else "KeepLast",  # a dead database is one alert
        "for": rule.wait,
        "dashboardUid": dashboard,
        "panelId": panel,
        "annotations": {
            "summary": f"{rule.title}: {where}",
            "description": f"Now {now}, limit {limit}. {rule.first_aid}",
            "runbook_url": f"{runbook_base}docs/runbook/{rule.name}.md",
            "__dashboardUid__": dashboard,
            "__panelId__": str(panel),
        },
        "labels": labels | {"team": "battfleet"},
        "isPaused": rule.is_paused,
    }


def _query(rule: Rule) -> Json:
    return {"refId": "A", "datasource": SOURCE, "rawQuery": True, "query": rule.query, "resultFormat": "time_series"}


def _reduce(rule: Rule) -> Json:
    return {
        "refId": "B",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "type": "reduce",
        "expression": "A",
        "reducer": rule.reducer,
        "settings": {"mode": "dropNN"},
    }


def _threshold(rule: Rule) -> Json:
    condition: Json = {"evaluator": {"type": rule.compare, "params": [rule.limit]}}
    if rule.margin:
        back = rule.limit - rule.margin if rule.compare == "gt" else rule.limit + rule.margin
        opposite = {"gt": "lt", "lt": "gt"}[rule.compare]
        condition["unloadEvaluator"] = {"type": opposite, "params": [round(back, 6)]}
    return {
        "refId": "C",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "type": "threshold",
        "expression": "B",
        "conditions": [condition],
    }


def groups(settings: Settings) -> list[Json]:
    """Return the rules in one group for each severity: alarms are looked at twice as often."""
    every = rules(settings)
    return [
        {
            "orgId": ORG,
            "name": f"battfleet-{severity}",
            "folder": FOLDER,
            "interval": interval,
            "rules": [rule_json(rule, settings.runbook_base) for rule in every if rule.severity == severity],
        }
        for severity, interval in INTERVALS.items()
    ]


def retired() -> list[str]:
    """Return the ids that Grafana is told to delete."""
    uids: list[str] = tomllib.loads(RETIRED.read_text(encoding="utf-8"))["uids"]
    return uids


def contact_points(names: tuple[str, ...]) -> Json:
    """Return one contact point that reaches people in all these ways at once."""
    receivers = [{"uid": f"battfleet-{name}", **RECEIVERS[name], "disableResolveMessage": False} for name in names]
    return {"apiVersion": 1, "contactPoints": [{"orgId": ORG, "name": CONTACT, "receivers": receivers}]}


def policies() -> Json:
    """Return the policy tree; Grafana replaces its whole tree by this one."""
    tree = {
        "orgId": ORG,
        "receiver": CONTACT,
        "group_by": ["bench", "battery", "alertname"],
        "group_wait": "5m",
        "group_interval": "5m",
        "repeat_interval": "12h",
        "routes": [
            {
                "receiver": CONTACT,
                "object_matchers": [["severity", "=", "critical"]],
                "group_wait": "10s",
                "group_interval": "1m",
                "repeat_interval": "1h",
            }
        ],
    }
    return {"apiVersion": 1, "policies": [tree]}


def alerting(settings: Settings) -> dict[str, Json]:
    """Return file name to content, for Grafana's folder `provisioning/alerting`."""
    deleted = [{"orgId": ORG, "uid": uid} for uid in retired()]
    made = {"rules.yaml": {"apiVersion": 1, "groups": groups(settings)}}
    if deleted:
        made["retired.yaml"] = {"apiVersion": 1, "deleteRules": deleted}
    if settings.contact_points:
        made["contact-points.yaml"] = contact_points(settings.contact_points)
        made["policies.yaml"] = policies()
    return made
