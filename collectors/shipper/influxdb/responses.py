"""Classifies a server's response. Only 204 confirms that the points are stored; nothing else ever moves a cursor.

    204                          STORED
    400, 422 in InfluxDB's JSON  REFUSED     some lines, or all; the good ones may be stored; the text may be wrong
      points outside retention   EXPIRED     points older than the sink keeps
      shard pending deletion     BUSY        the server is deleting the shard
    400, 422 in another form     HOLD        a proxy, or plain HTTP sent to a TLS port: no information about lines
    413, or the connection lost
      while a large body goes    TOO_LARGE   InfluxDB 1.x closes without a response
    429, 503                     BUSY        Retry-After, if given
    5xx with "partial write"     as 400      2.0 reports rejected lines with a 500
    5xx, no space on its disk    HOLD        no line is at fault; a small one may still be stored
    5xx, its write cache is full BUSY        the same
    500, 502, 504                FAULT       may be permanent: 1.x sends 500 when the retention policy is missing
    401, 403, 404, other 4xx     HOLD        token, rights, database or bucket: a person must act; nothing is dropped
    no response in time to more
      than a few lines           SLOW        stored or not; the connection is too slow for this size
    no or half a response, 408   UNKNOWN     stored or not: send the same again
    200, 3xx, anything else      HOLD        not InfluxDB: a captive portal or a proxy

The action for each outcome: `collectors.shipper.retry`. The response texts of each supported server, with their
sources: `tests/collectors/shipper/responses/*.toml`.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

LARGE_BODY_BYTES = 64 * 1024
"""A connection lost while a smaller body is sent gives no information about size."""
FEW_LINES_BYTES = 4 * 1024
"""A time-out of a body of at most this size has another reason than size."""

_INFLUXDB_ERROR = re.compile(r'\s*\{\s*"(?:error|code|message)"\s*:')
"""Beginning of InfluxDB's own errors: 1.x {"error": …}, 2.x {"code": …, "message": …}. A long text may be truncated."""
_PARTIAL_WRITE = "partial write"
_EXPIRED = re.compile(r"points (?:beyond|outside) retention policy")
_PENDING_DELETION = re.compile(r"shard \d+ is pending deletion")
_NO_SPACE = "no space left on device"
_CACHE_FULL = "cache-max-memory-size exceeded"


class WriteResponse(NamedTuple):
    """The response to one write request, or the failure that replaced it."""

    status: int | None
    """None: no complete response arrived."""
    text: str = ""
    """The text of the server's response, or the error of the connection."""
    retry_after_s: float | None = None
    sent_whole: bool = True
    """False: the connection was lost while the body was being sent."""
    timed_out: bool = False
    """True: sending the body, or its response, took longer than the sink's `answer_s`."""


class Outcome(Enum):
    """The classification of a response; it determines the next action."""

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
    """Return the outcome of a response to a body of this size in bytes (before compression)."""
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
    """Return the outcome for InfluxDB's error text about lines that it did not store."""
    if _EXPIRED.search(text):
        return Outcome.EXPIRED
    return Outcome.BUSY if _PENDING_DELETION.search(text) else Outcome.REFUSED


def _failed(text: str, by_status: Outcome) -> Outcome:
    """Return the outcome of a 5xx: its text distinguishes rejected lines from a server that cannot write."""
    if _NO_SPACE in text:
        return Outcome.HOLD
    if _CACHE_FULL in text:
        return Outcome.BUSY
    return _rejected(text) if _PARTIAL_WRITE in text else by_status
