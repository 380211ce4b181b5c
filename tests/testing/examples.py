r"""The shell examples of help texts and pages: extracted, and checked against the commands that there are.

of_help()     lines of the `\b` blocks in the help of every command of `collectors` and `soc`
of_pages()    lines of ```sh blocks, and commands in backticks within a sentence, of README.md and docs/
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from collectors.cli import cli as collectors_cli
from soc.cli import cli as soc_cli

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, click.Group] = {"collectors": collectors_cli, "soc": soc_cli}
START = re.compile(r"(?:^|: +)((?:(?:collectors|soc|scripts/\w+|echo|eval|sudo|ansible-\w+)\b)[^:]?.*)$")
INLINE = r"(collectors|soc) \S|scripts/\w"
OPERATORS = {"|", ";", "&&", "||", "&", ">", ">>", "<", "2>"}
PLACEHOLDER = re.compile(r"^[A-Z][A-Z_]*$|…|^\.\.\.$")


@dataclass(frozen=True)
class Example:
    """One command line that a user types."""

    where: str
    """Command path or file."""
    text: str
    is_inline: bool = False
    """Within a sentence, where it may name a command with placeholders."""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def commands(program: str, command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Give a command and all below it, each with its path as it is typed."""
    path = f"{path} {program}".strip()
    yield path, command
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                below = command.get_command(ctx, name)
                assert below is not None
                yield from commands(name, below, path)


def of_help() -> list[Example]:
    """Return the examples of every help text."""
    found = []
    for program, group in PROGRAMS.items():
        for path, command in commands(program, group):
            for block in re.findall(r"\x08\n(.*?)(?:\n\s*\n|\Z)", command.help or "", re.S):
                for line in re.sub(r"\\\n\s*", "", block).splitlines():
                    started = START.search(line.strip())
                    if started:
                        found.append(Example(f"{path} --help", started[1].strip()))
    return found


def pages() -> list[Path]:
    """Return README, all pages, and the READMEs of roles and frames."""
    found = [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "ansible").rglob("README.md"),
        *(ROOT / "tests").rglob("README.md"),
    ]
    ours = [path for path in found if "node_modules" not in path.parts]  # the tests of Grafana's library install it
    return [ROOT / "README.md", *sorted(ours)]


def of_pages() -> list[Example]:
    """Return the examples of README and pages."""
    found = []
    for page in pages():
        where = str(page.relative_to(ROOT))
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, re.S):
            for line in block.replace("\\\n", " ").splitlines():
                command = without_comment(line)
                if command:
                    found.append(Example(where, command))
        for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S)):
            inline = " ".join(code.split())
            found += [Example(where, inline, is_inline=True)] if re.match(INLINE, inline) else []
    return found


def without_comment(line: str) -> str:
    """Return a line of shell without its comment."""
    return re.sub(r"(^|\s+)#\s.*$", "", line).strip()


def parts(text: str) -> list[list[str]]:
    """Return the words of each simple command in a line of shell."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[list[str]] = [[]]
    skip_file = False
    for word in lexer:
        if word in OPERATORS:
            skip_file = word in {">", ">>", "<", "2>"}
            if not skip_file:
                found.append([])
        elif skip_file:
            skip_file = False
        else:
            found[-1].append(word)
    return [words for words in found if words]


def problems(words: list[str]) -> list[str]:
    """Return the subcommands and options named by a command line that do not exist."""
    words = [word for word in words if not re.fullmatch(r"\w+=.*", word)] or words
    program = Path(words[0]).name
    if words[0].startswith("scripts/"):
        return [] if (ROOT / words[0]).is_file() else [f"there is no {words[0]}"]
    if program not in PROGRAMS:
        return []
    command: click.Command = PROGRAMS[program]
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-") and not PLACEHOLDER.search(rest[0]):
        with click.Context(command) as ctx:
            below = command.get_command(ctx, rest[0])
        if below is None:
            return [f"{program} has no command {rest[0]}"]
        command, rest = below, rest[1:]
    known = {"--help", "-h", *(opt for p in command.params for opt in (*p.opts, *p.secondary_opts))}
    if isinstance(command, click.Group):
        known.add("--version")
    given = [word.partition("=")[0] for word in rest if re.match(r"-[a-zA-Z]|--\w", word)]
    return [f"{' '.join(words[:2])} has no option {option}" for option in given if option not in known]
