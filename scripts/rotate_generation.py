#!/usr/bin/env python3
"""Raise a database user's generation in group_vars/all/generations.yml by one: its password is then another one.

scripts/rotate_generation.py USER        prints the new generation; ansible/playbooks/rotate-token.yml calls this
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "group_vars/all/generations.yml"
ROW = re.compile(r"^  (?P<user>[\w.-]+): (?P<generation>\d+)$")


def raised(text: str, user: str) -> tuple[str, int]:
    """Return the file's new content and the user's new generation. ValueError for a line that is not understood."""
    comments = [line for line in text.splitlines() if line.startswith("#")]
    generations: dict[str, int] = {}
    for line in text.splitlines():
        if found := ROW.match(line):
            generations[found["user"]] = int(found["generation"])
        elif line.strip() not in ("", "fleet_generations:", "fleet_generations: {}") and not line.startswith("#"):
            raise ValueError(f"{FILE}: expected lines such as '  bench-1: 2', got {line!r}")
    generations[user] = generations.get(user, 1) + 1
    rows = [f"  {name}: {generation}" for name, generation in sorted(generations.items())]
    return "\n".join([*comments, "fleet_generations:", *rows, ""]), generations[user]


def main(arguments: Sequence[str]) -> int:
    """Raise the generation of the user that is named; return the exit code."""
    if len(arguments) != 1 or not re.fullmatch(r"[\w.-]+", arguments[0]):
        print(__doc__, file=sys.stderr)
        return 2
    text, generation = raised(FILE.read_text(encoding="utf-8"), arguments[0])
    draft = FILE.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(FILE)
    print(generation)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
