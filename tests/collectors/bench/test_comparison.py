"""The database comparison and the replay check find missing, different and invented values, each planted alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from collectors.bench.comparison import DatabaseComparison, ReplayCheck, check_replay, compare_database
from collectors.bench.influx import Influx
from collectors.bench.reconciliation import Journal, JournalSeries, SeriesKey
from collectors.bench.replay import LEAD_IN, Recording, Replay
from collectors.bench.sensors import MPPT
from collectors.fakes.serve import SentLog
from collectors.journal.reader import JournalReader
from collectors.journal.records import IntArray

KEY: SeriesKey = ("battery", (("device", "mppt"),))
OFFSET_NS = 10**18
MS = 10**6


class Reader:
    """A journal reader that knows the time of every row but those at 99 ns."""

    collector = "mppt"

    def to_wall(self, _boot_id: str, stamps: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        return stamps + OFFSET_NS, stamps != 99


class Server:
    """A server that holds rows and returns those of the requested measurement."""

    def __init__(self, rows: dict[int, dict[str, Any]]) -> None:
        self.held = rows

    def rows(self, *_: object) -> dict[SeriesKey, Any]:
        return {KEY: self.held}


def journal(boottime_ns: list[int], **fields: list[float | None]) -> Journal:
    made = Journal(cast("JournalReader", Reader()), 0)
    made.series[KEY] = JournalSeries(boottime_ns, dict(fields))
    return made


def compare(kept: Journal, held: dict[int, dict[str, Any]]) -> DatabaseComparison:
    at_wall = {stamp + OFFSET_NS: values for stamp, values in held.items()}
    return compare_database([kept], "boot", cast("Influx", Server(at_wall)), "db")


KEPT: dict[int, dict[str, Any]] = {1: {"a": 1.0}, 2: {"a": 2.0, "b": 0.1}}


def kept_journal() -> Journal:
    return journal([1, 2, 3, 99], a=[1.0, 2.0, None, 9.0], b=[None, 0.1, None, 9.0])


def test_equal_rows_match_and_rows_without_values_or_time_are_not_compared() -> None:
    found = compare(kept_journal(), KEPT)
    assert found == DatabaseComparison(rows=2, values=3, missing=0, different=0, extra=0)
    assert found.is_same


@pytest.mark.parametrize(
    ("held", "harm"),
    [
        ({1: {"a": 1.0}}, (1, 0, 0)),
        (KEPT | {5: {"a": 1.0}}, (0, 0, 1)),
        (KEPT | {1: {"a": 1.0000000000000002}}, (0, 1, 0)),
        (KEPT | {2: {"a": 2.0}}, (0, 1, 0)),
        (KEPT | {1: {"a": 1.0, "b": 7.0}}, (0, 1, 0)),
    ],
)
def test_every_difference_is_found(held: dict[int, dict[str, Any]], harm: tuple[int, int, int]) -> None:
    found = compare(kept_journal(), held)
    assert (found.missing, found.different, found.extra) == harm
    assert not found.is_same


def test_an_empty_side_is_a_difference() -> None:
    assert not compare(journal([]), {}).is_same


VALUES = [12.80, 12.81, None, 12.83, 12.84, 12.90]


def replayed(
    talks: bool, harm: Callable[[list[int], list[float | None]], None] = lambda *_: None, served: int = len(VALUES)
) -> ReplayCheck:
    """Return the check of a replay of VALUES, one row in 10 ms, each sent twice, the first already in the lead-in."""
    rows = [{} if v is None else {"mppt": {"battery.voltage_v": v}} for v in VALUES]
    replay = Replay(Recording(0, rows), 100.0, ["mppt"])
    replay.began_ns.extend(1000 * MS + 10 * MS * row for row in range(len(rows)))
    sent, at, kept = SentLog(), [], cast("list[float | None]", [])
    sent.add(990 * MS, harmed=False, mark=LEAD_IN)
    at.append(990 * MS + 1000)
    kept.append(12.80)
    for row, value in enumerate(VALUES):
        for part in (2, 7) if value is not None else ():
            stamp = 1000 * MS + (10 * row + part) * MS
            sent.add(stamp, harmed=False, mark=row)
            at.append(stamp + 50_000)
            kept.append(value)
    harm(at, kept)
    return check_replay(replay, "mppt", MPPT, sent, journal(at, voltage_v=kept), talks, served)


@pytest.mark.parametrize("talks", [True, False])
def test_a_faithful_journal_holds_every_value_at_its_row(talks: bool) -> None:
    found = replayed(talks)
    assert (found.values, found.equal, found.missing, found.different, found.invented) == (5, 5, 0, 0, 0)
    assert found.latest_s == 0.0


@pytest.mark.parametrize("talks", [True, False])
def test_of_a_replay_that_ends_early_only_the_served_rows_are_compared(talks: bool) -> None:
    found = replayed(talks, served=4)  # the row after them had begun, so its values are in the journal, too
    assert (found.values, found.equal, found.missing, found.different, found.invented) == (3, 3, 0, 0, 0)


def test_rows_are_served_when_the_next_one_begins() -> None:
    replay = Replay(Recording(0, [{"mppt": {"battery.voltage_v": v}} for v in (1.0, 2.0, 3.0)]), 1.0, ["mppt"])
    assert replay.served(10) == 0
    replay.began_ns.extend((100, 200, 300))
    assert [replay.served(at_ns) for at_ns in (99, 100, 199, 200, 299, 300, 999)] == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("talks", [True, False])
def test_a_wrong_value_is_found(talks: bool) -> None:
    def harm(_: list[int], kept: list[float | None]) -> None:
        kept[3] = 12.75

    assert replayed(talks, harm).different == 1


def test_a_value_that_was_never_stored_is_found() -> None:
    def harm(at: list[int], kept: list[float | None]) -> None:
        del at[3:5], kept[3:5]

    found = replayed(talks=False, harm=harm)
    assert (found.equal, found.missing) == (4, 1)


def test_a_sample_at_another_time_does_not_match_the_row() -> None:
    def harm(at: list[int], _: list[float | None]) -> None:
        at[1:] = [stamp + 30 * MS for stamp in at[1:]]

    found = replayed(talks=False, harm=harm)
    assert found.different + found.invented > 0
    assert replayed(talks=True, harm=harm).latest_s == pytest.approx(0.027, abs=0.001)
