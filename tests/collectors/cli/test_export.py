"""`export`, `tail` and `clock` print the rows of the journal, complete and unchanged."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collectors.cli import cli
from collectors.errors import ConfigError, JournalError
from collectors.host.clock import SET_BY_PERSON, SYNCHRONISED, UNSYNCHRONISED, FakeClock, SystemClock
from collectors.journal import timestamps
from collectors.journal.backlog import Row, Work
from collectors.journal.reader import JournalReader
from collectors.journal.row_mapping import canonical
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter

SECOND = 10**9
START_S = 1_795_000_000
START = "2026-11-18T11:06:40"


def fill(state: Path, name: str = "load", count: int = 10, state_of_clock: int = SYNCHRONISED) -> None:
    """Write `count` rows, 1 s apart from START on; current_a is missing in every second one."""
    clock = FakeClock(0, START_S * SECOND, state_of_clock)
    settings = JournalSettings(ballast_mib=0.0, min_free_mib=0.0)
    writer = JournalWriter(state / name, {"device": name}, settings, clock, lambda *_: None)
    for i in range(count):
        values = {"voltage_v": 13.0 + i / 100, "current_a": None if i % 2 else -0.5}
        writer.commit(Work({("battery", canonical({"device": name, "bench": "b 1"})): [Row(i * SECOND, values)]}))
        if i == count // 2:
            writer.compact()
        clock.sleep_s(1)
    writer.commit(Work({("cell", canonical({"device": name, "cell": "2"})): [Row(5, {"voltage_v": 3.3})]}))
    writer.close()


def run(*arguments: str, state: Path) -> Result:
    command, *rest = arguments
    result = CliRunner().invoke(cli, [command, "--state", str(state), *rest], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_every_row_and_leaves_missing_values_empty(tmp_path: Path) -> None:
    fill(tmp_path)
    rows = table(run("export", "--measurement", "battery", state=tmp_path).output)
    assert [row["time"] for row in rows] == [f"{START[:-2]}{40 + i}.000000000Z" for i in range(10)]
    assert [float(row["voltage_v"]) for row in rows] == [13.0 + i / 100 for i in range(10)]
    assert [row["current_a"] for row in rows] == ["-0.5", ""] * 5
    assert rows[0]["bench"] == "b 1"


def test_a_range_is_exact_and_takes_its_start_but_not_its_end(tmp_path: Path) -> None:
    fill(tmp_path)
    arguments = ["export", "--measurement", "battery", "--from", f"{START[:-2]}43", "--to", f"{START[:-2]}47"]
    assert [row["voltage_v"] for row in table(run(*arguments, state=tmp_path).output)] == [
        "13.03", "13.04", "13.05", "13.06",
    ]  # fmt: skip


def test_line_protocol_reads_back_equal(tmp_path: Path) -> None:
    fill(tmp_path)
    lines = run("export", "--format", "lp", state=tmp_path).output.splitlines()
    assert len(lines) == 11
    assert f"battery,bench=b\\ 1,device=load voltage_v=13.01 {(START_S + 1) * SECOND}" in lines
    assert f"cell,cell=2,device=load voltage_v=3.3 {START_S * SECOND + 5}" in lines


def test_parquet_has_types_and_nulls(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    fill(tmp_path)
    output = tmp_path / "all.parquet"
    run("export", "-o", str(output), state=tmp_path)
    found = parquet.read_table(output)
    assert found.num_rows == 11
    assert str(found.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert found.column("current_a").null_count == 6
    assert sorted(found.column("cell").to_pylist(), key=str)[0] == "2"
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_without_pyarrow_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pyarrow is not installed .* scripts/setup bench; or use CSV"):
        run("export", "-o", str(tmp_path / "x.parquet"), state=tmp_path)
    assert not (tmp_path / "x.parquet").exists()


def test_an_output_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)

    def fails(*_: object) -> list[str]:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("collectors.line_protocol.encode", fails)
    with pytest.raises(RuntimeError):
        run("export", "-o", str(tmp_path / "x.lp"), state=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["load"]


def test_an_output_never_replaces_a_file_of_a_journal_by_whatever_name(tmp_path: Path) -> None:
    fill(tmp_path)
    journal = max((tmp_path / "load").iterdir(), key=lambda path: path.stat().st_size)
    before = journal.read_bytes()
    (tmp_path / "link.csv").symlink_to(journal)
    for output in (journal, tmp_path / "link.csv", tmp_path / "load" / "new.csv"):
        with pytest.raises(ConfigError, match="lies in the folder of a journal"):
            run("export", "--format", "csv", "-o", str(output), state=tmp_path)
    assert journal.read_bytes() == before and not (tmp_path / "load" / "new.csv").exists()


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    fill(tmp_path)
    assert run("export", "--format", "csv", "-o", "/dev/null", state=tmp_path).exit_code == 0
    assert Path("/dev/null").is_char_device()


def test_damaged_rows_are_left_out_named_and_change_the_exit_code(tmp_path: Path) -> None:
    fill(tmp_path)
    with sqlite3.connect(tmp_path / "load" / "j-00000001.db") as connection:
        connection.execute("UPDATE hot SET crc=crc+1 WHERE seq=9")
    connection.close()
    output = tmp_path / "x.csv"
    with pytest.raises(JournalError, match=r"1 damaged rows were left out.*\n.*load/j-00000001\.db: hot 9: checksum"):
        run("export", "-o", str(output), state=tmp_path)
    assert len(table(output.read_text())) == 10


def test_rows_without_a_known_time_are_left_out_and_reported(tmp_path: Path) -> None:
    fill(tmp_path, state_of_clock=UNSYNCHRONISED)
    result = run("export", state=tmp_path)
    assert table(result.stdout) == []
    assert "boot fake-boot: some samples have no known time and are left out; see collectors clock" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nobody"], "no journal of nobody; there is: load"),
        (["export", "-o", "x.doc"], r"x\.doc: expected a name ending in \.csv, \.parquet, \.lp, or --format"),
        (["export", "--from", "yesterday"], "--from 'yesterday': expected now, an age such as -2h"),
        (["export", "--measurement", "weather"], "nothing has measurement weather"),
        (["export", "--format", "parquet"], "name a file with --output"),
        (["tail", "nobody"], "no journal of nobody"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    fill(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(*arguments, state=tmp_path)


def test_a_folder_without_journals_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no journal here; name the folder with --state, or start: collectors run"):
        run("tail", state=tmp_path)
    fill(tmp_path / "state")
    with pytest.raises(ConfigError, match=r"there are some in its folder state: --state .*/state$"):
        run("tail", state=tmp_path)


def test_points_in_time_are_read_in_common_notations() -> None:
    now = 1_000_000 * SECOND
    assert timestamps.parse("now", now) == now
    assert timestamps.parse("-1.5h", now) == now - 5400 * SECOND
    assert timestamps.parse("2026-11-18T12:06:40.000001+01:00", now) == START_S * SECOND + 1000
    assert timestamps.parse("2026-11-18", now) == timestamps.parse("2026-11-18T00:00:00Z", now)
    assert timestamps.iso(START_S * SECOND + 5) == f"{START}.000000005Z"
    assert timestamps.iso(START_S * SECOND + 5_000_000, 3) == f"{START}.005Z"
    assert timestamps.iso(START_S * SECOND + 5, 0) == f"{START}Z"


def test_tail_shows_the_newest_rows(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path, "mppt", 4)
    said = [json.loads(line) for line in run("tail", "-n", "2", "--json", state=tmp_path).output.splitlines()]
    newest = [s["values"] for s in said if s["collector"] == "load" and s["measurement"] == "battery"]
    assert newest == [{"voltage_v": 13.08, "current_a": -0.5}, {"voltage_v": 13.09}]
    assert {s["collector"] for s in said} == {"load", "mppt"}
    text = run("tail", "load", "--measurement", "cell", state=tmp_path).output
    assert text == f"{START}.000Z  load  cell cell=2  voltage_v=3.3\n"


def test_tail_shows_time_since_boot_where_no_time_is_known(tmp_path: Path) -> None:
    fill(tmp_path, state_of_clock=UNSYNCHRONISED)
    assert run("tail", "--measurement", "battery", state=tmp_path).output.startswith("boot +9.000 s  load  battery")


def test_tail_follows_new_rows(tmp_path: Path) -> None:
    fill(tmp_path)
    command = [sys.executable, "-m", "collectors", "tail", "--state", str(tmp_path), "-n", "0", "--for", "60", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        clock = FakeClock(100 * SECOND, START_S * SECOND)
        writer = JournalWriter(tmp_path / "load", {}, JournalSettings(ballast_mib=0.0), clock, lambda *_: None)
        said = None
        for i in range(600):  # the command may not be following yet
            writer.commit(Work({("battery", "{}"): [Row((200 + i) * SECOND, {"voltage_v": 1.0})]}))
            SystemClock().sleep_s(0.05)
            import select

            if select.select([tail.stdout], [], [], 0)[0]:
                said = json.loads(tail.stdout.readline())
                break
        tail.terminate()
        writer.close()
    assert said is not None
    assert said["values"] == {"voltage_v": 1.0}


def test_clock_shows_boots_and_segments(tmp_path: Path) -> None:
    fill(tmp_path)
    found = json.loads(run("clock", "--json", state=tmp_path).output)
    (boot,) = found["collectors"]["load"]
    assert (boot["boot_id"], boot["is_this_boot"], len(boot["segments"])) == ("fake-boot", False, 1)
    assert (boot["segments"][0]["time"], boot["segments"][0]["frozen"]) == ("synchronised", False)
    assert "synchronised" in run("clock", state=tmp_path).output


def test_clock_set_gives_a_past_boot_its_time_after_asking(tmp_path: Path) -> None:
    fill(tmp_path, state_of_clock=UNSYNCHRONISED)
    arguments = ["clock", "set", "2026-01-01T00:00:00", "--boot", "fake"]
    declined = CliRunner().invoke(cli, ["clock", "--state", str(tmp_path), *arguments[1:]], input="n\n")
    assert declined.exit_code == 1
    assert JournalReader(tmp_path / "load").clock_steps("fake-boot")[-1].state == UNSYNCHRONISED
    result = CliRunner().invoke(cli, ["clock", "--state", str(tmp_path), *arguments[1:]], input="y\n")
    assert result.exit_code == 0, result.output
    assert JournalReader(tmp_path / "load").clock_steps("fake-boot")[-1].state == SET_BY_PERSON
    rows = table(run("export", "--measurement", "battery", state=tmp_path).stdout)
    assert [row["time"][:19] for row in rows] == [f"2026-01-01T00:00:{i:02d}" for i in range(10)]


def test_clock_set_does_not_touch_a_known_boot_and_names_an_unknown_one(tmp_path: Path) -> None:
    fill(tmp_path)
    assert "a time service has set it" in run("clock", "set", "now", "--boot", "fake", "--yes", state=tmp_path).output
    with pytest.raises(ConfigError, match="--boot zz: 0 boots begin so; there are: fake-boot"):
        run("clock", "set", "now", "--boot", "zz", "--yes", state=tmp_path)
    assert "nothing of this boot" in run("clock", "set", "now", "--yes", state=tmp_path).output


def report(state: Path, name: str = "load") -> None:
    """Add a self-report of the collector to a journal that `fill` has written."""
    clock = FakeClock(100 * SECOND, START_S * SECOND, SYNCHRONISED)
    settings = JournalSettings(ballast_mib=0.0, min_free_mib=0.0)
    writer = JournalWriter(state / name, {"device": name}, settings, clock, lambda *_: None)
    key = ("collector", canonical({"device": name}))
    writer.commit(Work({key: [Row(100 * SECOND, {"samples": 7.0})]}))
    writer.close()


@pytest.mark.parametrize("command", [("tail",), ("export",), ("export", "--format", "lp")])
def test_readings_are_shown_and_self_reports_on_request(tmp_path: Path, command: tuple[str, ...]) -> None:
    fill(tmp_path)
    report(tmp_path)
    plain, asked = run(*command, state=tmp_path).output, run(*command, "--self-metrics", state=tmp_path).output
    only = run(*command, "--measurement", "collector", state=tmp_path).output
    assert "samples" not in plain and "voltage_v" in plain
    assert "samples" in asked and "voltage_v" in asked
    assert "samples" in only and "voltage_v" not in only


@pytest.mark.parametrize("command", ["tail", "export", "plot battery.voltage_v"])
def test_the_shell_completes_names_that_are_not_given_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    fill(tmp_path / ".state", "load")
    fill(tmp_path / ".state", "mppt")
    monkeypatch.chdir(tmp_path)

    def completed(words: str) -> list[str]:
        number = len(words.split()) if words.endswith(" ") else len(words.split()) - 1
        env = {"_COLLECTORS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        output = CliRunner().invoke(cli, [], env=env, prog_name="collectors").output
        return [line.partition(",")[2] for line in output.splitlines() if line]

    assert completed(f"collectors {command} ") == ["load", "mppt"]
    assert completed(f"collectors {command} load m") == ["mppt"]
    assert completed(f"collectors {command} load mppt ") == []


def test_run_prints_where_it_stores(tmp_path: Path) -> None:
    config = tmp_path / "mppt.toml"
    config.write_text(
        '[collector]\nname = "mppt"\nbench = "b"\nkind = "libresolar_mppt"\nlink = "serial:/dev/no-such-port"\n'
        f'state_dir = "{tmp_path}/state"\n'
    )
    command = [sys.executable, "-m", "collectors", "run", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.terminate()
        process.communicate(timeout=30)
    assert first == f"mppt: libresolar_mppt on serial:/dev/no-such-port; stored in {tmp_path}/state/mppt\n"
