"""Collector detail: what does this one collector do with its instrument?

Read from the top: is it alive and at its rate (age, rate, latency); how its turns end, by the error's name; what the
link did (reconnects, bytes, skipped slots); what waits (queue, journal); what the process costs; and its own events.
"""

from __future__ import annotations

from collections.abc import Sequence

from grafana.dashboard import BENCH, COLLECTOR, GRAINS, INTERVAL, Dashboard
from grafana.influxql import counted, match, newest, series
from grafana.panels import Panel, Row, Target, stat, table, timeseries
from grafana.units import BLUE, GREEN, ORANGE, RED, meaning, states, steps, unit

HERE = match("bench", "device")
BY = ("device",)
SILENT = "No report in the last 15 min: is the collector running, and does a shipper send?"
NOTHING = "This collector did not report in this range."


def now(title: str, asks: str, name: str, kind: str, **defaults: object) -> Panel:
    """Return a signal of the newest report."""
    return stat(
        title,
        asks,
        [Target(newest("collector", name, HERE, BY), "$tag_device")],
        kind,
        reads=meaning("collector", name),
        empty=SILENT,
        time_from="15m",
        defaults=defaults,
        size=(6, 4),
    )


def course(title: str, asks: str, names: Sequence[str], aggregate: str = "max") -> Panel:
    """Return signals as they were."""
    return timeseries(
        title,
        asks,
        [Target(series("collector", name, HERE, aggregate), f"{name}, $tag_device") for name in names],
        unit("collector", names[0]),
        reads=" ".join(meaning("collector", name) for name in names),
        empty=NOTHING,
    )


def growth(title: str, asks: str, name: str, kind: str = "none", per_s: bool = False) -> Panel:
    """Return how a counter grew."""
    return timeseries(
        title,
        asks,
        [Target(counted("collector", name, HERE, BY, per_s), "$tag_device", colour="" if per_s else BLUE)],
        kind,
        reads=meaning("collector", name) + (" As a rate." if per_s else " As its increase in each interval."),
        empty=NOTHING,
        custom={} if per_s else {"drawStyle": "bars", "fillOpacity": 70},
    )


DASHBOARD = Dashboard(
    uid="battfleet-collector",
    title="6 Collector detail",
    asks="What does this one collector do with its instrument?",
    variables=(BENCH, COLLECTOR, INTERVAL, *GRAINS),
    range="now-6h",
    content=(
        now(
            "Sample age",
            "Is the instrument heard?",
            "last_sample_age_s",
            "s",
            color={"mode": "thresholds"},
            thresholds=steps((None, GREEN), (5, ORANGE), (60, RED)),
        ),
        now("Latency", "How long does a turn take?", "latency_s", "s", decimals=3),
        now("Errors", "How many turns went wrong since the start?", "errors", "none"),
        now("Clock", "Are its stamps right?", "clock_state", "none", mappings=states("collector", "clock_state")),
        timeseries(
            "Outcomes by name",
            "How do its turns end, and with which error?",
            [Target(counted("collector", "outcomes", HERE, ("device", "outcome")), "$tag_outcome, $tag_device")],
            "none",
            calcs=("sum",),
            reads=meaning("collector", "outcomes") + " Increase in each interval; 'ok' is a good reading, everything "
            "else the name of an error that the collector counted.",
            empty=NOTHING,
            custom={"drawStyle": "bars", "fillOpacity": 70, "stacking": {"mode": "normal", "group": "A"}},
            size=(24, 9),
        ),
        growth("Samples per second", "Does it keep its rate?", "samples", "none", per_s=True),
        course("Turn time", "Does the instrument answer more slowly?", ("latency_s",)),
        Row(
            "Link",
            (
                growth("Reconnects", "Was the link lost?", "reconnects"),
                growth("Skipped slots", "Did turns of its grid pass without a reading?", "skipped"),
                growth("Bytes per second", "Does the instrument talk as much as ever?", "bytes_in", "Bps", per_s=True),
                course("Sample age", "When was it silent, and for how long?", ("last_sample_age_s",)),
            ),
        ),
        Row(
            "Storage and process",
            (
                course("Not yet durable", "Does the disk keep up?", ("queue_rows",)),
                growth("Dropped", "Was anything lost in memory?", "dropped"),
                course(
                    "Journal size and disk",
                    "How much is kept, how much room is left?",
                    ("journal_bytes", "disk_free_bytes"),
                ),
                course("Memory", "Does the process grow?", ("memory_bytes",)),
                course("Processor", "What does it cost?", ("cpu_share",)),
                table(
                    "Events",
                    "What did it say itself?",
                    [
                        Target(
                            f'SELECT "kind", "detail" FROM "event" WHERE {HERE} AND $timeFilter '
                            "ORDER BY time DESC LIMIT 100"
                        )
                    ],
                    reads="Newest first.",
                    empty="No events in this range.",
                ),
            ),
        ),
    ),
)
