"""Build what a host installs from this checkout, on the controller: prints {"id": …, "folder": …, "wheel": …} as JSON.

The folder holds the wheel and `requirements.txt`, the lock's pins with hashes. It is kept under
$XDG_CACHE_HOME/battfleet/releases (else ~/.cache/…) and named after its content, so the same code is built once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[4]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "battfleet" / "releases"
PARTS = ("pyproject.toml", "README.md", "LICENSE", "collectors")
EXTRA = "collectors"


def files() -> list[Path]:
    """Return every file that goes into the wheel, in a fixed order."""
    found = [path for part in PARTS for path in [CHECKOUT / part, *sorted((CHECKOUT / part).rglob("*"))]]
    return [path for path in found if path.is_file() and path.suffix != ".pyc"]


def pins() -> str:
    """Return the lock's part for a host, with hashes."""
    command = [sys.executable, str(CHECKOUT / "scripts" / "locked.py"), EXTRA]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def identity(requirements: str) -> str:
    """Return the version and a digest of everything that is installed."""
    digest = hashlib.sha256(requirements.encode())
    for path in files():
        digest.update(f"{path.relative_to(CHECKOUT)}\0".encode())
        digest.update(path.read_bytes())
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return f"{version}-{digest.hexdigest()[:12]}"


def build(folder: Path, requirements: str) -> None:
    """Fill the folder; a copy of the sources is built, so that nothing of an older build slips in."""
    with tempfile.TemporaryDirectory(prefix="battfleet-") as scratch:
        source, draft = Path(scratch) / "source", Path(scratch) / "release"
        draft.mkdir()
        for path in files():
            target = source / path.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        wheel = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
        subprocess.run([*wheel, "--no-build-isolation", "--wheel-dir", draft, source], check=True, stdout=sys.stderr)
        (draft / "requirements.txt").write_text(requirements, encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(draft, folder, dirs_exist_ok=True)


def main() -> None:
    """Build the release if it is not there, and say where it is."""
    requirements = pins()
    name = identity(requirements)
    folder = CACHE / name
    if not (folder / "requirements.txt").exists():
        build(folder, requirements)
    (wheel,) = folder.glob("*.whl")
    print(json.dumps({"id": name, "folder": str(folder), "wheel": wheel.name}))


if __name__ == "__main__":
    main()
