"""Reading CSV and Parquet and writing results: accepted forms, rejected ones, and their messages."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soc import stores
from soc.errors import FileError
from soc.stores import Recording, Results, Rules, StoreError

PLAIN = "time_s,current_a,voltage_v,temperature_degc\n0,0,3.7,25\n1,-1.5,3.65,25\n"


def columns(recording: Recording) -> dict[str, list[float]]:
    chunks = list(recording.chunks)
    return {name: np.concatenate([c[name] for c in chunks]).tolist() for name in chunks[0]}


def csv_file(folder: Path, text: str) -> str:
    path = folder / "a.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(place: str, rules: Rules | None = None) -> str:
    with pytest.raises(StoreError) as caught:
        list(stores.read(place, rules).chunks)
    return str(caught.value)


def test_a_plain_csv_has_its_columns(tmp_path: Path) -> None:
    found = columns(stores.read(csv_file(tmp_path, PLAIN)))
    assert found == {
        "time_s": [0.0, 1.0],
        "current_a": [0.0, -1.5],
        "voltage_v": [3.7, 3.65],
        "temperature_degc": [25.0, 25.0],
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_the_one_of_the_line_of_names(tmp_path: Path, separator: str) -> None:
    assert columns(stores.read(csv_file(tmp_path, PLAIN.replace(",", separator))))["voltage_v"] == [3.7, 3.65]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    assert columns(stores.read(csv_file(tmp_path, "\ufeff" + PLAIN.replace("\n", "\r\n"))))["time_s"] == [0.0, 1.0]


def test_the_header_line_gives_cell_and_start(tmp_path: Path) -> None:
    text = '# {"cell": "lg_hg2", "soc0": 0.9, "soc0_sd": 0.02, "temperature_degc": 5, "bench": "ours"}\n' + PLAIN
    recording = stores.read(csv_file(tmp_path, text))
    assert recording.header == {"cell": "lg_hg2", "soc0": 0.9, "soc0_sd": 0.02, "temperature_degc": 5.0}
    assert columns(recording)["time_s"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("line", "word"),
    [("# {soc0: 1}", "a.csv:1"), ('# {"soc0": "full"}', "soc0: expected a number"), ("# [1]", "JSON object")],
)
def test_a_wrong_header_line_is_explained(tmp_path: Path, line: str, word: str) -> None:
    with pytest.raises(StoreError, match=word):
        stores.read(csv_file(tmp_path, line + "\n" + PLAIN))


def test_missing_values_are_nan(tmp_path: Path) -> None:
    text = "time_s,current_a,voltage_v,temperature_degc\n0,0,3.7,\n1,NaN,null,25\n"
    found = columns(stores.read(csv_file(tmp_path, text)))
    assert (
        np.isnan(found["temperature_degc"][0]) and np.isnan(found["current_a"][1]) and np.isnan(found["voltage_v"][1])
    )


def test_every_cell_that_is_no_number_is_named_with_line_and_column(tmp_path: Path) -> None:
    words = refused(csv_file(tmp_path, '# {"soc0": 1}\n' + PLAIN + "2,off,3.6,25\n3,0,3.6\n4,0,3.6,warm\n"))
    assert "a.csv:5: current_a: 'off' is not a number" in words
    assert "a.csv:6: 3 cells, but 4 column names" in words
    assert "a.csv:7: temperature_degc: 'warm' is not a number" in words


def test_a_thousand_mistakes_are_not_all_listed(tmp_path: Path) -> None:
    words = refused(csv_file(tmp_path, PLAIN + "x,x,x,x\n" * 1000))
    assert words.count("\n") == 10 and words.endswith("perhaps more")


def test_missing_columns_are_named_beside_those_that_are_there(tmp_path: Path) -> None:
    words = refused(csv_file(tmp_path, "t,I,voltage_v\n0,0,3.7\n"))
    assert "no column time_s, current_a" in words and "t, I, voltage_v" in words and "--map" in words


@pytest.mark.parametrize("text", ["", "\n", "# {}\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, text: str) -> None:
    assert "empty" in refused(csv_file(tmp_path, text))


def test_names_without_rows_are_an_error(tmp_path: Path) -> None:
    assert "a.csv" in refused(csv_file(tmp_path, "time_s,current_a,voltage_v\n"))


def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    assert "column voltage_v is there more than once" in refused(
        csv_file(tmp_path, "time_s,current_a,voltage_v,voltage_v\n")
    )


def test_a_binary_file_is_no_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert "not UTF-8" in refused(str(tmp_path / "a.csv"))


def test_times_with_a_date_become_seconds_since_1970(tmp_path: Path) -> None:
    text = "time,current_a,voltage_v\n2026-11-21T00:00:00.250000000Z,0,3.7\n2026-11-21T00:00:01Z,0,3.7\n"
    found = columns(stores.read(csv_file(tmp_path, text), Rules.parse(["time_s=time"])))
    assert found["time_s"] == [1795219200.25, 1795219201.0]


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("current_a=I_mA*0.001", [0.0, -1.5]),
        ("current_a=-I_mA*0.001", [0.0, 1.5]),
        ("current_a=-I_mA", [0.0, 1500.0]),
        ("current_a = I_mA*1e-3+0.5", [0.5, -1.0]),
        ("current_a=I_mA-273.15", [-273.15, -1773.15]),
    ],
)
def test_a_rule_renames_scales_and_negates(tmp_path: Path, rule: str, values: list[float]) -> None:
    place = csv_file(tmp_path, "time_s,I_mA,voltage_v\n0,0,3.7\n1,-1500,3.7\n")
    assert columns(stores.read(place, Rules.parse([rule])))["current_a"] == pytest.approx(values)


def test_a_whole_column_name_wins_over_arithmetic(tmp_path: Path) -> None:
    place = csv_file(tmp_path, "time_s,I-1,I,voltage_v\n0,7,8,3.7\n")
    assert columns(stores.read(place, Rules.parse(["current_a=I-1"])))["current_a"] == [7.0]


@pytest.mark.parametrize("rule", ["current_a", "amps=I", "current_a="])
def test_an_invalid_rule_is_explained(rule: str) -> None:
    with pytest.raises(StoreError, match="for example current_a=I_mA"):
        Rules.parse([rule])


def test_a_rule_for_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "temperature_degc (from 'T')" in refused(csv_file(tmp_path, PLAIN), Rules.parse(["temperature_degc=T"]))


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([0, 10**9], pa.timestamp("ns", "UTC")),
            "current_a": pa.array([0, -1], pa.int32()),
            "voltage_v": pa.array([3.5, None], pa.float32()),
        }
    )
    pq.write_table(table.replace_schema_metadata({"battfleet": '{"cell": "x"}'}), tmp_path / "a.parquet")
    recording = stores.read(str(tmp_path / "a.parquet"), Rules.parse(["time_s=when"]))
    found = columns(recording)
    assert recording.header == {"cell": "x"}
    assert found["time_s"] == [0.0, 1.0] and found["current_a"] == [0.0, -1.0]
    assert found["voltage_v"][0] == 3.5 and np.isnan(found["voltage_v"][1])


def test_parquet_of_texts_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"time_s": ["a"], "current_a": [0.0], "voltage_v": [3.0]}), tmp_path / "a.parquet")
    assert "column time_s is string" in refused(str(tmp_path / "a.parquet"))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("time_s\n")
    assert "not a Parquet file" in refused(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("place", ["a.csv", "a.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(FileError, match=f"{place}: No such file or directory"):
        stores.read(str(tmp_path / place))


def test_an_unknown_place_lists_the_stores() -> None:
    with pytest.raises(StoreError, match=r"csv, influx, journal, parquet"):
        stores.read("a.xlsx")


def test_a_part_of_a_file_is_what_lies_between_two_times(tmp_path: Path) -> None:
    rows = "".join(f"{k},0,3.7,25\n" for k in range(10))
    place = csv_file(tmp_path, PLAIN.split("\n")[0] + "\n" + rows)
    assert columns(stores.read(place, since_s=3.0, until_s=6.0))["time_s"] == [4.0, 5.0, 6.0]


# ---- results --------------------------------------------------------------------------------------------------------


def results(times: list[float], soc: float = 0.5) -> Results:
    values = np.full(len(times), soc)
    signals = dict.fromkeys(stores.SIGNALS, values) | {"soc_counted": np.full(len(times), np.nan)}
    return Results(np.array(times), signals, "cell@1", "spkf-1")


@given(st.lists(st.floats(0, 2e9), min_size=1, max_size=20, unique=True))
@settings(max_examples=30)
def test_times_come_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, times: list[float]) -> None:
    path = tmp_path_factory.mktemp("out") / "a.csv"
    with stores.writer(str(path)) as writer:
        writer.write(results(sorted(times)))
    assert [float(line.split(",")[0]) for line in path.read_text().splitlines()[1:]] == sorted(times)


def test_a_csv_has_the_documented_columns(tmp_path: Path) -> None:
    with stores.writer(str(tmp_path / "a.csv")) as writer:
        writer.write(results([0.0]))
    assert (tmp_path / "a.csv").read_text() == "time_s,soc,soc_lo,soc_hi\n0.0,0.500000,0.500000,0.500000\n"


def test_a_missing_value_is_an_empty_cell(tmp_path: Path) -> None:
    with stores.writer(str(tmp_path / "a.csv"), all_columns=True) as writer:
        writer.write(results([0.0]))
    head, row = (line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines())
    assert row[head.index("soc_counted")] == "" and head == ["time_s", *stores.SIGNALS]


def test_parquet_results_are_read_back(tmp_path: Path) -> None:
    with stores.writer(str(tmp_path / "a.parquet")) as writer:
        writer.write(results([0.0, 1.0]))
        writer.write(results([2.0], 0.25))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["time_s", "soc", "soc_lo", "soc_hi"]
    assert table["soc"].to_pylist() == [0.5, 0.5, 0.25]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_after_an_error_there_is_no_half_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("of yesterday")
    with pytest.raises(RuntimeError), stores.writer(str(tmp_path / name)) as writer:
        writer.write(results([0.0]))
        raise RuntimeError
    assert (tmp_path / name).read_text() == "of yesterday"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_that_is_not_there_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"), stores.writer(str(tmp_path / "no" / "a.csv")):
        pass


def test_an_appender_continues_where_it_ended_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "live.csv"
    with stores.appender(str(path)) as writer:
        writer.write(results([1.0, 2.0]))
    with path.open("a") as file:
        file.write("3.0,0.5")  # the power failed
    with stores.appender(str(path)) as writer:
        writer.write(results([2.0, 3.0]))
        writer.write(results([3.0, 4.0]))
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["time_s", "1.0", "2.0", "3.0", "4.0"]
    assert len({len(line.split(",")) for line in lines}) == 1


def test_a_parquet_file_cannot_be_added_to(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be added to"):
        stores.appender(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("text", ["# notes\n", PLAIN, "time_s,current_a,voltage_v", "\x89PNG\r\n"])
def test_an_appender_does_not_change_a_file_of_another_kind(tmp_path: Path, text: str) -> None:
    path = Path(csv_file(tmp_path, text))
    before = path.read_bytes()
    with pytest.raises(StoreError, match="has no results"), stores.appender(str(path)):
        pass
    assert path.read_bytes() == before


def test_an_appender_keeps_the_columns_that_a_file_has(tmp_path: Path) -> None:
    path = Path(csv_file(tmp_path, "time_s,soc\n1.0,0.500000\n"))
    with stores.appender(str(path)) as writer:
        writer.write(results([2.0]))
    assert path.read_text().splitlines()[2].count(",") == 1


def test_an_appender_without_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"), stores.appender(str(tmp_path / "no" / "a.csv")):
        pass


# ---- however a text is written --------------------------------------------------------------------------------------

ROWS = "time_s,current_a,voltage_v\n0,0,3.7\n1,-1.5,3.65\n"
EXPECTED = {"time_s": [0.0, 1.0], "current_a": [0.0, -1.5], "voltage_v": [3.7, 3.65]}

WRITTEN = {
    "lines end with a carriage return": ROWS.replace("\n", "\r").encode(),
    "UTF-16, byte order mark": ROWS.encode("utf-16"),
    "UTF-16, little endian": ROWS.encode("utf-16-le"),
    "UTF-16, big endian": ROWS.encode("utf-16-be"),
    "gzip": gzip.compress(ROWS.encode()),
    "gzip of UTF-16": gzip.compress(ROWS.encode("utf-16")),
    "Windows code page": ROWS.replace("voltage_v", "voltage_v,T °C").replace("3.7\n", "3.7,5\n")
    .replace("3.65", "3.65,5").encode("cp1252"),
    "decimal comma": ROWS.replace(",", ";").replace(".", ",").encode(),
    "decimal comma in quotes": b'time_s,current_a,voltage_v\n0,0,"3,7"\n1,"-1,5","3,65"\n',
    "decimal comma after whole numbers": b"time_s;current_a;voltage_v\n" + b"0;0;3,7\n1;-1,5;3,65\n",
    "plus signs": ROWS.replace("0,0,", "+0,+0.0E+00,").encode(),
    "spaces": ROWS.replace(",", " , ").encode(),
    "no last line feed": ROWS.rstrip().encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("standard", [False, True], ids=["file", "standard input"])
def test_a_text_is_read_however_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, standard: bool
) -> None:
    place = tmp_path / "a.csv"
    place.write_bytes(WRITTEN[kind])
    with place.open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert columns(stores.read("-" if standard else str(place))) == EXPECTED
        if not file.closed:
            sys.stdin.detach()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.TSV.gz", "a.csv.gz"])
def test_a_text_is_known_by_its_suffix(tmp_path: Path, name: str) -> None:
    data = ROWS.replace(",", "\t").encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert columns(stores.read(str(tmp_path / name))) == EXPECTED


def test_an_unknown_suffix_is_reported_with_the_option_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(ROWS)
    with pytest.raises(StoreError, match=r"csv:.*a\.log"):
        stores.read(str(tmp_path / "a.log"))
    assert columns(stores.read(f"csv:{tmp_path}/a.log")) == EXPECTED


def test_damaged_gzip_data_is_named(tmp_path: Path) -> None:
    whole = gzip.compress((ROWS + "2,0,3.7\n" * 10_000).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "a.csv.gz: damaged gzip data" in refused(str(tmp_path / "a.csv.gz"))


MOMENTS = [1795219200.25, 1795219201.0]
TIMES = {
    "quoted": '"2026-11-21T00:00:00.25Z",0,3.7\n"2026-11-21T00:00:01Z",0,3.7\n',
    "naive": "2026-11-21T00:00:00.25,0,3.7\n2026-11-21T00:00:01,0,3.7\n",
    "naive and quoted, with a space": '"2026-11-21 00:00:00.25",0,3.7\n"2026-11-21 00:00:01",0,3.7\n',
    "another zone": "2026-11-21T01:30:00.25+01:30,0,3.7\n2026-11-20T23:00:01-01,0,3.7\n",
}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("above", ["", ",0,3.7\n", ",0,3.7\nnull,,\n"], ids=["", "below an empty cell", "below two"])
def test_times_are_read_quoted_naive_and_below_empty_cells(tmp_path: Path, kind: str, above: str) -> None:
    found = columns(stores.read(csv_file(tmp_path, "time_s,current_a,voltage_v\n" + above + TIMES[kind])))
    assert found["time_s"][-2:] == MOMENTS and np.isnan(found["time_s"][:-2]).all()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2026-11-21T00:00:02,0,3.7", "'2026-11-21T00:00:02' is not a time as in the first rows: ISO 8601 with a zone"),
        ("21.11.2026 00:00:02,0,3.7", "is not a time as in the first rows"),
        ("2026-02-30T00:00:02Z,0,3.7", "is not a time: day is out of range"),
        ("1600-01-01T00:00:00Z,0,3.7", "is not a time between 1678 and 2261"),
        ('2026-11-21T00:00:02Z,0,"3,7"', "'3,7' is not a number: a decimal comma, but the first rows have points"),
        ("2026-11-21T00:00:02Z,0,1_0", "voltage_v: '1_0' is not a number"),
        ("2026-11-21T00:00:02Z,0,2026-11-21T00:00:02Z", "is not a number: a time"),
    ],
)
@pytest.mark.parametrize("standard", [False, True], ids=["file", "standard input"])
def test_a_cell_that_does_not_fit_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, words: str, standard: bool
) -> None:
    head = "time_s,current_a,voltage_v\n2026-11-21T00:00:00Z,0,3.7\n2026-11-21T00:00:01Z,0,3.7\n"
    place = csv_file(tmp_path, f"{head}{row}\n")
    if not standard:
        assert f"a.csv:4: {'time_s' if '3.7' in row else 'voltage_v'}: " in refused(place)
        assert words in refused(place)
        return
    with Path(place).open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert "standard input:4: " in refused("-") and "pyarrow" not in refused("-") if not file.closed else True


def test_a_mistake_far_down_in_standard_input_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = csv_file(tmp_path, ROWS + "2,0,3.7\n" * 600_000 + "3,off,3.7\n")
    with Path(place).open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert "standard input:600004: current_a: 'off' is not a number" in refused("-")


# ---- hints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "hints"),
    [
        ("t,I,voltage_v", ["--map time_s=t", "--map current_a=I"]),
        ("time_s,current_a,U", ["--map voltage_v=U"]),
        ("Time [ms],I_mA,U/mV", ["--map 'time_s=Time [ms]*0.001'", "current_a=I_mA*0.001", "voltage_v=U/mV*0.001"]),
        ("time_s,curent_a,voltage_v", ["--map current_a=curent_a"]),
        ("time_s,current_a,pressure", ["--map voltage_v=THEIRS*FACTOR"]),
        ("Battery Current (A),time,cell voltage", ["'current_a=Battery Current (A)'", "'voltage_v=cell voltage'"]),
    ],
)
def test_a_missing_column_s_hint_names_that_column_and_what_may_be_meant(
    tmp_path: Path, names: str, hints: list[str]
) -> None:
    words = refused(csv_file(tmp_path, f"{names}\n0,0,3.7\n"))
    assert all(hint in words for hint in hints), words
    given = {"time_s", "current_a", "voltage_v"} & set(names.split(","))
    assert not any(f"--map {name}" in words for name in given)


def test_a_close_name_is_suggested_for_a_mistyped_one_in_a_rule(tmp_path: Path) -> None:
    place = csv_file(tmp_path, "time_s,I_mA,voltage_v\n0,0,3.7\n")
    assert "did you mean --map 'current_a=-I_mA*0.001'" in refused(place, Rules.parse(["current_a=-i_mA*0.001"]))


@pytest.mark.parametrize(
    ("rule", "name", "unit"),
    [("current_a=I_mA", "I_mA", "ma"), ("time_s=t [min]", "t [min]", "min"), ("temperature_degc=T_K", "T_K", "K"),
     ("current_a=-I_mA", "I_mA", "ma"), ("soc_ref=SOC %", "SOC %", "%")],
)  # fmt: skip
def test_a_mapped_column_named_in_another_unit_gives_a_warning(tmp_path: Path, rule: str, name: str, unit: str) -> None:
    place = csv_file(tmp_path, f"time_s,current_a,voltage_v,{name}\n0,0,3.7,1\n")
    (doubt,) = stores.read(place, Rules.parse([rule])).doubts
    assert f"{name!r} as it is, but that name says {unit}" in doubt and "--map" in doubt
    assert stores.read(place, Rules.parse([rule + "*0.5"])).doubts == []


@pytest.mark.parametrize("name", ["I_A", "current", "U_V", "T [°C]", "b", "mean"])
def test_a_column_named_in_the_expected_unit_or_none_gives_no_warning(tmp_path: Path, name: str) -> None:
    place = csv_file(tmp_path, f"time_s,current_a,voltage_v,{name}\n0,0,3.7,1\n")
    assert stores.read(place, Rules.parse([f"charge_ah={name}"])).doubts == []


@pytest.mark.parametrize(("name", "separator"), [("r.csv.gz", ","), ("r.tsv", "\t"), ("r.tsv.gz", "\t")])
def test_results_are_written_in_the_format_of_their_suffix(tmp_path: Path, name: str, separator: str) -> None:
    with stores.writer(str(tmp_path / name)) as writer:
        writer.write(results([0.0]))
    data = (tmp_path / name).read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    assert text.splitlines()[0].split(separator) == ["time_s", "soc", "soc_lo", "soc_hi"]
