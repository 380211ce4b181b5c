"""Writes everything that Grafana and InfluxDB read from files; `--check` compares instead.

    python -m grafana.build                      write grafana/built
    python -m grafana.build --check              exit 1 with a diff when grafana/built is not what the code says
    python -m grafana.build --out DIR --settings FILE.json
                                                 for a site: thresholds, batteries and contact points of its own

Output is JSON for dashboards and YAML for provisioning, always the same bytes for the same code.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from grafana import dashboards
from grafana.dashboard import dashboard_json

BUILT = Path(__file__).parent / "built"


def files() -> dict[str, str]:
    """Return path below the output folder to content."""
    return {
        f"dashboards/{dashboard.uid}.json": json.dumps(dashboard_json(dashboard), indent=1, ensure_ascii=False) + "\n"
        for dashboard in dashboards.ALL
    }


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
    given = parser.parse_args(arguments)
    wanted = files()
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
