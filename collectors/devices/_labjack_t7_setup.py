"""What sampling and streaming do alike: find out who answers, write settings and see that they took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from collectors.device import Output
from collectors.devices._labjack_t7_options import Channel, Options
from collectors.devices._labjack_t7_session import Session, Who
from collectors.dialogue import Dialogue
from collectors.errors import Refused, WrongDevice
from collectors.reading import Event, Identity


def configure(session: Session, settings: dict[str, float]) -> Dialogue[None]:
    """Write the settings and read them back; Refused naming every register that did not take its value."""
    yield from session.write(settings)
    kept = (yield from session.read(*settings)).by_name
    wrong = [
        f"{name}: wrote {value:g}, the device says {kept[name]:g}"
        for name, value in settings.items()
        # 0 µs leaves the settling time to the device, so whatever it reads back is right
        if not math.isclose(kept[name], value, rel_tol=1e-6) and not (name.endswith("SETTLING_US") and value == 0)
    ]
    if wrong:
        raise Refused("; ".join(wrong))


def identity(who: Who, options: Options) -> Identity:
    detail = {"hardware": who.hardware}
    for channel in options.channels:
        since = f", calibrated {channel.scaling.calibrated_on}" if channel.scaling.calibrated_on else ""
        detail[channel.input] = f"{channel.signal}, ±{channel.range_v:g} V against {channel.negative}{since}"
    return Identity("LabJack T7-Pro" if who.is_pro else "LabJack T7", who.serial, who.firmware, detail)


def enter(session: Session, options: Options) -> Dialogue[Who]:
    """Return who answers, after stopping a stream that an earlier run left behind."""
    who = yield from session.identify()
    if options.serial_number and who.serial != options.serial_number:
        raise WrongDevice(f"serial number: expected {options.serial_number}, this T7 is {who.serial}")
    if (yield from session.read("STREAM_ENABLE")).by_name["STREAM_ENABLE"]:
        yield from session.write({"STREAM_ENABLE": 0})
    return who


def inputs(channels: Sequence[Channel]) -> dict[str, float]:
    """Return the settings that sampling and streaming share."""
    return {f"{c.input}_RANGE": c.range_v for c in channels} | {
        f"{c.input}_NEGATIVE_CH": float(c.negative_ch) for c in channels
    }


def warnings(options: Options) -> list[Output]:
    return [Event("config_warning", warning) for warning in options.warnings()]


def groups(channels: Sequence[Channel]) -> list[list[Channel]]:
    """Return the channels by measurement and tags: each group is one reading."""
    groups: dict[tuple[str, str], list[Channel]] = {}
    for channel in channels:
        groups.setdefault((channel.measurement, channel.cell), []).append(channel)
    return list(groups.values())


class Missing:
    """Which inputs give no value just now: one event when that begins and one when it is over."""

    def __init__(self) -> None:
        self._inputs: set[str] = set()

    def note(self, channel: Channel, problem: str | None, at_ns: int) -> Iterator[Event]:
        """Give the event when this changes something."""
        if problem and channel.input not in self._inputs:
            self._inputs.add(channel.input)
            yield Event("input_overrange", f"{channel.input} ({channel.signal}): {problem}", at_ns)
        elif not problem and channel.input in self._inputs:
            self._inputs.remove(channel.input)
            yield Event("input_back", f"{channel.input} ({channel.signal}): within its range again", at_ns)
