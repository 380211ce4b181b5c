"""Functions common to sampling and streaming: identify the device, write the settings and read them back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from collectors.device import Output
from collectors.devices.labjack_t7.client import T7Client, Who
from collectors.devices.labjack_t7.options import Channel, T7Options
from collectors.errors import ConfigError, LinkBusy, Refused, WrongDevice
from collectors.protocols.dialogue import Dialogue
from collectors.reading import Event, Identity


def configure(session: T7Client, settings: dict[str, float]) -> Dialogue[None]:
    """Write the settings and read them back. Raise Refused with the name of every register that holds another value."""
    yield from session.write(settings)
    kept = (yield from session.read(*settings)).by_name
    wrong = [
        f"{name}: wrote {value:g}, the device says {kept[name]:g}"
        for name, value in settings.items()
        # 0 µs lets the device choose the settling time, so every value read back is right
        if not math.isclose(kept[name], value, rel_tol=1e-6) and not (name.endswith("SETTLING_US") and value == 0)
    ]
    if wrong:
        raise Refused("; ".join(wrong))


def identity(who: Who, options: T7Options) -> Identity:
    detail = {"hardware": who.hardware}
    for channel in options.channels:
        since = f", calibrated {channel.scaling.calibrated_on}" if channel.scaling.calibrated_on else ""
        detail[channel.input] = f"{channel.signal}, ±{channel.range_v:g} V against {channel.negative}{since}"
    return Identity("LabJack T7-Pro" if who.is_pro else "LabJack T7", who.serial, who.firmware, detail)


def enter(session: T7Client, options: T7Options) -> Dialogue[tuple[Who, list[Output]]]:
    """Return the identity, after stopping a stream that runs; with an event if this process did not start the stream.

    A T7 has one stream, and while it runs inputs cannot be sampled. A stream of another program, or of an earlier run,
    is stopped at most once in TAKE_OVER_PAUSE_S. If it is started again within that time, another program is running:
    then LinkBusy is raised until its stream has ended.
    """
    who = yield from session.identify()
    if options.serial_number and who.serial != options.serial_number:
        raise WrongDevice(f"serial number: expected {options.serial_number}, this T7 is {who.serial}")
    running, at_ns = yield from session.read("STREAM_ENABLE")
    if not running["STREAM_ENABLE"]:
        return who, []
    events: list[Output] = []
    if not STREAMS.is_own(who.serial, (yield from started_at(session))):
        about = (yield from session.read("STREAM_NUM_ADDRESSES", "STREAM_SCANRATE_HZ_ACTUAL")).by_name
        rate_hz, channels = about["STREAM_SCANRATE_HZ_ACTUAL"], about["STREAM_NUM_ADDRESSES"]
        what = f"{channels} channel{'s' * (channels != 1)} at {rate_hz:g} scans/s"
        if not STREAMS.may_take_over(who.serial, at_ns):
            raise LinkBusy(
                f"another program keeps starting a stream on this T7 ({what}), and a T7 has only one; waiting until it"
                f" has ended, or {TAKE_OVER_PAUSE_S / 60:.0f} minutes since it was last stopped"
            )
        text = f"a stream of {what}, started by another program or an earlier run, was stopped"
        events.append(Event("stream_taken_over", text, at_ns))
    yield from session.write({"STREAM_ENABLE": 0})
    return who, events


TAKE_OVER_PAUSE_S = 3600.0


class Streams:
    """The streams that this process knows of, by serial number; like the streams, they outlive a connection."""

    def __init__(self) -> None:
        self._own: dict[str, int] = {}
        self._taken_ns: dict[str, int] = {}

    def clear(self) -> None:
        """Forget all streams, as after a start of the process."""
        self._own.clear()
        self._taken_ns.clear()

    def note_own(self, serial: str, started_at: int) -> None:
        """Record the stream that this process started, by the device's time stamp of its first scan."""
        self._own[serial] = started_at

    def is_own(self, serial: str, started_at: int) -> bool:
        """Return whether this process started the stream with this time stamp."""
        return self._own.get(serial) == started_at

    def may_take_over(self, serial: str, at_ns: int) -> bool:
        """Return whether another program's stream may be stopped now, and if so record that it is."""
        last_ns = self._taken_ns.get(serial)
        if last_ns is not None and at_ns - last_ns < TAKE_OVER_PAUSE_S * 1e9:
            return False
        self._taken_ns[serial] = at_ns
        return True


STREAMS = Streams()


def started_at(session: T7Client) -> Dialogue[int]:
    """Return the device's time stamp of its stream's first scan, which identifies the stream."""
    return int((yield from session.read("STREAM_START_TIME_STAMP")).by_name["STREAM_START_TIME_STAMP"])


def refuse_wifi(session: T7Client) -> Dialogue[None]:
    """Raise ConfigError if the T7 is connected by Wi-Fi only: over Wi-Fi it sends no stream packets."""
    addresses = (yield from session.read("ETHERNET_IP", "WIFI_IP")).by_name
    if addresses["WIFI_IP"] and not addresses["ETHERNET_IP"]:
        raise ConfigError(NO_STREAM_OVER_WIFI)


NO_STREAM_OVER_WIFI = (
    "mode: over Wi-Fi a T7 cannot stream (it answers questions only); connect it by Ethernet or USB, or use"
    " mode = 'sample'"
)


def inputs(channels: Sequence[Channel]) -> dict[str, float]:
    """Return the settings that sampling and streaming share."""
    return {f"{c.input}_RANGE": c.range_v for c in channels} | {
        f"{c.input}_NEGATIVE_CH": float(c.negative_ch) for c in channels
    }


def warnings(options: T7Options) -> list[Output]:
    return [Event("config_warning", warning) for warning in options.warnings()]


def groups(channels: Sequence[Channel]) -> list[list[Channel]]:
    """Return the channels grouped by measurement and tags: each group is one reading."""
    groups: dict[tuple[str, str], list[Channel]] = {}
    for channel in channels:
        groups.setdefault((channel.measurement, channel.cell), []).append(channel)
    return list(groups.values())


class MissingInputs:
    """The inputs that currently give no value: one event when that begins and one when it ends."""

    def __init__(self) -> None:
        self._inputs: set[str] = set()

    def note(self, channel: Channel, problem: str | None, at_ns: int) -> Iterator[Event]:
        """Yield an event if the state of this input changes."""
        if problem and channel.input not in self._inputs:
            self._inputs.add(channel.input)
            yield Event("input_overrange", f"{channel.input} ({channel.signal}): {problem}", at_ns)
        elif not problem and channel.input in self._inputs:
            self._inputs.remove(channel.input)
            yield Event("input_back", f"{channel.input} ({channel.signal}): within its range again", at_ns)
