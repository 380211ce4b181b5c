"""An InfluxDB 1.x over HTTP: InfluxQL in, series out."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class Refused(Exception):
    """The server cannot be reached or refuses; says what was asked and its words."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is and who asks."""

    url: str
    database: str
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 300.0

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Return the statement's series, times in s; Refused with the server's words."""
        body = urllib.parse.urlencode({"q": statement, "db": self.database, "epoch": "s"}).encode()
        (result,) = json.loads(self._post("/query", body))["results"]
        if "error" in result:
            raise Refused(f"{statement[:200]}: {result['error']}")
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def write(self, lines: Sequence[str], policy: str) -> None:
        """Store lines of line protocol, stamps in s; Refused with the server's words."""
        where = urllib.parse.urlencode({"db": self.database, "rp": policy, "precision": "s"})
        self._post(f"/write?{where}", "\n".join(lines).encode())

    def _post(self, path: str, body: bytes) -> bytes:
        request = urllib.request.Request(self.url + path, body)  # noqa: S310 - http or https, as configured
        if self.user:
            credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:  # noqa: S310
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            with error:
                words = error.read().decode(errors="replace").strip()
            raise Refused(f"{self.url}{path}: {error.code} {words}") from None
        except OSError as error:
            raise Refused(f"{self.url}: {error}; is the server running, and is the address right?") from None

    def default_policy(self) -> str:
        """Return the name of the policy that raw points go to."""
        for series in self.query(f'SHOW RETENTION POLICIES ON "{self.database}"'):
            rows = [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]
            for row in rows:
                if row["default"]:
                    return str(row["name"])
        raise Refused(f"database {self.database!r} has no default retention policy: run collectors sink first")
