"""A folder in which the examples of help and pages find what they name: journals, instruments, a database, recordings.

    with prepared(folder) as sandbox:        # once
        sandbox.copy_to(other)               # for each example, which may write and delete there

Journals hold two hours up to now of a simulated battery of four cells, the same seen by `mppt` (with temperature), `t7`
(without) and `load`; two hours of 28 May 2026. The folder `unknown` holds a journal of a boot whose time is not known,
for which shipping would wait. The charge controller is a fake on a pseudo-terminal, the database Debian's InfluxDB 1.6
without users.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import soc
from collectors.bench.influx import PrivateInflux
from collectors.host.clock import MANUAL_CLOCK_SOURCE, SYNCHRONISED, UNSYNCHRONISED, FakeClock, write_clock_file
from collectors.journal.backlog import Row, Work
from collectors.journal.row_mapping import canonical
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from collectors.shipper.cursors import ShipStore
from collectors.shipper.retry import Refusal
from tests.testing.influx import Influx  # noqa: F401 - says what is missing where influxd is not installed

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECOND = 10**9
PERIOD_S = 4
CLOCK = ".clock.json"
HOURS = 2.1
MORNING = datetime(2026, 5, 28, 10, tzinfo=UTC)
SERIES_CELLS = 4

INSTRUMENT = """\
[collector]
name = "mppt"
bench = "bench-1"
battery = "lfp-1"
kind = "libresolar_mppt"
link = "serial:{link}"
"""
SHIP = """\
[ship]
bench = "bench-1"

[[sink]]
name = "lab"
dialect = "influxdb1"
url = "{url}"
database = "bat"
user = "bench-1"
password_file = "lab-password"
"""
EXPERIMENTS = """\
name = "found"
chemistry = "NMC"
nominal_ah = 3.0
voltage_min_v = 2.8
voltage_max_v = 4.2

[[ocv]]
recording = "tests/slow.csv"
temperature_degc = 25

[[run]]
recording = "tests/first.csv"
temperature_degc = 25

[[run]]
recording = "tests/second.csv"
temperature_degc = 25
"""


@dataclass(frozen=True)
class Sandbox:
    """The prepared folder and the servers that its files name."""

    folder: Path
    url: str

    def copy_to(self, folder: Path) -> None:
        """Copy all files; the servers are shared."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


@contextmanager
def prepared(folder: Path) -> Iterator[Sandbox]:
    """Prepare everything in `folder/files` and serve until the end."""
    files, aside = folder / "files", folder / "aside"
    files.mkdir(parents=True)
    aside.mkdir()
    write_clock_file(files / CLOCK, state=SYNCHRONISED)
    influx = PrivateInflux(aside / "influxdb")
    influx.start()
    link = aside / "tty-mppt"
    fake = subprocess.Popen(
        [BIN / "collectors", "fake", "libresolar_mppt", "--port", link],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        assert fake.stdout is not None and fake.stdout.readline(), "the fake says its link when it serves"
        _configurations(files, link, influx.url)
        _journals(files / ".state")
        _recordings(files)
        influx.query('CREATE DATABASE "bat"')
        run("collectors ship ship.toml --once", files)
        _dead_letters(files / ".state")
        yield Sandbox(files, influx.url)
    finally:
        fake.terminate()
        fake.communicate(timeout=10)
        influx.stop()


def environment(folder: Path) -> Mapping[str, str]:
    """Return the environment of an example: the project's commands first on the PATH, and a synchronised clock."""
    path = f"{BIN}:/usr/local/bin:/usr/bin:/bin"
    clock = str(folder / CLOCK)
    return {"PATH": path, "HOME": "/nonexistent", "LANG": "C.UTF-8", "TERM": "dumb", MANUAL_CLOCK_SOURCE: clock}


def run(command: str, folder: Path) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def _configurations(files: Path, link: Path, url: str) -> None:
    host = files / "etc/battfleet"
    (host / "collectors").mkdir(parents=True)
    (host / "secrets").mkdir()
    for path in (files / "mppt.toml", host / "collectors/mppt.toml"):
        path.write_text(INSTRUMENT.format(link=link))
    for path in (files / "ship.toml", host / "ship.toml"):
        path.write_text(SHIP.format(url=url))
    for name in ("lab-password", "admin-password", "token", "pw", "etc/battfleet/lab-password"):
        (files / name).write_text("not-a-secret\n")
        (files / name).chmod(0o600)
    (files / "capture.txt").write_text('# {"Bat_V":13.2,"Bat_A":1.5}\n')


def _battery() -> tuple[np.ndarray, np.ndarray]:
    """Return current and voltage of the battery, PERIOD_S apart."""
    cell = soc.load(str(ROOT / "soc/cells/lfp_1ah2.toml"))
    time_s = np.arange(0.0, HOURS * 3600.0, PERIOD_S)
    current_a = 0.5 * np.sin(time_s / 900.0)
    series, _ = soc.simulate(cell, time_s, current_a, 25.0, 0.6)
    return np.asarray(series.current_a), SERIES_CELLS * np.asarray(series.voltage_v)


def _journals(state: Path) -> None:
    current_a, voltage_v = _battery()
    battery = [{"voltage_v": v, "current_a": i} for v, i in zip(voltage_v.tolist(), current_a.tolist(), strict=True)]
    rows = {
        "mppt": ("battery", [{**values, "temperature_degc": 25.0} for values in battery]),
        "t7": ("battery", battery),
        "load": ("load", [{**values, "power_w": 1.0} for values in battery]),
    }
    for name, (measurement, values) in rows.items():
        if name == "mppt":
            _boot(state.parent / "unknown", name, measurement, values[:100], 0, UNSYNCHRONISED, "3f0c9100-0000")
        _boot(state, name, measurement, values, int(MORNING.timestamp()), SYNCHRONISED, f"morning-{name}")
        began_s = int(time.time()) - len(values) * PERIOD_S
        _boot(state, name, measurement, values, began_s, SYNCHRONISED, f"today-{name}")


def _boot(
    state: Path, name: str, measurement: str, rows: list[dict[str, float]], began_s: int, clock_state: int, boot_id: str
) -> None:
    """Write one boot of a collector that began to sample then."""
    clock = FakeClock(0, began_s * SECOND, clock_state, boot_id)
    kind = {"mppt": "libresolar_mppt", "t7": "labjack_t7", "load": "ea_el3000a"}[name]
    tags = {"bench": "bench-1", "device": name, "kind": kind, "battery": "lfp-1"}
    settings = JournalSettings(sinks=("lab",), ballast_mib=0.0, min_free_mib=0.0)
    writer = JournalWriter(state / name, tags, settings, clock, lambda *_: None)
    for first in range(0, len(rows), 500):
        part = [Row((first + i) * PERIOD_S * SECOND, values) for i, values in enumerate(rows[first : first + 500])]
        writer.commit(Work({(measurement, canonical(tags)): part}))
        clock.sleep_s(len(part) * PERIOD_S)
    writer.close()


def _dead_letters(state: Path) -> None:
    reasons = ["type", "expired", "refused"]
    with ShipStore(state / "ship.db") as store:
        for number in range(1, 21):
            reason = reasons[number % 3]
            line = f"battery,device=mppt voltage_v={number} 1795000000000000000"
            store.add_dead("lab", "mppt", number, [Refusal(line, 400, reason, "partial write: example")])


def _recordings(files: Path) -> None:
    """Write the input of `soc` and `bench`: recordings with a reference, one of another logger, tests of a cell."""
    simulate = "soc simulate --cell lg_hg2 --profile drive"
    for seed, name in enumerate(("a.csv", "b.csv", "b.parquet", "drive.csv", "drive_1.parquet", "drive_2.parquet")):
        run(f"{simulate} --hours {2 if name == 'drive.csv' else 0.2} --seed {seed} --out {name}", files)
    (files / "tests").mkdir()
    for seed, name in enumerate(("first.csv", "second.csv")):
        run(f"{simulate} --hours 3 --seed {seed} --out tests/{name}", files)
    run("soc simulate --cell lfp_1ah2 --profile drive --hours 0.2 --out tomorrow.csv", files)
    shutil.copy(ROOT / "soc/cells/lfp_1ah2.toml", files / "my_cell.toml")
    for name in ("experiments.toml", "my_cell_tests.toml"):
        (files / name).write_text(EXPERIMENTS)
    _slow(files / "tests/slow.csv")
    rows = [f"{t},{-1000 * i:.1f},3.9" for t, i in enumerate(np.full(300, -0.3).tolist())]
    (files / "log.csv").write_text("\n".join(["time_s,I_mA,U", *rows]) + "\n")
    (files / "load.csv").write_text("time_s,current_a\n" + "".join(f"{t},{-0.5}\n" for t in range(0, 600, 10)))
    seconds = [f"{1000 * (1622190000 + t)},{1 + t % 3},13.2" for t in range(120)]
    (files / "bench.csv").write_text("\n".join(['Time,"Bat_A mppt","Bat_V mppt"', *seconds]) + "\n")
    (files / "soc-state").mkdir()
    run('collectors note test_start "an example"', files)
    run("soc estimate a.csv --cell lg_hg2 >/dev/null", files)  # a service must not wait for the compiler


def _slow(path: Path) -> None:
    """Write a C/20 discharge and charge of the cell, with the tester's counter."""
    cell = soc.load(str(ROOT / "soc/cells/lg_hg2.toml"))
    time_s = np.arange(0.0, 40 * 3600.0, 60.0)
    slow_a = float(np.median(cell.capacity_ah)) / 20
    current_a = np.where(time_s < 20 * 3600.0, -slow_a, slow_a)
    series, _ = soc.simulate(cell, time_s, current_a, 25.0, 1.0)
    columns = (series.time_s, series.current_a, series.voltage_v, series.charge_ah)
    lines = [",".join(f"{v:.9g}" for v in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(["time_s,current_a,voltage_v,charge_ah", *lines]))
