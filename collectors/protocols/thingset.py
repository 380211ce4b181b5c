r"""ThingSet text mode: decodes lines to messages and encodes requests, for any device that uses it. No I/O.

    response      :0 Success. 12.91            0.2            decimal code and phrase
                  :85 Content. {"Bat_V":12.9}  0.3 to 0.5     hexadecimal code and phrase
                  :85 [12.9]                   0.6            no phrase; "/node" may follow the code
    publication   # {"Bat_V":12.9}             0.2 and 0.3
                  #serial {"Bat_V":12.9}       0.4 and 0.5    0.5 may nest objects: keys are joined with "/"
                  #mLive_ {…}                  0.6
    checksum      a space and the CRC-32 in 8 hexadecimal digits may end a line (also a request); 0.6 appends "#"
    shell         thingset ?Battery [\"rVoltage_V\"]   a request as a command of Zephyr's shell, which echoes it;
                  prompts, colour codes and log lines surround the line of the response

A line ends with LF or CR LF. Its first byte determines its kind. A line that is neither response, publication nor
request is debug text of the device and not an error. An empty line is legal. A response names neither path nor request.
Source: docs/protocols/libresolar_mppt.md, sections 1 to 4; ThingSet specification 0.1 to 0.6 and device library.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from collectors.errors import BadChecksum, FrameError
from collectors.protocols.dialogue import Cut

Generation = Literal["0.2", "0.3", "0.4", "0.5", "0.6"]
GENERATIONS: tuple[Generation, ...] = ("0.2", "0.3", "0.4", "0.5", "0.6")

Json = Any
"""A payload: None (missing), bool, int, float, str, or a list or dict of these."""

MAX_LINE = 2048
"""Maximum line length in bytes: twice the transmit buffer of a charge controller; a longer line is garbage."""
MAX_DEPTH = 8
"""Maximum nesting of lists and objects; devices nest one or two levels."""
MAX_REQUEST = 500
"""Maximum length of a request in bytes: the smallest receive buffer among the generations."""
COMMAND = "thingset "
MAX_COMMAND = 255
"""Maximum length in bytes of a command line of Zephyr's shell in its usual configuration, without the line end."""

STATUS_0_2: Mapping[int, str] = {
    0: "Success",
    32: "Error",
    33: "Unknown function",
    34: "Data object not found",
    35: "Wrong format",
    36: "Data type not supported",
    37: "Device busy",
    38: "Unauthorized",
    39: "Request too long",
    40: "Response too long",
    41: "Invalid or too large value",
    42: "Wrong category",
    43: "Wrong password",
    44: "Unsupported request",
}
STATUS: Mapping[int, str] = {
    0x81: "Created",
    0x82: "Deleted",
    0x83: "Valid",
    0x84: "Changed",
    0x85: "Content",
    0xA0: "Bad Request",
    0xA1: "Unauthorized",
    0xA3: "Forbidden",
    0xA4: "Not Found",
    0xA5: "Method Not Allowed",
    0xA8: "Request Incomplete",
    0xA9: "Conflict",
    0xAD: "Request Too Large",
    0xAF: "Unsupported Content-Format",
    0xC0: "Internal Server Error",
    0xC1: "Not Implemented",
    0xC4: "Gateway Timeout",
    0xC5: "Not a Gateway",
    0xE1: "Error",
}
CONTENT, NOT_FOUND, UNAUTHORIZED = 0x85, 0xA4, 0xA1
FIRST_ERROR = 0xA0


@dataclass(frozen=True, slots=True)
class Response:
    """A response. `payload` is None for null and for a missing payload; `has_payload` distinguishes the two."""

    code: int
    """The status code's number: decimal in 0.2, else hexadecimal, so ":85" is 0x85 = 133."""
    phrase: str
    """The status phrase without its full stop; "" in 0.6."""
    payload: Json = None
    has_payload: bool = False
    node: str = ""
    duplicates: int = 0
    """Number of repeated members of the payload; the last value counts."""
    checked: bool = False
    """Whether the line had a checksum (a wrong one is an error)."""

    @property
    def is_decimal(self) -> bool:
        """Return whether the code is one of generation 0.2."""
        return self.code < 0x80

    @property
    def ok(self) -> bool:
        """Return whether the request succeeded."""
        return self.code == 0 if self.is_decimal else self.code < FIRST_ERROR

    @property
    def status(self) -> str:
        """Return code and phrase in the format of the wire, for messages, for example ":A4 Not Found"."""
        known = (STATUS_0_2 if self.is_decimal else STATUS).get(self.code, "unknown code")
        return f":{self.code if self.is_decimal else format(self.code, '02X')} {self.phrase or known}"


@dataclass(frozen=True, slots=True)
class Publication:
    """A message that the device sends without a request."""

    path: str | None
    values: Mapping[str, Json]
    """Flat: members of nested objects are named "outer/inner"."""
    nested: bool = False
    duplicates: int = 0
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Other:
    """A line that carries no data."""

    kind: Literal["noise", "empty", "echo"]
    """Debug text; an empty line; a request (in a capture of both directions, or echoed by a terminal)."""
    text: str
    from_shell: bool = False
    """Whether a shell's prompt preceded it."""


Message = Response | Publication | Other


def generations(message: Message) -> frozenset[Generation]:
    """Return the generations in which a message of this form can occur; empty for lines without data."""
    if isinstance(message, Response):
        if message.is_decimal:
            return frozenset({"0.2"})
        return frozenset({"0.3", "0.4", "0.5"}) if message.phrase else frozenset({"0.6"})
    if isinstance(message, Publication):
        if message.path is None:
            return frozenset({"0.2", "0.3"})
        if message.path.startswith("/") or message.path.endswith("_"):
            return frozenset({"0.6"})
        return frozenset({"0.5"}) if message.nested else frozenset({"0.4", "0.5"})  # mReport as well as serial
    return frozenset()


# ---- lines to messages ---------------------------------------------------------------------------------------------

_CHECK = re.compile(r" ([0-9A-F]{8})(#?)$")
_RESPONSE = re.compile(
    r":(?P<code>[0-9A-F]{1,2})(?:/(?P<node>\S+))?"
    r"(?: (?P<phrase>[A-Za-z][A-Za-z0-9 -]*)\.)?"
    r"(?: (?P<json>.+))?"
)
_PUBLICATION = re.compile(r"#(?P<path>\S*) (?P<json>\{.*)")
_BARE_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b(?:nan|inf)\b', re.IGNORECASE)
_REQUEST = re.compile(r"[?=+!@-](?:[A-Za-z_./]| )")
"""A verb followed by a path, or by a payload for the root. A verb alone is ambiguous."""
SHELL_PROMPT = re.compile(rb"[A-Za-z][\w-]{0,30}:~\$ ?")
"""The prompt of Zephyr's shell, by default "uart:~$ "."""
_TERMINAL_CODE = rb"\x1b(?:\[[0-9;?]{0,16}[A-Za-z]|[()][0-9A-Za-z])"
_TERMINAL_BEFORE = re.compile(rb"(?:%b|%b|[\r\x00\x08])*" % (_TERMINAL_CODE, SHELL_PROMPT.pattern))
_TERMINAL_BEHIND = re.compile(rb"(?:%b)+\r?$" % _TERMINAL_CODE)
_UNPRINTABLE = bytes(set(range(256)) - set(range(0x20, 0x7F)))


def parse(line: bytes) -> Message:
    """Return the message of one line (without its LF); FrameError or BadChecksum when it is garbled.

    Bytes before the first printable character are skipped: plugging in the cable produces them.
    """
    if len(line) > MAX_LINE:
        raise FrameError(f"a line of {len(line)} bytes; a device sends at most {MAX_LINE}")
    line, from_shell = _without_terminal(line)
    line = line.removesuffix(b"\r").lstrip(_UNPRINTABLE)
    text = line.decode("utf-8", errors="replace")
    if not text:
        return Other("empty", "", from_shell)
    if text[0] not in ":#":
        return _other(text, from_shell)
    if "\ufffd" in text:
        raise FrameError(f"expected UTF-8, got the line {line!r}")
    message, checked = _without_checksum(text)
    return _response(message, checked) if text[0] == ":" else _publication(message, checked)


def _other(text: str, from_shell: bool) -> Other:
    """Return a line that is neither response nor publication; BadChecksum for a request whose checksum is wrong."""
    if text.startswith(COMMAND) and _REQUEST.match(text.removeprefix(COMMAND)):
        return Other("echo", text, from_shell)
    if not _REQUEST.match(text):
        return Other("noise", text, from_shell)
    _without_checksum(text, may_be_number=text[0] == "!")
    return Other("echo", text, from_shell)


def _without_terminal(line: bytes) -> tuple[bytes, bool]:
    """Return the line without shell prompts and terminal codes, and whether there was a prompt."""
    if b"\x1b" not in line and SHELL_PROMPT.search(line) is None:
        return line, False
    found = _TERMINAL_BEFORE.match(line)
    assert found is not None, "it matches the empty line, too"
    return _TERMINAL_BEHIND.sub(b"", line[found.end() :]), SHELL_PROMPT.search(found[0]) is not None


def _without_checksum(text: str, *, may_be_number: bool = True) -> tuple[str, bool]:
    """Return the message without its checksum, and whether it had one; BadChecksum when the checksum is wrong.

    Eight hexadecimal digits that do not match may be a number (":85 Content. 12345678", "!path 12345678"). After a
    complete object, array or string, or before the "#" of 0.6, they are a checksum.
    """
    found = _CHECK.search(text)
    if not found:
        return text, False
    message = text[: found.start()]
    crc = zlib.crc32(message.encode())
    if crc == int(found[1], 16):
        return message, True
    if not may_be_number or found[2] or message.endswith(("}", "]", '"')):
        raise BadChecksum(f"checksum {found[1]}, but {crc:08X} fits the line {_shown(text)}")
    return text, False


def _response(text: str, checked: bool) -> Response:
    found = _RESPONSE.fullmatch(text)
    code = _code(found["code"]) if found else None
    if not found or code is None:
        raise FrameError(f"expected ':' and a status code, got the line {_shown(text)}")
    if found["json"] is None:
        return Response(code, found["phrase"] or "", node=found["node"] or "", checked=checked)
    payload, duplicates = load_json(found["json"], text)
    return Response(code, found["phrase"] or "", payload, True, found["node"] or "", duplicates, checked)


def _code(digits: str) -> int | None:
    """Return a status code's number: decimal up to 44 in generation 0.2, hexadecimal from 80 in all others."""
    if len(digits) == 2 and int(digits, 16) >= 0x80:
        return int(digits, 16)
    return int(digits) if digits.isdecimal() and int(digits) in STATUS_0_2 else None


def _publication(text: str, checked: bool) -> Publication:
    found = _PUBLICATION.fullmatch(text)
    if not found:
        raise FrameError(f"expected '#', a path and an object, got the line {_shown(text)}")
    members, duplicates = load_json(found["json"], text)
    flat = list(_flatten(members))
    values = dict(flat)
    nested = any(isinstance(value, dict) for value in members.values())
    return Publication(found["path"] or None, values, nested, duplicates + len(flat) - len(values), checked)


def _check_depth(payload: Json) -> None:
    """Raise FrameError when lists and objects are nested deeper than MAX_DEPTH."""
    level = [payload]
    for _ in range(MAX_DEPTH + 1):
        inner = [
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        ]
        level = [value for values in inner for value in values]
        if not level:
            return
    raise FrameError(f"lists and objects nested deeper than {MAX_DEPTH}")


def _flatten(members: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for name, value in members.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def load_json(text: str, line: str = "") -> tuple[Json, int]:
    """Return a payload and its number of repeated members (the last value counts); FrameError when it is not JSON.

    null, the bare words nan, inf and -inf of library 0.3, and numbers outside the range of a float are missing: None.
    """
    twice = 0

    def collect(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        nonlocal twice
        members = dict(pairs)
        twice += len(pairs) - len(members)
        return members

    bare = _BARE_WORD.sub(lambda found: found[0] if found[0][0] == '"' else "null", text)
    try:
        payload = json.loads(
            bare, object_pairs_hook=collect, parse_int=_number, parse_float=_number, parse_constant=lambda _: None
        )
    except (ValueError, RecursionError) as error:
        raise FrameError(f"no JSON ({error}): {_shown(line or text)}") from error
    _check_depth(payload)
    return payload, twice


def _number(text: str) -> float | int | None:
    value = float(text)
    if not math.isfinite(value):
        return None
    return int(text) if text.lstrip("-").isdecimal() and abs(value) < 2**53 else value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:117]}…")


def cut(buffer: bytes) -> Cut | None:
    """Take one line off the buffer as a Message; FrameError when it is garbled or has no end."""
    end = buffer.find(b"\n")
    if end < 0:
        if len(buffer) > MAX_LINE:
            raise FrameError(f"no line end within {MAX_LINE} bytes", drop=len(buffer))
        return None
    try:
        return Cut(parse(buffer[:end]), end + 1)
    except FrameError as error:
        raise type(error)(str(error), drop=end + 1) from error


class Reader:
    """Cuts lines, and converts responses that were received before the last request to lines without data.

    A response does not identify its request. One that had arrived before the request was sent belongs to another.
    """

    def __init__(self) -> None:
        self._here = 0
        self._old = 0

    def asks(self, *, flush: bool = False) -> None:
        """Record that a request is sent now; `flush`: the buffer is emptied before."""
        self._here = 0 if flush else self._here
        self._old = self._here

    def cut(self, buffer: bytes) -> Cut | None:
        """Take one line off the buffer as a Message."""
        try:
            found = cut(buffer)
        except FrameError as error:
            self._take(len(buffer), error.drop)
            raise
        is_old = self._old > 0
        self._take(len(buffer), found.used if found else 0)
        if found and is_old and isinstance(found.payload, Response):
            return Cut(Other("noise", f"late answer {found.payload.status}"), found.used)
        return found

    def _take(self, here: int, used: int) -> None:
        self._here = here - used
        self._old = max(0, self._old - used)


def messages(chunks: Iterable[bytes]) -> Iterator[tuple[str, Message | FrameError]]:
    """Yield every line of a capture with its message or error; a last line without a line end is an error as well.

    Only the beginning of a line that is longer than MAX_LINE is kept.
    """
    rest = b""
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest += first[: max(0, MAX_LINE + 1 - len(rest))]
        for other in others:
            yield rest.decode("utf-8", errors="replace").rstrip("\r"), _parsed(rest)
            rest = other[: MAX_LINE + 1]
    if _without_terminal(rest)[0]:  # else only a shell's prompt or nothing is left
        yield rest.decode("utf-8", errors="replace"), FrameError("the capture ends within a line")


def _parsed(line: bytes) -> Message | FrameError:
    try:
        return parse(line)
    except FrameError as error:
        return error


# ---- requests ------------------------------------------------------------------------------------------------------


def get(generation: Generation, path: str) -> bytes:
    """Return the request for all members of a group, as an object."""
    return _line(f"!{_path(path)} {{}}" if generation == "0.2" else f"?{_path(path)}")


def names(generation: Generation, path: str) -> bytes:
    """Return the request for the names of a group's members, as an array."""
    if generation == "0.2":
        return _line(f"!{_path(path)}")
    return _line(f"?{_path(path)} null" if generation == "0.6" else f"?{_path(path)}/")


def fetch(generation: Generation, path: str, items: str | Sequence[str]) -> bytes:
    """Return the request for one member's bare value (a name), or several members' values in order (a list)."""
    verb = "!" if generation == "0.2" else "?"
    return _line(f"{verb}{_path(path)} {_dump(items if isinstance(items, str) else list(items))}")


def update(generation: Generation, path: str, members: Mapping[str, Json]) -> bytes:
    """Return the request that writes members of a group."""
    return _line(f"{'!' if generation == '0.2' else '='}{_path(path)} {_dump(members)}")


def execute(path: str, argument: Json = None) -> bytes:
    """Return the request that executes a function; `argument` None: without an argument."""
    return _line(f"!{_path(path)}" + ("" if argument is None else f" {_dump(argument)}"))


def in_shell(request: bytes) -> bytes:
    """Return a request as a command of Zephyr's shell, with quotes and backslashes escaped.

    The shell splits at spaces and removes quotes and backslashes. Raises ValueError when its buffer is too small.
    """
    command = COMMAND.encode() + re.sub(rb"([\\\"'])", rb"\\\1", request)
    if len(command.rstrip(b"\n")) > MAX_COMMAND:
        raise ValueError(f"request: expected at most {MAX_COMMAND} bytes as a shell's command; got {len(command)}")
    return command


def create(generation: Generation, path: str, item: str) -> bytes:
    """Return the request that adds a member, for example to a publication; ValueError in 0.2, which cannot."""
    return _change("+", generation, path, item)


def delete(generation: Generation, path: str, item: str) -> bytes:
    """Return the request that removes a member, for example from a publication; ValueError in 0.2, which cannot."""
    return _change("-", generation, path, item)


def _change(verb: str, generation: Generation, path: str, item: str) -> bytes:
    if generation == "0.2":
        raise ValueError("generation 0.2 cannot add or remove members")
    return _line(f"{verb}{_path(path)} {_dump(item)}")


def _path(path: str) -> str:
    """Return the path, validated: the device would treat characters after a space as payload."""
    if not re.fullmatch(r"[\x21-\x7e]*", path):
        raise ValueError(f"path: expected printable characters without blanks, got {path!r}")
    return path


def _dump(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _line(text: str) -> bytes:
    line = text.encode() + b"\n"
    if len(line) > MAX_REQUEST:
        raise ValueError(f"request: expected at most {MAX_REQUEST} bytes, the device's buffer; got {len(line)}")
    return line
