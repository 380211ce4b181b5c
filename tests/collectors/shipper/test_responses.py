"""Every recorded response of every supported server means what it must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.shipper.answers import Answer, Verdict, judge
from collectors.shipper.courier import TYPE_CONFLICT
from tests.collectors.shipper.responses import Recorded, recorded

EXCHANGES = Path(__file__).parents[4] / "shared/reference/influxdb2-answers.json"
"""Recorded with a real InfluxDB 2.7.12; not part of the project."""
MEANINGS = {
    "write": Verdict.STORED,
    "write, empty body": Verdict.STORED,
    "write, some lines older than retention": Verdict.EXPIRED,
    "write, all lines older than retention": Verdict.EXPIRED,
    "write, a line that is no line protocol": Verdict.REFUSED,
    "write, not a number": Verdict.REFUSED,
    "write, type conflict": Verdict.REFUSED,
    "write, type conflict in one of two lines": Verdict.REFUSED,
    "write, bucket missing": Verdict.HOLD,
    "write, organisation missing": Verdict.HOLD,
    "write, bucket not allowed": Verdict.HOLD,
    "write, wrong token": Verdict.HOLD,
    "write with an inactive token": Verdict.HOLD,
    "v1 write to it": Verdict.HOLD,
    "v1 write with the token as password": Verdict.STORED,
    "v1 write by v1 user": Verdict.STORED,
    "v1 write by v1 user with a wrong password": Verdict.HOLD,
    "v1 write by an inactive v1 user": Verdict.HOLD,
}


@pytest.mark.parametrize("response", recorded(), ids=lambda r: f"{r.server}, {r.name}")
def test_recorded_response_has_its_meaning(response: Recorded) -> None:
    assert judge(Answer(response.status, response.body), 100) is response.verdict
    found = TYPE_CONFLICT.search(response.body)
    assert (found.groups() if found else ()) == response.conflict


@pytest.mark.skipif(not EXCHANGES.exists(), reason=f"needs the recorded exchanges at {EXCHANGES}")
def test_recorded_exchanges_of_2_7_12_have_their_meaning() -> None:
    exchanges: list[dict[str, Any]] = json.loads(EXCHANGES.read_text(encoding="utf-8"))["exchanges"]
    seen = {}
    for exchange in exchanges:
        request = exchange["request"]
        if request["method"] == "POST" and request["path"].partition("?")[0] in ("/api/v2/write", "/write"):
            body = exchange["body"]
            text = body if isinstance(body, str) else json.dumps(body)
            seen[exchange["name"]] = judge(Answer(exchange["status"], text), 100)
    assert seen == MEANINGS
