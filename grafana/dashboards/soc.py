"""State of charge: how full is it, how sure is that, and does the estimator agree with itself?

Read from the top: the estimate in its band beside plain counting (how full, how sure, what does the filter add?);
then the innovations against their bound (does it agree with the voltage it sees?), with their share inside; then what
it believes of the sensor and the cell (offset, distance to the open-circuit voltage); then, where an instrument states
a state of charge of its own, how often that lies inside the band; last, which model spoke. Two measurements are put
side by side by expressions of Grafana's server, which InfluxQL cannot do.
"""

from __future__ import annotations

from grafana.dashboard import BATTERY, BENCH, DEVICE, GRAINS, INTERVAL, REFERENCE, WINDOW, Dashboard
from grafana.influxql import HERE, match, newest, series, share, together
from grafana.panels import Column, Row, Target, stat, table, timeseries
from grafana.units import BLUE, GREEN, GREY, ORANGE, PURPLE, meaning

BATTERY_SOC = match(*HERE)
NO_SOC = "No estimate in this range: start the estimator, or replay it over stored data."
NOT_NOW = "No estimate for 5 min: is the estimator running?"
INNOVATIONS = together(f"v: soc.innovation_v where {BATTERY_SOC}", f"bound: soc.innovation_bound_v where {BATTERY_SOC}")
INSIDE = '"v" >= -1 * "bound" AND "v" <= "bound"'


def line(name: str, alias: str, colour: str, width: int = 1, below: str = "", dash: tuple[int, ...] = ()) -> Target:
    """Return the course of one of the estimator's numbers."""
    return Target(
        series("soc", name, BATTERY_SOC, "mean", ()), alias, colour=colour, width=width, below=below, dash=dash
    )


DASHBOARD = Dashboard(
    uid="battfleet-soc",
    title="3 State of charge",
    asks="How full is it, how sure is that, and does the estimator agree with itself?",
    variables=(BENCH, BATTERY, REFERENCE, DEVICE, INTERVAL, WINDOW, *GRAINS),
    content=(
        stat(
            "State of charge",
            "How full is it?",
            [Target(newest("soc", "soc", BATTERY_SOC))],
            "percentunit",
            reads=meaning("soc", "soc"),
            empty=NOT_NOW,
            time_from="5m",
            defaults={"decimals": 1},
            size=(6, 4),
        ),
        stat(
            "Between (3σ)",
            "How sure is that?",
            [
                Target(newest("soc", "soc_lo", BATTERY_SOC), "at least"),
                Target(newest("soc", "soc_hi", BATTERY_SOC), "at most"),
            ],
            "percentunit",
            reads="Three standard deviations below and above the estimate.",
            empty=NOT_NOW,
            time_from="5m",
            defaults={"decimals": 1},
            size=(6, 4),
        ),
        stat(
            "Current sensor offset",
            "Which error of the current sensor does it believe in?",
            [Target(newest("soc", "current_offset_a", BATTERY_SOC))],
            "amp",
            reads=meaning("soc", "current_offset_a"),
            empty=NOT_NOW,
            time_from="5m",
            defaults={"decimals": 1},
            size=(6, 4),
        ),
        stat(
            "Innovations inside bound",
            "Does it agree with the voltage it sees?",
            [Target(share(INNOVATIONS, INSIDE, "v", "1d"))],
            "percentunit",
            reads="Share of steps of the newest day in the range whose innovation is within three standard deviations. "
            "About 99.7 % if model and noise are right; steps are means, so it is a little kind.",
            empty=NO_SOC,
            defaults={"decimals": 1},
            size=(6, 4),
        ),
        timeseries(
            "Estimate and counting",
            "How full is it, how sure is that, and what would counting alone say?",
            [
                line("soc_hi", "+3σ", GREEN, width=0, below="−3σ"),
                line("soc", "estimate", GREEN, width=2),
                line("soc_lo", "−3σ", GREEN, width=0),
                line("soc_counted", "counted", ORANGE, dash=(6, 4)),
            ],
            "percentunit",
            reads="Counting starts where the estimator started and keeps every offset of the current sensor for ever; "
            "where it leaves the band, the voltage has spoken against it.",
            empty=NO_SOC,
            calcs=("min", "max", "lastNotNull"),
            size=(24, 10),
        ),
        timeseries(
            "Innovations",
            "Is the measured voltage what the model expected?",
            [
                line("innovation_bound_v", "+3σ", GREY, width=0, below="−3σ"),
                line("innovation_v", "innovation", BLUE),
                Target(series("soc", "innovation_bound_v", BATTERY_SOC, "mean", (), -1.0), "−3σ", colour=GREY, width=0),
            ],
            "volt",
            reads="Measured − predicted voltage. It should wander around zero inside the band; a steady side means a "
            "wrong model, resistance or temperature.",
            empty=NO_SOC,
        ),
        timeseries(
            "Share of innovations inside",
            "When did it stop agreeing with itself?",
            [Target(share(INNOVATIONS, INSIDE, "v"), "inside", colour=BLUE, width=2)],
            "percentunit",
            reads="Share of steps inside the bound, in each window.",
            empty=NO_SOC,
            defaults={"min": 0, "max": 1},
        ),
        timeseries(
            "Current sensor offset",
            "Which error of the current sensor does it believe in, and is it steady?",
            [line("current_offset_a", "offset", PURPLE)],
            "amp",
            reads=meaning("soc", "current_offset_a"),
            empty=NO_SOC,
        ),
        timeseries(
            "Distance to open circuit",
            "How far is the battery from rest, where voltage tells the state of charge?",
            [
                Target(series("battery", "voltage_v", match(*HERE, device="reference"), by=()), is_hidden=True),
                Target(series("soc", "ocv_v", BATTERY_SOC, by=()), is_hidden=True),
                Target("$A - $B", "terminal − open circuit", is_math=True, colour=BLUE),
            ],
            "volt",
            reads="Terminal voltage of the reference instrument minus the open-circuit voltage at the estimate. Near "
            "zero at rest; with a flat curve even zero says little.",
            empty=NO_SOC,
        ),
        Row(
            "Against a reference",
            (
                timeseries(
                    "Stated by instruments",
                    "What do instruments say themselves?",
                    [
                        line("soc_hi", "+3σ", GREEN, width=0, below="−3σ"),
                        Target(series("battery", "soc", match(*HERE, "device")), "$tag_device", colour=ORANGE),
                        line("soc_lo", "−3σ", GREEN, width=0),
                    ],
                    "percentunit",
                    reads=meaning("battery", "soc") + " Beside the estimate's band.",
                    empty="No instrument here states a state of charge.",
                ),
                stat(
                    "Coverage",
                    "How often is the reference inside the band?",
                    [
                        Target(series("battery", "soc", match(*HERE, "device"), by=()), is_hidden=True),
                        Target(series("soc", "soc_lo", BATTERY_SOC, by=()), is_hidden=True),
                        Target(series("soc", "soc_hi", BATTERY_SOC, by=()), is_hidden=True),
                        Target("$A >= $B && $A <= $C", "inside", is_math=True),
                    ],
                    "percentunit",
                    graph=True,
                    calc="mean",
                    reads="Share of intervals in which the chosen instruments' own value lies within ±3σ. Choose as "
                    "Device the one that you trust as a reference, for example a simulated truth.",
                    empty="No instrument here states a state of charge.",
                    defaults={"min": 0, "max": 1, "decimals": 1},
                    size=(12, 8),
                ),
                table(
                    "Model",
                    "Which model and version spoke last?",
                    [
                        Target(
                            f'SELECT last("model") AS "model", last("version") AS "version" FROM "soc" '
                            f'WHERE {BATTERY_SOC} AND $timeFilter GROUP BY "bench", "battery"'
                        )
                    ],
                    (
                        Column("battery", "Battery", width=160),
                        Column("model", "Model"),
                        Column("version", "Estimator", width=160),
                    ),
                    hidden=("Time", "bench"),
                    reads="The cell file's identity and the estimator's version, as stored with the newest points.",
                    empty="No estimate in the last hour.",
                    time_from="1h",
                    size=(24, 4),
                ),
            ),
        ),
    ),
)
