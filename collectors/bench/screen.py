"""Displays a run of the bench: a live table, a line for logs, the summary at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from collectors.bench.bench import Bench
from collectors.bench.reconciliation import Journal
from collectors.bench.sensors import Agreement
from collectors.bench.setup import InstrumentPosition
from collectors.bench.summary import RunReport, Summary
from collectors.signals import VOCABULARY

SHOWN = (
    ("battery", "voltage_v"),
    ("battery", "current_a"),
    ("solar", "current_a"),
    ("load", "voltage_v"),
    ("load", "current_a"),
)
CLOCK_STATES = VOCABULARY["collector"]["clock_state"].codes or {}
RATE_SPAN_NS = 5_000_000_000


WIDE_COLUMNS = 100
"""At this width or more, kinds are shown and headings are not abbreviated."""
NARROW_COLUMNS = 80
"""Below this width, headings are broken, columns are closer, and the gain is omitted."""


def live(bench: Bench, width: int) -> Group:
    """Return the newest values, the state of each collector, the instruments' agreement, and the database's state.

    `width`: columns of the terminal. With 60 columns or more, no figure is truncated.
    """
    parts: list[Table | Text] = [
        _values(bench, width),
        _health(bench, width),
        _agreements(bench.agreement(), width),
        Text(_state(bench)),
    ]
    if width < NARROW_COLUMNS:
        return Group(*parts)
    return Group(*(part for each in parts for part in (each, Text())))


def line(bench: Bench) -> str:
    """Return the newest values and the database's state in one line."""
    parts = [
        f"{name}: {' '.join(_newest(journal)) or 'no sample yet'} ({_rate_hz(journal):.1f}/s)"
        for name, journal in bench.journals.items()
    ]
    return f"{bench.now_s:6.1f} s  " + "  ".join([*parts, _state(bench)])


def _table(headings: Sequence[str], left: Collection[str], width: int, title: str | None = None) -> Table:
    """Return an empty table without vertical lines; columns named in `left` contain text, the others figures."""
    table = Table(
        title=title,
        box=SIMPLE_HEAD,
        padding=(0, 1 if width >= NARROW_COLUMNS else 0, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=heading not in left)
    return table


def _heading(width: int) -> str:
    """Return the heading of the first column; it is empty on a narrow terminal to save space."""
    return "instrument" if width >= NARROW_COLUMNS else ""


def _called(place: InstrumentPosition, width: int) -> str:
    return f"{place.name} ({place.kind})" if width >= WIDE_COLUMNS else place.name


def _values(bench: Bench, width: int) -> Table:
    """Return the newest value of each quantity: a row per instrument, a column per quantity with its unit."""
    space = " " if width >= NARROW_COLUMNS else "\n"
    headings = [f"{measurement}{space}{VOCABULARY[measurement][signal].unit}" for measurement, signal in SHOWN]
    title = f"battfleet virtual bench, {bench.now_s:.0f} s"
    rate = "samples/s" if width >= NARROW_COLUMNS else "sam-\nples/s"
    table = _table([_heading(width), *headings, rate], [_heading(width)], width, title)
    for place in bench.places:
        journal = bench.journals[place.name]
        courses = [journal.course(measurement, signal) for measurement, signal in SHOWN]
        cells = [f"{course.values[-1]:.3f}" if len(course.values) else "" for course in courses]
        table.add_row(_called(place, width), *cells, f"{_rate_hz(journal):.1f}" if any(cells) else "no sample")
    return table


COUNTS = ("skipped", "errors", "reconnects", "queue_rows")


def _health(bench: Bench, width: int) -> Table:
    """Return the state of each collector, from its reports on itself."""
    again = "reconnects" if width >= NARROW_COLUMNS else "recon-\nnects"
    headings = [_heading(width), "rows", "gaps", "skipped", "errors", again, "queue", "clock"]
    table = _table(headings, [_heading(width), "clock"], width)
    for place in bench.places:
        journal, own = bench.journals[place.name], bench.journals[place.name].own()
        table.add_row(
            _called(place, width),
            str(journal.rows),
            str(len(bench.gaps(place.name, journal))),
            *(f"{own.get(name, 0):.0f}" for name in COUNTS),
            CLOCK_STATES.get(int(own.get("clock_state", -1)), "?"),
        )
    return table


def _newest(journal: Journal) -> list[str]:
    """Return the newest value of each quantity that is shown, with its unit."""
    found = []
    for measurement, signal in SHOWN:
        course = journal.course(measurement, signal)
        if len(course.values):
            unit = VOCABULARY[measurement][signal].unit
            found.append(f"{measurement} {course.values[-1]:.3f} {unit}")
    return found


def _rate_hz(journal: Journal) -> float:
    """Return the instrument's samples per second over the last RATE_SPAN_NS."""
    rates = [0.0]
    for series in journal.measured().values():
        stamps = [stamp for stamp in series.boottime_ns[-100:] if stamp > series.boottime_ns[-1] - RATE_SPAN_NS]
        if len(stamps) > 1:
            rates.append((len(stamps) - 1) * 1e9 / (stamps[-1] - stamps[0]))
    return max(rates)


def _agreements(found: Mapping[str, Agreement], width: int) -> Table:
    """Return the agreement of instruments that measure the same quantity: first minus second."""
    mean = "mean difference" if width >= WIDE_COLUMNS else "mean"
    headings = ["agreement", "pairs", mean, "deviation", "median", *(["gain"] if width >= NARROW_COLUMNS else [])]
    table = _table(headings, ["agreement"], width)
    for title, agreement in found.items():
        table.add_row(title.replace(" against ", " − "), *_agreement_cells(title, agreement)[: len(headings) - 1])
    return table


def _agreement_cells(title: str, found: Agreement) -> list[str]:
    unit = "mV" if " V:" in title else "mA"
    sizes = (found.residual_mean, found.residual_std, found.residual_median)
    gain = "" if found.gain is None else f"{found.gain:.3f}"
    return [str(found.pairs), *(f"{1000 * size:.1f} {unit}" for size in sizes), gain]


def _state(bench: Bench) -> str:
    """Return the state of replay and database."""
    parts = []
    replay = bench.replay
    if replay:
        speed = f"at {replay.speed:g}×, latest {1000 * replay.latest_s:.0f} ms late"
        parts.append(f"replay: row {max(replay.row, 0)} of {len(replay.recording.rows)} {speed}")
    health = bench.health
    if bench.database is None:
        parts.append("database: none, the journals are the store")
    elif health is None:
        parts.append(f"database: {bench.database.url}, nothing sent yet")
    else:
        why = f" ({health.why})" if health.why else ""
        sent = f"{health.lines_sent} lines sent, {bench.unsent()} commits waiting"
        parts.append(f"database: {bench.database.url} {health.state}{why}, {sent}")
    return "; ".join(parts)


def summary_lines(summary: Summary, width: int | None = None) -> Iterator[str]:
    """Yield the lines of the summary, wrapped between words at `width` columns (None: not wrapped)."""
    for text in _summary(summary):
        indent = " " * (len(text) - len(text.lstrip()) + 4)
        yield from wrap(text, width, subsequent_indent=indent, break_long_words=False) if width else [text]


def _summary(summary: Summary) -> Iterator[str]:
    yield f"after {summary.seconds:.1f} s:"
    for name, report in summary.instruments.items():
        yield f"  {name:5} {_account(report)}"
        yield from (f"        {text}" for text in _gap_lines(report))
    for title, found in summary.agreement.items():
        pairs, mean, deviation, median, gain = _agreement_cells(title, found)
        more = f", gain {gain}" if gain else ""
        yield f"  {title}: mean difference {mean}, deviation {deviation}, median {median}{more} ({pairs} pairs)"
    yield f"  database: {summary.database}"
    if summary.read_back:
        back = summary.read_back
        same = "the same" if back.is_same else "NOT the same"
        wrong = f"{back.missing} missing, {back.different} different, {back.extra} extra"
        yield f"  read back: {same}: {back.rows} rows with {back.values} values; in the database {wrong}"
    yield from _replay_lines(summary)
    yield from (f"  PROBLEM {problem}" for problem in summary.problems)
    if not summary.problems:
        yield "  nothing was lost"


def _account(report: RunReport) -> str:
    account = report.account
    intact = account.kept + account.lost
    share = f"{100 * account.kept / intact:.2f} %" if intact else "nothing"
    touched = f", {account.harmed} harmed by faults" if account.harmed else ""
    opening = f", {account.opening} said before the collector was ready" if account.opening else ""
    return f"{account.kept} of {intact} samples kept ({share}){touched}{opening}; {report.restarts} restarts"


def _gap_lines(report: RunReport) -> Iterator[str]:
    for cause, number in Counter(gap.cause for gap in report.gaps).most_common():
        seconds = sum(gap.seconds for gap in report.gaps if gap.cause == cause)
        yield f"{number} gaps, {seconds:.2f} s in all: {cause}"


def _replay_lines(summary: Summary) -> Iterator[str]:
    replay = summary.replay
    if not replay:
        return
    late = f"at most {1000 * replay.latest_s:.0f} ms late, {len(replay.stalls)} stalls"
    yield f"  replay: {replay.rows} of {replay.of_rows} rows at {replay.speed:g}× in {replay.seconds:.1f} s; {late}"
    if replay.rows < replay.of_rows:
        yield "  replay: ended before the recording did; the rows that were served count"
    for name, check in replay.instruments.items():
        wrong = f"{check.missing} missing, {check.different} different, {check.invented} where the recording has a gap"
        yield f"  {name:5} {check.equal} of {check.values} recorded values are in the journal; {wrong}"
