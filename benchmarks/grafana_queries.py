"""What a dashboard costs the database: milliseconds per panel at 24 h and 30 d, on a month of five instruments at 1 Hz.

    .venv/bin/python benchmarks/grafana_queries.py [--days 30] [--devices 5] [--runs 3]

A real InfluxDB 1.6 (Debian's) is filled with a made month: battery voltage, current and temperature of each instrument
every second with their sums, the estimator's numbers, cells and the collectors' reports every minute. Then each panel's
queries are asked one after the other, as Grafana would, and the median of some runs is taken. The named peer is what a
dashboard without downsampling does: the same 30 d of current read from raw. Goals: 300 ms per panel at 24 h, 1 s at
30 d.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from grafana.downsampling import H1, M1, REDUCED, influxdb1, policy
from grafana.downsampling.install import install
from grafana.downsampling.server import Server
from tests.grafana import seed
from tests.grafana.asking import Range, asked, auto, dashboards, fill_in
from tests.testing.influx import running

Array = npt.NDArray[np.float64]

DAY_S = 86_400
END_S = seed.END_S
DEVICES = ("mppt", "t7", "el3000", "bms", "shunt")
GOALS_MS = {"24 h": 300.0, "30 d": 1000.0}
SPANS_S = {"24 h": DAY_S, "30 d": 30 * DAY_S}


def battery_hour(device: str, number: int, from_s: int) -> dict[str, list[str]]:
    """Return an hour of one instrument at 1 Hz as lines for each policy ("": raw), sums included."""
    at = np.arange(from_s, from_s + 3600)
    rng = np.random.default_rng(from_s + number)
    amps = 5 * np.sin(at / 4000) + rng.normal(0, 0.02, len(at)) + 0.02 * number
    volts = 13.2 + 0.05 * amps + rng.normal(0, 0.004, len(at))
    table = np.column_stack((volts, amps, np.full(len(at), 21.5)))
    head = f"battery,bench=bench-1,battery=lfp-1,device={device},kind={device} "
    lines = {"": battery_lines(head, table, at)}
    for grain, step_s in ((M1, 60), (H1, 3600)):
        bins = table.reshape(-1, step_s, 3)
        sums = {
            "mean": bins.mean(1),
            "min": bins.min(1),
            "max": bins.max(1),
            "count": np.full(bins[:, 0].shape, step_s),
        }
        aggregates = influxdb1.aggregates("battery")
        lines |= {policy(grain, name): battery_lines(head, sums[name], at[::step_s]) for name in aggregates}
    return lines


def battery_lines(head: str, table: Array, at: Array) -> list[str]:
    """Return line protocol of rows of voltage, current, temperature."""
    return [
        f"{head}voltage_v={v:.3f},current_a={a:.3f},temperature_degc={t:.1f} {s:.0f}"
        for (v, a, t), s in zip(table.tolist(), at.tolist(), strict=True)
    ]


def other_hour(devices: tuple[str, ...], from_s: int) -> Iterator[str]:
    """Yield an hour of everything else, every minute; what flowed, every quarter of one."""
    for at_s in range(from_s, from_s + 3600, 15):
        for device in devices:
            yield seed.throughput_line(device, {"current_a": 5 * float(np.sin(at_s / 4000)), "voltage_v": 13.2}, at_s)
    for at_s in range(from_s, from_s + 3600, 60):
        now = {f"battery.{name}": 1.0 for name in ("soc", "voltage_v")}
        yield seed.estimate_line({**now, "battery.soc": 0.5, "battery.voltage_v": 13.2}, RNG, at_s)
        for device in devices:
            yield from seed.collector_lines("bench-1", device, at_s, END_S - 31 * DAY_S)
        for cell in range(1, 5):
            yield f"cell,bench=bench-1,battery=lfp-1,device=bms,kind=bms,cell={cell} voltage_v=3.3{cell} {at_s}"


RNG = np.random.default_rng(1)


def reduce_the_rest(server: Server, from_s: int) -> None:
    """Make the sums of everything but the instruments' readings, by the project's own statements."""
    raw = server.default_policy()
    for days_s in range(from_s, END_S, 5 * DAY_S):
        for grain in REDUCED:
            for measurement in ("soc", "collector", "cell", "throughput"):
                for statement in influxdb1.again(server.database, raw, grain, measurement, days_s, days_s + 5 * DAY_S):
                    server.query(statement)


def milliseconds(server: Server, texts: list[str], runs: int) -> float:
    """Return the median time in ms that the texts take one after the other."""
    taken = []
    for _ in range(runs):
        began_s = time.perf_counter()
        for text in texts:
            server.query(text)
        taken.append(1000 * (time.perf_counter() - began_s))
    return statistics.median(taken)


def measure(server: Server, runs: int) -> bool:
    """Print every dashboard's slowest panels, and return whether all goals are met."""
    met = True
    for span_name, span_s in SPANS_S.items():
        span = Range(END_S - span_s, END_S)
        for uid, board in dashboards().items():
            values = dict(seed.VALUES)
            for variable in board["templating"]["list"]:
                if variable["type"] == "interval":
                    values[variable["name"]] = auto(variable, span)
                elif variable["hide"] == 2:
                    values[variable["name"]] = server.query(fill_in(variable["query"]["query"], values, span))[0][
                        "values"
                    ][0][1]
            panels: dict[str, list[str]] = {}
            for one in asked(uid, board, values, span):
                panels.setdefault(one.panel, []).append(one.text)
            times = {panel: milliseconds(server, texts, runs) for panel, texts in panels.items()}
            slowest = max(times, key=lambda panel: times[panel])
            within = sum(taken <= GOALS_MS[span_name] for taken in times.values())
            met &= within == len(times)
            print(
                f"{span_name}  {uid:22} {within}/{len(times)} panels within {GOALS_MS[span_name]:.0f} ms, "
                f"median {statistics.median(times.values()):6.1f} ms, slowest {times[slowest]:7.1f} ms ({slowest})",
                flush=True,
            )
    return met


def without_sums(server: Server) -> None:
    """Print what one 30 d panel costs when it is read from raw and from sums."""
    query = dashboards()["battfleet-overview"]["panels"]
    text = next(panel for panel in query if panel["title"] == "All instruments: current")["targets"][0]["query"]
    span = Range(END_S - 30 * DAY_S, END_S)
    values = dict(seed.VALUES) | {"bin_width": "7200s"}
    for name, source in (("raw", server.default_policy()), ("sums", "h1_mean")):
        taken = milliseconds(server, [fill_in(text, values | {"mean": source}, span)], 1)
        print(f"30 d of current, five instruments, read from {name:4}: {taken:8.1f} ms")


def main() -> None:
    """Fill, reduce, measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--devices", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    devices, from_s = DEVICES[: given.devices], END_S - given.days * DAY_S
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "influxdb", "tsi1") as influx:
        database = influx.create_database()
        server = Server(influx.url, database, influx.admin, influx.password)
        install(server)
        began_s = time.perf_counter()
        for hour_s in range(from_s, END_S, 3600):
            lines: dict[str, list[str]] = {"": list(other_hour(devices, hour_s))}
            for number, device in enumerate(devices):
                for name, more in battery_hour(device, number, hour_s).items():
                    lines.setdefault(name, []).extend(more)
            for name, wanted in lines.items():
                seed.write(influx, database, wanted, name)
        reduce_the_rest(server, from_s)
        took_s = time.perf_counter() - began_s
        print(f"{given.days} d of {len(devices)} instruments at 1 Hz and their sums made in {took_s:.0f} s", flush=True)
        met = measure(server, given.runs)
        without_sums(server)
        print("all goals met" if met else "a goal was missed")


if __name__ == "__main__":
    main()
