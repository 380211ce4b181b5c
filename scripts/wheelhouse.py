"""Fill a folder with every wheel that a bench needs, for hosts that have no package index: `collectors_wheelhouse`.

    .venv/bin/python scripts/wheelhouse.py wheels --python 3.13 --machine aarch64     # Raspberry Pi OS trixie, 64 bit
    .venv/bin/python scripts/wheelhouse.py wheels --python 3.11 --machine aarch64     # bookworm

Exactly the lock's pins, checked against its hashes. Run it where there is internet.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import Marker

LOCKED = Path(__file__).with_name("locked.py")
OLDEST_GLIBC, NEWEST_GLIBC = 17, 36
"""Debian 12 has glibc 2.36; wheels for older ones run there, too."""


def chosen(pins: str, python: str, machine: str) -> str:
    """Return the pins that apply there, without their conditions: pip would judge those for the Python it runs on."""
    there = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    kept = []
    for block in re.split(r"(?m)^(?=[a-zA-Z0-9])", pins):
        head, semicolon, rest = block.partition(" ; ")
        if not semicolon:
            kept.append(block)
            continue
        condition, backslash, hashes = rest.partition(" \\\n")
        if Marker(condition).evaluate(there):
            kept.append(f"{head}{backslash}{hashes}")
    return "".join(kept)


def main() -> None:
    """Download what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.13", help="the hosts' Python [%(default)s]")
    parser.add_argument("--machine", default="aarch64", help="the hosts' `uname -m` [%(default)s]")
    asked = parser.parse_args()
    pins = subprocess.run([sys.executable, LOCKED, "collectors"], check=True, capture_output=True, text=True).stdout
    platforms = [f"manylinux_2_{minor}_{asked.machine}" for minor in range(OLDEST_GLIBC, NEWEST_GLIBC + 1)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as requirements:
        requirements.write(chosen(pins, asked.python, asked.machine))
        requirements.flush()
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        command += ["--require-hashes", "--only-binary", ":all:", "--python-version", asked.python]
        command += [part for name in [*platforms, f"manylinux2014_{asked.machine}"] for part in ("--platform", name)]
        command += ["--dest", str(asked.folder), "--requirement", requirements.name]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
