"""A day of two benches in a real InfluxDB: the simulated bench's battery as several instruments measure it.

One hour is simulated (`collectors.bench.battery`) and repeated back to back; each instrument adds its own noise, gain
and offset (`collectors.bench.sensors`). A gap of 40 minutes with its events is in every instrument of bench-1 but one.
Times are fixed: END_S is "now" for every query.
"""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Iterator, Mapping

import numpy as np

from collectors.bench.battery import Battery, Setup, ocv_v
from collectors.bench.sensors import MPPT, T7, View
from tests.testing.influx import Influx

END_S = 1_795_176_000
HOURS = 26
STEP_S = 10
GAP = range(END_S - 5 * 3600, END_S - 5 * 3600 + 2400)
TAGS = "bench=bench-1,battery=lfp-1"
VALUES = {"bench": "bench-1", "battery": "lfp-1", "reference": "mppt", "compared": "t7", "device": ".*"}


def line(measurement: str, tags: str, values: Mapping[str, float | str | None], at_s: int) -> str:
    fields = ",".join(
        f'{name}="{value}"' if isinstance(value, str) else f"{name}={value!r}"
        for name, value in values.items()
        if value is not None
    )
    return f"{measurement},{tags} {fields} {at_s}"


def hour() -> list[dict[str, float]]:
    battery = Battery(Setup(start_of_day_s=16.5 * 3600), seed=3)  # sunset: both charge and discharge
    course = []
    for second in range(0, 3600, STEP_S):
        truth = dict(battery.at(second))
        cells = ocv_v(battery.state.soc) + battery.state.current_a * 0.002
        course.append(truth | {f"cell.{n}": float(v) for n, v in enumerate(cells, 1)})
    return course


def battery_lines(now: Mapping[str, float], views: Mapping[str, View], at_s: int) -> Iterator[str]:
    mppt, t7 = views["mppt"].see(now), views["t7"].see(now)
    own = {name: mppt[f"battery.{name}"] for name in ("voltage_v", "current_a", "power_w", "temperature_degc", "soc")}
    if at_s not in GAP:
        yield line("battery", f"{TAGS},device=mppt,kind=libresolar_mppt", own | {"full_charge_count": 12.0}, at_s)
        for group in ("solar", "load"):
            values = {name: mppt[f"{group}.{name}"] for name in ("voltage_v", "current_a", "power_w")}
            yield line(group, f"{TAGS},device=mppt,kind=libresolar_mppt", values, at_s)
        charger = {name.removeprefix("charger."): value for name, value in now.items() if name.startswith("charger.")}
        phase = {"state": float(1 + at_s // 3600 % 3), "error_flags": 2.0 if at_s % 7200 < 300 else 0.0}
        yield line("charger", f"{TAGS},device=mppt,kind=libresolar_mppt", charger | phase, at_s)
        yield throughput_line("mppt", own, at_s)
    seen = {name: t7[f"battery.{name}"] for name in ("voltage_v", "current_a")}
    yield line("battery", f"{TAGS},device=t7,kind=labjack_t7", seen, at_s)
    yield throughput_line("t7", seen, at_s)
    pack = {
        "voltage_v": now["battery.voltage_v"] + 0.02,
        "current_a": round(now["battery.current_a"], 1),
        "temperature_degc": now["battery.temperature_degc"],
        "soh": 0.97,
        "deep_discharge_count": 1.0,
        "usable_capacity_ah": 39.2,
    }
    yield line("battery", f"{TAGS},device=bms,kind=acme", pack, at_s)
    yield throughput_line("bms", pack, at_s)
    for cell in range(1, 5):
        values = {"voltage_v": now[f"cell.{cell}"], "temperature_degc": 20.0 + cell / 10}
        yield line("cell", f"{TAGS},device=bms,kind=acme,cell={cell}", values, at_s)


def throughput_line(device: str, seen: Mapping[str, float], at_s: int) -> str:
    """The collector's row for the step before; here the current was constant over the step."""
    charge_ah = seen["current_a"] * STEP_S / 3600
    inward, outward = max(charge_ah, 0.0), max(-charge_ah, 0.0)
    values = {"charge_in_ah": inward, "charge_out_ah": outward}
    values |= {"energy_in_wh": inward * seen["voltage_v"], "energy_out_wh": outward * seen["voltage_v"]}
    return line("throughput", f"{TAGS},device={device},kind=x", values, at_s)


def estimate_line(now: Mapping[str, float], rng: np.random.Generator, at_s: int) -> str:
    soc = now["battery.soc"]
    values = {
        "soc": soc + 0.002,
        "soc_lo": soc - 0.02,
        "soc_hi": soc + 0.024,
        "soc_counted": soc + 0.05,
        "innovation_v": float(rng.normal(0, 0.002)),
        "innovation_bound_v": 0.006,
        "current_offset_a": 0.03,
        "ocv_v": now["battery.voltage_v"] - 0.05,
        "model": "lfp-40ah-2rc",
        "version": "0.1.0",
    }
    return line("soc", TAGS, values, at_s)


def collector_lines(bench: str, device: str, at_s: int, since_s: int) -> Iterator[str]:
    tags, age_s = f"bench={bench},device={device},kind={device}", at_s - since_s
    silent = at_s in GAP and device == "mppt"
    values = {
        "samples": float(age_s),
        "skipped": float(age_s // 5000),
        "errors": float(age_s // 900),
        "reconnects": float(age_s // 20_000),
        "last_sample_age_s": float(at_s - GAP.start) if silent else 0.4,
        "latency_s": 0.05,
        "bytes_in": 120.0 * age_s,
        "queue_rows": 3.0,
        "journal_bytes": 1e6 + 20.0 * age_s,
        "disk_free_bytes": 2e10,
        "memory_bytes": 3e7,
        "cpu_share": 0.02,
        "dropped": 0.0,
        "clock_state": 1.0,
    }
    yield line("collector", tags, values, at_s)
    for outcome, count in (("ok", age_s), ("NoReply", age_s // 900), ("BadChecksum", age_s // 5000)):
        yield line("collector", f"{tags},outcome={outcome}", {"outcomes": float(count)}, at_s)


def shipper_line(bench: str, at_s: int) -> str:
    values = {"unsent_rows": 40.0, "unsent_age_s": 2.0, "dead_letters": 0.0, "lines_sent": 1e6, "clock_state": 1.0}
    tags = f"bench={bench},device=shipper,kind=shipper"
    host = {
        "memory_bytes": 4e7,
        "cpu_share": 0.03,
        "clock_state": 1.0,
        "disk_free_bytes": 2e10,
        "journal_bytes": 1e6,
        "wifi_signal_dbm": -56.0 - at_s // 600 % 5,
        "wifi_quality": 0.77,
    }
    return "\n".join(
        (
            line("collector", f"{tags},sink=lab", values, at_s),
            line("collector", tags, host, at_s),
        )
    )


def events() -> Iterator[str]:
    def event(device: str, kind: str, detail: str, at_s: int) -> str:
        return line("event", f"{TAGS},device={device},kind={kind}", {"detail": detail}, at_s)

    start_s = END_S - 20 * 3600
    yield event("mppt", "collector_start", "libresolar_mppt on serial:/dev/ttyUSB0", start_s)
    yield event("mppt", "link_up", "serial:/dev/ttyUSB0: MPPT 1210 HUS, firmware 21.0", start_s + 1)
    yield event("mppt", "link_down", "no reply within 1 s", GAP.start)
    yield event("mppt", "link_up", "serial:/dev/ttyUSB0: MPPT 1210 HUS, firmware 21.0", GAP.stop)
    yield event("mppt", "slots_skipped", "2400 slots passed", GAP.stop)
    yield event("mppt", "deploy", "battfleet 0.1.0", END_S - 1200)
    yield event("mppt", "flash", "firmware 21.0", END_S - 1800)
    yield event("t7", "calibration", "hall sensor gain 0.959", END_S - 900)
    yield event("t7", "stream_gap", "12 scans", END_S - 600)


def day() -> Iterator[str]:
    course = hour()
    views = {"mppt": View(MPPT, 1), "t7": View(T7, 2)}
    rng = np.random.default_rng(4)
    since_s = END_S - HOURS * 3600
    for step, at_s in enumerate(range(since_s, END_S, STEP_S)):
        now = course[step % len(course)]
        yield from battery_lines(now, views, at_s)
        yield estimate_line(now, rng, at_s)
        if at_s % 60 == 0:
            for device in ("mppt", "t7", "bms"):
                yield from collector_lines("bench-1", device, at_s, since_s)
            yield from collector_lines("bench-2", "mppt", at_s, since_s)
            yield from (shipper_line(bench, at_s) for bench in ("bench-1", "bench-2"))
    yield from events()


def write(influx: Influx, database: str, lines: list[str], policy: str = "") -> None:
    for first in range(0, len(lines), 20_000):
        request = urllib.request.Request(
            f"{influx.url}/write?db={database}&rp={policy}&precision=s",
            "\n".join(lines[first : first + 20_000]).encode(),
        )
        credentials = base64.b64encode(f"{influx.admin}:{influx.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 204
