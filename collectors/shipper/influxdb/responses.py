"""What a server's response means. Only 204 says that the points are stored; nothing else ever moves a cursor.

    204                          STORED
    400, 422 in InfluxDB's JSON  REFUSED     some lines, or all; the good ones may be stored; the text may be wrong
      points outside retention   EXPIRED     points older than the sink keeps
      shard pending deletion     BUSY        the server deletes the shard just now
    400, 422 in another form     HOLD        a proxy, or plain HTTP sent to a TLS port: says nothing about lines
    413, or the connection lost
      while a large body goes    TOO_LARGE   InfluxDB 1.x closes without a response
    429, 503                     BUSY        Retry-After, if given
    5xx with "partial write"     as 400      2.0 reports rejected lines with a 500
    5xx, no space on its disk    HOLD        no line is at fault; a small one may still be stored
    5xx, its write cache is full BUSY        the same
    500, 502, 504                FAULT       may be for good: 1.x says 500 when the retention policy is missing
    401, 403, 404, other 4xx     HOLD        token, rights, database or bucket: a person must act; nothing is dropped
    no response in time to more
      than a few lines           SLOW        stored or not; the way there is too slow for so much at once
    no or half a response, 408   UNKNOWN     stored or not: send the same again
    200, 3xx, anything else      HOLD        not InfluxDB: a captive portal or a proxy

What each verdict asks for: `collectors.shipper.retry`. The words of each supported server, with their sources:
`tests/collectors/shipper/responses/*.toml`.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

LARGE_BODY_BYTES = 64 * 1024
"""A connection lost while less than this was going out says nothing about size."""
FEW_LINES_BYTES = 4 * 1024
"""With no more than this the time runs out for another reason than size."""

_INFLUXDB_ERROR = re.compile(r'\s*\{\s*"(?:error|code|message)"\s*:')
"""How InfluxDB's own error begins: 1.x {"error": …}, 2.x {"code": …, "message": …}. A long one may be cut."""
_PARTIAL_WRITE = "partial write"
_EXPIRED = re.compile(r"points (?:beyond|outside) retention policy")
_PENDING_DELETION = re.compile(r"shard \d+ is pending deletion")
_NO_SPACE = "no space left on device"
_CACHE_FULL = "cache-max-memory-size exceeded"


class WriteResponse(NamedTuple):
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


class Outcome(Enum):
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
    204: Outcome.STORED,
    400: Outcome.REFUSED,
    408: Outcome.UNKNOWN,
    413: Outcome.TOO_LARGE,
    422: Outcome.REFUSED,
    429: Outcome.BUSY,
    500: Outcome.FAULT,
    502: Outcome.FAULT,
    503: Outcome.BUSY,
    504: Outcome.FAULT,
}


def classify(answer: WriteResponse, body_bytes: int) -> Outcome:
    """Return what the answer to a body of this size (before compression) means."""
    if answer.status is None:
        too_large = not answer.sent_whole and body_bytes > LARGE_BODY_BYTES
        slow = Outcome.SLOW if answer.timed_out and body_bytes > FEW_LINES_BYTES else Outcome.UNKNOWN
        return Outcome.TOO_LARGE if too_large else slow
    verdict = _BY_STATUS.get(answer.status, Outcome.FAULT if answer.status > 500 else Outcome.HOLD)
    if verdict is Outcome.REFUSED:
        return _rejected(answer.text) if _INFLUXDB_ERROR.match(answer.text) else Outcome.HOLD
    if answer.status >= 500:
        return _failed(answer.text, verdict)
    return verdict


def _rejected(text: str) -> Outcome:
    """Return what InfluxDB's words say about lines that it did not store."""
    if _EXPIRED.search(text):
        return Outcome.EXPIRED
    return Outcome.BUSY if _PENDING_DELETION.search(text) else Outcome.REFUSED


def _failed(text: str, by_status: Outcome) -> Outcome:
    """Return what a 5xx means: its words tell lines that were rejected from a server that cannot write."""
    if _NO_SPACE in text:
        return Outcome.HOLD
    if _CACHE_FULL in text:
        return Outcome.BUSY
    return _rejected(text) if _PARTIAL_WRITE in text else by_status
