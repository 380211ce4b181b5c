"""Cleaning of external text so that it can be stored, sent and displayed: instruments do not always send valid text.

A lone surrogate cannot be encoded, so it can be neither stored nor printed; a control character changes the behaviour
of a terminal or a service manager. All text of an instrument passes through `one_line` where it becomes a reading, an
event or an identity (`collectors.reading`), so that drivers need not handle it.
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 4000
"""Maximum length of one text value: a database accepts 64 KB, and a character may need four bytes."""
REPLACEMENT = "\ufffd"

_BLANKS = re.compile("[\t\n\x0b\x0c\r\x85\u2028\u2029]+")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the text as one line of at most `most` characters that can be encoded and displayed.

    Line breaks and tabs become one blank, other control characters and lone surrogates U+FFFD; truncated text ends
    in "…". Text without any of these is returned unchanged.
    """
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    if not _UNFIT.search(text) and not _BLANKS.search(text):
        return text
    return _UNFIT.sub(REPLACEMENT, _BLANKS.sub(" ", text))


def encodable(text: str) -> str:
    """Return the text with each lone surrogate replaced by U+FFFD; all else, line breaks included, is unchanged."""
    return _SURROGATE.sub(REPLACEMENT, text)
