"""Print the part of requirements.txt that the named extras of pyproject.toml need, with its hashes.

requirements.txt is one lock for every place; each place installs only its own extras from it:

    python3 scripts/locked.py collectors build > .venv/requirements.txt
    python3 scripts/locked.py --extras dev        # dev and every extra that it contains

The lock's "# via" notes are the graph that is walked. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "battfleet"


def canonical(name: str) -> str:
    """Return the package name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def contained(extras: list[str], table: dict[str, list[str]]) -> set[str]:
    """Return these extras and all extras that they contain."""
    found: set[str] = set()
    for extra in extras:
        if extra not in table:
            sys.exit(f"locked.py: no extra {extra!r} in pyproject.toml; there are: {', '.join(sorted(table))}")
        found.add(extra)
        for requirement in table[extra]:
            own = re.fullmatch(rf"{PROJECT}\[([\w,\s-]+)\]", requirement)
            if own:
                found |= contained([e.strip() for e in own[1].split(",")], table)
    return found


def wanted(extras: list[str], table: dict[str, list[str]]) -> set[str]:
    """Return the packages that these extras name, extras of extras included."""
    return {
        canonical(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
        for extra in contained(extras, table)
        for requirement in table[extra]
        if not requirement.startswith(f"{PROJECT}[")
    }


def blocks(lock: str) -> list[tuple[str, set[str], str]]:
    """Return (package, packages that need it, text) for every pin of the lock."""
    found = []
    for text in re.split(r"(?m)^(?=[a-zA-Z0-9])", lock):
        pin = re.match(r"([\w.-]+)==", text)
        if pin:
            via = re.findall(r"(?m)^    #\s+(?:via\s+)?([\w.-]+)(?: \(.*\))?$", text)
            found.append((canonical(pin[1]), {canonical(v) for v in via if v != "via"}, text.rstrip()))
    return found


def main() -> None:
    """Print the pins that the extras on the command line need, or with --extras which extras these contain."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if sys.argv[1:2] == ["--extras"]:
        print(" ".join(sorted(contained(sys.argv[2:], table))))
        return
    pins = blocks((ROOT / "requirements.txt").read_text())
    need = wanted(sys.argv[1:], table)
    grown = True
    while grown:
        more = {name for name, via, _ in pins if via & need} - need
        need |= more
        grown = bool(more)
    missing = need - {name for name, _, _ in pins}
    if missing:
        sys.exit(f"locked.py: not in requirements.txt: {', '.join(sorted(missing))}; run scripts/lock")
    print("\n".join(text for name, _, text in pins if name in need))


if __name__ == "__main__":
    main()
