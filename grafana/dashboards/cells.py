"""Battery and cells: is one cell apart from the others, and was a limit passed?

Read from the top: the extremes now (highest, lowest, their difference, warmest), every cell's course, the spread over
time, temperatures, what the battery says of its age, and the limits that the charger aims at. Every instrument that
writes the measurement `cell` fills it; a battery without one shows why it is empty.
"""

from __future__ import annotations

from grafana.alerts.settings import load
from grafana.dashboard import BATTERY, BENCH, DEVICE, GRAINS, INTERVAL, Dashboard
from grafana.influxql import HERE, match, newest, series
from grafana.panels import Column, Json, Panel, Row, Target, by_turn, stat, table, timeseries
from grafana.units import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, meaning, steps

CELLS = match(*HERE)
DEVICES = match(*HERE, "device")
BENCH_ONLY = match("bench")
APART_V = load().chemistries["lfp"]["cell_spread_v"]
NO_CELLS = "No instrument at this battery measures single cells."
EACH_NOW = f'(SELECT last("voltage_v") AS "v" FROM "cell" WHERE {CELLS} AND $timeFilter GROUP BY "cell")'


def extreme(title: str, asks: str, what: str, kind: str, defaults: Json) -> Panel:
    """Return what the newest voltages of all cells come to."""
    return stat(
        title,
        asks,
        [Target(f"SELECT {what} FROM {EACH_NOW}")],
        kind,
        reads="From each cell's newest voltage, not older than 5 min.",
        empty=NO_CELLS,
        time_from="5m",
        size=(6, 4),
        defaults=defaults,
    )


def life(title: str, asks: str, name: str, kind: str) -> Panel:
    """Return what an instrument states of the battery's life."""
    return stat(
        title,
        asks,
        [Target(newest("battery", name, DEVICES, ("device",)), "$tag_device")],
        kind,
        reads=meaning("battery", name),
        empty="No instrument here states it.",
        size=(6, 4),
    )


def spread() -> str:
    """Return highest minus lowest cell of each step in mV, the greatest in each interval."""
    each = (
        f'(SELECT mean("voltage_v") AS "v" FROM "$mean"."cell" WHERE {CELLS} AND $timeFilter '
        'GROUP BY time($step), "cell" fill(none))'
    )
    gap = f'(SELECT max("v") - min("v") AS "gap" FROM {each} WHERE $timeFilter GROUP BY time($step) fill(none))'
    return f'SELECT max("gap") * 1000 FROM {gap} WHERE $timeFilter GROUP BY time($bin_width) fill(null)'


DASHBOARD = Dashboard(
    uid="battfleet-cells",
    title="4 Battery and cells",
    asks="Is one cell apart from the others, and was a limit passed?",
    variables=(BENCH, BATTERY, DEVICE, INTERVAL, *GRAINS),
    content=(
        extreme("Highest cell", "Is a cell near its upper limit?", 'max("v")', "volt", defaults={"decimals": 3}),
        extreme("Lowest cell", "Is a cell near its lower limit?", 'min("v")', "volt", defaults={"decimals": 3}),
        extreme(
            "Spread",
            "Are the cells together?",
            '(max("v") - min("v")) * 1000',
            "mvolt",
            defaults={
                "decimals": 0,
                "color": {"mode": "thresholds"},
                "thresholds": steps((None, GREEN), (1000 * APART_V[0], ORANGE), (1000 * APART_V[1], RED)),
            },
        ),
        stat(
            "Warmest and coldest cell",
            "Is it too warm, or too cold to charge?",
            [
                Target(f'SELECT max("temperature_degc") FROM "cell" WHERE {CELLS} AND $timeFilter', "warmest"),
                Target(f'SELECT min("temperature_degc") FROM "cell" WHERE {CELLS} AND $timeFilter', "coldest"),
            ],
            "celsius",
            reads=meaning("cell", "temperature_degc") + " Over the last 5 min.",
            empty=NO_CELLS,
            time_from="5m",
            size=(6, 4),
            defaults={"decimals": 1},
        ),
        timeseries(
            "Cell voltages",
            "Which cell leaves the others, and when?",
            [Target(series("cell", "voltage_v", CELLS, "mean", ("cell",)), "cell $tag_cell")],
            "volt",
            calcs=("min", "mean", "max"),
            reads=meaning("cell", "voltage_v")
            + " Cells that part only at the ends differ in capacity; cells that part "
            "under load differ in resistance.",
            empty=NO_CELLS,
            size=(24, 10),
            defaults={"decimals": 3},
        ),
        timeseries(
            "Cell spread",
            "How far apart are the cells, and is it growing?",
            [Target(spread(), "highest − lowest", colour=BLUE)],
            "mvolt",
            reads="Highest minus lowest cell of each step, the greatest of each interval.",
            empty=NO_CELLS,
        ),
        timeseries(
            "Highest and lowest cell",
            "Was a limit passed, even for a moment?",
            [
                Target(series("cell", "voltage_v", CELLS, "max", ()), "highest", colour=RED),
                Target(series("cell", "voltage_v", CELLS, "min", ()), "lowest", colour=BLUE),
            ],
            "volt",
            calcs=("min", "max"),
            reads="The true extremes of each interval, on long ranges, too. Limits by chemistry: see the alert rules.",
            empty=NO_CELLS,
            defaults={"decimals": 3},
        ),
        Row(
            "Temperature and life",
            (
                timeseries(
                    "Temperatures",
                    "Which part is warm or cold?",
                    [
                        Target(series("cell", "temperature_degc", CELLS, "mean", ("cell",)), "cell $tag_cell"),
                        *by_turn(
                            series("battery", "temperature_degc", DEVICES), "battery, $tag_device", (PURPLE, SKY, GREY)
                        ),
                    ],
                    "celsius",
                    reads=meaning("battery", "temperature_degc"),
                    empty="No instrument at this battery measures a temperature.",
                ),
                timeseries(
                    "Charging limits aimed at",
                    "Up to where does the charger charge?",
                    [
                        Target(series("charger", "target_voltage_v", BENCH_ONLY), "aim of $tag_device", colour=BLUE),
                        Target(series("battery", "voltage_v", DEVICES, "max", ()), "battery, greatest", colour=ORANGE),
                    ],
                    "volt",
                    reads=meaning("charger", "target_voltage_v"),
                    empty="No charger on this bench tells its limits.",
                ),
                life("Full charges", "How many cycles has it seen?", "full_charge_count", "none"),
                life("Deep discharges", "How often was it emptied?", "deep_discharge_count", "none"),
                life("Usable capacity", "How much does it still hold?", "usable_capacity_ah", "amph"),
                life("State of health", "How much of its capacity is left?", "soh", "percentunit"),
                table(
                    "Cells now",
                    "Which cell is which?",
                    [
                        Target(
                            f'SELECT last("voltage_v") AS "voltage" FROM "cell" WHERE {CELLS} AND $timeFilter '
                            'GROUP BY "cell", "device"'
                        )
                    ],
                    (
                        Column("cell", "Cell", width=80),
                        Column("device", "Measured by", width=160),
                        Column("voltage", "Voltage", "volt", 140, {"decimals": 3}),
                        Column("Time", "When", "dateTimeFromNow"),
                    ),
                    reads="Each cell's newest voltage and when it was measured.",
                    empty=NO_CELLS,
                    time_from="5m",
                    size=(24, 6),
                ),
            ),
        ),
    ),
)
