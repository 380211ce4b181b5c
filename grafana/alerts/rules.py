"""The rules. Each is a query, how its series become one number, and a limit for a warning and one for an alarm.

no series at all    only `collector-silent` fires (no data: alerting); a value rule keeps its last state, so an alarm
                    does not resolve because its instrument fell silent, and one dead bench is one alert and not ten
a missing series    likewise, for `limits.silence_hold_s` (see `grafana.alerts.files`)
labels              a rule fires once for each bench, battery, device or cell that its query groups by
recovery            a rule ends only when its value is back by `margin`, so it does not flap

So a query gives a row whenever it has data, also where the rule cannot fire: a row that is left out would look like a
silent instrument and hold the alarm. What must hold besides the limit (a current flows) is a gate, not a filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from grafana.alerts.settings import Battery, Settings
from grafana.units import signal

NOBODY = r"[^\s\S]"
"""A pattern that no battery's name matches."""


SEEN_IN = {
    "collector-silent": ("fleet", "Sample age"),
    "sample-stale": ("fleet", "Sample age"),
    "queue-growing": ("fleet", "Oldest unsent row"),
    "dead-letters": ("fleet", "Dead letters"),
    "clock-unsynchronised": ("fleet", "Clock state"),
    "disk-low": ("fleet", "Disk free"),
    "current-disagreement": ("agreement", "All instruments: current"),
    "voltage-disagreement": ("agreement", "All instruments: voltage"),
    "soc-low": ("overview", "State of charge"),
    "soc-high": ("overview", "State of charge"),
    "temperature-high": ("overview", "Temperature"),
    "charge-cold": ("overview", "Temperature"),
    "charge-hot": ("overview", "Temperature"),
    "discharge-cold": ("overview", "Temperature"),
    "pack-voltage-high": ("overview", "Voltage"),
    "pack-voltage-low": ("overview", "Voltage"),
    "cell-voltage-high": ("cells", "Highest and lowest cell"),
    "cell-voltage-low": ("cells", "Highest and lowest cell"),
    "cell-spread": ("cells", "Cell spread"),
}
"""Rule to the dashboard and panel that it belongs to: Grafana draws there when it fired, and links from the alert."""

URGENT = {
    "collector-silent",
    "temperature-high",
    "charge-cold",
    "charge-hot",
    "discharge-cold",
    "pack-voltage-high",
    "pack-voltage-low",
    "cell-voltage-high",
    "cell-voltage-low",
}
"""Rules about the battery's safety, or about knowing nothing: notified within seconds and every hour."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A second query that must be beyond its own limit, too; both group by the same tags."""

    query: str
    compare: str
    """ "gt" or "lt"."""
    limit: float


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with one limit; `uid` is for ever."""

    name: str
    title: str
    severity: str
    query: str
    compare: str
    """ "gt" or "lt"."""
    limit: float
    unit: str
    first_aid: str
    wait: str = "1m"
    """How long it must hold."""
    reducer: str = "last"
    window_s: int = 300
    margin: float = 0.0
    no_data: str = "KeepLast"
    chemistry: str = ""
    is_paused: bool = False
    gate: Gate | None = None

    @property
    def is_urgent(self) -> bool:
        """Return whether it is notified at once and every hour."""
        return self.name in URGENT

    @property
    def seen_in(self) -> tuple[str, str]:
        """Return dashboard and panel."""
        return SEEN_IN[self.name]

    @property
    def uid(self) -> str:
        """Return the id: rule, chemistry where it has one, severity."""
        return "-".join(part for part in ("bf", self.name, self.chemistry, self.severity) if part)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a warning and an alarm of one name share."""

    name: str
    title: str
    query: str
    compare: str
    unit: str
    first_aid: str
    wait: str = "1m"
    reducer: str = "last"
    window_s: int = 300
    margin: float = 0.0
    no_data: str = "KeepLast"
    gate: Gate | None = None

    def rules(self, limits: Sequence[float], chemistry: str = "", is_paused: bool = False) -> Iterator[Rule]:
        """Yield the warning and, where there is a second limit, the alarm."""
        for severity, limit in zip(("warning", "critical"), limits, strict=False):
            yield Rule(
                self.name,
                self.title,
                severity,
                self.query,
                self.compare,
                float(limit),
                self.unit,
                self.first_aid,
                self.wait,
                self.reducer,
                self.window_s,
                self.margin,
                self.no_data,
                chemistry,
                is_paused,
                self.gate,
            )


def newest(measurement: str, name: str, by: Sequence[str], where: str = "", function: str = "last") -> str:
    """Return a query for the newest (or another function's) value for each combination of tags."""
    signal(measurement, name)
    groups = ", ".join(f'"{tag}"' for tag in by)
    condition = f"{where} AND " if where else ""
    return f'SELECT {function}("{name}") FROM "{measurement}" WHERE {condition}$timeFilter GROUP BY {groups}'


def disagreement(name: str) -> str:
    """Return the difference between the highest and the lowest instrument at a battery, minute by minute.

    Only minutes with two instruments count: of one alone the difference is zero, which would end the alarm.
    """
    signal("battery", name)
    each = (
        f'(SELECT mean("{name}") AS "v" FROM "battery" WHERE $timeFilter '
        'GROUP BY time(1m), "bench", "battery", "device" fill(none))'
    )
    minutes = (
        f'(SELECT max("v") - min("v") AS "d", count("v") AS "n" FROM {each} WHERE $timeFilter '
        'GROUP BY time(1m), "bench", "battery" fill(none))'
    )
    return f'SELECT "d" FROM {minutes} WHERE "n" > 1 AND $timeFilter GROUP BY "bench", "battery"'


EACH = ("bench", "device")
REPORTS = (
    'SELECT moving_average(count("memory_bytes"), 2) FROM "collector" WHERE $timeFilter '
    'GROUP BY time(5m), "bench", "device" fill(0)'
)
"""Reports of everybody who reported within the range, per 5 min; the mean of two, as the last is still running."""

SILENT = Rule(
    "collector-silent",
    "A collector or a whole bench fell silent",
    "critical",
    REPORTS,
    "lt",
    0.5,
    "reports in 5 min",
    "Is the host on and reachable? collectors status on the host says the rest.",
    window_s=86_400,
    no_data="Alerting",
)

EVERYWHERE: Mapping[str, Kind] = {
    "sample_stale_s": Kind(
        "sample-stale",
        "An instrument is not heard",
        newest("collector", "last_sample_age_s", EACH),
        "gt",
        "s",
        "Look whether the instrument is on and its cable in place.",
        window_s=900,
    ),
    "queue_age_s": Kind(
        "queue-growing",
        "Data do not reach the database",
        newest("collector", "unsent_age_s", ("bench",), function="max"),
        "gt",
        "s",
        "Nothing is lost yet: the journal keeps it. Look at network, address and password of the shipper.",
        wait="5m",
        window_s=600,
    ),
    "dead_letters": Kind(
        "dead-letters",
        "The database refused lines for good",
        newest("collector", "dead_letters", ("bench",)),
        "gt",
        "lines",
        "collectors dead list shows the lines and the server's words.",
        wait="0s",
        window_s=900,
    ),
    "clock_state": Kind(
        "clock-unsynchronised",
        "A host's clock is not synchronised",
        newest("collector", "clock_state", EACH),
        "lt",
        "",
        "Samples wait in the journal until the offset is known. Look at chrony and the network.",
        wait="10m",
        window_s=900,
    ),
    "disk_free_bytes": Kind(
        "disk-low",
        "A disk fills up",
        newest("collector", "disk_free_bytes", EACH),
        "lt",
        "bytes",
        "Look what grew. Journals are deleted only after they were sent; a database without room loses points.",
        wait="5m",
        window_s=900,
    ),
    "current_disagreement_a": Kind(
        "current-disagreement",
        "Instruments disagree about the current",
        disagreement("current_a"),
        "gt",
        "A",
        "Open Measurement agreement: offset, gain, or one that stands still?",
        wait="10m",
        reducer="mean",
        window_s=600,
    ),
    "voltage_disagreement_v": Kind(
        "voltage-disagreement",
        "Instruments disagree about the voltage",
        disagreement("voltage_v"),
        "gt",
        "V",
        "Open Measurement agreement; a loose sense wire shows under load.",
        wait="10m",
        reducer="mean",
        window_s=600,
    ),
    "soc_low": Kind(
        "soc-low",
        "A battery is nearly empty",
        newest("soc", "soc", ("bench", "battery")),
        "lt",
        "%",
        "Charge it or take the load off.",
        wait="5m",
        margin=0.02,
    ),
    "temperature_high_degc": Kind(
        "temperature-high",
        "A battery is too warm",
        newest("battery", "temperature_degc", ("bench", "battery")),
        "gt",
        "°C",
        "Take load and charger off; do not open it.",
        margin=2.0,
    ),
}
"""Key of `limits` to the rule that it limits."""


def everywhere(settings: Settings) -> Iterator[Rule]:
    """Yield the rules that do not ask for a chemistry."""
    yield SILENT
    for key, kind in EVERYWHERE.items():
        yield from kind.rules(settings.limits[key])


def named(batteries: Sequence[Battery]) -> str:
    """Return the condition that a point is of one of these batteries."""
    names = "|".join(battery.name for battery in batteries) or NOBODY
    return f'"battery" =~ /^({names})$/'


def scaled(batteries: Sequence[Battery], select: str, divide_by: str, tail: str) -> str:
    """Return sub-queries, one for each value of a battery's property, in which `{}` of `select` is that value."""
    groups: dict[float, list[Battery]] = {}
    for battery in batteries:
        groups.setdefault(getattr(battery, divide_by), []).append(battery)
    return ", ".join(
        f'(SELECT {select.format(f"{value:g}")} FROM "battery" WHERE {named(group)} AND $timeFilter{tail})'
        for value, group in (sorted(groups.items()) or [(1.0, [])])
    )


CELL = ("bench", "battery", "cell")
PACK = 'SELECT last("v") FROM {per_cell} WHERE $timeFilter GROUP BY "bench", "battery"'
WARMTH = 'SELECT last("t") FROM {rates} WHERE $timeFilter GROUP BY "bench", "battery"'
C_RATE = 'SELECT last("c") FROM {rates} WHERE $timeFilter GROUP BY "bench", "battery"'
SPREAD = (
    'SELECT "d" FROM (SELECT max("v") - min("v") AS "d", count("v") AS "n" FROM '
    '(SELECT last("voltage_v") AS "v" FROM "cell" WHERE {ours} AND $timeFilter GROUP BY "bench", "battery", "cell") '
    'WHERE "v" > {low:g} AND "v" < {high:g} GROUP BY "bench", "battery") WHERE "n" > 1 GROUP BY "bench", "battery"'
)
"""Only between cells that are both between the knees; where fewer than two are, the spread is not known."""

BY_CHEMISTRY: Mapping[str, Kind] = {
    "cell_voltage_high_v": Kind(
        "cell-voltage-high",
        "A cell's voltage is too high",
        newest("cell", "voltage_v", CELL, "{ours}", "max"),
        "gt",
        "V",
        "Stop charging; then see whether one cell runs ahead of the others.",
        window_s=120,
        margin=0.02,
    ),
    "cell_voltage_low_v": Kind(
        "cell-voltage-low",
        "A cell's voltage is too low",
        newest("cell", "voltage_v", CELL, "{ours}", "min"),
        "lt",
        "V",
        "Take the load off; then see whether one cell falls behind.",
        window_s=120,
        margin=0.02,
    ),
    "pack_voltage_high_v": Kind(
        "pack-voltage-high",
        "A battery's voltage is too high",
        PACK,
        "gt",
        "V per cell",
        "Stop charging; compare with a second instrument.",
        margin=0.02,
    ),
    "pack_voltage_low_v": Kind(
        "pack-voltage-low",
        "A battery's voltage is too low",
        PACK,
        "lt",
        "V per cell",
        "Take the load off; compare with a second instrument.",
        margin=0.02,
    ),
    "cell_spread_v": Kind(
        "cell-spread",
        "Cells of a battery are apart",
        SPREAD,
        "gt",
        "V",
        "Open Battery and cells: one cell at all times is balance, only under load is resistance.",
        wait="5m",
    ),
    "soc_high": Kind(
        "soc-high",
        "A battery is fuller than it should be",
        newest("soc", "soc", ("bench", "battery"), "{ours}"),
        "gt",
        "%",
        "Stop charging, or look why the estimate runs away (offset of the current sensor).",
        wait="5m",
        margin=0.01,
    ),
    "charge_cold_degc": Kind(
        "charge-cold",
        "A battery is charged while too cold",
        WARMTH,
        "lt",
        "°C",
        "Stop charging now: lithium plates on cold electrodes, for good.",
        margin=2.0,
        gate=Gate(C_RATE, "gt", 0.0),
    ),
    "charge_hot_degc": Kind(
        "charge-hot",
        "A battery is charged while too warm",
        WARMTH,
        "gt",
        "°C",
        "Stop charging and let it cool.",
        margin=2.0,
        gate=Gate(C_RATE, "gt", 0.0),
    ),
    "discharge_cold_degc": Kind(
        "discharge-cold",
        "A battery is discharged while too cold",
        WARMTH,
        "lt",
        "°C",
        "Take the load off, or warm it first.",
        margin=2.0,
        gate=Gate(C_RATE, "lt", 0.0),
    ),
}
"""Key of a chemistry's limits to the rule; braces in queries and limits of gates are filled in for its batteries."""


def by_chemistry(settings: Settings, chemistry: str) -> Iterator[Rule]:
    """Yield the rules whose limits depend on the chemistry; paused where there is no battery of it."""
    limits, batteries = settings.chemistries[chemistry], settings.of(chemistry)
    low, high = limits["spread_between_v"]
    rates = 'mean("temperature_degc") AS "t", mean("current_a") / {} AS "c"'
    filled = {
        "ours": named(batteries),
        "per_cell": scaled(batteries, '"voltage_v" / {} AS "v"', "cells", ""),
        "rates": scaled(batteries, rates, "capacity_ah", ' GROUP BY time(1m), "bench", "battery" fill(none)'),
        "low": low,
        "high": high,
    }
    rate = settings.limits["charge_c_rate"]
    for key, kind in BY_CHEMISTRY.items():
        ours = replace(kind, query=kind.query.format(**filled))
        if kind.gate:
            limit = rate if kind.gate.compare == "gt" else -rate
            ours = replace(ours, gate=replace(kind.gate, query=kind.gate.query.format(**filled), limit=limit))
        yield from ours.rules(limits[key], chemistry, is_paused=not batteries)


def rules(settings: Settings) -> list[Rule]:
    """Return every rule of a site."""
    chemistries = [rule for name in sorted(settings.chemistries) for rule in by_chemistry(settings, name)]
    return [*everywhere(settings), *chemistries]
