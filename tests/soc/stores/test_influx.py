"""InfluxDB as a store, against a real server: samples read and joined, results written, requests rejected."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from soc import stores
from soc.stores import Results, StoreDown, StoreError
from soc.stores.influx import encode
from tests.testing.influx import Influx

BEGIN = 1_700_006_400


@pytest.fixture
def place(influx: Influx, tmp_path: Path) -> Callable[..., str]:
    """Gives the address of the test's own database, which `admin` may read."""
    database = influx.create_database()
    secret = tmp_path / "password"
    secret.write_text(influx.password + "\n")

    def address(**parts: object) -> str:
        query = "&".join(f"{key}={value}" for key, value in parts.items())
        return f"influx:{influx.url}/{database}?user={influx.admin}&password_file={secret}&{query}"

    address.database = database  # type: ignore[attr-defined]
    return address


def put(place: Callable[..., str], lines: list[str]) -> None:
    from soc.stores._influx_http import InfluxConnection
    from soc.stores._influx_place import parse

    server = InfluxConnection(parse(place()))
    server.write(lines)
    server.close()


def columns(text: str, since_s: float | None = None, until_s: float | None = None) -> dict[str, np.ndarray]:
    chunks = list(stores.read(text, since_s=since_s, until_s=until_s).chunks)
    return {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]} if chunks else {}


def battery(device: str, second: float, **fields: float) -> str:
    values = ",".join(f"{name}={value!r}" for name, value in fields.items())
    return f"battery,bench=b,device={device} {values} {round((BEGIN + second) * 1e6) * 1000}"


def test_samples_of_one_instrument_are_its_rows(place: Callable[..., str]) -> None:
    put(place, [battery("t7", k, current_a=-1.0 * k, voltage_v=3.7, temperature_degc=20.0) for k in range(5)])
    found = columns(place(device="t7"))
    assert found["time_s"].tolist() == [BEGIN + k for k in range(5)]
    assert found["current_a"].tolist() == [0.0, -1.0, -2.0, -3.0, -4.0]
    assert found["temperature_degc"].tolist() == [20.0] * 5


def test_long_recordings_come_in_windows_and_empty_days_are_skipped(place: Callable[..., str]) -> None:
    moments = [0, 1, 6 * 3600 - 1, 6 * 3600, 6 * 3600 + 1, 30 * 86400, 30 * 86400 + 1]
    put(place, [battery("t7", k, current_a=float(k), voltage_v=3.7) for k in moments])
    chunks = list(stores.read(place(device="t7")).chunks)
    assert len(chunks) == 3
    assert np.concatenate([c["current_a"] for c in chunks]).tolist() == [float(k) for k in moments]


def test_voltage_of_another_instrument_is_joined_by_age(place: Callable[..., str]) -> None:
    put(place, [battery("t7", k, current_a=1.0) for k in range(6)])
    put(place, [battery("load", 0.5, voltage_v=3.5), battery("load", 2.25, voltage_v=3.6)])
    put(place, [battery("mppt", 0.0, temperature_degc=7.0)])
    found = columns(
        place(current_a="current_a@t7", voltage_v="battery.voltage_v@load", temperature_degc="temperature_degc@mppt")
    )
    expected = [np.nan, 3.5, 3.5, 3.6, 3.6, np.nan]  # at 5 s the last voltage is 2.75 s old
    np.testing.assert_array_equal(found["voltage_v"], expected)
    assert found["temperature_degc"].tolist() == [7.0] * 6


def test_a_choice_of_series_is_refused(place: Callable[..., str]) -> None:
    put(place, [battery(device, 0, current_a=1.0, voltage_v=3.7) for device in ("t7", "load")])
    with pytest.raises(StoreError, match=r"device=load; .*device=t7.*say which"):
        columns(place())


def test_a_time_range_excludes_its_start(place: Callable[..., str]) -> None:
    put(place, [battery("t7", k, current_a=float(k), voltage_v=3.7) for k in range(10)])
    assert columns(place(), BEGIN + 3.0, BEGIN + 5.0)["current_a"].tolist() == [4.0, 5.0]
    text = place(**{"from": "2023-11-15T00:00:07Z", "to": BEGIN + 8})
    assert columns(text)["current_a"].tolist() == [8.0]


def test_an_absent_series_is_empty(place: Callable[..., str]) -> None:
    assert columns(place()) == {}


def test_results_are_stored_as_signals_of_the_vocabulary_and_repeats_overwrite(
    place: Callable[..., str], influx: Influx
) -> None:
    signals = {name: np.array([0.25, 0.5]) for name in stores.SIGNALS} | {"ocv_v": np.array([np.nan, 3.5])}
    results = Results(np.array([BEGIN + 0.1, BEGIN + 1.1]), signals, 'my "cell"@1', "spkf-1")
    with stores.writer(place(device="t7", battery="lfp 1,a=b")) as writer:
        writer.write(results)
        writer.write(results)
    (series,) = influx.query("SELECT * FROM soc", place.database)  # type: ignore[attr-defined]
    rows = [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]
    assert [row["time"] for row in rows] == [(BEGIN * 10 + 1) * 10**8, (BEGIN * 10 + 11) * 10**8]
    assert rows[0]["soc"] == 0.25 and rows[0]["ocv_v"] is None and rows[1]["ocv_v"] == 3.5
    assert rows[0]["model"] == 'my "cell"@1' and rows[0]["version"] == "spkf-1"
    assert rows[0]["device"] == "t7" and rows[0]["battery"] == "lfp 1,a=b"


def test_a_line_without_any_value_is_none() -> None:
    nothing = {name: np.array([np.nan]) for name in stores.SIGNALS}
    assert list(encode(Results(np.array([0.0]), nothing, "m", "v"), {})) == []


def test_a_wrong_password_is_not_retried(place: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")
    with pytest.raises(StoreError, match="401") as caught:
        columns(place())
    assert not isinstance(caught.value, StoreDown)


def test_a_database_that_is_not_there_is_named(place: Callable[..., str]) -> None:
    text = place().replace(place.database, "nowhere")  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="nowhere"), stores.writer(text) as writer:
        writer.write(Results(np.array([0.0]), {"soc": np.array([0.5])}, "m", "v"))


def test_an_absent_server_is_a_distinct_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StoreDown, match="no answer"):
        columns(f"influx:http://127.0.0.1:{port}/bat")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("influx:http://host", "expected influx:http://HOST:8086/DATABASE"),
        ("influx:ftp://host/bat", "expected influx:http"),
        ("influx:http://me:pw@host/bat", "no user or password in the address"),
        ("influx:http://host/bat?devise=t7", "devise: no such parameter"),
        ("influx:http://host/bat?user=me", "expected both or none"),
        ("influx:http://host/bat?token_file=/not/there", "/not/there"),
        ("influx:http://host/bat?from=yesterday", "'yesterday' is no time"),
        ("influx:http://host/bat?voltage_age_s=soon", "voltage_age_s: expected a number"),
        ("influx:http://host/bat?voltage_v=a.b.c.d", "expected [MEASUREMENT.]FIELD[@DEVICE]"),
    ],
)
def test_a_wrong_address_is_explained(text: str, words: str) -> None:
    with pytest.raises(StoreError) as caught:
        stores.read(text)
    assert words in str(caught.value)
    assert "pw" not in str(caught.value)
