"""Collector detail: what does this one collector do with its instrument?

Read from the top: is it alive and at its rate (age, rate, latency); which errors its turns end with, by name; what the
link did (reconnects, bytes, skipped slots); what waits (queue, journal); what the process costs; and its own events.
"""

from __future__ import annotations

from collections.abc import Mapping

from grafana.dashboard import BENCH, COLLECTOR, GRAINS, INTERVAL, Dashboard
from grafana.influxql import counted, match, newest, series
from grafana.panels import EVENT_COLUMNS, Panel, Row, Target, stat, table, timeseries
from grafana.units import GREEN, ORANGE, RED, clock_states, meaning, steps, unit

HERE = match("bench", "device")
FAILED = HERE + ' AND "outcome" !~ /^ok$/'
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
        is_word="mappings" in defaults,
    )


def course(title: str, asks: str, names: Mapping[str, str], aggregate: str = "max") -> Panel:
    """Return signals as they were; `names`: signal to what its series is called beside the device."""
    return timeseries(
        title,
        asks,
        [Target(series("collector", name, HERE, aggregate), f"{word}$tag_device") for name, word in names.items()],
        unit("collector", next(iter(names))),
        reads=" ".join(meaning("collector", name) for name in names),
        empty=NOTHING,
    )


def growth(title: str, asks: str, name: str, kind: str = "none", per_s: bool = False) -> Panel:
    """Return how a counter grew."""
    return timeseries(
        title,
        asks,
        [Target(counted("collector", name, HERE, BY, per_s), "$tag_device")],
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
        now("Latency", "How long does a turn take?", "latency_s", "s"),
        now("Errors", "How many turns went wrong since the start?", "errors", "none"),
        now("Clock", "Are its stamps right?", "clock_state", "none", mappings=clock_states()),
        timeseries(
            "Errors by name",
            "With which error do its turns end?",
            [Target(counted("collector", "outcomes", FAILED, ("device", "outcome")), "$tag_outcome, $tag_device")],
            "none",
            calcs=("sum",),
            reads=meaning("collector", "outcomes") + " Increase in each interval, by the error's name; turns that "
            "ended well are in Samples per second.",
            empty="No turn went wrong since the collector started, or it did not report in this range.",
            custom={"drawStyle": "bars", "fillOpacity": 70, "stacking": {"mode": "normal", "group": "A"}},
            size=(24, 9),
        ),
        growth("Samples per second", "Does it keep its rate?", "samples", "none", per_s=True),
        course("Turn time", "Does the instrument answer more slowly?", {"latency_s": ""}),
        Row(
            "Link",
            (
                growth("Reconnects", "Was the link lost?", "reconnects"),
                growth("Skipped slots", "Did turns of its grid pass without a reading?", "skipped"),
                growth("Bytes per second", "Does the instrument talk as much as ever?", "bytes_in", "Bps", per_s=True),
                course("Sample age", "When was it silent, and for how long?", {"last_sample_age_s": ""}),
            ),
        ),
        Row(
            "Storage and process",
            (
                course("Not yet durable", "Does the disk keep up?", {"queue_rows": ""}),
                growth("Dropped", "Was anything lost in memory?", "dropped"),
                course(
                    "Journal size and disk",
                    "How much is kept, how much room is left?",
                    {"journal_bytes": "journal, ", "disk_free_bytes": "free, "},
                ),
                course("Memory", "Does the process grow?", {"memory_bytes": ""}),
                course("Processor", "What does it cost?", {"cpu_share": ""}),
                table(
                    "Events",
                    "What did it say itself?",
                    [
                        Target(
                            f'SELECT "device", "kind", "detail" FROM "event" WHERE {HERE} AND $timeFilter '
                            "ORDER BY time DESC LIMIT 100"
                        )
                    ],
                    EVENT_COLUMNS,
                    reads="Newest first.",
                    empty="No events in this range.",
                ),
            ),
        ),
    ),
)
