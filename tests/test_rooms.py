"""Import rules that a list cannot express; the others are contracts in pyproject.toml (lint-imports)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors import devices

ROOT = Path(__file__).parents[1]


def imports(path: Path, *, outermost: bool = False) -> Iterator[str]:
    """Yield every module that a file imports, anywhere in the file or indirectly when it is imported."""
    tree = ast.parse(path.read_text())
    for node in tree.body if outermost else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("kind", devices.KINDS)
def test_no_instrument_imports_another(kind: str) -> None:
    others = {f"collectors.devices.{other}" for other in devices.KINDS if other != kind}
    package = ROOT / "collectors" / "devices" / kind
    files = sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]
    used = {name for file in files for name in imports(file)}
    found = {name for name in used for other in others if name == other or name.startswith(f"{other}.")}
    assert not found, "share a package whose name starts with '_' instead"


def test_only_commands_and_tools_draw() -> None:
    """A service must stay small: rich and click are for commands, and the client library for provisioning a server."""
    heavy = {"click", "rich", "influxdb_client", "pyarrow"}
    rooms = ("cli", "bench")
    for path in sorted((ROOT / "collectors").rglob("*.py")):
        if any(part in rooms for part in path.relative_to(ROOT / "collectors").parts):
            continue
        top = {name.split(".")[0] for name in imports(path, outermost=True)}
        found = top & heavy
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


OUTERMOST = {"collectors/cli/__init__.py", "collectors/shipper/service.py", "soc/cli/__init__.py"}
"""Where a command or a sink's thread ends: a bug ends the process, with its traceback and its own exit code."""


def test_only_the_outermost_frame_catches_every_exception() -> None:
    wide = set()
    for path in [*(ROOT / "collectors").rglob("*.py"), *(ROOT / "soc").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None
                or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            ):
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                wide |= set() if raises else {str(path.relative_to(ROOT))}
    assert wide <= OUTERMOST
