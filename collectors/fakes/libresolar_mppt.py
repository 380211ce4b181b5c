"""A fake Libre Solar MPPT-1210-HUS at the level of its serial port: all five generations, with their peculiarities.

It uses the driver's object table in reverse, and prints numbers with the firmware's decimals: a value given to it in
steps of 0.01 V and A comes back exactly. Values that the world does not have are derived as the device would: a load
when the battery discharges, a panel when it charges.

Peculiarities (docs/protocols/libresolar_mppt.md): bytes that arrive while it works are lost, from 0.5 on the whole
line. 0.2 prints "Received Request" before each response, and an empty line for an unknown verb. A missing number is the
bare word nan before 0.4 and null from then on. A wrong password gets the response of a right one. Battery settings that
contradict each other are accepted and silently restored. A reset clears the publication switch, the day's energies and
the access rights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from collectors.devices.libresolar_mppt.objects import (
    AUTHENTICATION,
    CODES_0_2,
    IDENTITY,
    ITEMS,
    SETTINGS,
    SWITCHES,
    Item,
    full_name,
    places,
)
from collectors.fakes import Fake, FakeKind, Out, World
from collectors.fakes._libresolar_plant import Plant
from collectors.fakes._zephyr_shell import ZephyrShell
from collectors.protocols.thingset import STATUS, STATUS_0_2, Json

PUBLISHED = (
    *("charger.uptime_s", "battery.voltage_v", "battery.current_a", "battery.soc", "charger.state"),
    *("charger.dcdc_state", "solar.voltage_v", "solar.current_a", "load.current_a", "load.state"),
    *("charger.usb_state", "charger.error_flags", "battery.deep_discharge_count", "battery.usable_capacity_ah"),
    *("solar.energy_today_wh", "load.energy_today_wh", "battery.charged_today_wh", "battery.discharged_today_wh"),
    "battery.discharged_since_full_ah",
)
"""What v20 and later publish by default."""
PUBLISHED_0_2 = (
    *("charger.uptime_s", "battery.voltage_v", "solar.voltage_v", "battery.current_a", "load.current_a"),
    *("solar.current_a", "battery.temperature_degc", "charger.temperature_degc", "charger.mosfet_temperature_degc"),
    *("load.state", "charger.state", "charger.dcdc_state", "solar.energy_today_wh", "load.energy_today_wh"),
    *("battery.charged_today_wh", "battery.discharged_today_wh", "solar.power_peak_today_w"),
    *("load.power_peak_today_w", "solar.power_peak_w", "load.power_peak_w", "battery.voltage_peak_v"),
    *("solar.voltage_peak_v", "charger.dcdc_current_peak_a", "load.current_peak_a", "battery.temperature_peak_degc"),
    *("charger.temperature_peak_degc", "charger.mosfet_temperature_peak_degc", "battery.soc"),
    "battery.discharged_since_full_ah",
)
"""What v19 publishes."""
_HEAD = {"0.2": "# ", "0.3": "# ", "0.4": "#serial ", "0.5": "#mSerial ", "0.6": "#mLive_ "}
_MEMBERS = {"0.3": "pub/serial/IDs", "0.4": "serial", "0.5": "mSerial", "0.6": "mLive_"}
_CHANNELS = {"0.3": ("pub", "serial", "can"), "0.4": (".pub", "serial", "can"), "0.5": ("_Pub", "mSerial", "mCAN")}
_RESET = frozenset({"exec/reset", "rpc/x-reset", "Device/xReset"})
_FREE = re.compile(r"(input|conf)/|.*/[sw][A-Z]")
"""Objects that can be written without a password."""
_PROTECTED = re.compile(r"(rec|cal)/|.*/p[A-Z]")
"""Objects that can be written only with the manufacturer's password."""
_STORED = re.compile(r"conf/|.*/s[A-Z]")
_LONGEST_PASSWORD = 10


@dataclass(frozen=True, slots=True)
class FakeMpptOptions:
    """Variant and settings of the device."""

    generation: Literal["0.2", "0.3", "0.4", "0.5", "0.6"] = field(default="0.3", metadata={"help": "of the firmware"})
    names_2022: bool = field(default=False, metadata={"help": "0.5 with the names of the builds of 2022"})
    publications: bool | None = field(default=None, metadata={"help": "on after a reset; default: off in 0.2 only"})
    debug_text: bool | None = field(default=None, metadata={"help": "on the ThingSet port; default: in 0.2 only"})
    shell: bool = field(
        default=False, metadata={"help": "ThingSet is a command of Zephyr's shell on this port; use generation 0.6"}
    )
    period_s: float = field(default=1.0, metadata={"help": "how long the device's second takes"})
    reply_s: float = field(default=0.02, metadata={"help": "from request to answer"})
    store_s: float = field(default=0.3, metadata={"help": "from request to answer where a setting is stored"})
    uptime_s: int = field(default=0, metadata={"help": "how long it ran before"})
    model: str = field(default="MPPT-1210-HUS", metadata={"help": "DeviceType"})
    serial: str = field(default="FAKE0001", metadata={"help": "DeviceID"})
    firmware: str = field(default="fake", metadata={"help": "FirmwareVersion"})
    external_sensor: bool = field(default=False, metadata={"help": "whether a battery temperature sensor is connected"})
    expert_password: str = field(default="", metadata={"help": "empty: no password is right"})
    maker_password: str = field(default="", metadata={"help": "empty: no password is right"})


class ParsedRequest(NamedTuple):
    """One request line, split into its parts."""

    verb: str
    path: str
    given: bool
    """Whether there is a payload; null is one."""
    payload: Json
    ok: bool
    """Whether the payload is JSON."""


class FakeMppt:
    """The device. The caller supplies the time; `restart` is the reset button."""

    def __init__(self, world: World, options: FakeMpptOptions) -> None:
        self._options = options
        self._generation = options.generation
        self._plant = Plant(world, options.period_s, options.uptime_s, has_sensor=options.external_sensor)
        self._items = {item.signal: item for item in (*ITEMS, *SETTINGS) if places(item, self._generation)}
        self._places = {signal: self._place(item) for signal, item in self._items.items()}
        self._signals = {place: signal for signal, place in self._places.items()}
        self._start(0.0)

    def _place(self, item: Item) -> tuple[str, str]:
        """Return the place of the object in this build: the last one is that of 2022."""
        return places(item, self._generation)[-1 if self._options.names_2022 else 0]

    def _start(self, now_s: float) -> None:
        """Set the state after power-up."""
        on = self._options.publications
        self._publishes = self._generation != "0.2" and not self._options.shell if on is None else on
        self._published = [s for s in (PUBLISHED_0_2 if self._generation == "0.2" else PUBLISHED) if s in self._items]
        self._rights = "user"
        self._next_s = now_s + self._options.period_s
        self._busy_until_s = now_s
        self._line = b""
        self._skips_line = False

    def restart(self, now_s: float) -> None:
        """Reset the device."""
        self._plant.restart(now_s)
        self._start(now_s)

    # ---- serial line

    def connected(self, now_s: float, channel: str = "") -> None:
        """Do nothing: a serial device does not detect a new connection."""

    def next_tick_s(self) -> float:
        """Return when its current second ends."""
        return self._next_s

    def tick(self, now_s: float) -> Sequence[Out]:
        """Return the publication of the next second that has ended; none in a gap of the world."""
        if now_s < self._next_s:
            return ()
        due_s = self._next_s
        self._next_s += self._options.period_s
        values = self._plant.measure(due_s)
        if values["battery.voltage_v"] is None or values["battery.current_a"] is None:
            return ()
        self._plant.count(values)
        return (Out(self._publication(values), due_s),) if self._publishes else ()

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        """Return the response to the first whole request; bytes that arrive while it works are lost."""
        if now_s < self._busy_until_s:
            self._lose(data)
            return ()
        lines = (self._line + data).split(b"\n")
        for i, raw in enumerate(lines[:-1]):
            if self._skips_line:
                self._skips_line = False
                continue
            line = raw.removesuffix(b"\r")
            if len(line) < 2:
                continue
            self._line = b""
            answer, delay_s = self.respond(line.decode("ascii", errors="replace"), now_s)
            self._busy_until_s = now_s + delay_s
            self._lose(b"\n".join(lines[i + 1 :]))
            return (Out(answer.encode(errors="surrogatepass"), self._busy_until_s),) if answer else ()
        self._line = lines[-1]
        return ()

    def _lose(self, data: bytes) -> None:
        """Lose bytes; from 0.5 on also the rest of their line."""
        if data and self._generation in ("0.5", "0.6"):
            self._skips_line = not data.endswith(b"\n")
            self._line = b""

    # ---- formatting

    def _publication(self, values: Mapping[str, float | None]) -> bytes:
        members = {self._places[s]: self._print(s, values.get(s)) for s in self._published}
        if self._generation in ("0.5", "0.6"):
            groups = dict.fromkeys(group for group, _ in members)
            inner = {g: _object({name: v for (group, name), v in members.items() if group == g}) for g in groups}
        else:
            inner = {name: v for (_, name), v in members.items()}
        return f"{_HEAD[self._generation]}{_object(inner)}\n".encode(errors="surrogatepass")

    def _print(self, signal: str, value: float | None) -> str:
        """Return the number as the firmware prints it."""
        item = self._items[signal]
        if item.digits < 0:
            return "true" if value else "false"
        if value is None:
            return "nan" if self._generation in ("0.2", "0.3") else "null"
        codes = CODES_0_2.get(signal, {}) if self._generation == "0.2" else {}
        value = next((old for old, new in codes.items() if new == value), value)
        return f"{value / item.scale:.{item.digits}f}"

    def _status(self, code: int, code_0_2: int, payload: str = "") -> str:
        """Return a whole response, with the generation's own codes."""
        rest = f" {payload}" if payload else ""
        if self._generation == "0.2":
            return f":{code_0_2} {STATUS_0_2[code_0_2]}.{rest}\n"
        phrase = "" if self._generation == "0.6" else f" {STATUS[code]}."
        return f":{code:02X}{phrase}{rest}\n"

    # ---- responses

    def respond(self, line: str, now_s: float) -> tuple[str, float]:
        """Return what it prints ("" for nothing), and how long that takes in s."""
        debug = self._generation == "0.2" if self._options.debug_text is None else self._options.debug_text
        debug = debug and not self._options.shell
        text = f"Received Request ({len(line)} bytes): {line}\n" if debug else ""
        request = _take_apart(line)
        if request.verb not in ("!" if self._generation == "0.2" else "?=+-!"):
            return text + "\n" * (self._generation == "0.2"), self._options.reply_s
        if request.verb == "!" and request.path in _RESET:
            self.restart(now_s)
            return "", self._options.reply_s
        stores = isinstance(request.payload, dict) and any(
            _STORED.match(f"{request.path}/{n}") for n in request.payload
        )
        return text + self._answer(request, now_s), self._options.store_s if stores else self._options.reply_s

    def _answer(self, request: ParsedRequest, now_s: float) -> str:
        """Return the response to a request with a verb that this generation has."""
        if not request.ok:
            return self._status(0xA0, 35)
        if request.verb == "!" and request.path == AUTHENTICATION.get(self._generation):
            return self._authenticate(request.payload)
        if self._generation == "0.2":
            return self._answer_0_2(request, now_s)
        if request.path == _MEMBERS[self._generation]:
            return self._change_members(request)
        if request.verb == "=":
            is_switch = any(request.path == group for group, _ in SWITCHES[self._generation])
            return self._switch(request) if is_switch else self._write(request)
        if request.verb != "?":
            return self._status(0xA4, 34)
        group = request.path.removesuffix("/")
        if request.path != group or (self._generation == "0.6" and request.given and request.payload is None):
            return self._list(group)
        return self._read(group, request.payload, now_s)

    def _answer_0_2(self, request: ParsedRequest, now_s: float) -> str:
        if request.path == "pub":
            channels = '["Serial_1s","EmonCMS_10s","CAN_1s"]'
            return self._switch(request) if request.given else self._status(0x85, 0, channels)
        if not self._members(request.path):
            return self._status(0xA4, 33)
        if not request.given:
            return self._list(request.path)
        if isinstance(request.payload, dict) and request.payload:
            return self._write(request)
        return self._read(request.path, request.payload or None, now_s)

    def _members(self, group: str) -> list[str]:
        """Return the names in a group; the builds of 2022 have the name of their node at the root."""
        where, names = IDENTITY[self._generation]
        own = list(names[1:] if self._options.names_2022 else names) if group == where else []
        if group == "":
            own = [names[0]] if self._options.names_2022 else []
            own += dict.fromkeys([where, *(g.partition("/")[0] for g, _ in self._signals)])
        return own + [name for (g, name) in self._signals if g == group]

    def _list(self, group: str) -> str:
        where, *channels = _CHANNELS.get(self._generation, ("",))
        members = channels if group and group == where else self._members(group)
        return self._status(0x85, 0, _array(f'"{name}"' for name in members)) if members else self._status(0xA4, 33)

    def _read(self, path: str, wanted: Json, now_s: float) -> str:
        """Return all members as an object, some as an array, or one as a bare value; `path` may name that one."""
        group, names = path, self._members(path)
        if not names and wanted is None:
            group, _, wanted = path.rpartition("/")
            names = self._members(group)
        asked = names if wanted is None else [wanted] if isinstance(wanted, str) else wanted
        if not names or not isinstance(asked, list) or any(name not in names for name in asked):
            return self._status(0xA4, 34)
        texts = self._texts(group, asked, now_s)
        if wanted is None:
            return self._status(0x85, 0, _object(texts))
        return self._status(0x85, 0, texts[wanted] if isinstance(wanted, str) else _array(texts.values()))

    def _texts(self, group: str, names: Iterable[str], now_s: float) -> dict[str, str]:
        """Return members as they are printed; the world is called only if one of them is measured."""
        _, own = IDENTITY[self._generation]
        told = (self._options.serial, self._options.model, "0.7.1", self._options.firmware, "Libre Solar")
        identity = dict(zip(own, told, strict=True))
        signals = {name: self._signals[group, name] for name in names if (group, name) in self._signals}
        measures = any(not s.startswith("setting.") for s in signals.values())
        values = self._plant.measure(now_s) if measures else self._plant.kept
        return {
            name: self._print(signals[name], values.get(signals[name])) if name in signals else f'"{identity[name]}"'
            for name in names
        }

    def _write(self, request: ParsedRequest) -> str:
        """Write settings, switches or counters: all of them or none."""
        if not isinstance(request.payload, dict):
            return self._status(0xA0, 35)
        changes: dict[str, float | None] = {}
        for name, value in request.payload.items():
            full = f"{request.path}/{name}"
            signal = self._signals.get((request.path, name))
            if signal is None:
                return self._status(0xA4, 34)
            if _PROTECTED.match(full) and self._rights != "maker":
                return self._status(0xA1, 38)
            if not _PROTECTED.match(full) and not _FREE.match(full):
                return self._status(0xA3, 42)
            if not isinstance(value, int | float):
                return self._status(0xAF, 35)
            changes[signal] = float(value)
        self._plant.store(changes)
        return self._status(0x84, 0)

    def _switch(self, request: ParsedRequest) -> str:
        """Switch publications, at the path that this build has for the switch."""
        path, name = SWITCHES[self._generation][-1 if self._options.names_2022 else 0]
        if request.path != path or not isinstance(request.payload, dict) or list(request.payload) != [name]:
            return self._status(0xA4, 34)
        self._publishes = bool(request.payload[name])
        return self._status(0x84, 0)

    def _change_members(self, request: ParsedRequest) -> str:
        """List the published members, add one, or remove one."""
        full = {full_name(self._generation, *place): signal for signal, place in self._places.items()}
        if request.verb == "?":
            names = {signal: name for name, signal in full.items()}
            return self._status(0x85, 0, _array(f'"{names[s]}"' for s in self._published))
        if request.payload not in full or request.verb not in "+-":
            return self._status(0xA4, 34)
        self._published = [s for s in self._published if s != full[request.payload]]
        if request.verb == "-":
            return self._status(0x82, 0)
        self._published.append(full[request.payload])
        return self._status(0x81, 0)

    def _authenticate(self, password: Json) -> str:
        """Process a password; a wrong one removes access rights, and only 0.2 reports that."""
        if not isinstance(password, str) or len(password) > _LONGEST_PASSWORD:
            return self._status(0xAF, 35)
        rights = {self._options.expert_password: "expert", self._options.maker_password: "maker", "": "user"}
        self._rights = rights.get(password, "user")
        return self._status(0x83, 43 if self._rights == "user" else 0)


def _take_apart(line: str) -> ParsedRequest:
    path, blank, text = line[1:].partition(" ")
    try:
        lenient = re.sub(r",(?=\s*[\]}]\s*$)", "", text)  # as the firmware's parser; python-thingset relies on it
        return ParsedRequest(line[0], path, bool(blank), json.loads(lenient) if blank else None, True)
    except ValueError:
        return ParsedRequest(line[0], path, True, None, False)


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items()) + "}"


def _array(texts: Iterable[str]) -> str:
    return "[" + ",".join(texts) + "]"


def make(world: World, options: FakeMpptOptions) -> Fake:
    """Return the device, behind a shell if that is configured."""
    fake = FakeMppt(world, options)
    return ZephyrShell(fake, log_lines=bool(options.debug_text)) if options.shell else fake


FAKE = FakeKind(kind="libresolar_mppt", options=FakeMpptOptions, make=make)
