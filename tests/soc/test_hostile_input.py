"""Any content of a file, response or address gives a result or an error that names it, never a traceback."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from soc import stores
from soc.cell import library, toml_file
from soc.errors import SocError
from soc.estimation import service
from soc.identify import experiments
from soc.models.state import StateEstimate
from soc.stores import Rules
from soc.stores._files import parse_header
from soc.stores._influx_http import InfluxConnection
from soc.stores._influx_place import parse as parse_place
from soc.stores._select import instant
from soc.stores.journal import Journals

CASES = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HUGE = "9" * 400
DIGITS = "9" * 5000
DEEP = "[" * 3000 + "]" * 3000

texts = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.one_of(
        st.booleans(), st.integers(), st.just(int(HUGE)), st.floats(), texts, st.none(), st.just("a\0b"),
        st.just([[1.0], [2.0, 3.0]]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip


def kept(read: Callable[[], object]) -> None:
    """Fail on any error of a reader but the expected ones."""
    try:
        read()
    except SocError as error:
        assert len(str(error)) < 20_000


def toml(value: Any) -> str:
    """A TOML value; None becomes text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "nan" if value != value else repr(value).replace("e", "e") if abs(value) != float("inf") else "inf"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(str(value))


# ---- cell files -----------------------------------------------------------------------------------------------------

CELL = library.path_of("lfp_1ah2").read_text(encoding="utf-8")
KEYS = [line.partition(" = ")[0] for line in CELL.splitlines() if " = " in line and not line.startswith(" ")]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("grid = 3", "[grid]: expected a table, got 3"),
        ("ocv = []", "[ocv]: expected a table"),
        ("uncertainty = 1", "[uncertainty]: expected a table"),
        (f"nominal_ah = {HUGE}", "nominal_ah: expected a number"),
        (f"nominal_ah = {DIGITS}", "not TOML"),
        (f"nominal_ah = {DEEP}", "not TOML"),
        (f"nominal_ah = 0x{HUGE * 20}", "nominal_ah: expected a number"),
        ("name = 3", "name: expected text"),
        ("a = 1\n" * 2, "not TOML"),
    ],
)
def test_a_cell_file_of_another_shape_is_explained(tmp_path: Path, section: str, words: str) -> None:
    (tmp_path / "c.toml").write_text(f"format = 1\n{section}\n")
    with pytest.raises(SocError) as caught:
        toml_file.load(tmp_path / "c.toml")
    assert words in str(caught.value) and "c.toml" in str(caught.value)


@CASES
@given(key=st.sampled_from(KEYS), value=values)
@example(key="r_ohm", value=1.0)
@example(key="temperature_degc", value=25)
@example(key="ocv0_v", value=3.0)
@example(key="soc_knots", value=[])
@example(key="r_ohm", value=[])
def test_any_value_of_a_cell_file(tmp_path: Path, key: str, value: Any) -> None:
    lines, skipping = [], False
    for line in CELL.splitlines():
        if line.startswith(f"{key} = "):
            lines.append(f"{key} = {toml(value)}")
            skipping = not line.endswith("]") and ("[" in line or '"""' in line)
            continue
        skipping = skipping and not (line.startswith("]") or line.endswith('"""'))
        lines += [] if skipping or line == "]" else [line]
    (tmp_path / "c.toml").write_text("\n".join(lines))
    kept(lambda: toml_file.load(tmp_path / "c.toml"))


def test_a_file_of_many_megabytes_is_no_cell_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("x = 1\n" * 1_000_000)
    with pytest.raises(SocError, match="is this the right file"):
        toml_file.load(tmp_path / "c.toml")


# ---- experiments ----------------------------------------------------------------------------------------------------

PLAN: dict[str, Any] = {
    "name": "x", "chemistry": "NMC", "nominal_ah": 3.0, "voltage_min_v": 2.8, "voltage_max_v": 4.2,
    "ocv": [{"recording": "a.csv", "temperature_degc": 25}],
    "run": [{"recording": "a.csv", "temperature_degc": 25, "map": {"current_a": "I"}}],
}  # fmt: skip


@CASES
@given(where=st.sampled_from(["", "ocv", "run"]), key=st.text("abcdeflnoprstuvmh_", max_size=12), value=values)
@example(where="", key="ocv", value=3)
@example(where="", key="run", value={"recording": "a.csv"})
@example(where="", key="name", value="../../etc/x")
@example(where="", key="folder", value="/")
@example(where="ocv", key="recording", value=5)
@example(where="ocv", key="recordings", value=[1, 2, 3, 4])
@example(where="run", key="recording", value="a\0b.csv")
@example(where="run", key="map", value={"current_a": "x+" + "1" * 100_000})
@example(where="run", key="map", value={"nobody": "x"})
@example(where="run", key="map", value=7)
@example(where="run", key="soc0", value=int(HUGE))
def test_any_value_of_an_experiments_file(tmp_path: Path, where: str, key: str, value: Any) -> None:
    changed = json.loads(json.dumps(PLAN))
    (changed if where == "" else changed[where][0])[key] = value
    lines = [f"{json.dumps(k)} = {toml(v)}" for k, v in changed.items()]
    (tmp_path / "t.toml").write_text("\n".join(lines))
    kept(lambda: experiments.load(experiments.plan(tmp_path / "t.toml")))


# ---- recordings -----------------------------------------------------------------------------------------------------


def read_all(place: str, rules: Rules | None = None) -> None:
    for _ in stores.read(place, rules).chunks:
        pass


@CASES
@given(data=st.binary(max_size=300))
@example(data=b"time_s,current_a,voltage_v\n" + b'"' * 200_000)
@example(data=b"time_s,current_a,voltage_v\n1,2," + b"3" * 200_000 + b"\n")
@example(data=b"time_s,current_a,voltage_v\n1,2," + b"3" * 5_000_000 + b"\n")
@example(data=b"x" * 3_000_000)
@example(data=b"a," * 200_000 + b"\n1\n")
@example(data=b"#" + DEEP.encode() + b"\n")
@example(data=b'# {"soc0": ' + HUGE.encode() + b"}\ntime_s\n")
@example(data=b'# {"soc0": ' + DIGITS.encode() + b"}\ntime_s\n")
@example(data=b'# {"soc0": NaN}\ntime_s\n')
@example(data=b'# {"cell": "a\\u0000b"}\ntime_s,current_a,voltage_v\n0,0,3\n')
@example(data=b"time_s,current_a,voltage_v\r0,0,3\r")
@example(data=b"\xff\xfet\x00i\x00\x00\xd8")
@example(data=gzip.compress(b"time_s,current_a,voltage_v\n0,0,3\n")[:-4])
@example(data=b"\x1f\x8b\x08")
@example(data=b"time_s,current_a,voltage_v\n9e999,0,3\n")
@example(data=b"time_s,current_a,voltage_v\n" + b"1,2,3\n" * 1000 + b"\xff,1,2\n")
def test_any_bytes_as_csv(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    kept(lambda: read_all(f"{tmp_path}/a.csv"))


cells = st.one_of(
    st.floats().map(str), texts, st.sampled_from(['"', "", "nan", "1,5", "+1", "1e5", "2026-11-21T00:00:00Z", "\t"])
)


@CASES
@given(rows=st.lists(st.lists(cells, min_size=1, max_size=5), max_size=6), separator=st.sampled_from(",;\t"))
def test_any_rows_below_the_names_and_every_error_has_a_line(
    tmp_path: Path, rows: list[list[str]], separator: str
) -> None:
    lines = [separator.join(("time_s", "current_a", "voltage_v")), *(separator.join(row) for row in rows)]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode("utf-8"))
    try:
        read_all(f"{tmp_path}/a.csv")
    except SocError as error:
        first = str(error).splitlines()[0]
        assert first.startswith(f"{tmp_path}/a.csv:") and "CSV conversion error" not in first
        assert first.removeprefix(f"{tmp_path}/a.csv:")[:1].isdigit() or "no rows" in first or "not UTF-8" in first


@CASES
@given(data=st.binary(max_size=200), at=st.integers(0, 5000))
def test_any_damage_in_a_parquet_file(tmp_path: Path, data: bytes, at: int) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array([float(k) for k in range(50)])
    table = pa.table({"time_s": column, "current_a": column, "voltage_v": column})
    pq.write_table(table.replace_schema_metadata({"battfleet": data}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: at % len(whole)] + data + whole[at % len(whole) + len(data) :])
    kept(lambda: read_all(str(path)))


def test_a_column_twice_in_a_parquet_file_is_an_error(tmp_path: Path) -> None:
    column = pa.array([1.0])
    names = ["time_s", "current_a", "voltage_v", "voltage_v"]
    pq.write_table(pa.Table.from_arrays([column] * 4, names=names), tmp_path / "a.parquet")
    with pytest.raises(SocError, match="voltage_v is there more than once"):
        read_all(f"{tmp_path}/a.parquet")


@CASES
@given(text=st.text(max_size=60))
@example(text="{" * 5000)
@example(text=f'{{"soc0": 1e{HUGE}}}')
def test_any_header(text: str) -> None:
    kept(lambda: parse_header(text, "a.csv:1"))


@CASES
@given(text=st.text(max_size=40))
@example(text="current_a=" + "x+" + "1" * 120_000)
@example(text="current_a=I*" + HUGE)
@example(text="current_a=" + "-" * 120_000)
def test_any_rule(text: str) -> None:
    kept(lambda: Rules.parse([text]).resolve(["time_s", "I", "U"], "a.csv"))


# ---- places, answers, lines, beliefs --------------------------------------------------------------------------------


@CASES
@given(tail=st.text(max_size=40), scheme=st.sampled_from(["influx:", "influx:http://h/d?", "journal:", "csv:", ""]))
@example(scheme="influx:", tail="http://[::1/bat")
@example(scheme="influx:", tail="http://h:99999/bat")
@example(scheme="influx:", tail="http://h:x/bat")
@example(scheme="influx:http://h/d?", tail="from=9e999")
@example(scheme="influx:http://h/d?", tail="from=nan")
@example(scheme="influx:http://h/d?", tail=f"to=-{HUGE}d")
@example(scheme="influx:http://h/d?", tail="voltage_age_s=inf")
@example(scheme="influx:http://h/d?", tail="token_file=a%00b")
@example(scheme="", tail="a\0b.csv")
@example(scheme="", tail="a\0b.parquet")
def test_any_place(scheme: str, tail: str) -> None:
    kept(lambda: stores.read(scheme + tail))
    kept(lambda: stores.local_files(scheme + tail))


@CASES
@given(word=st.one_of(st.text(max_size=20), st.floats().map(str), st.datetimes().map(str)))
@example(word="0001-01-01T00:00:00+14:00")
@example(word="9999-12-31T23:59:59-14:00")
def test_any_instant(word: str) -> None:
    kept(lambda: instant(word, "place"))


@CASES
@given(answer=values)
@example(answer=[])
@example(answer={"results": 3})
@example(answer={"results": [{"series": [{"values": 3}]}]})
@example(answer={"results": [{"series": [{"tags": [], "values": []}]}]})
def test_any_answer_of_a_server(answer: Any) -> None:
    server = InfluxConnection(parse_place("influx:http://127.0.0.1:1/bat"))
    line = json.dumps(answer).encode()
    kept(lambda: list(server._series(line, "SELECT")))


@CASES
@given(line=st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60))
@example(line="battery,device=t7 current_a=1-2 5")
@example(line="battery,device=t7 current_a=1 " + DIGITS)
@example(line="battery,device current_a=1 5")
@example(line="battery,device=t7 current_a=1")
def test_any_line_of_an_export(line: str) -> None:
    from soc.stores._select import Group

    journals = Journals(Path("x"), "journal:x")
    kept(lambda: list(journals._points(iter([line]), Group("battery", ()), ("current_a",))))  # type: ignore[arg-type]


BELIEF: dict[str, Any] = {
    "format": 1, "filter": "spkf", "model": "m@1", "states": ["i_r1", "h", "z"],
    "mean": [0.0, 0.0, 0.5], "cov": [1e-6, 0, 0, 0, 0.3, 0, 0, 0, 0.01], "memory": [None] * 33,
}  # fmt: skip


@CASES
@given(key=st.sampled_from(list(BELIEF)), value=values)
@example(key="states", value=["a", "b", "c"])
@example(key="states", value=3)
@example(key="mean", value=[0.0, int(HUGE), 0.0])
@example(key="cov", value=[-1.0] * 9)
@example(key="filter", value=[])
def test_any_stored_belief(tmp_path: Path, key: str, value: Any) -> None:
    assert StateEstimate.from_dict(BELIEF)["z"] == 0.5
    stored = {"format": 1, "beliefs": {"spkf": {**BELIEF, key: value}}}
    (tmp_path / "b.json").write_text(json.dumps(stored))

    def resumed() -> None:
        for belief in service.load(tmp_path / "b.json").values():
            assert belief.sd("z") >= 0.0 and belief["z"] == belief["z"]

    kept(resumed)


@CASES
@given(data=st.binary(max_size=80))
@example(data=DEEP.encode())
@example(data=DIGITS.encode())
def test_any_bytes_as_a_stored_belief(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.json").write_bytes(data)
    kept(lambda: service.load(tmp_path / "b.json"))


def test_a_secret_that_is_no_text_is_explained(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(base64.b64decode("/w=="))
    with pytest.raises(SocError, match="expected one line of UTF-8 text"):
        stores.read(f"influx:http://h/bat?token_file={tmp_path}/token")
