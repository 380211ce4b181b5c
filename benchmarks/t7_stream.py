"""T7 stream over loopback through the whole chain, and a plain decoder as the peer, in one run.

    python benchmarks/t7_stream.py                    60 s at 100 ksamples/s, two channels
    python benchmarks/t7_stream.py --seconds 10 --bin 0.01

The fake runs in a process of its own. This process runs the real poller, driver and journal on a real TCP link; its
processor time over the measured time is the figure. No gap: every bin is full, and no event was written.
The peer decodes the same stream packet by packet with struct and a loop per sample. It and our decoder are measured
on the very same bytes, without link, poller and journal.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import struct
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean, pstdev

from collectors import config, devices
from collectors.acquisition.poller import Poller
from collectors.acquisition.session import Session
from collectors.device import Output
from collectors.devices.labjack_t7 import calibration as volts
from collectors.devices.labjack_t7 import stream_packets as stream
from collectors.devices.labjack_t7.options import T7Options
from collectors.fakes import labjack_t7 as fake
from collectors.fakes.serve import Server, Station
from collectors.fakes.wires import TcpWire
from collectors.host.clock import SystemClock
from collectors.journal.committer import Committer
from collectors.reading import Event
from collectors.transports import open_link

WARM_UP_S = 2.0
PEER_S = 2.0
CONFIG = """
[collector]
name = "t7"
bench = "benchmark"
kind = "labjack_t7"
link = "{link}"
state_dir = "{folder}"
[device]
mode = "stream"
scan_rate_hz = {scan_rate_hz}
bin_s = {bin_s}
[[device.channels]]
input = "AIN0"
signal = "battery.voltage_v"
scaling = {{ divider = {{ r1_ohm = 3000, r2_ohm = 1000 }} }}
[[device.channels]]
input = "AIN1"
signal = "battery.current_a"
scaling = {{ hall = {{ burden_ohm = 100 }} }}
"""


def serve(ready: Connection) -> None:
    """Serve the fake until this process is ended; send its link string first."""
    server = Server()
    world = {"battery.voltage_v": 13.2, "battery.current_a": -4.5}
    station = server.add_tcp(
        Station("t7", fake.FAKE, lambda _time_s: world, fake.FakeT7Options()), {"": 0, "stream": 0}
    )
    assert isinstance(station.wire, TcpWire)
    ready.send(station.wire.link)
    server.run()


class Counting:
    """Passes everything on to the journal and counts what matters here."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self.bins: list[tuple[int, float]] = []
        self.events: list[Event] = []

    def put(self, item: Output) -> None:
        """Take one reading or event."""
        if isinstance(item, Event):
            self.events.append(item)
        elif item.measurement == "battery":
            self.bins.append((item.boottime_ns, item.values["samples"] or 0.0))
        self._committer.put(item)


def chain(settings: config.Config, seconds: float) -> bool:
    """Run poller, driver and journal; print what it cost. Return whether there was no gap."""
    clock = SystemClock()
    collector = settings.collector
    committer = Committer(collector.state_dir, collector.name, settings.tags, settings.journal, clock)
    committer.start()
    sink = Counting(committer)
    begin_s = time.monotonic() + WARM_UP_S
    marks: list[tuple[float, float]] = []

    def stopping() -> bool:
        now_s = time.monotonic()
        if not marks and now_s >= begin_s:
            marks.append((now_s, time.process_time()))
            sink.bins.clear()
        return now_s >= begin_s + seconds

    poller = Poller(settings, sink, clock, stopping)
    poller.run()
    (from_s, from_cpu_s), to_s, to_cpu_s = marks[0], time.monotonic(), time.process_time()
    committer.stop(5.0)
    share = (to_cpu_s - from_cpu_s) / (to_s - from_s)
    full = round(settings.options.bin_s * settings.options.scan_rate_hz)
    short = [samples for _, samples in sink.bins if samples != full]
    steps_s = [(b - a) / 1e9 for (a, _), (b, _) in zip(sink.bins, sink.bins[1:], strict=False)]
    events = [e for e in sink.events if e.kind not in ("link_up", "collector_start")]
    rate = sum(samples for _, samples in sink.bins) * len(settings.options.channels) / (to_s - from_s)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"whole chain  {100 * share:.2f} % of a core over {to_s - from_s:.1f} s at {rate:,.0f} samples/s")
    print(
        f"             {len(sink.bins)} bins, {len(short)} not full, {len(events)} events, peak memory {memory:.0f} MB"
    )
    print(f"             bins apart by {min(steps_s) * 1e3:.3f} to {max(steps_s) * 1e3:.3f} ms")
    for event in events:
        print(f"             {event.kind}: {event.detail}")
    return not short and not events


def capture(settings: config.Config, seconds: float) -> bytes:
    """Return what arrives on the stream's channel in this time."""
    link = open_link(settings.collector.link, settings.device)
    conversation = Session(link, SystemClock())
    driver = settings.device.driver(settings.options)
    conversation.carry(driver.open())
    data = b""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        data += link.read(0.1, "stream").data
    conversation.carry(driver.close())
    link.close()
    return data


def plain(data: bytes, options: T7Options) -> int:
    """Decode packet by packet and sample by sample, the peer; return how many bins that gave."""
    channels, per_bin = len(options.channels), round(options.bin_s * options.scan_rate_hz)
    pslope, nslope, centre = volts.nominal(10.0)
    waiting: list[list[float]] = [[] for _ in range(channels)]
    bins: list[tuple[float, float, float, float]] = []
    at = 0
    while at + 6 <= len(data) and at + 6 + int.from_bytes(data[at + 4 : at + 6]) <= len(data):
        length = int.from_bytes(data[at + 4 : at + 6])
        codes = struct.unpack_from(f">{(length - 10) // 2}H", data, at + 16)
        at += 6 + length
        for i, code in enumerate(codes):
            value = (code - centre) * pslope if code >= centre else (centre - code) * nslope
            waiting[i % channels].append(options.channels[i % channels].scaling.apply(value))
        if len(waiting[-1]) >= per_bin:
            for samples in waiting:
                done = samples[:per_bin]
                bins.append((fmean(done), min(done), max(done), pstdev(done)))
                del samples[:per_bin]
    return len(bins) // channels


def ours(data: bytes, options: T7Options) -> int:
    """Decode the same with the driver's own parts, a tenth of a second at a time; return how many bins that gave."""
    tracker = stream.Tracker(len(options.channels))
    tables = [volts.table(volts.nominal(c.range_v), c.scaling) for c in options.channels]
    binner = stream.Binner(round(options.bin_s * options.scan_rate_hz), list(enumerate(tables)))
    chunk = round(options.scan_rate_hz * len(options.channels) * 2 / 10)
    bins, at, rest = 0, 0, b""
    while at < len(data):
        rest, at = rest + data[at : at + chunk], at + chunk
        if cut := stream.cut_packets(rest):
            rest = rest[cut.used :]
            segments, _ = tracker.feed(cut.payload)
            found = binner.feed(segments, tracker.counter)
            bins += 0 if found is None else len(found.number)
    return bins


def peers(settings: config.Config) -> None:
    """Print what decoding and binning alone cost, ours and plain, on the same bytes of the same stream."""
    data = capture(settings, PEER_S)
    for name, decode in (("ours", ours), ("plain", plain)):
        from_s = time.process_time()
        bins = decode(data, settings.options)
        share = (time.process_time() - from_s) / (bins * settings.options.bin_s)
        print(f"{name:12} {100 * share:.2f} % of a core for decoding and binning alone ({bins} bins)")


def main() -> None:
    """Run both; exit 1 when the stream had a gap."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100_000.0, help="samples per second, both channels together")
    parser.add_argument("--bin", type=float, default=0.1, help="length of a bin in s")
    args = parser.parse_args()
    devices.load("labjack_t7")
    ours, theirs = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "t7.toml"
            rate_hz = args.rate / 2
            file.write_text(CONFIG.format(link=ours.recv(), folder=folder, scan_rate_hz=rate_hz, bin_s=args.bin))
            settings = config.load(file)
            is_whole = chain(settings, args.seconds)
            peers(settings)
    finally:
        server.terminate()
        server.join()
    sys.exit(0 if is_whole else 1)


if __name__ == "__main__":
    main()
