"""Recordings are read unchanged or rejected by line and column; the replay loses no row."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.bench.replay import LEAD_IN, PATIENCE_S, Recording, Replay, Stall, Target, parse_map, read
from collectors.errors import ConfigError

RECORDING = Path(__file__).parents[4] / "shared/data/bench/bench-2021-05-28.csv"
HEADER = '"Time","Bat_A {device=""mppt-1210-hus"", name=""A""}","Bat_V {device=""EA-EL-3060"", name=""V""}"'


def write(tmp_path: Path, *lines: str, header: str = HEADER) -> Path:
    path = tmp_path / "bench.csv"
    path.write_text("\ufeff" + "\r\n".join([header, *lines]) + "\r\n", encoding="utf-8")
    return path


def test_rows_are_sorted_and_holes_stay_holes(tmp_path: Path) -> None:
    recording = read(write(tmp_path, "5000,1.5,", "2000,,12.85", "3000,-1.03,12.8375"))
    assert recording.start_ms == 2000
    assert recording.rows == [
        {"load": {"load.voltage_v": 12.85}},
        {"mppt": {"battery.current_a": -1.03}, "load": {"load.voltage_v": 12.8375}},
        {},
        {"mppt": {"battery.current_a": 1.5}},
    ]
    assert recording.keys("mppt") == {"battery.current_a"}
    assert recording.first("mppt") == {"battery.current_a": -1.03}


@pytest.mark.skipif(not RECORDING.exists(), reason=f"the recording is not here: {RECORDING}")
def test_the_real_recording_has_the_counts_of_its_readme() -> None:
    rows = read(RECORDING).rows
    counts = {
        (name, key): sum(key in row.get(name, {}) for row in rows)
        for name, key in (
            ("t7", "battery.voltage_v"),
            ("t7", "battery.current_a"),
            ("mppt", "battery.current_a"),
            ("mppt", "battery.voltage_v"),
            ("load", "load.voltage_v"),
        )
    }
    assert len(rows) == 9081
    assert list(counts.values()) == [132, 7869, 7682, 7682, 6792]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["1000,1,2", "2000,x,2"], ":3: column 'Bat_A"),
        (["1000,1,nan"], ":2: column 'Bat_V"),
        (["1000,1"], ":2: expected 3 cells, got 2"),
        (["1500,1,2"], ":2: column 'Time': expected whole seconds"),
        (["today,1,2"], "got 'today'"),
        (["1000,1,2", "1000,1,2"], ":3: the same second as line 2"),
        (["1000,,"], "no values"),
        ([], "no values"),
        (["1000,1,2", "9999999999000,1,2"], "more than a month"),
        (['1000,"1,2'], "not a CSV file"),
    ],
)
def test_a_bad_row_is_reported_by_line_and_column(tmp_path: Path, lines: list[str], names: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(write(tmp_path, *lines))
    assert names in str(error.value)
    assert "bench.csv" in str(error.value)


def test_many_bad_rows_are_summarised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(write(tmp_path, *(f"{n}000,x,1" for n in range(1, 31))))
    assert len(error.value.problems) == 11
    assert "20 more" in error.value.problems[-1]


def test_a_missing_file_binary_rubbish_and_strange_headers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "absent.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=r"'volts'.*--map"):
        read(write(tmp_path, "1000,1", header="Time,volts"))
    with pytest.raises(ConfigError, match="same place"):
        read(write(tmp_path, "1000,1,2", header='Time,Bat_A mppt,"Bat_A mppt 2"'))


def test_columns_can_be_named_by_hand(tmp_path: Path) -> None:
    columns = [parse_map("^volts$=t7:battery.voltage_v")]
    assert columns == [("^volts$", Target("t7", "battery.voltage_v"))]
    assert read(write(tmp_path, "1000,1", header="Time,volts"), columns).rows == [{"t7": {"battery.voltage_v": 1.0}}]


@pytest.mark.parametrize("text", ["volts", "volts=t7", "volts=t7:volts", "(=t7:battery.voltage_v"])
def test_a_bad_map_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="map"):
        parse_map(text)


def rows(*present: str) -> Recording:
    """Return a recording with instruments a and b present where their letters stand, valued by row number."""
    return Recording(0, [{name: {"x.y": float(i)} for name in letters} for i, letters in enumerate(present)])


def test_the_lead_in_serves_the_first_values_of_every_instrument() -> None:
    replay = Replay(rows("", "a", "ab"), 10.0, ["a", "b"])
    assert (replay.world("a")(0.0), replay.world("b")(0.0)) == ({"x.y": 1.0}, {"x.y": 2.0})
    replay.advance(1e6)
    assert replay.row == LEAD_IN


def test_a_row_waits_until_all_its_instruments_have_sent_it() -> None:
    replay = Replay(rows("ab", "a"), 10.0, ["a", "b"])
    replay.begin(100.0)
    assert replay.advance(99.9) == 100.0
    assert replay.advance(100.0) == pytest.approx(100.1)
    replay.delivered("a", 0)
    replay.advance(100.2)
    assert replay.row == 0
    replay.delivered("b", LEAD_IN)  # a late value of an earlier row
    replay.advance(100.3)
    assert replay.row == 0
    replay.delivered("b", 0)
    replay.advance(100.4)
    assert replay.row == 1
    assert replay.world("b")(0.0) == {"x.y": None}
    assert replay.latest_s == pytest.approx(0.3)


def test_gaps_are_replayed_at_their_own_speed() -> None:
    replay = Replay(rows("a", "", "", "a"), 10.0, ["a"])
    replay.begin(0.0)
    replay.advance(0.0)
    replay.delivered("a", 0)
    seen = []
    for tick in range(1, 31):
        replay.advance(tick / 100)
        seen.append(replay.row)
    assert [seen.count(row) for row in (0, 1, 2, 3)] == [9, 10, 10, 1]


def test_an_instrument_that_never_sends_is_a_stall_and_not_the_end() -> None:
    replay = Replay(rows("ab", "ab"), 10.0, ["a", "b"])
    replay.begin(0.0)
    replay.advance(0.0)
    replay.delivered("a", 0)
    assert replay.advance(1.0) == pytest.approx(0.1 + PATIENCE_S)
    replay.advance(0.1 + PATIENCE_S)
    assert replay.stalls == [Stall(0, ("b",))]
    assert replay.row == 1


@given(
    present=st.lists(st.sampled_from(["", "a", "b", "ab"]), min_size=2, max_size=30).filter(
        lambda p: {"a", "b"} <= set("".join(p))
    ),
    polls=st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 0.3)), min_size=200, max_size=200),
)
@settings(max_examples=50, deadline=None)
def test_every_value_is_served_in_order_however_late_the_polls(
    present: list[str], polls: list[tuple[str, float]]
) -> None:
    recording = rows(*present)
    replay = Replay(recording, 10.0, ["a", "b"])
    replay.begin(0.0)
    served: dict[str, list[float]] = {"a": [], "b": []}
    now_s = 0.0
    for name, pause_s in polls:
        now_s += pause_s
        replay.advance(now_s)
        value = replay.world(name)(now_s)["x.y"]
        if replay.row != LEAD_IN and value is not None and value not in served[name]:
            served[name].append(value)
        if value is not None:
            replay.delivered(name, replay.row)
    reached = min(replay.row, len(present))
    for name in "ab":
        expected = [float(i) for i in range(reached) if name in present[i]]
        if not any(name in stall.instruments for stall in replay.stalls):
            assert served[name][: len(expected)] == expected
    assert len(replay.began_ns) == replay.row + 1
