"""Makes retention policies, continuous queries and the dashboards' choice of grains; a second run changes nothing."""

from __future__ import annotations

from grafana.downsampling import H1, choices, influxdb1, policy
from grafana.downsampling.server import Server


def install(server: Server) -> list[str]:
    """Return what was changed, one line each; empty when everything was right. Raises Refused."""
    raw = server.default_policy()
    return [*_policies(server), *_queries(server, raw), *_choices(server, raw)]


def _policies(server: Server) -> list[str]:
    there = {
        row[0] for series in server.query(f'SHOW RETENTION POLICIES ON "{server.database}"') for row in series["values"]
    }
    changed = []
    for name, statement in influxdb1.policies(server.database).items():
        if name not in there:
            server.query(statement)
            changed.append(f"retention policy {name}")
    return changed


def _queries(server: Server, raw: str) -> list[str]:
    there = {
        name: query
        for series in server.query("SHOW CONTINUOUS QUERIES")
        if series["name"] == server.database
        for name, query in series.get("values", [])
    }
    changed = []
    for name, statement in influxdb1.continuous_queries(server.database, raw).items():
        if name in there and influxdb1.body(there[name]) == influxdb1.body(statement):
            continue
        if name in there:
            server.query(f'DROP CONTINUOUS QUERY "{name}" ON "{server.database}"')
        server.query(statement)
        changed.append(f"continuous query {name}")
    return changed


def _choices(server: Server, raw: str) -> list[str]:
    kept_in = policy(H1, "mean")
    before = server.query(f'SELECT * FROM "{kept_in}"."grain"')
    server.write(choices(raw), kept_in)
    return [] if server.query(f'SELECT * FROM "{kept_in}"."grain"') == before else ["choice of grains"]
