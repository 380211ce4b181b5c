"""The recorded exchanges with a real InfluxDB 2.7.12, replayed against the stand-in and an installed server, if any.

The recording lies beside the project (`../shared/reference/influxdb2-answers.json`): 80 requests in their order to one
fresh server. Ids, tokens and times differ between two servers; they are compared by their position. A body that was
truncated in the recording is compared by its status alone.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testing import influx2
from tests.testing.influxdb2_stand_in import Api, serving

RECORDING = Path(__file__).resolve().parents[5] / "shared" / "reference" / "influxdb2-answers.json"
pytestmark = pytest.mark.skipif(not RECORDING.exists(), reason=f"needs the recorded exchanges, {RECORDING}")
NOT_MODELLED = {
    "InfluxQL: select by time, with gaps",
    "InfluxQL, chunked",
    "Flux",
    "Flux with a mistake",
    "task run by hand",
    "task's runs",
}
"""What the stand-in refuses with 501: no test of ours relies on it there."""
LEFT_OUT = {"links", "labels", "createdAt", "updatedAt", "latestCompleted", "lastRunStatus"}
"""Keys of the vendor's answers that this project never reads; the stand-in may leave them out."""
RECORDED_AT_S = 1_796_082_823
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
ID = re.compile(r"[0-9a-f]{16}")
MISSING_ORGS = 25
OPERATOR = "example-operator-token"
V1_USER, V1_PASSWORD = "bench-2", "example-password-2"


def exchanges() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RECORDING.read_text())["exchanges"]
    return found


class Player:
    """Sends recorded requests to a server, with this server's ids and tokens in place of the recorded ones."""

    def __init__(self, url: str, shift_s: int) -> None:
        self._url = url
        self._shift_s = shift_s
        self.names: dict[str, str] = {}
        """Recorded id or token to the one here."""

    def play(self, exchange: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and decoded body of this server's response."""
        request = exchange["request"]
        body = request["body"]
        text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        headers = {"Authorization": self._login(exchange)}
        if text.startswith("from("):
            headers["Content-Type"] = "application/vnd.flux"
        asked = urllib.request.Request(
            self._url + self._here(request["path"]),
            self._here(text).encode() if text or request["method"] == "POST" else None,
            {name: value for name, value in headers.items() if value},
            method=request["method"],
        )
        try:
            with urllib.request.urlopen(asked, timeout=30) as response:
                return response.status, dict(response.headers), _decoded(response.read().decode())
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), _decoded(error.read().decode())

    def _here(self, text: str) -> str:
        for there, here in self.names.items():
            text = text.replace(there, here)
        return re.sub(r"\b(179[56]\d{6})(?=(000)?\b)", lambda found: str(int(found[1]) + self._shift_s), text)

    def _login(self, exchange: dict[str, Any]) -> str:
        token = self.names.get("WRITE-TOKEN-OF-BENCH-1", "")
        users = {
            "basic, token as password": f"any:{token}",
            "v1 user": f"{V1_USER}:{V1_PASSWORD}",
            "v1 user, inactive": f"{V1_USER}:{V1_PASSWORD}",
            "v1 user, wrong password": f"{V1_USER}:wrong",
        }
        note = exchange.get("note", "")
        if note in users:
            return f"Basic {base64.b64encode(users[note].encode()).decode()}"
        if exchange["name"] in ("no token", "InfluxQL without a token"):
            return ""
        return "Token " + {"wrong token": "wrong", "write token of the bucket": token}.get(note, OPERATOR)

    def differences(self, recorded: Any, here: Any, where: str = "") -> Iterator[str]:
        """Return the differences; ids and tokens that occur for the first time count as equal."""
        if isinstance(recorded, dict) and isinstance(here, dict):
            for key in recorded.keys() | here.keys():
                if key in LEFT_OUT or key in ("version", "commit"):
                    continue
                if (key in recorded) != (key in here):
                    yield f"{where}.{key}: only {'recorded' if key in recorded else 'here'}"
                else:
                    yield from self.differences(recorded[key], here[key], f"{where}.{key}")
        elif isinstance(recorded, list) and isinstance(here, list):
            if len(recorded) != len(here):
                yield f"{where}: recorded {recorded}, here {here}"
            for number, (one, other) in enumerate(zip(recorded, here, strict=False)):
                yield from self.differences(one, other, f"{where}[{number}]")
        elif isinstance(recorded, str) and isinstance(here, str):
            is_name = ID.fullmatch(recorded) or where.endswith(".token")
            known = self.names.setdefault(recorded, here) if is_name else self._here(recorded)
            if TIME.sub("TIME", known) != TIME.sub("TIME", here):
                yield f"{where}: recorded {recorded!r}, here {here!r}"
        elif isinstance(recorded, int) and recorded // 1000 // 100_000 == RECORDED_AT_S // 100_000:
            if here != recorded + self._shift_s * 1000:
                yield f"{where}: recorded {recorded}, here {here}, shifted by {self._shift_s} s"
        elif recorded != here:
            yield f"{where}: recorded {recorded!r}, here {here!r}"


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def compare(url: str, shift_s: int, left_out: set[str]) -> tuple[list[str], list[tuple[str, int]]]:
    """Return what differs in all exchanges, and name and status of those whose bodies were left out."""
    player, found, others = Player(url, shift_s), [], []
    for exchange in exchanges():
        name = exchange["name"]
        if name.startswith("organisations, first page"):  # created between two recorded requests
            for number in range(MISSING_ORGS):
                player.play(
                    {"name": "", "request": {"method": "POST", "path": "/api/v2/orgs", "body": {"name": f"o{number}"}}}
                )
        status, headers, body = player.play(exchange)
        if name in left_out:
            others.append((name, status))
            continue
        said = "X-Platform-Error-Code"
        if (status, headers.get(said)) != (exchange["status"], exchange["headers"].get(said)):
            found.append(f"{name}: recorded {exchange['status']}, here {status} {headers.get(said)} {body}")
        recorded = _decoded(exchange["body"]) if isinstance(exchange["body"], str) else exchange["body"]
        is_cut = isinstance(recorded, str) and recorded.startswith("{") and "\n{" not in recorded
        if not is_cut:
            found += [f"{name}{difference}" for difference in player.differences(recorded, body)]
    return found, others


def test_stand_in_responds_as_the_recorded_server() -> None:
    with serving(Api(clock=lambda: RECORDED_AT_S + 0.24)) as api:
        found, others = compare(api.url, 0, NOT_MODELLED)
    assert not found, "\n".join(found)
    assert others == [(exchange["name"], 501) for exchange in exchanges() if exchange["name"] in NOT_MODELLED]


def test_installed_server_responds_as_the_recorded_one(tmp_path: Path) -> None:
    by_time = {"InfluxQL: select by time, with gaps", "Flux", "task run by hand", "task's runs"}
    with influx2.running(tmp_path) as url:
        found, others = compare(url, influx2.now_s() - RECORDED_AT_S, by_time)
    assert not found, "\n".join(found)
    assert [status for _, status in others] == [200, 200, 201, 200]


def test_recording_is_complete() -> None:
    assert len(exchanges()) == 80
