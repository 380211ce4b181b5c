"""Any content of a capture, a link, a configuration or a recording gives a result or a message, never a traceback.

Work is bounded without a clock: lines and pieces have a maximum length, and the bytes that the parsers read are
counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors import config, devices, transports
from collectors.bench import replay
from collectors.cli import cli
from collectors.cli.decode import PIECE_BYTES
from collectors.devices import ea_el3000a, ea_el3000b
from collectors.devices._ea import telegram
from collectors.devices.labjack_t7 import capture
from collectors.errors import CollectorError, ConfigError, FrameError
from collectors.protocols import thingset
from collectors.reading import Event, Reading
from tests.testing.conformance import FRAMES, all_cases
from tests.testing.mppt import scripted

every_kind = pytest.mark.parametrize("kind", devices.KINDS)
modest = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

NINES = "9" * 400
hostile_numbers = st.sampled_from(
    [NINES, f"-{NINES}", f"{NINES}.5", f"1e{NINES}", "1e999", "nan", "-inf", "0x" + NINES]
)
hostile_text = st.sampled_from(
    ["\ud800", "\x00", "\x1b[2J", "\r", "\u2028", '"', "\\", "\\ud800", "[" * 3000, "{" * 3000]
)
tokens = st.one_of(
    hostile_numbers,
    hostile_text,
    st.text(max_size=8),
    st.sampled_from(
        [
            *(
                "# ",
                "#serial ",
                ":85 Content. ",
                ":85 ",
                "?output ",
                "thingset ?",
                '{"Bat_V":',
                "}",
                "[",
                "]",
                ",",
                ":",
            ),
            *("MEAS:ARR? -> ", "BATT:TEST?\n", "12.5V, ", "Ah, Wh, ", ":00:00", "-> ", "→", "\n", "\r\n", " ", "V"),
            *("85 01 47 ", "00 01 00 00 00 06 01 03 ", "uart:~$ ", "\x1b[1;32m"),
        ]
    ),
)
texts = st.lists(tokens, max_size=12).map("".join)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def frames_of(kind: str) -> list[bytes]:
    """Return some frames of the kind, to be damaged."""
    exchanges = [e for case in all_cases() if case.kind == kind for e in (*case.opening, *case.exchanges)]
    return list(dict.fromkeys(frame for e in exchanges for frame in (e.ask, e.reply) if frame))


FRAMES_OF = {kind: frames_of(kind) for kind in devices.KINDS}


def call(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Return exit code and standard output of a command; a traceback is a failure."""
    result = CliRunner().invoke(cli, arguments, input=stdin)
    if isinstance(result.exception, CollectorError):
        return result.exception.exit_code, result.stdout
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in filter(None, text.split("\n")):
        json.loads(line, parse_constant=refuse)
    return True


# captures


@every_kind
@modest
@given(text=texts, raw=st.booleans())
def test_any_text_is_decoded_or_an_error(kind: str, text: str, raw: bool) -> None:
    code, stdout = call("decode", kind, *(["--raw"] if raw else []), stdin=encoded(text))
    assert code in (0, FrameError.exit_code)
    assert is_json(stdout)


@every_kind
@modest
@given(data=st.data())
def test_any_damage_to_frames_is_decoded_or_an_error(kind: str, data: st.DataObject) -> None:
    frames = data.draw(st.lists(st.sampled_from(FRAMES_OF[kind]), min_size=1, max_size=4))
    capture = bytearray(b"".join(frames))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(capture) - 1))
        capture[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3) | texts.map(encoded))
        capture = capture or bytearray(b"x")
    code, stdout = call("decode", kind, "--raw", stdin=bytes(capture))
    assert code in (0, FrameError.exit_code)
    assert is_json(stdout)


LONG: dict[str, Callable[[int], bytes]] = {
    "one line": lambda n: b"A" * n,
    "zeros": lambda n: bytes(n),
    "ones": lambda n: b"\xff" * n,
    "digits": lambda n: b"9" * n,
    "quotes": lambda n: b'# {"a":' + b'\\"' * (n // 2),
    "open strings": lambda n: b'# {"' * (n // 4),
    "deep": lambda n: b"# " + b'{"a":' * (n // 5),
    "blanks": lambda n: b"1V" + b" " * n + b"x",
    "arrows": lambda n: b"MEAS:VOLT? " + b"->" * (n // 2),
    "questions": lambda n: b"a?" * (n // 2),
    "prompts": lambda n: b"uart:~$ " * (n // 8),
    "codes": lambda n: b"\x1b[" * (n // 2),
    "telegram starts": lambda n: b"\x8f" * n,
    "modbus heads": lambda n: b"\0\1\0\0\0\6\1" * (n // 7),
    "stream heads": lambda n: bytes.fromhex("00 00 00 00 ff fe 01 4c 10") * (n // 9),
    "empty lines": lambda n: b"\n" * n,
}


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes that the parsers are given."""
    given_bytes: list[int] = []

    def counting(function: Callable[..., Any], argument: int = 0) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            given_bytes.append(len(arguments[argument]))
            return function(*arguments)

        return counted

    monkeypatch.setattr(thingset, "parse", counting(thingset.parse))
    monkeypatch.setattr(ea_el3000a, "take", counting(telegram.take))
    monkeypatch.setattr(ea_el3000b, "_describe", counting(ea_el3000b._describe, 1))
    monkeypatch.setattr(capture.Capture, "take", counting(capture.Capture.take, 1))
    return given_bytes


def in_pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))


@pytest.mark.parametrize("make", LONG.values(), ids=LONG.keys())
@every_kind
def test_work_grows_linearly_with_the_capture(kind: str, make: Callable[[int], bytes], looked_at: list[int]) -> None:
    work = []
    for size in (20_000, 80_000):
        looked_at.clear()
        records = list(devices.load(kind).decode(in_pieces(make(size))))
        assert len(records) <= size + 1
        work.append((sum(looked_at), max(looked_at, default=0)))
    (few, longest), (many, _) = work
    assert many <= max(5 * few + 100_000, 25 * 80_000)
    assert longest <= 70_000, "what one step looks at is bounded"


def test_lines_of_text_are_cut_before_they_are_matched(looked_at: list[int]) -> None:
    for kind, most in (("libresolar_mppt", thingset.MAX_LINE + 1), ("ea_el3000b", 2 * ea_el3000b.LINE_BYTES)):
        for make in LONG.values():
            looked_at.clear()
            list(devices.load(kind).decode([make(100_000), b"\n"]))
            assert max(looked_at, default=0) <= most


# payloads

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("Bat_V", "Bat_A", "SOC_pct", "Uptime_s", "LoadEn", "ChgState", "ErrorFlags", "x")


@modest
@given(st.dictionaries(st.sampled_from(NAMES), json_values), st.booleans())
def test_any_payload_of_a_charger_becomes_numbers_or_events(members: dict[str, Any], surrogates: bool) -> None:
    text = json.dumps(members, ensure_ascii=True)
    text = text.replace('"x"', '"x\\ud800"') if surrogates else text
    rig = scripted({}, [f"# {text}\n".encode()], extra_period_s=0.0)
    try:
        outputs = rig.open().poll()
    except CollectorError:
        return
    for output in outputs:
        if isinstance(output, Event):
            output.detail.encode()
        else:
            assert isinstance(output, Reading)
            assert all(value is None or abs(value) < 1e300 for value in output.values.values())


# links and configurations

links = st.one_of(
    st.text(),
    st.tuples(st.sampled_from(["serial:", "tcp:", "ljm:", "ljm:USB:", "tcp:["]), texts | st.text()).map("".join),
    st.tuples(st.sampled_from(["serial:/dev/x?baud=", "tcp:h:", "tcp:h?stream=", "ljm:ANY:1?tcp="]), texts).map(
        "".join
    ),
)


@every_kind
@modest
@given(link=links)
def test_any_link_is_taken_or_refused(kind: str, link: str) -> None:
    problems = transports.check(link, devices.load(kind))
    assert all(problem.startswith("link: ") for problem in problems)


toml_values = st.one_of(
    hostile_numbers,
    st.sampled_from(['"text"', '"a\\u0000b"', "[]", "[[]]", "{}", "{a = 1}", "true", "0.5", "-1", "1979-05-27", "nan"]),
    st.text(max_size=5),
)


@st.composite
def toml_files(draw: st.DrawFn, kind: str) -> str:
    """Return something like a configuration, with some keys wrong."""
    device = devices.load(kind)
    keys = st.sampled_from(
        [
            *("name", "bench", "kind", "link", "period_s", "state_dir", *device.options.__dataclass_fields__),
            *("channels", "scaling", "hall", "range", "input", "signal", "flush_s", "x"),
        ]
    )
    lines = [f'[collector]\nname = "x"\nbench = "b"\nkind = "{kind}"\nlink = "tcp:192.0.2.1"']
    for head in draw(
        st.lists(st.sampled_from(["device", "journal", "[device.channels]", "x", "collector"]), max_size=3)
    ):
        lines.append(f"[{head}]")
        lines += [f"{key} = {draw(toml_values)}" for key in draw(st.lists(keys, unique=True, max_size=4))]
    return "\n".join(lines)


@every_kind
@modest
@given(data=st.data())
def test_any_configuration_is_taken_or_refused_by_name(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(encoded(data.draw(toml_files(kind))))
    try:
        config.load(path)
    except ConfigError as error:
        assert 1 <= len(error.problems) < 60
        assert all(str(path) in problem and len(problem) < 2000 for problem in error.problems)
    code, _ = call("check", str(path))
    assert code in (0, 78)


@modest
@given(st.binary(max_size=200) | texts.map(encoded))
def test_any_file_is_a_configuration_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        config.load(path)


@pytest.mark.parametrize("read", [config.read_toml, config.load, replay.read])
def test_a_path_with_nul_is_refused(read: Callable[[Path], Any]) -> None:
    with pytest.raises(ConfigError):
        read(Path("a\0b"))


# recordings

HEADER = '"Time","Bat_A mppt","Bat_V mppt"'
cells = st.one_of(hostile_numbers, st.sampled_from(["1000", "2000", "1", "-1.5", "", '"', "1e5", "1e6"]), texts)


@modest
@given(st.lists(st.lists(cells, min_size=1, max_size=4), max_size=5), st.sampled_from([HEADER, "", "Time,x", "\x00"]))
def test_any_recording_is_read_or_refused(tmp_path: Path, rows: Sequence[Sequence[str]], header: str) -> None:
    path = tmp_path / "bench.csv"
    path.write_bytes(encoded("\n".join([header, *(",".join(row) for row in rows)])))
    try:
        recording = replay.read(path)
    except ConfigError as error:
        assert all(str(path) in problem and len(problem) < 2000 for problem in error.problems)
    else:
        values = [v for row in recording.rows for of_one in row.values() for v in of_one.values()]
        assert values and all(abs(value) < replay.MOST_VALUE for value in values)


@pytest.mark.parametrize(
    "line", [f"{NINES},1,1", f"{'9' * 5000},1,1", f"1000,{'9' * 5000},1", f"1000,1,{'x' * 5000}", "1000,1e6,1"]
)
def test_a_hostile_cell_is_named_and_cut_short(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bench.csv"
    path.write_text(f"{HEADER}\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        replay.read(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}:2: column ")
    assert len(problem) < 300


def test_a_column_of_very_long_name_is_refused_before_it_is_matched(tmp_path: Path) -> None:
    path = tmp_path / "bench.csv"
    path.write_text("Time," + "Bat_voltage 47" * 8000 + "\n1000,1\n")
    with pytest.raises(ConfigError, match=r":1: column 2: a name of more than 1000 characters"):
        replay.read(path)


def test_every_case_is_among_the_frames_that_are_damaged() -> None:
    assert all(FRAMES_OF.values())
    assert FRAMES.exists()
