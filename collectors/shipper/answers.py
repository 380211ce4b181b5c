"""What a server's answer means. Only 204 says that the points are stored; nothing else ever moves a cursor.

    204                          STORED
    400, 422                     REFUSED     some lines, or all; the good ones may be stored; the text may be wrong
      "beyond retention policy"  EXPIRED     points older than the sink keeps
    413, or the connection lost
      while a large body goes    TOO_LARGE   InfluxDB 1.x closes without an answer
    429, 503                     BUSY        Retry-After, if given
    500, 502, 504                FAULT       may be for good: 1.x says 500 when the retention policy is missing
    401, 403, 404, other 4xx     HOLD        token, rights, database or bucket: a person must act; nothing is dropped
    no answer in time to more
      than a few lines           SLOW        stored or not; the way there is too slow for so much at once
    no or half an answer, 408    UNKNOWN     stored or not: send the same again
    200, 3xx, anything else      HOLD        not InfluxDB: a captive portal or a proxy

What each verdict asks for: `collectors.shipper.delivery`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

LARGE_BODY_BYTES = 64 * 1024
"""A connection lost while less than this was going out says nothing about size."""
FEW_LINES_BYTES = 4 * 1024
"""With no more than this the time runs out for another reason than size."""


class Answer(NamedTuple):
    """What came back for one request."""

    status: int | None
    """None: no whole answer came."""
    text: str = ""
    """The server's words, or what went wrong on the way."""
    retry_after_s: float | None = None
    sent_whole: bool = True
    """False: the connection broke while the body was going out."""
    timed_out: bool = False
    """True: the body, or its answer, took longer than the sink's `answer_s`."""


class Verdict(Enum):
    """What to do next."""

    STORED = auto()
    REFUSED = auto()
    EXPIRED = auto()
    TOO_LARGE = auto()
    BUSY = auto()
    FAULT = auto()
    HOLD = auto()
    SLOW = auto()
    UNKNOWN = auto()


_BY_STATUS = {
    204: Verdict.STORED,
    400: Verdict.REFUSED,
    408: Verdict.UNKNOWN,
    413: Verdict.TOO_LARGE,
    422: Verdict.REFUSED,
    429: Verdict.BUSY,
    500: Verdict.FAULT,
    502: Verdict.FAULT,
    503: Verdict.BUSY,
    504: Verdict.FAULT,
}


def judge(answer: Answer, body_bytes: int) -> Verdict:
    """Return what the answer to a body of this size (before compression) means."""
    if answer.status is None:
        too_large = not answer.sent_whole and body_bytes > LARGE_BODY_BYTES
        slow = Verdict.SLOW if answer.timed_out and body_bytes > FEW_LINES_BYTES else Verdict.UNKNOWN
        return Verdict.TOO_LARGE if too_large else slow
    verdict = _BY_STATUS.get(answer.status, Verdict.FAULT if answer.status > 500 else Verdict.HOLD)
    if verdict is Verdict.REFUSED and "beyond retention policy" in answer.text:
        return Verdict.EXPIRED
    return verdict
