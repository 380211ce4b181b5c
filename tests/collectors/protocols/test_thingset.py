"""ThingSet text mode: published lines and checksums; noise, cut lines and wrong bits never become data."""

from __future__ import annotations

import json
import tomllib
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import BadChecksum, FrameError
from collectors.fakes.libresolar_mppt import FAKE
from collectors.protocols import thingset
from collectors.protocols.thingset import GENERATIONS, Generation, Other, Publication, Reader, Response
from tests.testing.conformance import FRAMES

FILES = {g: tomllib.loads((FRAMES / "libresolar_mppt" / f"generation-{g}.toml").read_text()) for g in GENERATIONS}
LINES = [(g, line) for g, content in FILES.items() for line in content.get("line", ())]
PUBLICATIONS = [(g, line) for g, content in FILES.items() for line in content.get("publication", ())]
every_line = pytest.mark.parametrize(("generation", "line"), LINES, ids=[f"{g} {line['request']}" for g, line in LINES])
modest = settings(max_examples=100, deadline=None, derandomize=True)

names = st.text(st.characters(codec="ascii", min_codepoint=0x30, max_codepoint=0x7A), min_size=1, max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
objects = st.dictionaries(names, scalars | st.dictionaries(names, scalars, max_size=3), max_size=6)


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def with_check(text: str) -> str:
    return f"{text} {zlib.crc32(text.encode()):08X}"


# published lines


@every_line
def test_a_published_response_has_its_documented_meaning(generation: Generation, line: Mapping[str, Any]) -> None:
    found = thingset.parse(line["response"].encode())
    assert isinstance(found, Response)
    assert found.code == line["code"]
    assert found.has_payload == ("payload" in line or line.get("missing", False))
    assert found.payload == line.get("payload")
    assert found.checked == line.get("checked", False)
    assert generation in thingset.generations(found)
    assert found.ok == (line["code"] in (0, 0x81, 0x83, 0x84, 0x85))
    assert line["response"].startswith(found.status[:3])


@pytest.mark.parametrize(("generation", "line"), [(g, line) for g, line in LINES if "build" in line])
def test_requests_are_built_as_published(generation: Generation, line: Mapping[str, Any]) -> None:
    verb, *arguments = line["build"]
    built = thingset.execute(*arguments) if verb == "execute" else getattr(thingset, verb)(generation, *arguments)
    assert built == line["request"].encode() + b"\n"


@pytest.mark.parametrize(("generation", "line"), [(g, line) for g, line in LINES if line.get("fake")])
def test_the_fake_answers_as_published(generation: Generation, line: Mapping[str, Any]) -> None:
    fake = FAKE.make(lambda _: {}, FAKE.options(generation=generation, debug_text=False))
    (out,) = fake.receive(line["request"].encode() + b"\n", 0.0)
    found = thingset.parse(out.data.removesuffix(b"\n"))
    assert isinstance(found, Response)
    assert found.code == line["code"]
    assert type(found.payload) is type(line.get("payload"))
    if isinstance(found.payload, list):
        assert found.payload == line["payload"]


@pytest.mark.parametrize(("generation", "line"), PUBLICATIONS)
def test_a_published_publication_is_flat(generation: Generation, line: Mapping[str, Any]) -> None:
    found = thingset.parse(line["text"].encode())
    assert isinstance(found, Publication)
    assert (found.path, dict(found.values)) == (line["path"], line["values"])
    assert found.checked == line.get("checked", False)
    assert generation in thingset.generations(found)


def test_a_mixed_stream_is_split_into_its_messages() -> None:
    stream = b'Received Request (15 bytes): ?output "Bat_V"\n# {"Uptime_s":11,"Bat_V":12.80}\n:85 Content. 12.80\n'
    noise, publication, response = [message for _, message in thingset.messages([stream])]
    assert isinstance(noise, Other)
    assert noise.kind == "noise"
    assert publication == Publication(None, {"Uptime_s": 11, "Bat_V": 12.8})
    assert response == Response(133, "Content", 12.8, True)


# kinds of lines


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"", "empty"),
        (b"\r", "empty"),
        (b"\x00\xff\x80", "empty"),
        (b"?output", "echo"),
        (b"=conf {}", "echo"),
        (b"@node {}", "echo"),
        (b"[00:00:01] <inf> main: started", "noise"),
        (b'at":12.80}', "noise"),
        (b'Sent # {"Bat_V":12.80}', "noise"),
        (b"\xc3\xa4\xff", "empty"),
    ],
)
def test_a_line_without_data_is_no_error(line: bytes, kind: str) -> None:
    found = thingset.parse(line)
    assert isinstance(found, Other)
    assert found.kind == kind


@pytest.mark.parametrize(
    "line",
    [
        b":",
        b":GG Content.",
        b":7F",
        b":45 Unknown.",
        b":85 Content. {",
        b":85 Content. [1,]",
        b':85 Content. "a" "b"',
        b":12.80,",
        b"#",
        b"# [1]",
        b"# 12.8",
        b'# {"a":1',
        b'#serial{"a":1}',
        b'# {"a\xff":1}',
        b"# " + b'{"a":' * 900 + b"1" + b"}" * 900,
        b":85 Content. " + b"[" * 1900,
    ],
)
def test_a_garbled_line_is_an_error(line: bytes) -> None:
    with pytest.raises(FrameError):
        thingset.parse(line)


def test_missing_numbers_are_none_and_words_in_text_stay() -> None:
    found = thingset.parse(b'# {"a":nan,"b":-inf,"c":inf,"d":null,"e":"nan","f":NaN,"g":1e999,"h":-nan,"info":1}')
    assert isinstance(found, Publication)
    assert [found.values[k] for k in "abcdfgh"] == [None] * 7
    assert found.values["e"] == "nan"
    assert found.values["info"] == 1


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a/b":1,"a":{"b":2}}'])
def test_a_member_that_comes_twice_is_counted_and_the_last_one_kept(text: str) -> None:
    found = thingset.parse(f"#x {text}".encode())
    assert isinstance(found, Publication)
    assert list(found.values.values()) == [2]
    assert found.duplicates == 1


def test_a_node_may_follow_the_code_in_0_6() -> None:
    found = thingset.parse(b":85/ABCD1234 true")
    assert found == Response(0x85, "", True, True, "ABCD1234")
    assert thingset.generations(found) == {"0.6"}


@pytest.mark.parametrize(("codes", "decimal"), [(thingset.STATUS, False), (thingset.STATUS_0_2, True)])
def test_every_status_is_read_back(codes: Mapping[int, str], decimal: bool) -> None:
    for code, phrase in codes.items():
        found = thingset.parse(f":{code if decimal else format(code, '02X')} {phrase}.".encode())
        assert found == Response(code, phrase)
        assert isinstance(found, Response)
        assert found.is_decimal == decimal
        assert found.status.endswith(phrase)


# checksums


@modest
@given(objects)
def test_a_right_checksum_is_taken_off(values: dict[str, Any]) -> None:
    text = f"#serial {dump(values)}"
    plain, checked = thingset.parse(text.encode()), thingset.parse(with_check(text).encode())
    assert isinstance(plain, Publication)
    assert isinstance(checked, Publication)
    assert checked.checked
    assert checked.values == plain.values
    assert thingset.parse(with_check(text).encode() + b"#\r") == checked


def test_no_wrong_bit_in_a_checked_line_becomes_data() -> None:
    line = b'#mReport {"t_s":12345678,"rBat_V":14.10,"rBat_A":5.13,"rAmbient_degC":22} C6BB8C1E'
    truth = thingset.parse(line)
    for bit in range(8 * line.index(b" C6BB")):
        wrong = (int.from_bytes(line, "big") ^ 1 << (8 * len(line) - 1 - bit)).to_bytes(len(line), "big")
        try:
            found = thingset.parse(wrong)
        except FrameError:
            continue
        assert isinstance(found, Other) or found == truth


@pytest.mark.parametrize(
    "text", ['# {"a":1} 00000000', ":85 Content. [1] 00000000", ':A3 "no" 00000000', ":85 12 00000000#"]
)
def test_a_wrong_checksum_is_named(text: str) -> None:
    with pytest.raises(BadChecksum, match="00000000"):
        thingset.parse(text.encode())


def test_eight_digits_of_their_own_are_a_number() -> None:
    assert thingset.parse(b":85 Content. 12345678") == Response(0x85, "Content", 12345678, True)
    assert thingset.parse(with_check(":85 Content. 12345678").encode()) == Response(
        0x85, "Content", 12345678, True, checked=True
    )


# how bytes arrive


@modest
@given(objects, st.sampled_from(["#", "#serial", "#/node/mLive_"]), st.sampled_from([b"\n", b"\r\n"]))
def test_dumped_data_are_read(values: dict[str, Any], head: str, end: bytes) -> None:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}/{n}": v for n, v in value.items()} if isinstance(value, dict) else {name: value}
    line = f"{head} {dump(values)}".encode() + end
    found = thingset.cut(line + b"# {}")
    assert found is not None
    assert found.used == len(line)
    assert found.payload.values == flat
    for length in range(len(line)):
        assert thingset.cut(line[:length]) is None


@modest
@given(
    st.lists(st.sampled_from([b'# {"a":1}\n', b":85 Content. 2\n", b"\n", b"debug\r\n", b"# {\n"]), max_size=8),
    st.data(),
)
def test_messages_do_not_depend_on_how_a_stream_is_split(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    def shown(chunks: list[bytes]) -> list[str]:
        return [f"{text} {message!r}" for text, message in thingset.messages(chunks)]

    assert shown(pieces) == shown([stream]) == shown([stream[i : i + 1] for i in range(len(stream))])


def test_a_line_without_end_is_dropped_whole() -> None:
    with pytest.raises(FrameError) as error:
        thingset.cut(b"x" * (thingset.MAX_LINE + 1))
    assert error.value.drop == thingset.MAX_LINE + 1


def test_a_garbled_line_is_dropped_with_its_end() -> None:
    with pytest.raises(BadChecksum) as error:
        thingset.cut(b'# {"a":1} 00000000\n# {}\n')
    assert error.value.drop == 19


def test_a_capture_that_ends_within_a_line_is_an_error() -> None:
    (text, message), *rest = thingset.messages([b'# {"a":', b"1}"])
    assert (text, rest) == ('# {"a":1}', [])
    assert isinstance(message, FrameError)


@modest
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_messages_or_errors(chunks: list[bytes]) -> None:
    for _, message in thingset.messages(chunks):
        assert isinstance(message, Response | Publication | Other | FrameError)


def test_a_response_received_before_the_request_is_not_its_response() -> None:
    reader = Reader()
    reader.asks()
    first = reader.cut(b":85 Content. 1\n:85 Content. 2\n# {}\n")
    assert first is not None
    assert first.payload.payload == 1
    reader.asks()
    late = reader.cut(b":85 Content. 2\n# {}\n")
    assert late is not None
    assert isinstance(late.payload, Other)
    kept = reader.cut(b"# {}\n:85 Content. 3\n")
    assert kept is not None
    assert isinstance(kept.payload, Publication)
    answer = reader.cut(b":85 Content. 3\n")
    assert answer is not None
    assert answer.payload.payload == 3


def test_after_a_flush_nothing_is_late() -> None:
    reader = Reader()
    assert reader.cut(b":85 Cont") is None
    reader.asks(flush=True)
    answer = reader.cut(b":85 Content. 1\n")
    assert answer is not None
    assert isinstance(answer.payload, Response)


# requests


@pytest.mark.parametrize("path", ["a b", "a\n", "ä"])
def test_an_ambiguous_path_is_rejected(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        thingset.get("0.3", path)


def test_a_request_fits_the_devices_buffer() -> None:
    with pytest.raises(ValueError, match="500 bytes"):
        thingset.fetch("0.3", "output", ["x" * 20] * 30)


def test_names_and_members_are_requested_in_the_syntax_of_the_generation() -> None:
    assert thingset.names("0.6", "Battery") == b"?Battery null\n"
    assert thingset.get("0.2", "rec") == b"!rec {}\n"
    assert thingset.delete("0.3", "pub/serial/IDs", "Bat_W") == b'-pub/serial/IDs "Bat_W"\n'
    with pytest.raises(ValueError, match=r"0\.2"):
        thingset.create("0.2", "pub", "Bat_W")
