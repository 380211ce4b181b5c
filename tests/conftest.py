"""Fixtures that several test folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testing.influx import INFLUXD, MISSING, Influx, running


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """A real InfluxDB 1.6, one for the whole session; create a database of its own for each test."""
    if INFLUXD is None:
        pytest.skip(MISSING)
    with running(tmp_path_factory.mktemp("influxdb")) as server:
        yield server
