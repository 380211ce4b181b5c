"""Flux tasks for 2.x: the same reductions, into buckets `<database>/<policy>` that InfluxQL reads through DBRP.

Two tasks for each grain and aggregate: `live` computes the last few windows, `late` once an hour two days and once a
day 32 days again. Windows are whole (starts are cut to the step), so a repeat writes the same points. Flux has no
counterpart to the 1.x command that finds late data by counting; computing again is simple and costs little.

Not tried against a real 2.x server, which the tests cannot have; 1.x is.
"""

from __future__ import annotations

from grafana.downsampling import AGGREGATES, MEASUREMENTS, REDUCED, Grain, policy

TEXT_FIELDS = ("model", "version", "detail")
RUNS = {"live": "", "late-2d": "2d", "late-32d": "32d"}
"""Name of the run to how far back it looks; live: as far as the grain says."""
EVERY = {"late-2d": "1h", "late-32d": "1d"}


def buckets(database: str) -> list[str]:
    """Return the buckets that the tasks write to."""
    return [f"{database}/{policy(grain, aggregate)}" for grain in REDUCED for aggregate in AGGREGATES]


def task(database: str, raw: str, grain: Grain, aggregate: str, run: str) -> str:
    """Return one task."""
    back, every = RUNS[run] or grain.again, EVERY.get(run, grain.every)
    to_float = "\n  |> toFloat()" if aggregate == "count" else ""
    return f"""import "date"

option task = {{name: "{database} {policy(grain, aggregate)} {run}", every: {every}, offset: 20s}}

first = date.truncate(t: date.sub(d: {back}, from: now()), unit: {grain.step})

from(bucket: "{database}/{raw}")
  |> range(start: first)
  |> filter(fn: (r) => r._measurement =~ /^({"|".join(MEASUREMENTS)})$/)
  |> filter(fn: (r) => r._field !~ /^({"|".join(TEXT_FIELDS)})$/)
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
