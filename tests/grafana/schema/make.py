"""Makes `grafana-<version>.json` from the TypeScript types of Grafana's own package `@grafana/schema`.

    python tests/grafana/schema/make.py DIR      into DIR; needs npm and its registry

One JSON schema (draft 7) for a dashboard, and for each panel type we use one for its options and one for its
`fieldConfig.defaults.custom`; for variables of type interval, what the newer dashboard types say of their own keys
(`auto` …), which the classic types leave out and Grafana reads. Words of the package are left out: only its
structure is kept (the package is Apache-2.0).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VERSIONS = ("12.4.11", "13.2.3")
GENERATOR = "ts-json-schema-generator@2.3.0"
PANELS = ("histogram", "stat", "statetimeline", "table", "text", "timeseries", "xychart")
WITHOUT_CUSTOM = ("stat", "text")
WORDS = ("$schema", "description", "default", "deprecated")


def structure(value: Any, names: bool = False) -> Any:
    """Return the schema without its words; below `properties` and `definitions` keys are names, not words."""
    if isinstance(value, dict):
        return {
            key: structure(item, key in ("properties", "definitions"))
            for key, item in sorted(value.items())
            if names or key not in WORDS
        }
    return [structure(item) for item in value] if isinstance(value, list) else value


def schema(folder: Path, types: Path, name: str) -> Any:
    """Return the JSON schema of one exported type."""
    generator = ["npx", "--no-install", "ts-json-schema-generator", "--no-type-check"]
    command = [*generator, "--path", str(types), "--type", name]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=120)
    return structure(json.loads(done.stdout))


def make(version: str) -> dict[str, Any]:
    """Return everything of one version."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text("{}")
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        packages = [f"@grafana/schema@{version}", GENERATOR]
        subprocess.run([*install, *packages], cwd=folder, check=True, capture_output=True, timeout=300)
        root = folder / "node_modules/@grafana/schema/dist/types"
        made: dict[str, Any] = {
            "version": version,
            "dashboard": schema(folder, root / "raw/dashboard/x/types.gen.d.ts", "Dashboard"),
            "interval": schema(folder, root / "schema/dashboard/v2beta1/types.spec.gen.d.ts", "IntervalVariableSpec"),
        }
        for panel in PANELS:
            types = root / "raw/composable" / panel / "panelcfg/x/types.gen.d.ts"
            custom = None if panel in WITHOUT_CUSTOM else schema(folder, types, "FieldConfig")
            made[panel] = {"options": schema(folder, types, "Options"), "custom": custom}
        return made


def text(made: dict[str, Any]) -> str:
    """Return the file's content."""
    return json.dumps(made, indent=None, separators=(",", ":"), sort_keys=True) + "\n"


if __name__ == "__main__":
    for each in VERSIONS:
        (Path(sys.argv[1]) / f"grafana-{each}.json").write_text(text(make(each)))
