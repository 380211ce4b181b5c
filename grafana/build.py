"""Writes everything that Grafana and InfluxDB read from files; `--check` compares instead.

    python -m grafana.build                      write grafana/built
    python -m grafana.build --check              exit 1 with a diff when grafana/built is not what the code says
    python -m grafana.build --out DIR --settings FILE.json
                                                 for a site: thresholds, batteries and contact points of its own

    dashboards/      JSON, for the folder that provisioning/dashboards.yaml names
    alerting/        rules, retired rules, and a site's contact points: all of it into provisioning/alerting
    provisioning/    the dashboards' provider, and a data source for InfluxDB 1.x or for 2.x: install one of them
    examples/        contact points of every kind; they need the variables of `grafana.alerts.files.SECRETS`
    downsampling/    for 1.x (python -m grafana.downsampling install does the same) and tasks for 2.x

The same code always gives the same bytes.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from grafana import dashboards, provisioning
from grafana.alerts.files import alerting, contact_points, policies
from grafana.alerts.settings import CONTACT_POINTS, Settings, SettingsError, load
from grafana.dashboard import dashboard_json
from grafana.downsampling import choices, influxdb1, influxdb2
from grafana.panels import Json

BUILT = Path(__file__).parent / "built"


def files(settings: Settings) -> dict[str, str]:
    """Return path below the output folder to content."""
    made = {f"dashboards/{board.uid}.json": _json(dashboard_json(board)) for board in dashboards.ALL}
    made |= {f"alerting/{name}": _yaml(content) for name, content in alerting(settings).items()}
    made |= {
        "provisioning/dashboards.yaml": _yaml(provisioning.dashboards()),
        "provisioning/influxdb1.yaml": _yaml(provisioning.influxdb1()),
        "provisioning/influxdb2.yaml": _yaml(provisioning.influxdb2()),
        "examples/contact-points.yaml": _yaml(contact_points(CONTACT_POINTS)),
        "examples/policies.yaml": _yaml(policies()),
        "downsampling/influxdb1.iql": influxdb1.script(influxdb1.DATABASE, "raw"),
        "downsampling/grain.lp": "\n".join(choices("raw")) + "\n",
    }
    tasks = influxdb2.tasks(influxdb1.DATABASE, "raw")
    return made | {f"downsampling/influxdb2/{name}": task for name, task in tasks.items()}


def _json(content: Json) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _yaml(content: Json) -> str:
    head = "# Made by python -m grafana.build; change the code, not this file.\n"
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return head + text


def own_settings(path: Path | None) -> Settings:
    """Return the settings with those of a JSON file over them; SettingsError names what is wrong."""
    if path is None:
        return load()
    try:
        own = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}; expected a JSON object") from None
    if not isinstance(own, dict):
        raise SettingsError(f"{path}: expected a JSON object, got {type(own).__name__}")
    return load(own)


def differences(wanted: Mapping[str, str], folder: Path) -> list[str]:
    """Return a unified diff from what the folder holds to what is wanted; empty when they agree."""
    found = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    lines: list[str] = []
    for name in sorted(wanted.keys() | found.keys()):
        old, new = found.get(name, "").splitlines(), wanted.get(name, "").splitlines()
        lines += difflib.unified_diff(old, new, f"{folder.name}/{name}", f"built/{name}", lineterm="")
    return lines


def write(wanted: Mapping[str, str], folder: Path) -> None:
    """Make the folder hold exactly these files."""
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description="Build dashboards and alerts.")
    parser.add_argument("--check", action="store_true", help="compare with what is there; write nothing")
    parser.add_argument("--out", type=Path, default=BUILT, metavar="DIR", help="where to (default: grafana/built)")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON with a site's own limits and batteries")
    given = parser.parse_args(arguments)
    try:
        wanted = files(own_settings(given.settings))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if not given.check:
        write(wanted, given.out)
        return 0
    lines = differences(wanted, given.out)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    if lines:
        sys.stderr.write(f"{given.out} is not what the code says: run python -m grafana.build and commit it\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
