"""Code common to both generations of EA electronic loads. It only reads: it contains no command that sets anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from collectors.device import Output
from collectors.errors import FrameError, NoReply
from collectors.protocols.dialogue import Ask, Dialogue, Reply
from collectors.reading import Event, Reading, Value


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The [device] table of both kinds."""

    pause_s: float = field(
        default=0.05, metadata={"help": "least pause between an answer and the next question; the device may need it"}
    )
    timeout_s: float = field(default=0.2, metadata={"help": "silence after which a question is asked again"})
    retries: int = field(default=3, metadata={"help": "how often a question is asked again before the turn fails"})
    status: bool = field(default=True, metadata={"help": "also read mode, input state, control and alarms"})
    battery: bool = field(
        default=False,
        metadata={"help": "the load is the battery's only consumer or shall be compared: also write `battery`"},
    )
    battery_min_v: float = field(
        default=0.5,
        metadata={"help": "with `battery`: at or below this the terminals are taken as open, not as the battery"},
    )

    def __post_init__(self) -> None:
        """Reject values that no such device allows."""
        for key, low, high in (("pause_s", 0.0, 10.0), ("timeout_s", 0.001, 60.0), ("battery_min_v", 0.0, 1000.0)):
            if not low <= getattr(self, key) <= high:
                raise ValueError(f"{key}: expected {low:g} to {high:g}, got {getattr(self, key):g}")
        if not 0 <= self.retries <= 10:
            raise ValueError(f"retries: expected 0 to 10, got {self.retries}")


def insist(ask: Ask, retries: int) -> Dialogue[Reply]:
    """Return the response, repeating the request after NoReply or FrameError; raise the last of them."""
    while True:
        try:
            reply: Reply = yield ask
        except (NoReply, FrameError):
            if not retries:
                raise
            retries -= 1
        else:
            return reply


class LoadReport:
    """Builds the outputs of a poll cycle and keeps the Ah counter from one cycle to the next."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._charge_ah: Value = None

    def outputs(self, values: Mapping[str, Value], boottime_ns: int, events: Sequence[Event]) -> list[Output]:
        """Return the readings of `load` and, if configured, `battery`, followed by the events."""
        step_ah, restart = charge_step(self._charge_ah, values.get("charge_ah"))
        self._charge_ah = values.get("charge_ah")
        step = {} if step_ah is None else {"charge_step_ah": step_ah}
        readings = [Reading("load", boottime_ns, {**values, **step})]
        if self._options.battery:
            readings.append(battery_reading(values, boottime_ns, self._options.battery_min_v))
        return [*readings, *events, *([restart] if restart else [])]


def charge_step(before_ah: Value, now_ah: Value) -> tuple[Value, Event | None]:
    """Return the increase of an Ah counter, or None and an event if it decreased. Its reset is not documented."""
    if before_ah is None or now_ah is None:
        return None, None
    if now_ah < before_ah:
        return None, Event("counter_restart", f"the Ah counter fell from {before_ah:g} Ah to {now_ah:g} Ah")
    return now_ah - before_ah, None


def battery_reading(load: Mapping[str, Value], boottime_ns: int, open_at_or_below_v: float) -> Reading:
    """Return the battery's values as the load measures them: current with inverted sign, and voltage while connected.

    With the input off the terminals read 0 V (recorded on an EL 3160-60A), which is not the battery's voltage.
    """
    values: dict[str, Value] = {}
    voltage_v, current_a = load.get("voltage_v"), load.get("current_a")
    if voltage_v is not None and voltage_v > open_at_or_below_v:
        values["voltage_v"] = voltage_v
    if current_a is not None:
        values["current_a"] = 0.0 - current_a  # `-current_a` would give −0.0 for 0.0
    return Reading("battery", boottime_ns, values)
