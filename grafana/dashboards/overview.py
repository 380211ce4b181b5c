"""Bench overview: how is the battery now, and can I believe what I see?

Read from top left: the battery now (numbers), where it came from (courses of the same), what sun and load do to it,
how much that was today and over the range, in what state the charger is, and last whether the data are whole.
"""

from __future__ import annotations

from grafana.alerts.settings import load
from grafana.dashboard import BATTERY, BENCH, BLOCK, DEVICE, GRAINS, INTERVAL, REFERENCE, Dashboard
from grafana.downsampling import M1, policy
from grafana.influxql import HERE, match, newest, series, share_of_time, total, usual_state
from grafana.panels import EVENT_COLUMNS, Column, Panel, Row, Target, by_turn, stat, table, timeline, timeseries
from grafana.units import (
    AMPERE_HOURS,
    AMPERES,
    BLUE,
    BY_TURN,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    WATT_HOURS,
    flags,
    meaning,
    states,
    steps,
    unit,
)

SPEAKER = match(*HERE, device="reference")
HERE_ALL = match(*HERE)
DEVICES = match(*HERE, "device")
BENCH_ONLY = match("bench")
DEFAULTS = load()
SOC_LOW, WARM = DEFAULTS.limits["soc_low"], DEFAULTS.limits["temperature_high_degc"]
COLD = DEFAULTS.chemistries["lfp"]["charge_cold_degc"]
SILENT = "No sample for 5 min: is the collector running? See Fleet."
NO_SOC = "No estimate for 5 min: is the estimator running?"
NO_SOLAR = "No instrument on this bench measures a panel."
NO_LOAD = "No instrument on this bench measures a load."
NO_CHARGER = "No charger on this bench tells its state."

NOW = (
    stat(
        "Voltage",
        "What does the battery's terminal voltage read now?",
        [Target(newest("battery", "voltage_v", SPEAKER))],
        "volt",
        reads=meaning("battery", "voltage_v") + " From the reference instrument, not older than 5 min.",
        empty=SILENT,
        time_from="5m",
        defaults={"decimals": 3},
    ),
    stat(
        "Current",
        "Is it charging or discharging, and how strongly?",
        [Target(newest("battery", "current_a", SPEAKER))],
        AMPERES,
        reads=meaning("battery", "current_a"),
        empty=SILENT,
        time_from="5m",
        defaults={"decimals": 3},
    ),
    stat(
        "Power",
        "How much power flows into it now?",
        [
            Target(
                f'SELECT last("w") FROM (SELECT mean("voltage_v") * mean("current_a") AS "w" FROM "battery" '
                f"WHERE {SPEAKER} AND $timeFilter GROUP BY time(10s) fill(none)) WHERE $timeFilter"
            )
        ],
        "watt",
        reads="Voltage times current of the reference instrument, over the last ten seconds. Positive charges.",
        empty=SILENT,
        time_from="5m",
        defaults={"decimals": 2},
    ),
    stat(
        "State of charge",
        "How full is it?",
        [Target(newest("soc", "soc", HERE_ALL))],
        "percentunit",
        reads=meaning("soc", "soc"),
        empty=NO_SOC,
        time_from="5m",
        defaults={
            "decimals": 1,
            "color": {"mode": "thresholds"},
            "thresholds": steps((None, RED), (SOC_LOW[1], ORANGE), (SOC_LOW[0], GREEN)),
        },
    ),
    stat(
        "Between (3σ)",
        "How sure is that?",
        [Target(newest("soc", "soc_lo", HERE_ALL), "at least"), Target(newest("soc", "soc_hi", HERE_ALL), "at most")],
        "percentunit",
        reads="Three standard deviations below and above the estimate.",
        empty=NO_SOC,
        time_from="5m",
        defaults={"decimals": 1},
    ),
    stat(
        "Temperature",
        "Is the battery cold or warm?",
        [Target(newest("battery", "temperature_degc", HERE_ALL))],
        "celsius",
        reads=meaning("battery", "temperature_degc") + " Below 0 °C a lithium battery must not be charged.",
        empty="No instrument measures the battery's temperature.",
        time_from="5m",
        defaults={
            "decimals": 1,
            "color": {"mode": "thresholds"},
            "thresholds": steps((None, RED), (COLD[1], ORANGE), (COLD[0], GREEN), (WARM[0], ORANGE), (WARM[1], RED)),
        },
    ),
)


def course(title: str, asks: str, name: str, colour: str) -> Panel:
    """Return a signal of the reference instrument with the least and greatest value of each interval."""
    return timeseries(
        title,
        asks,
        [
            Target(series("battery", name, SPEAKER, "max", ()), "greatest", colour=colour, width=0, below="least"),
            Target(series("battery", name, SPEAKER, "mean", ()), "mean", colour=colour, width=2),
            Target(series("battery", name, SPEAKER, "min", ()), "least", colour=colour, width=0),
        ],
        AMPERES if name == "current_a" else unit("battery", name),
        calcs=("min", "mean", "max", "lastNotNull"),
        reads=meaning("battery", name) + " Line: mean of each interval; band: its least and greatest value.",
        empty="The reference instrument sent nothing in this range.",
        defaults={"decimals": 3},
        size=(12, 10),
    )


SUMS = (
    "In and out apart, as the reference instrument's collector integrated them from every sample; a gap adds nothing."
)
UNCOUNTED = "Nothing counted: no current measured, or the collector is older than this panel."


def sums(title: str, asks: str, names: tuple[str, str], kind: str, today: bool) -> Panel:
    """Return charge or energy in and out, today or over the range; the dashboard's grain is for its own range only."""
    queries = [total(SPEAKER, name, policy(M1, "sum") if today else "$sum") for name in names]
    return stat(
        title,
        asks,
        [Target(queries[0], "in"), Target(queries[1], "out")],
        kind,
        reads=SUMS + (" Today began at midnight of this browser." if today else ""),
        empty=UNCOUNTED,
        time_from="now/d" if today else "",
        size=(6, 4),
        defaults={"decimals": 2},
    )


CHARGE, ENERGY = ("charge_in_ah", "charge_out_ah"), ("energy_in_wh", "energy_out_wh")
AMOUNTS = (
    sums("Charge today", "How many ampere-hours went in and out today?", CHARGE, AMPERE_HOURS, today=True),
    sums("Energy today", "How much energy went in and out today?", ENERGY, WATT_HOURS, today=True),
    sums("Charge in range", "How many ampere-hours went in and out in this range?", CHARGE, AMPERE_HOURS, today=False),
    sums("Energy in range", "How much energy went in and out in this range?", ENERGY, WATT_HOURS, today=False),
)

HEALTH = {"color": {"mode": "thresholds"}, "thresholds": steps((None, RED), (0.5, ORANGE), (0.99, GREEN))}

DASHBOARD = Dashboard(
    uid="battfleet-overview",
    title="1 Bench overview",
    asks="How is the battery now, and can I believe what I see?",
    variables=(BENCH, BATTERY, REFERENCE, DEVICE, INTERVAL, BLOCK, *GRAINS),
    range="now-6h",
    refresh="10s",
    content=(
        *NOW,
        course("Voltage", "How did the voltage get here?", "voltage_v", BLUE),
        course("Current", "When was it charged and discharged?", "current_a", ORANGE),
        timeseries(
            "State of charge",
            "How full was it, and how sure was that?",
            [
                Target(series("soc", "soc_hi", HERE_ALL, "mean", ()), "+3σ", colour=GREEN, width=0, below="−3σ"),
                Target(series("soc", "soc", HERE_ALL, "mean", ()), "estimate", colour=GREEN, width=2),
                Target(series("soc", "soc_lo", HERE_ALL, "mean", ()), "−3σ", colour=GREEN, width=0),
            ],
            "percentunit",
            reads="The band is where the estimator says the truth is, with three standard deviations.",
            empty="No estimate in this range: start the estimator, or replay it over stored data.",
        ),
        timeseries(
            "Sun and load",
            "What do sun and load do to the battery?",
            [
                Target(series("solar", "power_w", BENCH_ONLY), "solar, $tag_device", colour=ORANGE),
                Target(series("load", "power_w", BENCH_ONLY), "load, $tag_device", colour=PURPLE),
                Target(
                    f'SELECT mean("voltage_v") * mean("current_a") FROM "$mean"."battery" WHERE {SPEAKER} '
                    "AND $timeFilter GROUP BY time($bin_width) fill(null)",
                    "into the battery",
                    colour=BLUE,
                ),
            ],
            "watt",
            reads="What the panel delivers and what loads take, beside what flows into the battery.",
            empty=f"{NO_SOLAR} {NO_LOAD}",
        ),
        timeseries(
            "Temperature",
            "Was it too cold to charge, or too warm?",
            [
                *by_turn(
                    series("battery", "temperature_degc", HERE_ALL), "battery, $tag_device", (BLUE, GREEN, PURPLE, SKY)
                ),
                Target(series("charger", "temperature_degc", BENCH_ONLY), "charger, $tag_device", colour=ORANGE),
            ],
            "celsius",
            reads=meaning("battery", "temperature_degc"),
            empty="No instrument on this bench measures a temperature.",
        ),
        timeseries(
            "All instruments: current",
            "Do the other instruments tell the same story?",
            by_turn(series("battery", "current_a", DEVICES), "$tag_device", BY_TURN),
            "amp",
            reads="Every chosen instrument at this battery. If they part, go to Measurement agreement.",
            empty="No instrument at this battery measures current.",
        ),
        Row("How much", AMOUNTS),
        Row(
            "States and health",
            (
                timeline(
                    "Charger phase",
                    "What did the charger do, and when?",
                    [Target(usual_state("charger", "state", BENCH_ONLY), "$tag_device")],
                    defaults={"mappings": states("charger", "state")},
                    reads=meaning("charger", "state") + " The one that lasted longest in each block.",
                    empty=NO_CHARGER,
                    size=(24, 5),
                ),
                timeseries(
                    "Charger errors, share of time",
                    "Was anything wrong with the charger, and for how long?",
                    [Target(share_of_time("charger", "error_flags", BENCH_ONLY, '"error_flags" > 0'), "$tag_device")],
                    "percentunit",
                    reads="Share of each block (of samples, on longer ranges of minutes) in which a charger reported "
                    "an error. Which one: see the table.",
                    empty=NO_CHARGER,
                    defaults={"min": 0, "max": 1},
                    custom={"drawStyle": "bars", "fillOpacity": 70},
                    size=(12, 6),
                ),
                table(
                    "Charger errors",
                    "What was wrong, and how often?",
                    [
                        Target(
                            'SELECT max("error_flags") AS "worst", count("error_flags") AS "times" '
                            f'FROM "$states"."charger" WHERE {BENCH_ONLY} AND "error_flags" > 0 AND $timeFilter '
                            'GROUP BY "device"'
                        )
                    ],
                    (
                        Column("device", "Charger", width=120),
                        Column("worst", "Highest code", "none", more={"mappings": flags("charger", "error_flags")}),
                        Column("times", "Samples or minutes with an error", "none", 240),
                    ),
                    hidden=("Time",),
                    reads=meaning("charger", "error_flags") + " 'several': more than one at once. Counted are samples "
                    "up to 6 h, minutes on longer ranges.",
                    empty="No charger on this bench reported an error in this range.",
                    size=(12, 6),
                ),
                timeline(
                    "Data health",
                    "Can I believe what I see: is every instrument heard?",
                    [
                        Target(
                            share_of_time("collector", "last_sample_age_s", BENCH_ONLY, '"last_sample_age_s" < 60'),
                            "$tag_device",
                        )
                    ],
                    "percentunit",
                    defaults=HEALTH,
                    reads="Share of the reports in each block whose last good sample was less than a minute old. Where "
                    "nothing is drawn, the collector itself did not report.",
                    empty="No collector on this bench reported in this range.",
                    size=(24, 6),
                ),
                table(
                    "Latest events",
                    "What happened, in words?",
                    [
                        Target(
                            f'SELECT "kind", "device", "detail" FROM "event" WHERE {BENCH_ONLY} AND $timeFilter '
                            "ORDER BY time DESC LIMIT 50"
                        )
                    ],
                    EVENT_COLUMNS,
                    reads="Newest first: links lost and back, gaps and their causes, starts, deploys, calibrations.",
                    empty="Nothing happened in this range.",
                    size=(24, 7),
                ),
            ),
        ),
    ),
)
