"""Every recorded response of every supported server is classified correctly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.shipper.influxdb.responses import Outcome, WriteResponse, classify
from collectors.shipper.worker import TYPE_CONFLICT
from tests.collectors.shipper.influxdb.responses import Recorded, recorded

EXCHANGES = Path(__file__).parents[5] / "shared/reference/influxdb2-answers.json"
"""Recorded with a real InfluxDB 2.7.12; not part of the project."""
MEANINGS = {
    "write": Outcome.STORED,
    "write, empty body": Outcome.STORED,
    "write, some lines older than retention": Outcome.EXPIRED,
    "write, all lines older than retention": Outcome.EXPIRED,
    "write, a line that is no line protocol": Outcome.REFUSED,
    "write, not a number": Outcome.REFUSED,
    "write, type conflict": Outcome.REFUSED,
    "write, type conflict in one of two lines": Outcome.REFUSED,
    "write, bucket missing": Outcome.HOLD,
    "write, organisation missing": Outcome.HOLD,
    "write, bucket not allowed": Outcome.HOLD,
    "write, wrong token": Outcome.HOLD,
    "write with an inactive token": Outcome.HOLD,
    "v1 write to it": Outcome.HOLD,
    "v1 write with the token as password": Outcome.STORED,
    "v1 write by v1 user": Outcome.STORED,
    "v1 write by v1 user with a wrong password": Outcome.HOLD,
    "v1 write by an inactive v1 user": Outcome.HOLD,
}


@pytest.mark.parametrize("response", recorded(), ids=lambda r: f"{r.server}, {r.name}")
def test_recorded_response_is_classified(response: Recorded) -> None:
    assert classify(WriteResponse(response.status, response.body), 100) is response.verdict
    found = TYPE_CONFLICT.search(response.body)
    assert (found.groups() if found else ()) == response.conflict


@pytest.mark.skipif(not EXCHANGES.exists(), reason=f"needs the recorded exchanges at {EXCHANGES}")
def test_recorded_exchanges_of_2_7_12_are_classified() -> None:
    exchanges: list[dict[str, Any]] = json.loads(EXCHANGES.read_text(encoding="utf-8"))["exchanges"]
    seen = {}
    for exchange in exchanges:
        request = exchange["request"]
        if request["method"] == "POST" and request["path"].partition("?")[0] in ("/api/v2/write", "/write"):
            body = exchange["body"]
            text = body if isinstance(body, str) else json.dumps(body)
            seen[exchange["name"]] = classify(WriteResponse(exchange["status"], text), 100)
    assert seen == MEANINGS
