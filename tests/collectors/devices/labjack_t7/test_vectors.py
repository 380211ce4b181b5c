"""Every frame of tests/frames/labjack_t7/vectors.toml decodes to the values listed there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.devices import labjack_t7
from collectors.devices.labjack_t7 import calibration as volts
from collectors.devices.labjack_t7 import stream_packets as stream

FILE = Path(__file__).parents[3] / "frames" / "labjack_t7" / "vectors.toml"
VECTORS: list[dict[str, Any]] = tomllib.loads(FILE.read_text())["vector"]


def null(value: Any) -> Any:
    """Return the value with None where the file, for lack of a null, says "null"."""
    if isinstance(value, list):
        return [null(item) for item in value]
    return None if value == "null" else value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["frame"][:23])
def test_every_vector_decodes_to_its_listed_values(vector: dict[str, Any]) -> None:
    capture = [bytes.fromhex(vector.get("after", "")), bytes.fromhex(vector["frame"])]
    *_, found = labjack_t7.DEVICE.decode(capture)
    expected = {key: null(value) for key, value in vector["decoded"].items()}
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value, abs=5e-7) if isinstance(value, float) else value), key
    assert found.keys() - expected.keys() <= {"count", "data", "marks"}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["frame"][:23])
def test_one_byte_at_a_time_decodes_the_same(vector: dict[str, Any]) -> None:
    capture = bytes.fromhex(vector.get("after", "") + vector["frame"])
    whole = list(labjack_t7.DEVICE.decode([capture]))
    assert list(labjack_t7.DEVICE.decode(bytes([byte]) for byte in capture)) == whole


@pytest.mark.parametrize(("code", "expected"), [(65535.0, 10.109575), (0.0, -10.586758), (12634880 / 256, 4.999837)])
def test_nominal_volts_of_a_code(code: float, expected: float) -> None:
    assert volts.nominal(10.0).volts(np.array([code]))[0] == pytest.approx(expected, abs=5e-7)


def test_the_rate_that_the_scan_timer_can_give() -> None:
    roll, actual_hz = stream.actual_scan_rate(300.0)
    assert (roll, round(actual_hz, 3)) == (33332, 300.003)
    assert stream.actual_scan_rate(100.0)[1] == 100.0
