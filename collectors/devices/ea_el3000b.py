"""EA EL 3000 B electronic load (2017 on): SCPI over its USB virtual COM port, RS232 or Ethernet module.

    *IDN?            EA Elektro-Automatik GmbH&Co.KG, EL 9080-340, 1240210002, V2.14 …    maker, model, serial, firmware
    SYST:NOM:VOLT?   80V                                  nominal values; CURR and POW likewise
    MEAS:ARR?        12.5V, 33.3A, 420W                   with units; the prefixes k and m are accepted, too
    STAT:QUES?       3072                                 bit 10 remote, bit 11 input on; others not documented
    STAT:OPER?       256                                  bit 8 CV; 9 CC and 10 CP are assumed
    BATT:COND?       RUN                                  battery test: state
    BATT:TEST?       12.34Ah, 160.2Wh, 01:02:03           its counters; separators are not documented

Every query and response is one line. There is no checksum and no error response: the load does not answer a query that
it does not know. So `open` finds out which optional queries it answers, and the first poll cycle reports the others.
SYST:ERR? is never sent, because reading it acknowledges alarms. The driver never sets anything.
The counters are cleared when the battery test is left at the load.
Source: EA "Programming ModBus & SCPI" rev 25 (2023); docs/protocols/ea_el3000b.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from collectors.device import Device, Line, Output
from collectors.devices._ea.load import LoadOptions, LoadReport, insist
from collectors.errors import FrameError, NoReply, WrongDevice
from collectors.protocols.checksums import crc16_modbus
from collectors.protocols.dialogue import Ask, Cut, Dialogue, Reply
from collectors.reading import Event, Identity, Value
from collectors.signals import LOAD_TEST_STATES

LINE_BYTES = 256
"""A longer input without an end of line is not an answer; the load's own input buffer has the same size."""
CUT_BYTES = 2 * LINE_BYTES
"""Length at which a line of a capture is truncated; it is reported as an error."""
EXPONENTS = {"m": "e-3", "": "", "k": "e3"}
REMOTE_BIT, INPUT_BIT = 10, 11
MODE_BITS = {8: 0.0, 9: 2.0, 10: 3.0}
"""Bit of the operation register to code of `mode`: CV, CC, CP."""
STATE_CODES = {name: float(code) for code, name in LOAD_TEST_STATES.items()}


class Maker(NamedTuple):
    """The parts of the response to *IDN?."""

    name: str
    model: str
    serial: str
    firmware: str


@dataclass(frozen=True, slots=True)
class Question:
    """A query, the pattern of its answer, and the function that decodes such an answer."""

    text: str
    form: re.Pattern[str]
    meaning: Callable[[re.Match[str]], Any]

    def cut(self, buffer: bytes) -> Cut | None:
        """Return the decoded first line, or None while it is incomplete."""
        line, end, _ = buffer.partition(b"\n")
        if len(line) > LINE_BYTES:
            raise FrameError(f"{len(line)} bytes without an end of line", len(line) + len(end))
        if not end:
            return None
        match = self.form.fullmatch(line.decode("ascii", "replace").strip())
        if match is None:
            raise FrameError(f"{self.text} was answered {line[:80]!r}, which has not its form", len(line) + 1)
        return Cut(self.meaning(match), len(line) + 1)


DIGITS = r"\d{1,12}"
"""Most digits of one number: a load measures and counts no longer ones, which may also overflow a float."""


def _quantity(name: str, unit: str) -> str:
    """Return the pattern of a number with its unit: groups `name` and `name_prefix`."""
    return rf"(?P<{name}>[+-]?(?:{DIGITS}(?:\.{DIGITS})?|\.{DIGITS}))\s*(?P<{name}_prefix>[mk]?){unit}"


def _form(*parts: str) -> re.Pattern[str]:
    """Return the pattern of parts separated by comma, semicolon or blanks. It matches each text in one way only."""
    return re.compile(r"(?:\s*[,;]\s*|\s+)".join(parts), re.ASCII)


def _numbers(match: re.Match[str]) -> dict[str, Value]:
    """Return every quantity of the match in its unit, rounded once."""
    names = [name for name in match.groupdict() if f"{name}_prefix" in match.groupdict()]
    return {name: float(match[name] + EXPONENTS[match[f"{name}_prefix"]]) for name in names}


def _questionable(match: re.Match[str]) -> dict[str, Value]:
    word = int(match[0])
    return {"control": float(word >> REMOTE_BIT & 1), "input_on": float(word >> INPUT_BIT & 1), "status": float(word)}


def _operation(match: re.Match[str]) -> dict[str, Value]:
    modes = [mode for bit, mode in MODE_BITS.items() if int(match[0]) >> bit & 1]
    return {"mode": modes[0] if len(modes) == 1 else None}


def _counters(match: re.Match[str]) -> dict[str, Value]:
    seconds = 3600 * int(match["hours"]) + 60 * int(match["minutes"]) + float(match["seconds"])
    return {**_numbers(match), "test_time_s": seconds}


VOLTS, AMPERES, WATTS = _quantity("voltage_v", "V"), _quantity("current_a", "A"), _quantity("power_w", "W")
TIME = rf"(?P<hours>\d{{1,7}}):(?P<minutes>\d\d):(?P<seconds>\d\d(?:\.{DIGITS})?)"
WORD = re.compile(r"\d{1,5}", re.ASCII)

IDENTITY = Question(
    "*IDN?",
    re.compile(r"([^,:\"{}]*),([^,:\"{}]*),([^,:\"{}]*),(.*)"),  # names; excludes a charge controller's publication
    lambda match: Maker(*(part.strip() for part in match.groups())),
)
NOMINALS = (
    Question("SYST:NOM:VOLT?", _form(VOLTS), _numbers),
    Question("SYST:NOM:CURR?", _form(AMPERES), _numbers),
    Question("SYST:NOM:POW?", _form(WATTS), _numbers),
)
SINGLE = (
    Question("MEAS:VOLT?", _form(VOLTS), _numbers),
    Question("MEAS:CURR?", _form(AMPERES), _numbers),
    Question("MEAS:POW?", _form(WATTS), _numbers),
)
ACTUAL = Question("MEAS:ARR?", _form(VOLTS, AMPERES, WATTS), _numbers)
QUESTIONABLE = Question("STAT:QUES?", WORD, _questionable)
OPERATION = Question("STAT:OPER?", WORD, _operation)
TEST_STATE = Question(
    "BATT:COND?", re.compile("|".join(STATE_CODES)), lambda match: {"test_state": STATE_CODES[match[0]]}
)
TEST_COUNTERS = Question(
    "BATT:TEST?", _form(_quantity("charge_ah", "(?:Ah)?"), _quantity("energy_wh", "(?:Wh)?"), TIME), _counters
)


@dataclass(frozen=True, slots=True)
class El3000BOptions(LoadOptions):
    """The [device] table."""

    pause_s: float = field(default=0.015, metadata={"help": "least pause between an answer and the next question"})
    timeout_s: float = field(default=0.5, metadata={"help": "silence after which a question is asked again"})
    retries: int = field(default=1, metadata={"help": "how often a question is asked again before the turn fails"})
    battery_test: bool = field(
        default=True, metadata={"help": "also read state, Ah, Wh and time of the load's battery test"}
    )


class El3000BDriver:
    """Reads one load; see `collectors.device.Driver`."""

    def __init__(self, options: El3000BOptions) -> None:
        self._options = options
        # Consecutive answers differ in form, so that a late answer is not taken for the next one.
        self._questions = [
            *([QUESTIONABLE] if options.status else []),
            ACTUAL,
            *([OPERATION] if options.status else []),
            *([TEST_STATE, TEST_COUNTERS] if options.battery_test else []),
        ]
        self._news: list[Event] = []
        self._report = LoadReport(options)

    def open(self) -> Dialogue[Identity]:
        """Return the identity of the load, after finding out which optional queries it answers."""
        try:
            maker: Maker = (yield from self._ask(IDENTITY)).payload
        except (NoReply, FrameError) as error:
            raise NoReply(
                "*IDN? was not answered. Is the load on, and is it an EL 3000 B? (An EL 3000 A speaks telegrams: kind "
                f"ea_el3000a.) The RS232 module needs the baud rate set at the load, e.g. ?baud=115200. {error}"
            ) from error
        if not re.match(r"EA\b|.*Elektro-?Automatik", maker.name, re.IGNORECASE) or not maker.model.startswith("EL"):
            again: Maker = (yield from self._ask(IDENTITY)).payload
            kind = WrongDevice if again == maker else FrameError  # no checksum: a bit error must not be fatal
            raise kind(f"expected an EA electronic load (EL …), but {maker.name} {maker.model} answers here")
        nominals: list[str] = []
        for question in NOMINALS:
            reply = yield from self._ask(question)
            nominals += [f"{value:g} {name[-1].upper()}" for name, value in reply.payload.items()]
        yield from self._leave_out_unknown()
        return Identity(maker.model, maker.serial, maker.firmware, {"nominal": ", ".join(nominals)})

    def poll(self) -> Dialogue[list[Output]]:
        """Return the load's values at the time of MEAS:ARR?, and an event if its counter decreased."""
        values: dict[str, Value] = {}
        boottime_ns = 0
        for question in self._questions:
            reply = yield from self._ask(question)
            values |= reply.payload
            if question is ACTUAL:
                boottime_ns = reply.boottime_ns
        events, self._news = self._news, []
        return self._report.outputs(values, boottime_ns, events)

    def close(self) -> Dialogue[None]:
        """Do nothing: `open` has changed nothing."""
        yield from ()

    def _ask(self, question: Question) -> Dialogue[Reply]:
        ask = Ask(
            question.text.encode() + b"\n",
            question.cut,
            timeout_s=self._options.timeout_s,
            pause_s=self._options.pause_s,
            flush=True,
        )
        return (yield from insist(ask, self._options.retries))

    def _leave_out_unknown(self) -> Dialogue[None]:
        for question in [known for known in self._questions if known is not ACTUAL]:
            try:
                yield from self._ask(question)
            except (NoReply, FrameError) as error:
                self._questions.remove(question)
                detail = f"{question.text} is left out until the next connection: {error}"
                self._news.append(Event("question_unanswered", detail))


def decode_capture(chunks: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Yield one object per answer line of a capture.

    A line is "query -> answer", a query (its answer is the next line), or an answer alone. An answer alone is decoded
    only if its form identifies it: a bare number may be either register. Any other line is an error; frames of ModBus
    RTU, which this load also supports, are named as such.
    """
    asked = ""
    for line in _lines(chunks):
        query, answer = _pair(line) if len(line) < CUT_BYTES else ("", line)
        if query and not answer:
            if asked:
                yield {"query": asked}
            asked = query
        else:
            yield _describe(query or asked, answer)
            asked = ""
    if asked:
        yield {"query": asked}


def _pair(line: bytes) -> tuple[str, bytes]:
    """Return the query and the answer of one line; each is empty if it is missing."""
    if QUERY.fullmatch(line):
        return line.decode("ascii"), b""
    for arrow in ARROWS:
        query, found, answer = line.partition(arrow)
        if found and QUERY.fullmatch(query.strip()) and answer.strip():
            return query.strip().decode("ascii"), answer.strip()
    return "", line


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines that are not empty, including an unterminated last one; long lines are truncated."""
    buffer = b""
    for chunk in chain(chunks, (b"\n",)):
        first, *others = chunk.split(b"\n")
        buffer += first[: max(0, CUT_BYTES - len(buffer))]
        for other in others:
            if line := buffer if len(buffer) == CUT_BYTES else buffer.strip():
                yield line
            buffer = other[:CUT_BYTES]


def _describe(query: str, answer: bytes) -> dict[str, Any]:
    text = answer.decode("utf-8", "backslashreplace")
    record: dict[str, Any] = {"query": query, "answer": text} if query else {"answer": text}
    if len(answer) > LINE_BYTES:
        return record | _error(f"longer than {LINE_BYTES} bytes, so it is no answer of a load")
    if not (answer.isascii() and text.isprintable()):
        return record | _error("no text: ModBus, another instrument, a wrong baud rate, or noise")
    if query:
        return record | _meaning(query, answer)
    for question in SELF_EVIDENT:
        if question.form.fullmatch(text):
            return record | _content(question.cut(answer + b"\n"))
    if BARE.fullmatch(text):
        return record
    if (frame := _hex_bytes(text)) and crc16_modbus(frame) == 0:
        return record | _error("a frame of ModBus RTU; this kind is read and decoded by SCPI, which is text")
    return record | _error("not a query, nor an answer whose form says what it means, nor one with a query before it")


def _meaning(query: str, answer: bytes) -> dict[str, Any]:
    """Return the decoded answer to this query; nothing for a query that the driver does not send."""
    for question in QUESTIONS:
        if question.text == query.upper():
            try:
                return _content(question.cut(answer + b"\n"))
            except FrameError as error:
                return _error(str(error))
    return {}


def _content(cut: Cut | None) -> dict[str, Any]:
    assert cut is not None, "a line with its end is whole"
    meaning = cut.payload
    return meaning._asdict() if isinstance(meaning, Maker) else {"measurement": "load", "values": meaning}


def _error(message: str) -> dict[str, Any]:
    return {"error": "FrameError", "message": message}


def _hex_bytes(text: str) -> bytes:
    """Return the bytes of a line of hexadecimal digits; empty for any other line."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


QUERY = re.compile(rb"[*A-Za-z][A-Za-z0-9:*]*\?")
ARROWS = (b"->", "→".encode())
BARE = re.compile(r"\d{1,5}|IDLE|ON|OFF|LOCAL|REMOTE|NONE|-?\d{1,4},\s*\"[^\"]*\"", re.ASCII)
"""Answers that need no decoding, or whose form fits several queries: a register, a state, an error queue entry."""
QUESTIONS = (IDENTITY, *NOMINALS, *SINGLE, ACTUAL, QUESTIONABLE, OPERATION, TEST_STATE, TEST_COUNTERS)
SELF_EVIDENT = (*SINGLE, ACTUAL, TEST_STATE, TEST_COUNTERS, IDENTITY)

DEVICE = Device(
    kind="ea_el3000b",
    title="EA Elektro-Automatik EL 3000 B electronic load",
    links=("serial", "tcp"),
    options=El3000BOptions,
    driver=El3000BDriver,
    signals={
        "load": (
            *("voltage_v", "current_a", "power_w", "charge_ah", "charge_step_ah", "energy_wh", "test_time_s"),
            *("test_state", "mode", "input_on", "control", "status"),
        ),
        "battery": ("voltage_v", "current_a"),
    },
    decode=decode_capture,
    line=Line(baud=115200),
    channels={"": 5025},
    checked=False,
    text=True,
    notes="Read only, by SCPI. Ah, Wh and time come from the load's battery test and need it to run.",
)
