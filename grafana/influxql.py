"""InfluxQL as the panels use it. Pure text; every signal is looked up in the vocabulary when the text is made.

Hidden variables choose the series that fits the time range (see `grafana.downsampling.grains`):

    $mean, $least, $most    retention policies of means, minima and maxima: raw, 1 min or 1 h
    $sum, $minutes, $states retention policies of sums; of means and of maxima per minute, also where $mean is per hour
    $step, $per_hour        that grain's step and how many make an hour, for pairing instruments
    $least_minutes          in how many of a step's minutes both must be heard to be paired
    $bin_width              width of one point on the screen; $block of a state or of a share of time

`fill(null)` keeps a gap a gap: lines are broken where nothing came for a minute and a half.
"""

from __future__ import annotations

from collections.abc import Sequence

from grafana.units import signal

HERE = ("bench", "battery")
"""Tags of one battery; both are single-choice variables."""
LEAST = -1_000_000_000
"""Below any value: a comparison with it leaves out rows in which a column is missing."""
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
) -> str:
    """Return a series over time, from the grain that fits the range, one for each value of the tags `by`."""
    signal(measurement, name)
    scaled = f" * {factor:g}" if factor != 1.0 else ""
    groups = "".join(f', "{tag}"' for tag in by)
    return (
        f'SELECT {aggregate}("{name}"){scaled} FROM "{POLICY[aggregate]}"."{measurement}" '
        f"WHERE {where} AND $timeFilter GROUP BY time($bin_width){groups} fill(null)"
    )


def usual_state(measurement: str, name: str, where: str, by: Sequence[str] = ("device",)) -> str:
    """Return the code that lasted longest in each block: of samples, or of minutes on longer ranges.

    The greatest code of a block would show hours as a state that lasted seconds.
    """
    signal(measurement, name)
    groups = "".join(f', "{tag}"' for tag in by)
    return (
        f'SELECT mode("{name}") FROM "$states"."{measurement}" WHERE {where} AND $timeFilter '
        f"GROUP BY time($block){groups} fill(null)"
    )


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
    """Return rows with `a` and `b`: what the reference and the compared instrument read in the same step.

    Only steps that both have heard, nearly whole (`least_minutes`): a mean over half an hour beside one over all of it
    differs by what happened in the other half. The counts are taken by mean, since InfluxDB 1.6 finds no max where the
    first source lacks the column.
    """
    signal("battery", name)
    selects = []
    for column, variable in (("a", "reference"), ("b", "compared")):
        where = f"{match(*HERE, device=variable)} AND $timeFilter"
        selects += [
            f'(SELECT "{name}" AS "{column}" FROM "$mean"."battery" WHERE {where})',
            f'(SELECT count("{name}") AS "{column}_minutes" FROM "$minutes"."battery" WHERE {where} '
            "GROUP BY time($step) fill(none))",
        ]
    columns = 'mean("a") AS "a", mean("b") AS "b", mean("a_minutes") AS "a_minutes", mean("b_minutes") AS "b_minutes"'
    steps = f"(SELECT {columns} FROM {', '.join(selects)} WHERE $timeFilter GROUP BY time($step) fill(none))"
    heard = " AND ".join(f'"{column}_minutes" >= $least_minutes AND "{column}" > {LEAST:d}' for column in "ab")
    return f'(SELECT "a", "b" FROM {steps} WHERE {heard})'


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


def running(where: str, by: Sequence[str] = ("device",)) -> str:
    """Return the running sum of the charge that flowed in less what flowed out, since the beginning of the range."""
    groups = "".join(f', "{tag}"' for tag in by)
    amounts = f'(SELECT "charge_in_ah" - "charge_out_ah" AS "q" FROM "$sum"."throughput" WHERE {where} AND $timeFilter)'
    return (
        f'SELECT cumulative_sum(sum("q")) FROM {amounts} WHERE $timeFilter GROUP BY time($bin_width){groups} fill(none)'
    )


def total(where: str, name: str, policy: str = "$sum") -> str:
    """Return the sum of an increment over the range; `policy`: read from there, whatever the range."""
    if not signal("throughput", name).is_increment:
        raise ValueError(f"throughput.{name} is no increment: its sum means nothing")
    return f'SELECT sum("{name}") FROM "{policy}"."throughput" WHERE {where} AND $timeFilter'


def share(rows: str, inside: str, column: str, window: str = "$window") -> str:
    """Return the share of rows that hold `inside` in every window that has rows; every row has the `column`."""
    hits = f'(SELECT "{column}" AS "hit" FROM {rows} WHERE {inside})'
    every = f'(SELECT "{column}" AS "every" FROM {rows})'
    counts = f'(SELECT count("hit") AS "hits", count("every") AS "all" FROM {hits}, {every} WHERE $timeFilter '
    return _quotient(counts + f"GROUP BY time({window}) fill(0))", window, ())


def share_of_time(measurement: str, name: str, where: str, inside: str, by: Sequence[str] = ("device",)) -> str:
    """Return the share of each block in which a signal holds `inside`: of samples, or of minutes on longer ranges.

    Both counts are taken from the storage, not from rows of a sub-query as in `share`: ten times as fast over a month.
    """
    signal(measurement, name)
    groups = "".join(f', "{tag}"' for tag in by)
    source = f'FROM "$states"."{measurement}" WHERE {where} AND $timeFilter'
    block = f"GROUP BY time($block){groups}"
    hits = f'(SELECT count("{name}") AS "hits" {source} AND {inside} {block} fill(none))'
    every = f'(SELECT count("{name}") AS "all" {source} {block} fill(none))'
    counts = f'(SELECT mean("hits") AS "hits", mean("all") AS "all" FROM {hits}, {every} WHERE $timeFilter {block} '
    return _quotient(counts + "fill(0))", "$block", by)


def _quotient(counts: str, window: str, by: Sequence[str]) -> str:
    """Return "hits" over "all" of rows of counts, one for each window.

    Counts of an empty window are zero, not unknown; so such windows are taken out again. They are whole numbers, whose
    quotient would be one, too.
    """
    groups = "".join(f', "{tag}"' for tag in by)
    shares = f'(SELECT 1.0 * "hits" / "all" AS "share" FROM {counts} WHERE "all" > 0)'
    return f'SELECT mean("share") FROM {shares} WHERE $timeFilter GROUP BY time({window}){groups} fill(null)'
