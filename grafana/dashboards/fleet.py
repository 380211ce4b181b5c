"""Fleet: does every bench deliver, and if not, where does it stick?

Read from the top: the worst of each kind (is anything wrong at all?), then one line for each collector (who is it?),
then queue and dead letters (does it reach the database?), losses with their causes, clocks (are the stamps right?),
the hosts themselves with their Wi-Fi, and what was deployed when.
"""

from __future__ import annotations

from grafana.dashboard import BENCHES, BLOCK, GRAINS, INTERVAL, LOSSES, Dashboard
from grafana.influxql import match, series, usual_state
from grafana.panels import Column, Json, Panel, Row, Target, stat, table, timeline, timeseries
from grafana.units import GREEN, ORANGE, RED, clock_states, meaning, signal, steps

BENCH = match("bench")
NOBODY = "No collector reported in this range: is anything running, and does a shipper send?"
NO_WIFI = "No host of these benches has Wi-Fi, or no shipper reported in this range."
NO_SHIPPER = "No shipper reported in this range: does one run on each bench?"
BY = ("bench", "device")
NAME = "$tag_bench, $tag_device"
TO_COLLECTOR: Json = {
    "links": [
        {
            "title": "What does this collector do?",
            "url": "/d/battfleet-collector?${__url_time_range}&var-bench=${__data.fields.bench}"
            "&var-device=${__data.fields.device}",
            "targetBlank": False,
        }
    ]
}
AGE = steps((None, GREEN), (5, ORANGE), (60, RED))
LATE: Json = {"color": {"mode": "thresholds"}, "thresholds": AGE, "custom.cellOptions": {"type": "color-text"}}
WHO = (Column("bench", "Bench", width=120), Column("device", "Collector", width=140, more=TO_COLLECTOR))


def worst(
    title: str, asks: str, name: str, kind: str, select: str, *levels: tuple[float | None, str], **defaults: object
) -> Panel:
    """Return the worst of the newest values of all collectors."""
    inner = f'(SELECT last("{name}") AS "v" FROM "collector" WHERE {BENCH} AND $timeFilter GROUP BY "bench", "device")'
    return stat(
        title,
        asks,
        [Target(f'SELECT {select}("v") FROM {inner}')],
        kind,
        reads=meaning("collector", name) + " Worst of the newest reports of the last 15 min.",
        empty="No collector reported in the last 15 min.",
        time_from="15m",
        defaults={"color": {"mode": "thresholds"}, "thresholds": steps(*levels)} | defaults,
        is_word="mappings" in defaults,
    )


def course(
    title: str, asks: str, name: str, kind: str, aggregate: str, empty: str = NOBODY, **defaults: object
) -> Panel:
    """Return one of the collectors' signals over time."""
    return timeseries(
        title,
        asks,
        [Target(series("collector", name, BENCH, aggregate, BY), NAME)],
        kind,
        reads=meaning("collector", name),
        empty=empty,
        defaults=defaults,
    )


REPORT = (
    Column("last_sample_age_s", "Last sample", "s", 120, LATE),
    Column("samples", "Samples", "none", 110),
    Column("skipped", "Skipped", "none", 100),
    Column("errors", "Errors", "none", 90),
    Column("reconnects", "Reconnects", "none", 120),
    Column("queue_rows", "Not yet durable", "none", 140),
    Column("dropped", "Dropped", "none", 100),
    Column("memory_bytes", "Memory", "bytes"),
)
for _column in REPORT:
    signal("collector", _column.name)
LAST = ", ".join(f'last("{column.name}") AS "{column.name}"' for column in REPORT)


def last_event(kinds: str) -> str:
    """Return the newest event of each kind from each device, in words."""
    return (
        f'SELECT last("detail") AS "detail" FROM "event" WHERE {BENCH} AND "kind" =~ /^({kinds})$/ AND $timeFilter '
        'GROUP BY "bench", "device", "kind"'
    )


DASHBOARD = Dashboard(
    uid="battfleet-fleet",
    title="5 Fleet",
    asks="Does every bench deliver, and if not, where does it stick?",
    variables=(BENCHES, INTERVAL, BLOCK, *GRAINS),
    content=(
        worst(
            "Oldest sample",
            "Is every instrument heard?",
            "last_sample_age_s",
            "s",
            "max",
            (None, GREEN),
            (5, ORANGE),
            (60, RED),
        ),
        worst(
            "Oldest unsent",
            "Does everything reach the database?",
            "unsent_age_s",
            "s",
            "max",
            (None, GREEN),
            (120, ORANGE),
            (900, RED),
        ),
        worst("Unsent rows", "How much waits?", "unsent_rows", "short", "sum", (None, GREEN), (100_000, ORANGE)),
        worst("Dead letters", "Was anything refused for good?", "dead_letters", "none", "max", (None, GREEN), (1, RED)),
        worst(
            "Least disk free",
            "Will a journal fill its disk?",
            "disk_free_bytes",
            "bytes",
            "min",
            (None, RED),
            (1e9, ORANGE),
            (5e9, GREEN),
        ),
        worst(
            "Clocks",
            "Is every clock right?",
            "clock_state",
            "none",
            "min",
            (None, RED),
            (1, GREEN),
            mappings=clock_states(),
        ),
        table(
            "Collectors",
            "Who reports what?",
            [Target(f'SELECT {LAST} FROM "collector" WHERE {BENCH} AND $timeFilter GROUP BY "bench", "device"')],
            (*WHO, *REPORT),
            hidden=("Time",),
            reads="Newest report of each collector and shipper in the last 15 min. Counts are since its start. A name "
            "leads to what that collector does.",
            empty="No collector reported in the last 15 min.",
            time_from="15m",
            size=(24, 8),
        ),
        table(
            "Last word",
            "Since when is somebody silent?",
            [
                Target(
                    f'SELECT last("memory_bytes") AS "memory" FROM "collector" WHERE {BENCH} AND $timeFilter '
                    'GROUP BY "bench", "device"'
                )
            ],
            (*WHO, Column("Time", "Last report", "dateTimeFromNow")),
            hidden=("memory",),
            reads="When each collector and shipper reported last, whatever the range says up to 30 days back.",
            empty=NOBODY,
            time_from="30d",
            size=(12, 8),
            options={"sortBy": [{"displayName": "Last report", "desc": False}]},
        ),
        table(
            "Deployed and connected",
            "What runs where, in which version?",
            [Target(last_event("deploy|flash|collector_start|link_up|shipper_start"))],
            (
                Column("bench", "Bench", width=100),
                Column("device", "Who", width=100),
                Column("kind", "What", width=120),
                Column("detail", "Version"),
                Column("Time", "When", "dateTimeFromNow", 110),
            ),
            reads="Newest deploy, flash, start and identity of each instrument (model, serial number, firmware).",
            empty="No start, deploy or flash in the last 30 days.",
            time_from="30d",
            size=(12, 8),
        ),
        Row(
            "Delivery",
            (
                course("Oldest unsent row", "Did a queue grow, does it drain?", "unsent_age_s", "s", "max", NO_SHIPPER),
                course("Unsent rows", "How much waited?", "unsent_rows", "short", "max", NO_SHIPPER),
                course("Dead letters", "When was something refused?", "dead_letters", "none", "max", NO_SHIPPER),
                timeseries(
                    "Losses by cause",
                    "What was lost, and why?",
                    [
                        Target(
                            f'SELECT count("detail") FROM "event" WHERE {BENCH} AND "kind" =~ /^({"|".join(LOSSES)})$/ '
                            'AND $timeFilter GROUP BY time($bin_width), "bench", "kind" fill(none)',
                            "$tag_bench, $tag_kind",
                        )
                    ],
                    "none",
                    reads="Events that mean missing samples, counted by kind; every gap has one.",
                    empty="No losses in this range.",
                    custom={"drawStyle": "bars", "fillOpacity": 70, "stacking": {"mode": "normal", "group": "A"}},
                ),
            ),
        ),
        Row(
            "Clocks and hosts",
            (
                timeline(
                    "Clock state",
                    "Were the stamps right?",
                    [Target(usual_state("collector", "clock_state", BENCH, BY), NAME)],
                    defaults={"mappings": clock_states()},
                    reads="What lasted longest in each block. Samples wait in the journal until the offset is known.",
                    empty=NOBODY,
                    size=(24, 6),
                ),
                course("Sample age", "Which instrument fell silent?", "last_sample_age_s", "s", "max"),
                course("Disk free", "Will a journal fill its disk?", "disk_free_bytes", "bytes", "min"),
                course("Processor", "Is a host too slow?", "cpu_share", "percentunit", "max"),
                course("Memory", "Does a process grow?", "memory_bytes", "bytes", "max"),
                course("Journal size", "How much is kept?", "journal_bytes", "bytes", "max"),
                course(
                    "Wi-Fi signal",
                    "Does a host hear its access point well?",
                    "wifi_signal_dbm",
                    "dBm",
                    "min",
                    empty=NO_WIFI,
                ),
                course(
                    "Wi-Fi quality",
                    "Is a link about to break?",
                    "wifi_quality",
                    "percentunit",
                    "min",
                    empty=NO_WIFI,
                    min=0,
                    max=1,
                ),
                course("Link latency", "Does a link get slow?", "latency_s", "s", "max"),
            ),
        ),
    ),
)
