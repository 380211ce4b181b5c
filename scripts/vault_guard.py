#!/usr/bin/env python3
"""Refuse secrets in clear text in the repository: exit code 1 and a line for each, without the secret itself.

    scripts/vault_guard.py             all tracked files, as they are on the disk
    scripts/vault_guard.py --staged    what the next commit would hold; scripts/git-hooks/pre-commit does this
    scripts/vault_guard.py --history   every file of every commit up to this one, as what was pushed stays known when a
                                       later commit removes it; .ci/run does this

Looks for: vault files that are not encrypted, values of vault_… variables outside of them, private keys, files with the
vault's password, and literals of twelve or more letters behind a word such as token or password in configuration files.
Switch the hook on, once for each clone: git config core.hooksPath scripts/git-hooks
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

HEADER = "$ANSIBLE_VAULT;"
EXAMPLE_FILE = "vault.example.yml"
EXAMPLE_VALUE = "example-"

CONFIGURATION = {".yml", ".yaml", ".ini", ".cfg", ".conf", ".toml", ".env", ".j2", ".json", ".service"}
"""Files whose literals are looked at; in code, a password is a variable's name more often than a value."""

VAULT_VALUE = re.compile(r"^\s*(vault_\w+):\s*[\"']?([^\s\"'#{].*)$")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE" + " KEY-----")
LITERAL = re.compile(
    r"(?i)\b\w*(?:token|password|passwd|secret|secret_key|api_key|seed)\"?\s*[:=]\s*[\"']?(?P<value>[A-Za-z0-9+/_=.~-]{12,})[\"']?\s*$"
)
HARMLESS = re.compile(r"^(?:[a-z]+(?:[-_.][a-z0-9]+)*(?:\.[a-z]+)?|/.*|influxdb_\w+|vault_\w+)$")
"""Names of things, paths and variables: lower-case words, no more random than a sentence."""


def problems(path: str, text: str) -> Iterator[str]:
    """Yield what is wrong with a file, with the line's number."""
    name = PurePosixPath(path).name
    if name.startswith(".vault_pass") or name in ("vault_pass", "vault-password", "vault_password"):
        yield f"{path}: this is where a vault's password is kept; it must not be in the repository"
    if "vault" in name and name.endswith((".yml", ".yaml")) and _holds_variables(path):
        yield from _vault_file(path, name, text)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if PRIVATE_KEY.search(line):
            yield f"{path}:{number}: a private key"
        if _is_configuration(name) and (found := VAULT_VALUE.match(line)):
            yield f"{path}:{number}: {found[1]} has a value outside of a vault file"
        elif _is_configuration(name) and (found := LITERAL.search(line)) and not HARMLESS.match(found["value"]):
            yield f"{path}:{number}: what looks like a secret; keep it in a vault file"


def _holds_variables(path: str) -> bool:
    return bool({"group_vars", "host_vars", "inventory"} & set(PurePosixPath(path).parts))


def _is_configuration(name: str) -> bool:
    return PurePosixPath(name).suffix in CONFIGURATION or name.startswith(".env")


def _vault_file(path: str, name: str, text: str) -> Iterator[str]:
    """Yield what is wrong with a file of secrets: it is encrypted, or is an example with values that show it."""
    if name != EXAMPLE_FILE:
        if not text.startswith(HEADER):
            yield f"{path}: not encrypted; run `ansible-vault encrypt {path}`"
        return
    for number, line in enumerate(text.splitlines(), 1):
        if (found := VAULT_VALUE.match(line)) and not found[2].startswith(EXAMPLE_VALUE):
            yield f"{path}:{number}: {found[1]} in an example must begin with {EXAMPLE_VALUE!r}"


def git(*arguments: str) -> bytes:
    """Return what git says."""
    return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout


def history() -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file of every commit up to this one, each content once."""
    listed = git("rev-list", "--objects", "HEAD")
    named = dict(line.split(" ", 1) for line in listed.decode().splitlines() if " " in line)
    with subprocess.Popen(["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for number, path in named.items():
            process.stdin.write(f"{number}\n".encode())
            process.stdin.flush()
            _, kind, size = process.stdout.readline().split()
            content = process.stdout.read(int(size) + 1)[:-1]
            if kind == b"blob":
                yield path, content


def files(staged: bool) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file that is to be looked at."""
    asked = ["diff", "--cached", "--name-only", "--diff-filter=ACMR", "-z"] if staged else ["ls-files", "-z"]
    for path in filter(None, git(*asked).decode().split("\0")):
        if staged:
            yield path, git("show", f":{path}")
        elif Path(path).is_file():
            yield path, Path(path).read_bytes()


def main(arguments: Sequence[str]) -> int:
    """Say what is wrong; return the exit code."""
    if arguments not in ([], ["--staged"], ["--history"]):
        print(__doc__, file=sys.stderr)
        return 2
    found = [
        line
        for path, content in (history() if arguments == ["--history"] else files(staged=bool(arguments)))
        for line in problems(path, content.decode("utf-8", "replace"))
    ]
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
