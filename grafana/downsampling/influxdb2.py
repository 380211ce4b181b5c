"""Flux tasks for 2.x: the same reductions, into buckets `<database>/<policy>` that InfluxQL reads through DBRP.

The role `influxdb` makes buckets, mappings and tasks.

Two tasks for each grain and aggregate: `live` computes the last few windows, `late` once an hour two days and once a
day 32 days again. Windows are whole (starts are cut to the step), so a repeat writes the same points. Flux has no
counterpart to the 1.x command that finds late data by counting; computing again is simple. Its cost was not measured.

Only the vocabulary's fields are read, as on 1.x: all are numbers, and a single table of text would make the whole task
fail. Filters on `_measurement` and `_field` are done by the storage. `to` without `org` writes to the task's own
organisation. `now()` in a task is the time it was due, without the offset.

Not tried against a real 2.x server, which the tests cannot have; 1.x is. Sources: the vendor's pages of
aggregateWindow, date.sub, date.truncate and to (Flux standard library), "Task configuration options", and to.go.
"""

from __future__ import annotations

from grafana.downsampling import AGGREGATES, MEASUREMENTS, REDUCED, Grain, policy, reduced_fields

RUNS = {"live": "", "late-2d": "2d", "late-32d": "32d"}
"""Name of the run to how far back it looks; live: as far as the grain says."""
EVERY = {"late-2d": "1h", "late-32d": "1d"}


def policies() -> list[dict[str, str]]:
    """Return what the tasks write to, each a bucket `<database>/<name>`, and how long it is kept (26w, forever)."""
    return [
        {"name": policy(grain, aggregate), "keep": "forever" if grain.keep == "INF" else grain.keep}
        for grain in REDUCED
        for aggregate in AGGREGATES
    ]


def task(database: str, raw: str, grain: Grain, aggregate: str, run: str) -> str:
    """Return one task."""
    back, every = RUNS[run] or grain.again, EVERY.get(run, grain.every)
    measurements = [name for name in MEASUREMENTS if reduced_fields(name, aggregate)]
    fields = sorted({field for name in measurements for field in reduced_fields(name, aggregate)})
    to_float = "\n  |> toFloat()" if aggregate == "count" else ""
    return f"""import "date"

option task = {{name: "{database} {policy(grain, aggregate)} {run}", every: {every}, offset: 20s}}

first = date.truncate(t: date.sub(d: {back}, from: now()), unit: {grain.step})

from(bucket: "{database}/{raw}")
  |> range(start: first)
  |> filter(fn: (r) => r._measurement =~ /^({"|".join(measurements)})$/)
  |> filter(fn: (r) => r._field =~ /^({"|".join(fields)})$/)
  |> aggregateWindow(every: {grain.step}, fn: {aggregate}, createEmpty: false, timeSrc: "_start"){to_float}
  |> to(bucket: "{database}/{policy(grain, aggregate)}")
"""


def tasks(database: str, raw: str) -> dict[str, str]:
    """Return file name to task, all of them."""
    return {
        f"{policy(grain, aggregate)}-{run}.flux": task(database, raw, grain, aggregate, run)
        for grain in REDUCED
        for aggregate in AGGREGATES
        for run in RUNS
    }
