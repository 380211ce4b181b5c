"""InfluxQL as the panels use it. Pure text; every signal is looked up in the vocabulary when the text is made.

Hidden variables choose the series that fits the time range (see `grafana.downsampling.grains`):

    $mean, $least, $most    retention policies of means, minima and maxima: raw, 1 min or 1 h
    $step, $per_hour        that grain's step and how many make an hour, for pairing instruments and for sums
    $bin_width              width of one point on the screen; $block of a state

`fill(null)` keeps a gap a gap: lines are broken where nothing came for a minute and a half.
"""

from __future__ import annotations

from collections.abc import Sequence

from grafana.units import signal

HERE = ("bench", "battery")
"""Tags of one battery; both are single-choice variables."""
POLICY = {"mean": "$mean", "min": "$least", "max": "$most"}


def match(*tags: str, **variables: str) -> str:
    """Return conditions: each tag is what the variable of its name says; `device="compared"` names another variable."""
    pairs = {tag: tag for tag in tags} | variables
    return " AND ".join(f'"{tag}" =~ /^${variable}$/' for tag, variable in pairs.items())


def series(
    measurement: str,
    name: str,
    where: str,
    aggregate: str = "mean",
    by: Sequence[str] = ("device",),
    factor: float = 1.0,
    width: str = "$bin_width",
) -> str:
    """Return a series over time, from the grain that fits the range, one for each value of the tags `by`."""
    signal(measurement, name)
    scaled = f" * {factor:g}" if factor != 1.0 else ""
    groups = "".join(f', "{tag}"' for tag in by)
    return (
        f'SELECT {aggregate}("{name}"){scaled} FROM "{POLICY[aggregate]}"."{measurement}" '
        f"WHERE {where} AND $timeFilter GROUP BY time({width}){groups} fill(null)"
    )


def state(measurement: str, name: str, where: str, aggregate: str, by: Sequence[str] = ("device",)) -> str:
    """Return a state over time: the least or greatest code of each block."""
    return series(measurement, name, where, aggregate, by, width="$block")


def counted(measurement: str, name: str, where: str, by: Sequence[str], per_s: bool = False) -> str:
    """Return the increase of a counter since start, per interval or per second; a restart counts as nothing."""
    signal(measurement, name)
    change = "non_negative_derivative(max({}), 1s)" if per_s else "non_negative_difference(max({}))"
    groups = "".join(f', "{tag}"' for tag in by)
    return (
        f'SELECT {change.format(chr(34) + name + chr(34))} FROM "$most"."{measurement}" '
        f"WHERE {where} AND $timeFilter GROUP BY time($bin_width){groups} fill(none)"
    )


def newest(measurement: str, name: str, where: str, by: Sequence[str] = ()) -> str:
    """Return the newest value in the panel's own time range, as it was sent."""
    signal(measurement, name)
    groups = " GROUP BY " + ", ".join(f'"{tag}"' for tag in by) if by else ""
    return f'SELECT last("{name}") FROM "{measurement}" WHERE {where} AND $timeFilter{groups}'


def together(*sources: str) -> str:
    """Return rows of one step each, in which the sources' columns stand side by side.

    Each source is "column: measurement.signal where condition".
    """
    columns, selects = [], []
    for source in sources:
        column, rest = source.split(": ", 1)
        what, where = rest.split(" where ", 1)
        measurement, name = what.split(".")
        signal(measurement, name)
        columns.append(f'mean("{column}") AS "{column}"')
        selects.append(f'(SELECT "{name}" AS "{column}" FROM "$mean"."{measurement}" WHERE {where} AND $timeFilter)')
    return f"(SELECT {', '.join(columns)} FROM {', '.join(selects)} WHERE $timeFilter GROUP BY time($step) fill(none))"


def pair(name: str) -> str:
    """Return rows with `a` and `b`: what the reference and the compared instrument read in the same step."""
    reference, compared = (match(*HERE, device=variable) for variable in ("reference", "compared"))
    return together(f"a: battery.{name} where {reference}", f"b: battery.{name} where {compared}")


def difference(name: str) -> str:
    """Return rows with `d`, compared − reference, and `s`, their sum, only where both have a value."""
    return f'(SELECT "b" - "a" AS "d", "a" + "b" AS "s" FROM {pair(name)})'


def per(rows: str, what: str, window: str = "$bin_width", fill: str = "null") -> str:
    """Return `what`, an aggregate of the rows' columns, in every window."""
    return f"SELECT {what} FROM {rows} WHERE $timeFilter GROUP BY time({window}) fill({fill})"


VAR_S = '(mean("ss") - mean("s") * mean("s"))'
VAR_D = '(mean("dd") - mean("d") * mean("d"))'
COV = '(mean("sd") - mean("s") * mean("d"))'


def gain(name: str) -> str:
    """Return the slope of compared over reference by least squares in every `$window`.

    From sum s and difference d, which exist only where both instruments do: with a = (s − d)/2 and b = (s + d)/2,
    cov(a, b)/var(a) = (var s − var d) / (var s − 2 cov(s, d) + var d).
    """
    products = f'(SELECT "s", "d", "s" * "s" AS "ss", "d" * "d" AS "dd", "s" * "d" AS "sd" FROM {difference(name)})'
    slope = f"({VAR_S} - {VAR_D}) / ({VAR_S} - 2 * {COV} + {VAR_D})"
    return per(products, slope, "$window")


CHARGE = 'mean("current_a")'
ENERGY = 'mean("voltage_v") * mean("current_a")'


def running(where: str, product: str, by: Sequence[str] = ("device",)) -> str:
    """Return the running sum of charge or energy since the beginning of the range: means by $per_hour, step by step.

    `product` is an expression of means. A gap adds nothing: what was not measured is not guessed.
    """
    groups = "".join(f', "{tag}"' for tag in by)
    amounts = (
        f'(SELECT {product} / $per_hour AS "q" FROM "$mean"."battery" WHERE {where} AND $timeFilter '
        f"GROUP BY time($step){groups} fill(none))"
    )
    return (
        f'SELECT cumulative_sum(sum("q")) FROM {amounts} WHERE $timeFilter GROUP BY time($bin_width){groups} fill(none)'
    )


def total(where: str, product: str, sign: str) -> str:
    """Return the sum over the range of what flowed in (sign ">") or out ("<").

    From minutes on any range: an hour's mean would set what flowed in against what flowed out.
    """
    minutes = (
        f'(SELECT {product} / 60 AS "q" FROM "m1_mean"."battery" WHERE {where} AND $timeFilter '
        "GROUP BY time(1m) fill(none))"
    )
    return f'SELECT sum("q") FROM {minutes} WHERE "q" {sign} 0 AND $timeFilter'


def share(rows: str, inside: str, column: str, window: str = "$window") -> str:
    """Return the share of rows that hold `inside`, in every window that has rows; `column` is one that every row has.

    Counts of an empty window are zero, not unknown; so such windows are taken out again. They are whole numbers, whose
    quotient would be one, too.
    """
    hits = f'(SELECT "{column}" AS "hit" FROM {rows} WHERE {inside})'
    every = f'(SELECT "{column}" AS "every" FROM {rows})'
    counts = f'(SELECT count("hit") AS "hits", count("every") AS "all" FROM {hits}, {every} WHERE $timeFilter '
    counts += f"GROUP BY time({window}) fill(0))"
    return per(f'(SELECT 1.0 * "hits" / "all" AS "share" FROM {counts} WHERE "all" > 0)', 'mean("share")', window)
