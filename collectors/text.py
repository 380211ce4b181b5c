"""Text from outside, made fit to be stored, sent and shown: what instruments send is not always text.

A lone surrogate cannot be encoded, so it can be neither stored nor printed; a control character changes what a terminal
or a service manager does. Every text of an instrument passes `one_line` where it becomes a reading, an event or an
identity (`collectors.reading`), so that no driver has to think of it.
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 4000
"""Longest text that is kept of one value: a database takes 64 KB, of which each character may need four bytes."""
REPLACEMENT = "\ufffd"

_BLANKS = re.compile("[\t\n\x0b\x0c\r\x85\u2028\u2029]+")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the text as one line of at most `most` characters that can be encoded and shown.

    Line breaks and tabs become one blank, other control characters and lone surrogates U+FFFD; what is cut off at the
    end is marked by "…". Text without any of these is returned as it is.
    """
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    if not _UNFIT.search(text) and not _BLANKS.search(text):
        return text
    return _UNFIT.sub(REPLACEMENT, _BLANKS.sub(" ", text))


def encodable(text: str) -> str:
    """Return the text with each lone surrogate replaced by U+FFFD; all else, line breaks too, stays as it is."""
    return _SURROGATE.sub(REPLACEMENT, text)
