"""Check of a dashboard against Grafana's own types, panel by panel."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

FOLDER = Path(__file__).parent / "schema"
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PLUGIN_FOLDERS = {"state-timeline": "statetimeline"}
ANNOTATION_TARGET = ("limit", "matchAny", "tags", "type")
"""What the types know of an annotation's target; the rest of it is the data source's query, open as panels' are."""


def mistakes(dashboard: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """One line, with its position, for each element that the types do not allow."""
    plain = copy.deepcopy(dict(dashboard))
    for annotation in plain["annotations"]["list"]:
        if "target" in annotation:
            annotation["target"] = {key: annotation["target"][key] for key in ANNOTATION_TARGET}
    found: list[str] = []
    for variable in plain["templating"]["list"]:
        if variable.get("type") == "interval":
            own = {key: variable.pop(key) for key in list(variable) if key.startswith("auto")}
            found += _errors(f"variable {variable['name']}", own, _partial(schema["interval"]))
    found += _errors("dashboard", plain, schema["dashboard"])
    for panel in dashboard["panels"]:
        if panel.get("type") != "row":
            found += _panel(panel, schema)
    return found


def _panel(panel: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    stated, title = panel.get("type", ""), panel.get("title", "")
    kind = PLUGIN_FOLDERS.get(stated, stated)
    if kind not in schema:
        yield f"{title}: panel type {stated!r} is not one that is checked"
        return
    yield from _errors(f"{title}: options", panel["options"], schema[kind]["options"])
    config = panel["fieldConfig"]
    custom, allowed = config["defaults"].get("custom"), schema[kind]["custom"]
    if custom is not None:
        if allowed is None:
            yield f"{title}: {kind} has no custom field options"
        else:
            yield from _errors(f"{title}: custom", custom, _partial(allowed))
    for override in config["overrides"]:
        for item in override["properties"]:
            yield from _property(title, item, allowed, schema["dashboard"]["definitions"]["FieldConfig"]["properties"])


def _property(title: str, item: Mapping[str, Any], custom: Any, standard: Mapping[str, Any]) -> Iterator[str]:
    name = item["id"]
    if name.startswith("custom."):
        yield from _errors(f"{title}: override", {name.removeprefix("custom."): item["value"]}, _partial(custom))
    elif name not in standard:
        yield f"{title}: override {name!r} is unknown"


def _partial(schema: Any) -> Any:
    """Field options are merged with the plugin's defaults: none is required."""
    root = copy.deepcopy(schema)
    for definition in root["definitions"].values():
        definition.pop("required", None)
    return root


def _errors(what: str, value: Any, schema: Any) -> Iterator[str]:
    for error in Draft7Validator(schema).iter_errors(value):
        yield f"{what}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
