"""The whole path: bytes of fakes, collectors, journals, shipper, InfluxDB, and the comparison of the stored values."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from collectors.errors import JournalError
from collectors.journal.reader import JournalReader

RECORDING = Path(__file__).parents[4] / "shared/data/bench/bench-2021-05-28.csv"
needs_recording = pytest.mark.skipif(not RECORDING.exists(), reason=f"the recording is not here: {RECORDING}")
needs_influxd = pytest.mark.skipif(shutil.which("influxd") is None, reason="needs Debian's package influxdb")


def run(*arguments: str, timeout_s: float, exit_code: int = 0) -> dict[str, Any]:
    """Return the JSON summary of a run of the command."""
    command = [sys.executable, "-m", "collectors", "bench", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == exit_code, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_a_simulated_bench_loses_nothing_and_stops_by_itself(tmp_path: Path) -> None:
    summary = run("--for", "8", "--influx", "none", "--state", str(tmp_path), timeout_s=60)
    assert summary["problems"] == []
    accounts = {name: report["account"] for name, report in summary["instruments"].items()}
    assert accounts.keys() == {"mppt", "load", "t7"}
    assert all(account["kept"] >= 3 and account["lost"] == 0 for account in accounts.values())
    assert accounts["t7"]["kept"] > 3 * accounts["load"]["kept"]
    agreement = summary["agreement"]["battery V: t7 against mppt"]
    assert abs(agreement["residual_mean"]) < 0.05
    assert (summary["database"], summary["read_back"]) == ("none: the journals are the store", None)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["load", "mppt", "t7"]


def test_through_faults_nothing_untouched_is_lost_and_gaps_have_causes(tmp_path: Path) -> None:
    faults = ("mppt:unplug@3+1", "load:garble@3+3=0.2", "t7:silence@4+1.5", "load:split@7+2=0.001", "clock:reset@3+2")
    options = [text for fault in faults for text in ("--fault", fault)]
    summary = run("--for", "10", "--influx", "none", "--state", str(tmp_path), *options, timeout_s=60)
    assert summary["problems"] == []
    reports = summary["instruments"]
    assert reports["load"]["account"]["harmed"] > 0
    assert reports["mppt"]["events"]["link_down"] >= 1
    assert any("link_down" in gap["cause"] for gap in reports["mppt"]["gaps"])
    assert any(gap["seconds"] > 1 for gap in reports["t7"]["gaps"])


@needs_influxd
def test_a_database_that_was_stopped_gets_every_row_in_the_end(tmp_path: Path) -> None:
    fault = ("--influx", "private", "--fault", "database:stop@3+2")
    summary = run("--for", "8", "--state", str(tmp_path), *fault, timeout_s=90)
    assert summary["problems"] == []
    assert summary["read_back"]["rows"] > 50
    assert summary["read_back"]["missing"] == summary["read_back"]["different"] == summary["read_back"]["extra"] == 0


def check_replay(summary: dict[str, Any], rows: int, values: dict[str, int], speed: float) -> None:
    """Every recorded value is in journal and database, at its second; gaps stay gaps; every sent value is stored."""
    assert summary["problems"] == []
    replay, back = summary["replay"], summary["read_back"]
    assert (replay["rows"], replay["of_rows"], replay["stalls"]) == (rows, rows, [])
    for name, check in replay["instruments"].items():
        assert (check["values"], check["equal"], check["missing"]) == (values[name], values[name], 0), name
        assert (check["different"], check["invented"]) == (0, 0), name
    assert replay["seconds"] <= 1.5 * rows / speed + 5
    assert back["values"] > sum(values.values())
    assert (back["missing"], back["different"], back["extra"]) == (0, 0, 0)
    assert all(report["account"]["lost"] == 0 for report in summary["instruments"].values())


@needs_recording
@needs_influxd
def test_recorded_minutes_come_back_from_journal_and_database() -> None:
    summary = run("--replay", str(RECORDING), "--rows", "400", "--speed", "60", "--influx", "private", timeout_s=120)
    check_replay(summary, 400, {"mppt": 578, "load": 253, "t7": 286}, 60)


@needs_recording
def test_a_replay_that_ends_early_loses_nothing() -> None:
    summary = run("--replay", str(RECORDING), "--for", "12", "--influx", "none", timeout_s=60)
    assert summary["problems"] == []
    assert 60 < summary["replay"]["rows"] < summary["replay"]["of_rows"] == 9081
    for check in summary["replay"]["instruments"].values():
        assert check["equal"] == check["values"] > 0


@needs_recording
@needs_influxd
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_whole_recording_comes_back_from_journal_and_database() -> None:
    summary = run("--replay", str(RECORDING), "--speed", "60", "--influx", "private", timeout_s=400)
    check_replay(summary, 9081, {"mppt": 2 * 7682, "load": 6792, "t7": 132 + 7869}, 60)


def test_a_killed_collector_restarts_and_the_kill_is_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "collectors", "bench", "--json", "--for", "14", "--influx", "none"]
    process = subprocess.Popen([*command, "--state", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    await_rows(tmp_path / "state/t7", 41)
    [victim] = processes_with(f"{tmp_path}/t7.toml")
    os.kill(victim, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    summary = json.loads(out)
    report = summary["instruments"]["t7"]
    assert process.returncode == 1
    assert any("t7: the collector ended by itself 1 times" in problem for problem in summary["problems"])
    assert report["restarts"] == 1
    assert report["account"]["lost"] <= 15, "more than the commit window"
    assert report["events"]["collector_start"] == 2
    assert report["account"]["kept"] > 40


def test_on_a_terminal_it_shows_a_table_that_is_updated() -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "collectors", "bench", "--influx", "none", "--for", "4"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(command, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    with suppress(OSError):  # the terminal hangs up when the command ends
        while data := os.read(master, 65536):
            shown += data
    os.close(master)
    assert process.wait(20) == 0
    text = shown.decode()
    for words in (
        "virtual bench",
        "mppt (libresolar_mppt)",
        "agreement",
        "gaps",
        "queue",
        "nothing was lost",
        "--state DIR keeps",
    ):
        assert words in text


def test_nothing_is_left_running_after_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "collectors", "bench", "--influx", "none", "--state", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(3)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert "samples kept" in out
    assert processes_with(str(tmp_path)) == []
    assert not list(tmp_path.glob("tty-*"))


def await_rows(journal: Path, least: int) -> None:
    """Wait until the journal holds so many measured rows; AssertionError after 60 s."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        with suppress(JournalError):
            chunks = JournalReader(journal).tail(10_000)
            if sum(len(c.boottime_ns) for c in chunks if c.stream.measurement == "battery") >= least:
                return
        time.sleep(0.1)
    raise AssertionError(f"{journal} has fewer than {least} rows after 60 s")


def processes_with(words: str) -> list[int]:
    """Return the processes that have this in their command line."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if words in _command_line(path)]


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--replay", "/absent.csv"], "/absent.csv: No such file", 78),
        (["--fault", "mppt:melt@1"], "melt", 78),
        (["--fault", "motor:unplug@1"], "no target 'motor'", 78),
        (["--rows", "5"], "--replay", 78),
        (["--influx", "ftp://x"], "http[s]://HOST:PORT, got 'ftp://x'", 78),
        (["--influx", "http://127.0.0.1:1"], "127.0.0.1:1", 69),
        (["--influx", "none", "--fault", "database:stop@1"], "private", 78),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], says: str, code: int) -> None:
    command = [sys.executable, "-m", "collectors", "bench", "--for", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert says in done.stderr
