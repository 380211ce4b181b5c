"""Build what a host installs from this checkout, on the controller: release.py [WHEELHOUSE].

Prints {"id": …, "wheel": …, "archive": …} as JSON. The archive holds the wheel, `requirements.txt` (the lock's pins
with hashes) and the wheels of the wheelhouse, below a folder of that id: a host takes one file much faster than twenty.
It is kept under $XDG_CACHE_HOME/battfleet/releases (else ~/.cache/…) and named after its content, so the same code is
built once, also when several benches ask at the same time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
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
    """Make the folder; a copy of the sources is built, so that nothing of an older build slips in."""
    with tempfile.TemporaryDirectory(prefix="draft-", dir=folder.parent) as scratch:
        source, draft = Path(scratch) / "source", Path(scratch) / "release"
        draft.mkdir()
        for path in files():
            target = source / path.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        wheel = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
        subprocess.run([*wheel, "--no-build-isolation", "--wheel-dir", draft, source], check=True, stdout=sys.stderr)
        (draft / "requirements.txt").write_text(requirements, encoding="utf-8")
        draft.rename(folder)


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the entry as root's, whoever built it; everybody may read it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o644
    return entry


def packed(folder: Path, wheelhouse: Path | None) -> Path:
    """Return the archive of a release and of the wheels that it needs, made if it is not there."""
    wheels = sorted(wheelhouse.glob("*.whl")) if wheelhouse else []
    if wheelhouse and not wheels:
        sys.exit(f"collectors_wheelhouse: no wheels in {wheelhouse}; scripts/wheelhouse.py fills a folder with them")
    listed = "".join(f"{wheel.name} {wheel.stat().st_size}\n" for wheel in wheels)
    whole = folder / f"packages-{hashlib.sha256(listed.encode()).hexdigest()[:12]}.tar"
    if not whole.exists():
        draft = whole.with_suffix(".draft")
        with tarfile.open(draft, "w") as archive:
            for path in [*folder.glob("*.whl"), folder / "requirements.txt"]:
                archive.add(path, f"{folder.name}/{path.name}", filter=anonymous)
            for path in wheels:
                archive.add(path, f"{folder.name}/wheels/{path.name}", filter=anonymous)
        draft.rename(whole)
    return whole


def main() -> None:
    """Build the release if it is not there, and say where it is."""
    requirements = pins()
    name = identity(requirements)
    folder = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build(folder, requirements)
        archive = packed(folder, Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    (wheel,) = folder.glob("*.whl")
    print(json.dumps({"id": name, "wheel": wheel.name, "archive": str(archive)}))


if __name__ == "__main__":
    main()
