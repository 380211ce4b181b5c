"""A fake EL 3000 B: responds to SCPI queries, the driver's and those of other programs, with units attached."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from collectors.devices.ea_el3000b import INPUT_BIT, MODE_BITS, REMOTE_BIT
from collectors.fakes import FakeKind, Out, World
from collectors.fakes._ea_load import OnlyAnswers, Terminals
from collectors.signals import LOAD_TEST_STATES

BUFFER_BYTES = 256
MOST_ERRORS = 5


@dataclass(frozen=True, slots=True)
class FakeEl3000BOptions:
    """The unit and its behaviour."""

    maker: str = field(default="EA Elektro-Automatik GmbH&Co.KG", metadata={"help": "first part of *IDN?"})
    model: str = field(default="EL 3080-60 B", metadata={"help": "device type"})
    serial: str = field(default="1234567890", metadata={"help": "serial number"})
    firmware: str = field(default="V2.14 14.05.2018", metadata={"help": "firmware version"})
    nominal_v: float = field(default=80.0, metadata={"help": "nominal voltage"})
    nominal_a: float = field(default=60.0, metadata={"help": "nominal current"})
    nominal_w: float = field(default=1200.0, metadata={"help": "nominal power"})
    volt_digits: int = field(default=2, metadata={"help": "decimals of a voltage"})
    ampere_digits: int = field(default=2, metadata={"help": "decimals of a current"})
    watt_digits: int = field(default=0, metadata={"help": "decimals of a power"})
    has_battery_test: bool = field(default=True, metadata={"help": "knows the battery test's questions"})
    min_pause_s: float = field(default=0.0, metadata={"help": "a question sooner than this after an answer is lost"})


class FakeEl3000B(OnlyAnswers):
    """One load at the level of bytes; see `collectors.fakes.Fake`."""

    def __init__(self, world: World, options: FakeEl3000BOptions) -> None:
        super().__init__()
        self._options = options
        self._terminals = Terminals(world)
        self._deaf_until_s = float("-inf")
        self._errors: deque[str] = deque(maxlen=MOST_ERRORS)
        unit = (options.maker, options.model, options.serial, options.firmware)
        self._answers: dict[str, Callable[[Mapping[str, float]], str]] = {
            "*IDN?": lambda _: ", ".join(unit),
            "SYST:NOM:VOLT?": lambda _: f"{options.nominal_v:g}V",
            "SYST:NOM:CURR?": lambda _: f"{options.nominal_a:g}A",
            "SYST:NOM:POW?": lambda _: f"{options.nominal_w:g}W",
            "MEAS:ARR?": self._actual,
            "MEAS:VOLT?": lambda values: f"{values['voltage_v']:.{options.volt_digits}f}V",
            "MEAS:CURR?": lambda values: f"{values['current_a']:.{options.ampere_digits}f}A",
            "MEAS:POW?": lambda values: f"{values['power_w']:.{options.watt_digits}f}W",
            "SYST:LOCK:OWN?": lambda values: "REMOTE" if values.get("control") else "NONE",
            "INP?": lambda values: "ON" if values["input_on"] else "OFF",
            "STAT:QUES?": _questionable,
            "STAT:OPER?": _operation,
        }
        if options.has_battery_test:
            self._answers |= {"BATT:COND?": _test_state, "BATT:TEST?": _test_counters}

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        """Respond to every whole line that is a known query; any other line is an error that SYST:ERR? reports."""
        if now_s < self._deaf_until_s:
            return []
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[-BUFFER_BYTES:]
        outs = []
        for line in lines:
            reply = self._reply(line.decode("latin-1").strip().upper(), now_s)
            if reply is not None:
                outs.append(Out(reply.encode(errors="surrogatepass") + b"\n"))
                self._deaf_until_s = now_s + self._options.min_pause_s
        return outs

    def _reply(self, question: str, now_s: float) -> str | None:
        if question == "SYST:ERR?":
            return self._errors.popleft() if self._errors else '0,"No error"'
        if question not in self._answers:
            self._errors.append('-100,"Command error"')
            return None
        if question.startswith("MEAS:") and not self._terminals.look(now_s):
            return None
        return self._answers[question](self._terminals.values)

    def _actual(self, values: Mapping[str, float]) -> str:
        options = self._options
        return (
            f"{values['voltage_v']:.{options.volt_digits}f}V, {values['current_a']:.{options.ampere_digits}f}A, "
            f"{values['power_w']:.{options.watt_digits}f}W"
        )


def _questionable(values: Mapping[str, float]) -> str:
    return str(int(values.get("control", 0.0)) << REMOTE_BIT | int(values["input_on"]) << INPUT_BIT)


def _operation(values: Mapping[str, float]) -> str:
    bits = {mode: bit for bit, mode in MODE_BITS.items()}
    mode = values.get("mode")
    return "0" if mode is None else str(1 << bits[mode])


def _test_state(values: Mapping[str, float]) -> str:
    return LOAD_TEST_STATES[int(values.get("test_state", 0.0))]


def _test_counters(values: Mapping[str, float]) -> str:
    seconds = int(values.get("test_time_s", 0.0))
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{values.get('charge_ah', 0.0):.2f}Ah, {values.get('energy_wh', 0.0):.2f}Wh, {clock}"


FAKE = FakeKind("ea_el3000b", FakeEl3000BOptions, FakeEl3000B)
