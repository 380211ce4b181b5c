"""Libre Solar MPPT-1210-HUS solar charge controller, over ThingSet text mode on its UEXT serial port.

    115200 8-N-1, lines of text      collectors.protocols.thingset has the grammar
    #serial {"Bat_V":13.41,…}        once a second, unasked: "publications"
    ?meas ["Bat_degC","Int_degC"]    the other values are fetched at intervals:  :85 Content. [24.1,31.5]

Five generations of names and forms exist; `open` detects the generation without writing. In firmware before v21
publications are off after power-up. Their switch is in RAM, so switching it causes no wear, and `close` restores it. If
Zephyr's shell is on the port, ThingSet is one of its commands, and the values are polled.
Names, signs and counters of the objects: collectors.devices.libresolar_mppt.objects.
Writing settings: collectors.devices.libresolar_mppt.writing, disabled unless the operator allows it.

Frames carry no checksum in any released firmware: a bit error in a digit is detected only by range and power balance.
Source: docs/protocols/libresolar_mppt.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from collectors.device import Device, Line, Output
from collectors.devices.libresolar_mppt.capture import decode
from collectors.devices.libresolar_mppt.objects import (
    IDENTITY,
    ITEMS,
    SWITCHES,
    by_measurement,
    canonical,
    catalogue,
    full_name,
    groups,
    imbalance_w,
    located,
    possible,
    without_false_temperature,
)
from collectors.errors import FrameError, LinkDown, NoReply, NotUnderstood, Refused, WrongDevice
from collectors.protocols import thingset
from collectors.protocols.dialogue import Ask, Dialogue, DialogueStopped, Reply
from collectors.protocols.thingset import GENERATIONS, Generation, Json, Other, Publication, Response
from collectors.reading import Event, Identity, Value

LISTEN_S = 3.0
"""Three publication periods: silence for that long means that publications are off."""
PROBE_S = 1.5
REPLY_S = 1.0
"""Storing a setting takes up to 0.5 s."""
PAUSE_S = 0.01
"""The firmware reads its port every 10 ms; bytes that arrive while it works are lost."""
ERASE_LINE = b"\x15"
"""Ctrl-U: the shell discards what an earlier program typed without a line end."""
BATCH = 16
"""Names per request, so that request and response fit into the device's buffers."""

MOST_TOLD = 100
"""Maximum number of distinct events per connection: on a garbled line every name may be a new one."""

FAST = frozenset(
    {
        *("charger.uptime_s", "charger.state", "charger.dcdc_state", "charger.error_flags", "load.state"),
        *("battery.voltage_v", "battery.current_a", "battery.soc"),
        *("solar.voltage_v", "solar.current_a", "load.current_a"),
    }
)
"""Values requested in every slot if the device does not publish; the others are requested every `extra_period_s`."""

LIMITS: Mapping[str, tuple[float, float]] = {
    "solar.voltage_v": (-1.0, 40.0),
    "solar.current_a": (-11.0, 11.0),
    "load.current_a": (-11.0, 11.0),
    "battery.current_a": (-11.0, 11.0),
}
"""Limits of the hardware: 40 V, and 10 A plus a tenth, since noise at full load is valid data.

Beyond a limit a value is missing and an event states it. The limit of the battery's voltage is an option.
"""

_OLD_NAMES = frozenset({"vBat", "vSolar", "iBat"})
"""Generation 0.1, before spring 2019."""
_PROBES: tuple[tuple[Generation, str], ...] = (
    ("0.3", "output"),
    ("0.4", "meas"),
    ("0.5", "Battery"),
    ("0.2", "output"),
)
"""Groups that only one generation has. 0.6 answers each of them in its own form."""


@dataclass(frozen=True, slots=True)
class MpptOptions:
    """The [device] table."""

    generation: Literal["auto", "0.2", "0.3", "0.4", "0.5", "0.6"] = field(
        default="auto", metadata={"help": "ThingSet generation of the firmware; auto finds out without writing"}
    )
    mode: Literal["auto", "publications", "poll"] = field(
        default="auto", metadata={"help": "listen to what it says each second, or ask; auto listens where it can"}
    )
    publications: Literal["enable", "leave"] = field(
        default="enable", metadata={"help": "whether to switch publications on where they are off (RAM only)"}
    )
    extra_period_s: float = field(
        default=30.0, metadata={"help": "how often to fetch what is not published, 10 or more; 0: never"}
    )
    battery_limit_v: float = field(
        default=16.0, metadata={"help": "highest battery voltage that can be true: 16 for 12 V systems, 32 for 24 V"}
    )
    shell: bool | None = field(
        default=None,
        metadata={"help": "whether ThingSet is a command of Zephyr's shell on this port; none: find out by its prompt"},
    )
    allow_write: bool = field(default=False, metadata={"help": "whether settings and switches may be written at all"})
    password_file: str = field(default="", metadata={"help": "file with the password for writing what is protected"})

    def __post_init__(self) -> None:
        """Reject values that would overload the device or that no battery has."""
        if self.extra_period_s != 0.0 and not 10.0 <= self.extra_period_s <= 86_400.0:
            raise ValueError(f"extra_period_s: expected 0, or 10 to 86400, got {self.extra_period_s:g}")
        if not 1.0 <= self.battery_limit_v <= 40.0:
            raise ValueError(f"battery_limit_v: expected 1 to 40, got {self.battery_limit_v:g}")


class Controller:
    """One connection to one charge controller.

    `open` sets `paced_by`: "device" if the device publishes, "grid" if it must be polled.
    """

    def __init__(self, options: MpptOptions) -> None:
        self.options = options
        self.paced_by = "grid" if options.mode == "poll" else "device"
        fixed: Sequence[Generation] = GENERATIONS if options.generation == "auto" else (options.generation,)
        self._candidates = frozenset(fixed)
        self._limits = {**LIMITS, "battery.voltage_v": (0.0, options.battery_limit_v)}
        self._pending: list[Reply] = []
        self._reader = thingset.Reader()
        self._is_late = False
        self._in_shell = bool(options.shell)
        self._prompt_seen = False
        self._line_start = ERASE_LINE
        self._switched: tuple[str, str] | None = None
        self._members: dict[str, tuple[str, ...]] = {}
        self._published: frozenset[str] = frozenset()
        self._extra_groups: list[str] = []
        self._extras_due_ns = 0
        self._now_ns = 0
        self._uptime_s: float | None = None
        self._has_sensor = False
        self._told: set[tuple[str, str]] = set()

    @property
    def generation(self) -> Generation:
        """Return the generation of the device; before it is certain, the oldest that is still possible."""
        return next(g for g in GENERATIONS if g in self._candidates)

    def open(self) -> Dialogue[Identity]:
        """Detect the generation, identify the device, and switch publications on if that is configured.

        Writes nothing but that switch. Raises WrongDevice for another device or generation 0.1, NoReply if nothing
        answers, Refused if `mode` requires publications and they stay off.
        """
        heard = yield from self._detect()
        identity = yield from self._identify()
        if self.options.mode == "poll":
            self._pending.clear()
        elif not heard and ((self._in_shell and self.options.mode == "auto") or not (yield from self._enable())):
            if self.options.mode == "publications":
                raise Refused('publications are off and stay off; set publications = "enable" or mode = "poll"')
            self.paced_by = "grid"
        return identity

    def poll(self) -> Dialogue[list[Output]]:
        """Return the next publication's readings, at intervals also what is not published; or one slot's answers."""
        outputs: list[Output] = []
        is_asked = self.paced_by == "grid"
        try:
            if is_asked:
                yield from self._ask_slot(outputs)
            else:
                yield from self._await_publication(outputs)
                self._digest_pending(outputs)
            yield from self._extras(outputs)
        except (LinkDown, DialogueStopped):
            if not (outputs or self._pending):
                raise  # otherwise keep what was received
        if is_asked:
            self._pending.clear()  # publications of a device that is polled nevertheless
        else:
            self._digest_pending(outputs)
        return outputs

    def close(self) -> Dialogue[None]:
        """Switch publications off again if `open` switched them on."""
        self._reader = thingset.Reader()  # the next connection may have another buffer
        if self._switched:
            group, name = self._switched
            self._switched = None
            yield from self.command(thingset.update(self.generation, group, {name: False}))

    # ---- requests

    def _hear(self, send: bytes, timeout_s: float) -> Dialogue[Reply]:
        """Return the next response or publication; debug text extends the wait to at most twice the time."""
        until_ns, text = None, ""
        while True:
            if send:
                self._reader.asks(flush=self._is_late)
            try:
                reply: Reply = yield Ask(
                    send, self._reader.cut, timeout_s, PAUSE_S if send else 0.0, flush=bool(send) and self._is_late
                )
            except NoReply as error:
                if text:
                    raise _only_text(text) from error
                raise
            self._is_late = False
            if not isinstance(reply.payload, Other):
                return reply
            self._prompt_seen |= reply.payload.from_shell
            send, text = b"", _without_password(reply.payload.text)
            until_ns = until_ns or reply.boottime_ns + round(timeout_s * 1e9)
            if reply.boottime_ns > until_ns:
                raise _only_text(text)

    def ask(self, request: bytes, timeout_s: float = REPLY_S) -> Dialogue[tuple[Response, int]]:
        """Return the response and its time stamp; publications that arrive first are kept for the next `poll`.

        If a prompt shows that a shell is on the port, the request is sent through the shell.
        """
        self._finds_shell()
        try:
            return (yield from self._ask_once(request, timeout_s))
        except NoReply:
            if not self._finds_shell():
                raise
        return (yield from self._ask_once(request, timeout_s))

    def _ask_once(self, request: bytes, timeout_s: float) -> Dialogue[tuple[Response, int]]:
        send, until_ns = self._on_wire(request), None
        while True:
            reply = yield from self._hear(send, timeout_s)
            if isinstance(reply.payload, Response):
                return reply.payload, reply.boottime_ns
            self._pending.append(reply)
            send = b""
            until_ns = until_ns or reply.boottime_ns + round(timeout_s * 1e9)
            if reply.boottime_ns > until_ns:
                raise NoReply(f"no answer within {timeout_s:g} s to {_shown(request)}, while publications go on")

    def _on_wire(self, request: bytes) -> bytes:
        """Return the bytes of a request; for a shell a command, the first one after clearing its input line."""
        if not self._in_shell:
            return request
        start, self._line_start = self._line_start, b""
        return start + thingset.in_shell(request)

    def _finds_shell(self) -> bool:
        """Return whether a prompt has just shown that there is a shell; later requests are then shell commands."""
        if self.options.shell is None and self._prompt_seen and not self._in_shell:
            self._in_shell = True
            return True
        return False

    def command(self, request: bytes) -> Dialogue[tuple[Json, int]]:
        """Return the response's payload and time stamp. Raise Refused if the device answers with an error."""
        response, stamp_ns = yield from self.ask(request)
        if not response.ok:
            raise Refused(f"{_shown(request)} was answered {response.status}", response.code)
        return response.payload, stamp_ns

    def fetch(self, group: str, names: Sequence[str]) -> Dialogue[tuple[dict[str, Json], int]]:
        """Return the members' values by name, and the time at which they were valid."""
        payload, stamp_ns = yield from self.command(thingset.fetch(self.generation, group, names))
        if not isinstance(payload, list) or len(payload) != len(names):
            raise FrameError(f"expected an array of {len(names)} for {group} {list(names)}, got {payload!r}")
        return dict(zip(names, payload, strict=True)), stamp_ns

    # ---- identification

    def _detect(self) -> Dialogue[bool]:
        """Determine the generation by listening, then by reading; return whether publications were received."""
        silence = NoReply("it publishes in a form that no known generation has")
        try:
            reply = yield from self._hear(b"", LISTEN_S if len(self._candidates) > 1 else PROBE_S)
        except NoReply as error:
            silence = error
        else:
            self._narrow(reply.payload)
            if isinstance(reply.payload, Publication):
                self._pending.append(reply)
        heard = bool(self._pending)
        if not heard or len(self._candidates) > 1:
            yield from self._probe(silence)
        return heard

    def _narrow(self, message: Response | Publication) -> None:
        """Keep the generations in which this message can occur. Raise WrongDevice if none is left."""
        if isinstance(message, Publication) and message.values.keys() & _OLD_NAMES:
            raise WrongDevice("ThingSet generation 0.1 answers: expected firmware of 2019 or later; update it")
        left = self._candidates & possible(message)
        if not left:
            found, wanted = (" or ".join(sorted(g)) for g in (possible(message), self._candidates))
            raise WrongDevice(f"ThingSet generation {found} answers, expected {wanted}; set generation")
        self._candidates = left

    def _probe(self, silence: NoReply) -> Dialogue[None]:
        """Request groups that only one generation has, one at a time, until one exists."""
        answered = False
        for generation, group in _PROBES:
            if not self._candidates & {generation, "0.6"}:
                continue
            try:
                response, _ = yield from self.ask(thingset.names(generation, group), PROBE_S)
            except NoReply as error:
                silence = error if isinstance(error, NotUnderstood) else silence
                continue
            answered = True
            self._narrow(response)
            if response.ok:
                self._candidates &= {generation, "0.6"}
            if response.ok or self._candidates == {"0.6"}:
                return
        if answered:
            raise WrongDevice(
                "a ThingSet device answers, but not as a charge controller of a known or the set generation"
            )
        raise silence

    def _identify(self) -> Dialogue[Identity]:
        """Return model, serial number and versions. Raise WrongDevice if the device reports another model."""
        group, names = IDENTITY[self.generation]
        told: dict[str, str] = {}
        for name in names:
            response, _ = yield from self.ask(thingset.fetch(self.generation, group, name))
            if response.ok and response.payload is not None:  # some builds lack some of them
                told[name] = str(response.payload)
        if not told:  # publications of a known form identify a charger even if its answers were garbled
            kind = Refused if self._pending else WrongDevice
            raise kind(f"it has nothing in {group!r} that a generation {self.generation} charger has")
        serial, model, hardware, firmware, maker = (told.get(name, "") for name in names)
        if not serial and self.generation == "0.5":
            response, _ = yield from self.ask(thingset.get("0.5", "cNodeID"))
            serial = str(response.payload) if response.ok and response.payload else ""
        if model and "1210" not in model:
            again, _ = yield from self.ask(thingset.fetch(self.generation, group, names[1]))
            kind = WrongDevice if again.payload == model else Refused  # no checksum: a bit error must not be fatal
            raise kind(f"expected an MPPT-1210-HUS, got {model!r} with serial number {serial!r}")
        detail = {"generation": self.generation, "hardware": hardware, "manufacturer": maker}
        return Identity(model or "ThingSet charger", serial, firmware, {k: v for k, v in detail.items() if v})

    def _enable(self) -> Dialogue[bool]:
        """Switch publications on if that is configured; return whether the device accepted it."""
        if self.options.publications == "leave":
            return False
        for group, name in SWITCHES[self.generation]:
            response, _ = yield from self.ask(thingset.update(self.generation, group, {name: True}))
            if response.ok:
                self._switched = (group, name)
                return True
        return False

    # ---- publications

    def _await_publication(self, outputs: list[Output]) -> Dialogue[None]:
        """Wait for a publication; after a silence switch publications on again, since a restart clears the switch."""
        try:
            yield from self._listen()
        except NoReply:
            if not (yield from self._enable()):
                raise
            outputs.append(Event("publications_enabled", f"they had stopped for {LISTEN_S:g} s"))
            yield from self._listen()

    def _listen(self) -> Dialogue[None]:
        while not self._pending:
            reply = yield from self._hear(b"", LISTEN_S)
            if isinstance(reply.payload, Publication):  # not a late answer to a request that timed out
                self._pending.append(reply)

    def _digest_pending(self, outputs: list[Output]) -> None:
        """Convert the received publications to readings and events."""
        for reply in self._pending:
            publication: Publication = reply.payload
            if len(self._candidates) > 1:
                self._narrow(publication)
            outputs += self._digest(publication.values, reply.boottime_ns)
            self._published |= publication.values.keys() & catalogue(self.generation).keys()
            if publication.duplicates:
                outputs += self._once("duplicate_member", "", f"{publication.duplicates} members came twice")
        self._pending.clear()

    def _digest(self, raw: Mapping[str, Json], stamp_ns: int) -> list[Output]:
        """Return the readings and events of values received at one time."""
        self._now_ns = stamp_ns
        values, strange = canonical(self.generation, raw)
        events = [e for name in strange for e in self._once("unknown_member", name, f"{name} = {raw[name]!r}")]
        events += self._note_restart(values.get("charger.uptime_s"))
        if (sensor := values.get("battery.temperature_sensor")) is not None:
            self._has_sensor = bool(sensor)
        values = without_false_temperature(values, has_sensor=self._has_sensor)
        events += self._guard_limits(values)
        if rest_w := imbalance_w(values):
            events += self._once("power_imbalance", "", f"solar − battery − load power is beyond 0 by {rest_w:.1f} W")
        return [*by_measurement(values, stamp_ns), *events]

    def _once(self, kind: str, key: str, detail: str) -> list[Output]:
        """Return the event if it is the first of its kind and key on this connection, up to MOST_TOLD events."""
        if (kind, key) in self._told or len(self._told) >= MOST_TOLD:
            return []
        self._told.add((kind, key))
        return [Event(kind, detail, self._now_ns)]

    def _note_restart(self, uptime_s: float | None) -> list[Output]:
        before_s = self._uptime_s
        if uptime_s is None:
            return []
        self._uptime_s = uptime_s
        if before_s is None or uptime_s >= before_s:
            return []
        self._published, self._has_sensor = frozenset(), False
        if self.paced_by == "device":
            self._switched = None  # it publishes by itself after a restart, so `close` does not switch that off
        return [Event("device_restart", f"uptime went from {before_s:g} to {uptime_s:g} s", self._now_ns)]

    def _guard_limits(self, values: dict[str, Value]) -> list[Output]:
        """Replace values outside the hardware's limits by None; the first of a run of such values is an event."""
        events: list[Output] = []
        for key, (low, high) in self._limits.items():
            value = values.get(key)
            if value is None or low <= value <= high:
                self._told.discard(("out_of_range", key))
            else:
                values[key] = None
                events += self._once("out_of_range", key, f"{key}: {value:g}; the hardware has {low:g} to {high:g}")
        return events

    # ---- polling

    def _ask_slot(self, outputs: list[Output]) -> Dialogue[None]:
        """Request one slot's fast values, group by group; raise a group's failure only if all groups failed."""
        failure: Exception | None = None
        for group in groups(self.generation):
            try:
                yield from self._fetch_wanted(group, outputs, fast=True)
            except (NoReply, Refused, FrameError) as error:
                failure = error
                self._is_late = isinstance(error, NoReply)  # a late answer must not be taken for the next one's
        if failure and not outputs:
            raise failure
        if failure:
            outputs.append(Event("fetch_failed", f"{type(failure).__name__}: {failure}"))

    def _extras(self, outputs: list[Output]) -> Dialogue[None]:
        """Request one more group's values that are not sampled otherwise, if they are due."""
        if not self.options.extra_period_s:
            return
        if not self._extra_groups and self._now_ns >= self._extras_due_ns:
            self._extra_groups = list(groups(self.generation))
            self._extras_due_ns = self._now_ns + round(self.options.extra_period_s * 1e9)
        if self._extra_groups:
            group = self._extra_groups.pop(0)
            try:
                yield from self._fetch_wanted(group, outputs, fast=False)
            except (NoReply, Refused, FrameError) as error:  # keep what the poll cycle has received so far
                outputs.append(Event("fetch_failed", f"{group}: {type(error).__name__}: {error}"))
                if not isinstance(error, Refused):
                    self._extra_groups.clear()  # a late answer must not be taken for another request's

    def _fetch_wanted(self, group: str, outputs: list[Output], *, fast: bool) -> Dialogue[None]:
        wanted = yield from self._wanted(group, fast=fast)
        for names in self.batches(group, wanted):
            raw, stamp_ns = yield from self.fetch(group, names)
            outputs += self._digest({full_name(self.generation, group, n): v for n, v in raw.items()}, stamp_ns)

    def batches(self, group: str, names: Sequence[str]) -> list[list[str]]:
        """Split the names into requests that fit into the buffer of the device or of its shell."""
        batches: list[list[str]] = []
        for name in names:
            last = batches[-1] if batches else None
            if last is None or len(last) == BATCH or not self._holds(group, [*last, name]):
                batches.append([name])
            else:
                last.append(name)
        return batches

    def _holds(self, group: str, names: Sequence[str]) -> bool:
        try:
            request = thingset.fetch(self.generation, group, names)
            return bool(thingset.in_shell(request) if self._in_shell else request)
        except ValueError:
            return False

    def _wanted(self, group: str, *, fast: bool) -> Dialogue[list[str]]:
        """Return the group's members to fetch: known ones that the device has and does not publish."""
        if group not in self._members:
            payload, _ = yield from self.command(thingset.names(self.generation, group))
            if not isinstance(payload, list):
                raise FrameError(f"expected an array of the names in {group}, got {payload!r}")
            self._members[group] = tuple(name for name in payload if isinstance(name, str))
        known = located(self.generation)
        here = [name for name in self._members[group] if (group, name) in known]
        if self.paced_by == "device":
            return [name for name in here if full_name(self.generation, group, name) not in self._published]
        return [name for name in here if (known[group, name].signal in FAST) == fast]


def _only_text(text: str) -> NotUnderstood:
    return NotUnderstood(
        f"only text that is no ThingSet data, last {text[:60]!r}; is it 115200 baud, and the right port?"
    )


def _shown(request: bytes) -> str:
    """Return a request as text for messages, without what may be a password."""
    return repr(_without_password(request.decode().rstrip("\n")))


def _without_password(text: str) -> str:
    """Return a request, or its echo, up to a path that takes a password."""
    at = text.lower().find("auth")
    return text if at < 0 else text[:at] + text[at:].partition(" ")[0]


def _signals() -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for item in ITEMS:
        measurement, signal = item.signal.split(".")
        found.setdefault(measurement, []).append(signal)
    return found


DEVICE = Device(
    kind="libresolar_mppt",
    title="Libre Solar MPPT-1210-HUS",
    links=("serial", "tcp"),
    options=MpptOptions,
    driver=Controller,
    signals=_signals(),
    decode=decode,
    line=Line(baud=115200),
    paced_by="device",
    silence_s=5.0,
    checked=False,
    text=True,
    notes="Wire the UEXT serial port: the debug header carries console text. Battery temperature needs the external "
    "sensor; solar current is computed by the device as if it had no losses.",
)
