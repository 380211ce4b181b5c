"""InfluxQL for 1.x: retention policies, continuous queries, and the same sums for any stretch of time.

A continuous query looks at the last few minutes only, so data that arrive later (a bench that was offline) are not in
its sums. `grafana.downsampling.backfill` finds such stretches and runs `again` on them.
"""

from __future__ import annotations

import re

from grafana.downsampling import AGGREGATES, MEASUREMENTS, REDUCED, Grain, policy, reduced_fields

DATABASE = "bat"


def policies(database: str) -> dict[str, str]:
    """Return name of each retention policy to the statement that makes it."""
    return {
        policy(grain, aggregate): f'CREATE RETENTION POLICY "{policy(grain, aggregate)}" ON "{database}" '
        f"DURATION {grain.keep} REPLICATION 1"
        for grain in REDUCED
        for aggregate in AGGREGATES
    }


def aggregates(measurement: str) -> list[str]:
    """Return how a measurement is reduced: all ways for which it has fields."""
    return [aggregate for aggregate in AGGREGATES if reduced_fields(measurement, aggregate)]


def reduction(database: str, raw: str, grain: Grain, aggregate: str, measurement: str, where: str = "") -> str:
    """Return the statement that computes an aggregate of a measurement, over all time or only `where`."""
    fields = ", ".join(f'{aggregate}("{name}") AS "{name}"' for name in reduced_fields(measurement, aggregate))
    condition = f" WHERE {where}" if where else ""
    return (
        f'SELECT {fields} INTO "{database}"."{policy(grain, aggregate)}"."{measurement}" '
        f'FROM "{database}"."{raw}"."{measurement}"{condition} GROUP BY time({grain.step}), *'
    )


def continuous_queries(database: str, raw: str) -> dict[str, str]:
    """Return name of each continuous query to the statement that makes it."""
    made = {}
    for grain in REDUCED:
        for measurement in MEASUREMENTS:
            for aggregate in aggregates(measurement):
                name = f"{policy(grain, aggregate)}_{measurement}"
                made[name] = (
                    f'CREATE CONTINUOUS QUERY "{name}" ON "{database}" RESAMPLE EVERY {grain.every} FOR {grain.again} '
                    f"BEGIN {reduction(database, raw, grain, aggregate, measurement)} END"
                )
    return made


def again(database: str, raw: str, grain: Grain, measurement: str, from_s: int, to_s: int) -> list[str]:
    """Return statements that compute a stretch of time again; a value that is there already is overwritten."""
    where = f"time >= {from_s}s AND time < {to_s}s"
    return [reduction(database, raw, grain, aggregate, measurement, where) for aggregate in aggregates(measurement)]


def body(statement: str) -> str:
    """Return what a CREATE CONTINUOUS QUERY does, in the spelling of SHOW CONTINUOUS QUERIES, to compare the two."""
    inner = statement.partition("BEGIN ")[2]
    return re.sub(r'[\s"]', "", inner).lower()


def script(database: str, raw: str) -> str:
    """Return all of it as one file for the `influx` command, with the default names."""
    head = (
        "-- Made by python -m grafana.build. Apply with python -m grafana.downsampling install, which can be repeated\n"
    )
    statements = [*policies(database).values(), *continuous_queries(database, raw).values()]
    return head + "".join(f"{statement}\n" for statement in statements)
