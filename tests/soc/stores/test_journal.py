"""The journal as a store, read through the `collectors` command, which owns the files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from soc import stores
from soc.stores import StoreDown, StoreError
from soc.stores import journal as module
from tests.testing.journal import Bench, rows

BEGIN = 1_700_006_400

FAKE = """#!{python}
import json, sys
sys.argv.pop(0)
json.dump(sys.argv, open({log!r}, "a")); open({log!r}, "a").write("\\n")
{body}
"""


def fake_collectors(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a stand-in of the command; the returned file holds its arguments."""
    log, path = folder / "asked.jsonl", folder / "collectors"
    path.write_text(FAKE.format(python=sys.executable, log=str(log), body=body))
    path.chmod(0o755)
    monkeypatch.setattr(module, "_collectors", lambda: str(path))
    return log


def lines_of(body: list[str]) -> str:
    return "\n".join(f"print({line!r})" for line in body)


def line(device: str, second: float, fields: str) -> str:
    return f"battery,battery=lfp\\ 1,bench=b,device={device},kind=x {fields} {round((BEGIN + second) * 1e6) * 1000}"


def test_exported_lines_become_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = [line("t7", k, f"voltage_v=3.7,current_a={-float(k)}") for k in range(3)]
    body.insert(1, line("t7", 0.5, 'power_w=1.0,note="a b,current_a=5 1"'))
    fake_collectors(tmp_path, lines_of(body), monkeypatch)
    (found,) = stores.read("journal:/var/x?device=t7&battery=lfp%201").chunks
    assert found["time_s"].tolist() == [BEGIN, BEGIN + 1, BEGIN + 2]
    assert found["current_a"].tolist() == [0.0, -1.0, -2.0]
    assert found["voltage_v"].tolist() == [3.7] * 3
    assert np.isnan(found["temperature_degc"]).all()


def test_the_command_is_called_with_measurement_device_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = fake_collectors(tmp_path, lines_of([line("t7", 3, "voltage_v=3.7,current_a=1.0")]), monkeypatch)
    assert list(stores.read("journal:/var/x?device=t7", since_s=BEGIN + 2.0, until_s=BEGIN + 4.0).chunks)
    asked = log.read_text().splitlines()[0]
    for word in ("export", "lp", "/var/x", "battery", "t7", "2023-11-15T00:00:02.000000Z"):
        assert f'"{word}"' in asked


def test_rows_outside_the_time_range_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = [line("t7", k, "voltage_v=3.7,current_a=1.0") for k in range(6)]
    fake_collectors(tmp_path, lines_of(body), monkeypatch)
    (found,) = stores.read("journal:/var/x", since_s=BEGIN + 2.0, until_s=BEGIN + 4.0).chunks
    assert found["time_s"].tolist() == [BEGIN + 3, BEGIN + 4]


def test_two_batteries_need_a_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = [line(device, 0, "voltage_v=3.7,current_a=1.0") for device in ("t7", "load")]
    fake_collectors(tmp_path, lines_of(body), monkeypatch)
    with pytest.raises(StoreError, match="several series"):
        list(stores.read("journal:/var/x").chunks)


@pytest.mark.parametrize(("code", "kind"), [(78, StoreDown), (74, StoreError)])
def test_the_error_message_of_the_command_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
) -> None:
    fake_collectors(tmp_path, f"sys.stderr.write('no journal here'); sys.exit({code})", monkeypatch)
    with pytest.raises(StoreError, match="no journal here") as caught:
        list(stores.read("journal:/var/x").chunks)
    assert type(caught.value) is kind


def test_what_is_no_line_protocol_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_collectors(tmp_path, "print('time,measurement')", monkeypatch)
    with pytest.raises(StoreError, match="expected line protocol"):
        list(stores.read("journal:/var/x").chunks)


def test_the_real_command_exports_what_its_journal_holds(tmp_path: Path) -> None:
    with pytest.raises(StoreDown, match="no journal"):
        list(stores.read(f"journal:{tmp_path}").chunks)


def test_samples_that_a_collector_stored_are_read_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    writer = bench.open()
    bench.clock.sleep_s(1.0)
    for k in range(3):
        bench.clock.sleep_s(1.0)
        writer.commit(rows({"current_a": -0.5 * k, "voltage_v": 3.7}, bench.clock.boottime_ns()))
    bench.close(writer)
    (found,) = stores.read(f"journal:{tmp_path}?device=load").chunks
    assert found["time_s"].tolist() == bench.walls()
    assert found["current_a"].tolist() == [0.0, -0.5, -1.0]


def test_a_wrong_parameter_is_named() -> None:
    with pytest.raises(StoreError, match="devise: no such parameter"):
        stores.read("journal:/var/x?devise=t7")
