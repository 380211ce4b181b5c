"""Alerting as Grafana's provisioning files: rules, retired rules, contact points and the policy that uses them.

In these files Grafana replaces `$NAME` by the environment: in contact points that is wanted, there it names a variable
that holds a secret or an address (see `SECRETS`). A rule's queries and annotations are the exception: Grafana takes
them as they stand, so their dollars are written once.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from grafana import dashboards
from grafana.alerts.rules import Rule, rules
from grafana.alerts.settings import EVALUATION_S, Settings
from grafana.dashboard import dashboard_json
from grafana.panels import EXPRESSION, FOLDER, SOURCE

Json = dict[str, Any]

RETIRED = Path(__file__).with_name("retired.toml")
ORG = 1
CONTACT = "battfleet"
FAR = 1000
"""What a closed gate adds to a value, away from the limit: more than any value, small enough to lose no digits."""
UNKNOWN = "unknown, no data"

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
    """Return the template of the value as people say it, and the limit in the same words.

    Grafana expands templates also where there is no value (no data, a database that does not respond): then
    `$values.B` is missing, or is NaN, which does not equal itself; a function of it would be an error.
    """
    match rule.unit:
        case "%":
            number, limit = "{{ humanizePercentage .Value }}", f"{rule.limit:.0%}"
        case "bytes":
            number, limit = "{{ humanize .Value }}B", f"{rule.limit / 1e9:g} GB"
        case "s":
            number, limit = "{{ humanizeDuration .Value }}", f"{rule.limit:g} s"
        case unit:
            number, limit = f'{{{{ printf "%.4g" .Value }}}} {unit}'.rstrip(), f"{rule.limit:g} {unit}".rstrip()
    known = f"{{{{ if eq .Value .Value }}}}{number}{{{{ else }}}}{UNKNOWN}{{{{ end }}}}"
    return f"{{{{ with $values.B }}}}{known}{{{{ else }}}}{UNKNOWN}{{{{ end }}}}", limit


def whose(rule: Rule) -> str:
    """Return the template of what a rule fired for, or that nothing at all sends data."""
    grouped = rule.query.rsplit("GROUP BY", 1)[1]
    tags = [tag for tag in ("battery", "device", "cell") if f'"{tag}"' in grouped]
    rest = "".join(f"{{{{ with $labels.{tag} }}}} {{{{ . }}}}{{{{ end }}}}" for tag in tags)
    return f"{{{{ with $labels.bench }}}}{{{{ . }}}}{rest}{{{{ else }}}}no data from any bench{{{{ end }}}}"


def hold_evaluations(settings: Settings, severity: str) -> int:
    """Return after how many evaluations without its series an alert is resolved.

    Grafana resolves after two, if other series are still there: an alarm would end because its instrument fell silent.
    """
    hold_s: float = settings.limits["silence_hold_s"]
    return max(2, math.ceil(hold_s / EVALUATION_S[severity]))


def rule_json(rule: Rule, settings: Settings) -> Json:
    """Return a rule: A asks, B makes one number of each series, C compares; C is the condition.

    With a gate D asks, E reduces, and F is B moved far away from the limit where the gate is closed; C compares F.
    """
    now, limit = spoken(rule)
    labels = {"rule": rule.name, "severity": rule.severity, "urgency": "high" if rule.is_urgent else "normal"}
    labels |= {"chemistry": rule.chemistry} if rule.chemistry else {}
    dashboard, panel = f"battfleet-{rule.seen_in[0]}", panels()[f"battfleet-{rule.seen_in[0]}", rule.seen_in[1]]
    return {
        "uid": rule.uid,
        "title": f"{rule.title} ({', '.join(part for part in (rule.chemistry, rule.severity) if part)})",
        "condition": "C",
        "data": _data(rule),
        "noDataState": rule.no_data,
        "execErrState": "Error" if rule.no_data == "Alerting" else "KeepLast",  # a dead database is one alert
        "for": rule.wait,
        "missing_series_evals_to_resolve": hold_evaluations(settings, rule.severity),
        "dashboardUid": dashboard,
        "panelId": panel,
        "annotations": {
            "summary": f"{rule.title}: {whose(rule)}",
            "description": f"Now {now}, limit {limit}. {rule.first_aid}",
            "runbook_url": f"{settings.runbook_base}docs/runbook/{rule.name}.md",
            "__dashboardUid__": dashboard,
            "__panelId__": str(panel),
        },
        "labels": labels | {"team": "battfleet"},
        "isPaused": rule.is_paused,
    }


def _data(rule: Rule) -> list[Json]:
    models = [_query("A", rule.query), _reduce("B", "A", rule.reducer)]
    compared = "B"
    if gate := rule.gate:
        closed = f"$E {'<=' if gate.compare == 'gt' else '>='} {gate.limit:g}"
        away = f"$B {'-' if rule.compare == 'gt' else '+'} {FAR} * ({closed})"
        models += [_query("D", gate.query), _reduce("E", "D", rule.reducer), _expression("F", "math", away)]
        compared = "F"
    models.append(_threshold(rule, compared))
    return [
        {
            "refId": model["refId"],
            "relativeTimeRange": {"from": rule.window_s, "to": 0},
            "datasourceUid": model["datasource"]["uid"],
            "model": model,
        }
        for model in models
    ]


def _query(letter: str, query: str) -> Json:
    return {"refId": letter, "datasource": SOURCE, "rawQuery": True, "query": query, "resultFormat": "time_series"}


def _expression(letter: str, kind: str, expression: str) -> Json:
    return {"refId": letter, "datasource": EXPRESSION, "type": kind, "expression": expression}


def _reduce(letter: str, of: str, reducer: str) -> Json:
    return _expression(letter, "reduce", of) | {"reducer": reducer, "settings": {"mode": "dropNN"}}


def _threshold(rule: Rule, of: str) -> Json:
    condition: Json = {"evaluator": {"type": rule.compare, "params": [rule.limit]}}
    if rule.margin:
        back = rule.limit - rule.margin if rule.compare == "gt" else rule.limit + rule.margin
        opposite = {"gt": "lt", "lt": "gt"}[rule.compare]
        condition["unloadEvaluator"] = {"type": opposite, "params": [round(back, 6)]}
    return _expression("C", "threshold", of) | {"conditions": [condition]}


def groups(settings: Settings) -> list[Json]:
    """Return the rules in one group for each severity: alarms are looked at twice as often."""
    every = rules(settings)
    return [
        {
            "orgId": ORG,
            "name": f"battfleet-{severity}",
            "folder": FOLDER,
            "interval": f"{interval_s}s",
            "rules": [rule_json(rule, settings) for rule in every if rule.severity == severity],
        }
        for severity, interval_s in EVALUATION_S.items()
    ]


def retired() -> list[str]:
    """Return the ids that Grafana is told to delete."""
    uids: list[str] = tomllib.loads(RETIRED.read_text(encoding="utf-8"))["uids"]
    return uids


def contact_points(names: Collection[str]) -> Json:
    """Return one contact point that reaches people in all these ways at once, and takes back the others.

    Grafana keeps a way that a file has made until a file says to delete it; deleting what is not there is no error.
    """
    receivers = [{"uid": f"battfleet-{name}", **RECEIVERS[name], "disableResolveMessage": False} for name in names]
    made: Json = {"apiVersion": 1, "contactPoints": [{"orgId": ORG, "name": CONTACT, "receivers": receivers}]}
    others = [{"orgId": ORG, "uid": f"battfleet-{name}"} for name in RECEIVERS if name not in names]
    return made | ({"deleteContactPoints": others} if others else {})


def no_contact_points() -> Json:
    """Return the file that takes back every contact point of ours and the policy tree that uses them.

    Only for a Grafana that was given them: it resets the whole tree, which Grafana does before it deletes.
    """
    every = [{"orgId": ORG, "uid": f"battfleet-{name}"} for name in RECEIVERS]
    return {"apiVersion": 1, "resetPolicies": [ORG], "deleteContactPoints": every}


def policies() -> Json:
    """Return the policy tree; Grafana replaces its whole tree by this one.

    A warning and the alarm of the same rule, bench and battery are in one group, so they are one message, and none says
    "resolved" while the other fires. So a route must not depend on the severity: both share waiting times.
    """
    tree = {
        "orgId": ORG,
        "receiver": CONTACT,
        "group_by": ["bench", "battery", "rule"],
        "group_wait": "1m",
        "group_interval": "5m",
        "repeat_interval": "12h",
        "routes": [
            {
                "receiver": CONTACT,
                "object_matchers": [["urgency", "=", "high"]],
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
