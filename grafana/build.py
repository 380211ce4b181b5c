"""Writes everything that Grafana and InfluxDB read from files; `--check` compares instead.

    python -m grafana.build                      write grafana/built
    python -m grafana.build --check              exit 1 with a diff when grafana/built is not what the code says
    python -m grafana.build --out DIR --settings FILE.json --variables A,B
                                                 for a site: thresholds, batteries and contact points of its own;
                                                 refused (2) when a contact point needs another variable than these

    dashboards/      JSON, for the folder that provisioning/dashboards.yaml names
    alerting/        rules, retired rules, and a site's contact points: all of it into provisioning/alerting
    provisioning/    the dashboards' provider, and the data source
    examples/        contact points of every kind; they need the variables of `grafana.alerts.files.SECRETS`
    retired/         takes our contact points back, for a Grafana that was given some and is to have none any more
    downsampling/    for 1.x (python -m grafana.downsampling install does the same); buckets and tasks for 2.x

The same code always gives the same bytes.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from grafana import dashboards, provisioning
from grafana.alerts.files import SECRETS, alerting, contact_points, no_contact_points, policies
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
        "provisioning/influxdb.yaml": _yaml(provisioning.data_source(settings.database)),
        "examples/contact-points.yaml": _yaml(contact_points(CONTACT_POINTS)),
        "examples/policies.yaml": _yaml(policies()),
        "retired/contact-points.yaml": _yaml(no_contact_points()),
        "downsampling/influxdb1.iql": influxdb1.script(settings.database, settings.policy),
        "downsampling/grain.lp": "\n".join(choices(settings.policy)) + "\n",
        "downsampling/influxdb2/policies.yaml": _yaml(influxdb2.policies()),
    }
    tasks = influxdb2.tasks(settings.database, settings.policy)
    return made | {f"downsampling/influxdb2/{name}": task for name, task in tasks.items()}


def _json(content: Json) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _yaml(content: Json | list[dict[str, str]]) -> str:
    head = "# Made by python -m grafana.build; change the code, not this file.\n"
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return head + text


def own_settings(path: Path | None) -> Settings:
    """Return the settings with those of a JSON file over them ("-": standard input); SettingsError for a mistake."""
    if path is None:
        return load()
    try:
        own = json.loads(sys.stdin.read() if path == Path("-") else path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}; expected a JSON object") from None
    if not isinstance(own, dict):
        raise SettingsError(f"{path}: expected a JSON object, got {type(own).__name__}")
    return load(own)


def missing(settings: Settings, variables: Collection[str]) -> list[str]:
    """Return a line for each contact point that needs a variable which is not among these."""
    needed = {name: [each for each in SECRETS[name] if each not in variables] for name in settings.contact_points}
    return [
        f"contact_points: {name} needs {', '.join(lacking)} in Grafana's environment"
        for name, lacking in needed.items()
        if lacking
    ]


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
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="JSON with a site's own limits and batteries; - is standard input"
    )
    parser.add_argument(
        "--variables", metavar="A,B,…", help="what Grafana's environment has; refuse contact points that need more"
    )
    given = parser.parse_args(arguments)
    try:
        settings = own_settings(given.settings)
        if given.variables is not None and (lines := missing(settings, given.variables.split(","))):
            raise SettingsError("\n".join(lines))
        wanted = files(settings)
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
