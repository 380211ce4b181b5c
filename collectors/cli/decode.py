"""`collectors decode KIND [FILE]`: decodes a capture of bytes to JSON lines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import IO

import click

from collectors import devices
from collectors.errors import FrameError
from collectors.text import encodable


def hex_chunks(lines: Iterable[str]) -> Iterator[bytes]:
    """Return the bytes of each line of hex; blanks, colons, 0x, commas and #-comments are accepted.

    Raises FrameError naming the line that is not hex.
    """
    for number, line in enumerate(lines, start=1):
        text = re.sub(r"0x|[\s:,;-]", "", line.split("#")[0], flags=re.IGNORECASE)
        if not text:
            continue
        try:
            yield bytes.fromhex(text)
        except ValueError as error:
            hint = "expected for example '85 01 47 …', or --raw for the bytes themselves"
            raise FrameError(f"line {number}: not hex ({error}); {hint}") from error


PIECE_BYTES = 4096
"""Longest chunk that a decoder receives: its time for the remaining bytes grows with their number."""
NO_FRAMES = ("noise", "empty")
"""Object types of lines that are neither frames nor errors."""


def _pieces(chunk: bytes) -> Iterator[bytes]:
    for at in range(0, len(chunk), PIECE_BYTES):
        yield chunk[at : at + PIECE_BYTES]


@click.command("decode")
@click.argument("kind", type=click.Choice(devices.KINDS))
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--raw", is_flag=True, help="FILE holds the bytes themselves, not hex text.")
def COMMAND(kind: str, file: IO[bytes], raw: bool) -> None:  # noqa: N802
    """Decode a capture of an instrument of this KIND: bytes in, one JSON object per frame out.

    Text protocols are read as text lines, binary ones as lines of hex (one chunk a line; frames may span chunks).
    Frames that are wrong are objects with an "error". Exit 76 when there was any, or when nothing is of this KIND.

    \b
    echo '85 01 47 08 40 0A 00 13 CD 01 FF' | collectors decode ea_el3000a
    collectors decode libresolar_mppt capture.txt | jq .
    """
    device = devices.load(kind)
    chunks: Iterable[bytes]
    if raw:
        chunks = iter(lambda: file.read(65536), b"")
    elif device.text:
        chunks = file
    else:
        chunks = hex_chunks(line.decode("ascii", errors="replace") for line in file)
    frames = wrong = other = 0
    for found in device.decode(piece for chunk in chunks for piece in _pieces(chunk)):
        frames += 1
        wrong += "error" in found
        other += found.get("type") in NO_FRAMES
        click.echo(encodable(json.dumps(found, ensure_ascii=False)))
    if frames == other:
        click.echo(f"there is no frame of a {kind} in it", err=True)
    if wrong:
        click.echo(f"{wrong} wrong of {frames} frames", err=True)
    if wrong or (other and frames == other):
        sys.exit(FrameError.exit_code)
