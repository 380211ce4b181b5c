"""A seeded server, shared by all tests of this folder."""

from __future__ import annotations

import pytest

from grafana.downsampling.backfill import backfill
from grafana.downsampling.install import install
from grafana.downsampling.server import Server
from tests.grafana import seed
from tests.testing.influx import Influx


@pytest.fixture(scope="session")
def seeded(influx: Influx) -> Server:
    """A day of two benches, with its sums per minute and hour; created once and only read."""
    database = influx.create_database()
    seed.write(influx, database, list(seed.day()))
    server = Server(influx.url, database, influx.admin, influx.password)
    install(server)
    backfill(server, seed.END_S - seed.HOURS * 3600, seed.END_S)
    return server
