"""Measurement agreement: do the instruments agree, and if not, how do they differ? What the bench is for.

Read from the top: all instruments over each other (do they part at all?), then the charge that each has counted
(what does that cost?), then, once for every compared instrument: how far it is from the reference (residual), whether
that is an offset, a gain or noise (bias, gain, scatter, histogram), and whether it drifts over weeks.

A residual is compared − reference, both averaged over the same step ($step: 10 s, 1 min or 1 h with the range), and
exists only where both were heard; of an hour, in nine tenths of its minutes. While the current moves fast, two
instruments that sample at different instants differ for no fault of theirs: judge the steady stretches.
"""

from __future__ import annotations

from grafana.dashboard import BATTERY, BENCH, COMPARED, DEVICE, GRAINS, INTERVAL, REFERENCE, WINDOW, Dashboard
from grafana.downsampling import H1
from grafana.influxql import HERE, difference, gain, match, pair, per, running, series
from grafana.panels import Panel, Row, Target, by_turn, column, histogram, scatter, timeseries
from grafana.units import AMPERE_HOURS, AMPERES, BLUE, BY_TURN, GREEN, ORANGE, PER_MILLE, PURPLE, meaning, unit

DEVICES = match(*HERE, "device")
ALONE = "Only one instrument here, or the two were never heard in the same step."
UNCOUNTED = "Nothing counted: no instrument here measures current, or its collector is older than these panels."
NONE = "No instrument at this battery measured this in the range."
SPOKEN = {"current_a": ("current", "mA", 1000, "mamp"), "voltage_v": ("voltage", "mV", 1000, "mvolt")}
LEAST = {"current_a": 0.2, "voltage_v": 1.0}
"""Below this, a residual in ‰ of the reading says nothing."""


def overlaid(name: str, asks: str) -> Panel:
    """Return all instruments over each other."""
    return timeseries(
        f"All instruments: {SPOKEN[name][0]}",
        asks,
        by_turn(series("battery", name, DEVICES), "$tag_device", BY_TURN),
        AMPERES if name == "current_a" else unit("battery", name),
        calcs=("min", "mean", "max"),
        reads=meaning("battery", name) + " The first six of the chosen instruments, in the order of their names.",
        empty=NONE,
        defaults={"decimals": 3},
        size=(12, 10),
    )


def residual(name: str) -> Panel:
    """Return compared − reference in thousandths of the unit."""
    word, small, factor, grafana_unit = SPOKEN[name]
    return timeseries(
        f"Residual {word}, {small}",
        f"How far is $compared from $reference in {word}?",
        [Target(per(difference(name), f'mean("d") * {factor}'), "residual", colour=BLUE)],
        grafana_unit,
        calcs=("mean", "stdDev", "min", "max"),
        reads="$compared − $reference. A constant is an offset; what follows the reading is a gain.",
        empty=ALONE,
    )


def relative(name: str) -> Panel:
    """Return the residual in thousandths of the reading, where the reading is large enough."""
    word, least = SPOKEN[name][0], LEAST[name]
    rows = f'(SELECT 1000 * ("b" - "a") / "a" AS "r" FROM {pair(name)} WHERE "a" > {least} OR "a" < -{least})'
    return timeseries(
        f"Residual {word}, ‰",
        f"How far is that in parts of the {word} itself?",
        [Target(per(rows, 'mean("r")'), "residual", colour=ORANGE)],
        PER_MILLE,
        calcs=("mean", "stdDev", "min", "max"),
        reads=f"Per mille of what $reference reads; left out below {least} {unit('battery', name)}.",
        empty=ALONE + f" Or the reading stayed below {least}.",
    )


def bias(name: str) -> Panel:
    """Return mean and deviation of the residual in every window."""
    word, small, factor, grafana_unit = SPOKEN[name]
    mean, noise = (per(difference(name), f'{of}("d") * {factor}', "$window") for of in ("mean", "stddev"))
    return timeseries(
        f"Running bias and noise, {word}",
        f"Is the {word} residual an offset or noise, and does it change?",
        [Target(mean, "bias", colour=BLUE), Target(noise, "noise (1σ)", colour=GREEN, dash=(6, 4))],
        grafana_unit,
        reads=f"Mean and standard deviation of the residual in each window ($window), {small}.",
        empty=ALONE,
    )


def slope(name: str) -> Panel:
    """Return the gain of compared over reference in every window."""
    word = SPOKEN[name][0]
    return timeseries(
        f"Running gain, {word}",
        f"Is one instrument's {word} scaled wrongly?",
        [Target(gain(name), "gain", colour=PURPLE)],
        "none",
        reads="Least-squares slope of $compared over $reference in each window. 1: same scale. It means something "
        f"only in windows in which the {word} moved.",
        empty=ALONE,
        defaults={"decimals": 4},
    )


def against(name: str) -> Panel:
    """Return compared over reference as points, with the steps' means."""
    word = SPOKEN[name][0]
    query = f'SELECT "a" AS "reference", "b" AS "compared" FROM {pair(name)} WHERE $timeFilter LIMIT 12000'
    return scatter(
        f"Scatter, {word}",
        f"Is the relation in {word} a line, and where does it bend?",
        Target(query),
        reads="Each point: what $reference (across) and $compared (up) read in the same step.",
        empty=ALONE,
        overrides=(
            column("reference", unit("battery", name), "$reference"),
            column("compared", unit("battery", name), "$compared", color={"mode": "fixed", "fixedColor": BLUE}),
        ),
    )


def spread(name: str) -> Panel:
    """Return how often each residual occurs."""
    word, small, factor, grafana_unit = SPOKEN[name]
    return histogram(
        f"Histogram of residuals, {word}",
        "Is the error one hump (noise), two (a switching state), or skewed?",
        Target(f'SELECT "d" * {factor} FROM {difference(name)} WHERE $timeFilter LIMIT 12000', "residual", colour=BLUE),
        grafana_unit,
        reads=f"Every step's residual, {small}.",
        empty=ALONE,
    )


def drift(name: str) -> Panel:
    """Return the daily bias over twelve weeks, whatever the dashboard's range."""
    word, _, factor, grafana_unit = SPOKEN[name]
    hourly = difference(name)
    for variable, value in (("mean", "h1_mean"), ("minutes", "m1_mean"), ("step", "1h")):
        hourly = hourly.replace(f"${variable}", value)
    hourly = hourly.replace("$least_minutes", str(H1.least_minutes))
    return timeseries(
        f"Drift over weeks, {word}",
        f"Does the {word} residual wander from day to day?",
        [Target(per(hourly, f'mean("d") * {factor}', "1d"), "daily bias", colour=BLUE, width=2)],
        grafana_unit,
        reads="Mean residual of each day of the last twelve weeks, from the means of hours in which both were heard in "
        f"{H1.least_minutes} minutes at least.",
        empty=ALONE + " Hourly means begin with the downsampling.",
        time_from="12w",
        custom={"showPoints": "always", "spanNulls": True},
    )


DIVERGE = f'(SELECT "d" / $per_hour AS "q" FROM {difference("current_a")})'

DASHBOARD = Dashboard(
    uid="battfleet-agreement",
    title="2 Measurement agreement",
    asks="Do the instruments agree, and if not, how do they differ?",
    variables=(BENCH, BATTERY, REFERENCE, COMPARED, DEVICE, INTERVAL, WINDOW, *GRAINS),
    refresh="1m",
    content=(
        overlaid("current_a", "Do the instruments' currents part anywhere?"),
        overlaid("voltage_v", "Do the instruments' voltages part anywhere?"),
        timeseries(
            "Charge counted by each",
            "What does the disagreement come to in ampere-hours?",
            by_turn(running(DEVICES), "$tag_device", BY_TURN),
            AMPERE_HOURS,
            calcs=("lastNotNull",),
            defaults={"decimals": 3},
            reads="Net charge since the beginning of the range, integrated from every sample by each instrument's own "
            "collector; a gap adds nothing.",
            empty=UNCOUNTED,
            size=(24, 8),
        ),
        Row(
            "$compared against $reference",
            (
                residual("current_a"),
                residual("voltage_v"),
                relative("current_a"),
                relative("voltage_v"),
                bias("current_a"),
                bias("voltage_v"),
                slope("current_a"),
                slope("voltage_v"),
                timeseries(
                    "Charge: $compared − $reference",
                    "How do the counted charges diverge?",
                    [
                        Target(
                            per(DIVERGE, 'cumulative_sum(sum("q"))', fill="none"), "compared − reference", colour=BLUE
                        )
                    ],
                    "amph",
                    reads="Running sum of the current residual over steps that both measured.",
                    empty=ALONE,
                    size=(24, 8),
                ),
                against("current_a"),
                against("voltage_v"),
                spread("current_a"),
                spread("voltage_v"),
                drift("current_a"),
                drift("voltage_v"),
            ),
            repeat="compared",
        ),
    ),
)
