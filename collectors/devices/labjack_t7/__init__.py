"""LabJack T7: analog inputs, read once per period or streamed at up to 100 ksamples/s and reduced to bins.

    sample    read AIN registers (volts, calibrated by the device), scale, one reading per measurement and period
    stream    start a stream, cut whole packets, count scans, reduce to bins, stamp by the fitted clock

Settings (range, negative input, resolution, settling) are in the device's RAM. A power cycle resets them, and the
device then responds with its defaults. So the driver writes the settings and reads them back at every open. In sample
mode every poll cycle also reads SYSTEM_TIMER_20HZ *after* the inputs: a timer that is behind its expected value means
that the device restarted. Then the cycle's values are discarded, an event is written, and the settings are written
again. A stream ends at a restart: no packets arrive, and the link is opened again.

Carriers: Modbus TCP directly to the device (`tcp:`), or LabJack's LJM library (`ljm:`, also USB), which carries the
same register reads and writes. Facts: docs/protocols/labjack_t7.md.
"""

from __future__ import annotations

import re

from collectors import signals
from collectors.device import Device, Driver
from collectors.devices.labjack_t7.capture import decode
from collectors.devices.labjack_t7.configuration import NO_STREAM_OVER_WIFI
from collectors.devices.labjack_t7.options import T7Options
from collectors.devices.labjack_t7.sampler import Sampler
from collectors.devices.labjack_t7.stream import Streamer

ANALOG = re.compile(r"(voltage|current|temperature|raw)_((min|max|std)_)?(v|a|degc)|power_w|samples")
"""What an analog input can measure, and which statistics a stream keeps of it."""


def driver(options: T7Options) -> Driver:
    """Return the driver of the configured mode."""
    return Streamer(options) if options.mode == "stream" else Sampler(options)


def check(options: T7Options, link: str) -> list[str]:
    """Return the settings that this link does not support: a stream over a link that is configured as Wi-Fi."""
    return [NO_STREAM_OVER_WIFI] if options.mode == "stream" and link.startswith("ljm:WIFI:") else []


EXAMPLES = (
    (
        "A 12 V battery: voltage over two resistors, current by an LA 55-P (±70 A) at ±15 V on a burden of 100 ohm",
        """
[device]
device_temperature = true

[[device.channels]]
input = "AIN0"
signal = "battery.voltage_v"
scaling = { divider = { r1_ohm = 3000.0, r2_ohm = 1000.0 } }

[[device.channels]]
input = "AIN1"
signal = "battery.current_a"

[device.channels.scaling]
hall = { burden_ohm = 100.0, range_a = 70.0, offset_a = 0.12 }
calibrated_on = "2026-05-04"
""",
    ),
    (
        "An LJTick-Divider set to /5: only the ratio counts, as its output is buffered; it ends at 3.5 V (17.5 V)",
        """
[[device.channels]]
input = "AIN2"
signal = "battery.voltage_v"
scaling = { divider = { r1_ohm = 4.0, r2_ohm = 1.0, limit_v = 3.5 } }
""",
    ),
    (
        "Small currents: ten turns through an LA 55-P make it a sensor of ±7 A",
        """
[[device.channels]]
input = "AIN1"
signal = "load.current_a"
scaling = { hall = { burden_ohm = 100.0, turns = 10, range_a = 70.0 } }
""",
    ),
    (
        "A temperature sensor with 10 mV per kelvin and 0.5 V at 0 °C, good for −40 to 125 °C",
        """
[[device.channels]]
input = "AIN3"
signal = "battery.temperature_degc"
scaling = { polynomial = { coefficients = [-50.0, 100.0] }, range = [-40.0, 125.0] }
""",
    ),
    (
        "Fast: two inputs 5000 times a second, kept as bins of 0.1 s",
        """
[device]
mode = "stream"
scan_rate_hz = 5000.0
bin_s = 0.1

[[device.channels]]
input = "AIN0"
signal = "battery.voltage_v"
scaling = { divider = { r1_ohm = 3000.0, r2_ohm = 1000.0 } }

[[device.channels]]
input = "AIN1"
signal = "battery.current_a"
scaling = { hall = { burden_ohm = 100.0, range_a = 70.0 } }
""",
    ),
)

DEVICE = Device(
    kind="labjack_t7",
    title="LabJack T7 and T7-Pro",
    links=("tcp", "ljm"),
    options=T7Options,
    driver=driver,
    signals={
        measurement: tuple(name for name in signals.VOCABULARY[measurement] if ANALOG.fullmatch(name))
        for measurement in ("battery", "cell", "solar", "load", "analog")
    },
    decode=decode,
    check=check,
    channels={"": 502, "stream": 702},
    checked=False,
    examples=EXAMPLES,
    notes=(
        "Which signals it gives is configuration: each analog input names its signal and scaling."
        " Over USB it needs LabJack's LJM library, over Ethernet it does not. Over Wi-Fi (T7-Pro) it can be sampled,"
        " but not streamed: there it only answers questions. It has one stream: another program's is stopped, with an"
        " event (`stream_taken_over`), at most once an hour; else the collector waits for its end."
    ),
)
