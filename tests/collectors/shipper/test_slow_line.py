"""On a link so slow that a whole batch exceeds the time-out, every row still arrives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from collectors.shipper.config import SinkConfig
from collectors.shipper.cursors import ShipStore
from collectors.shipper.influxdb.client import InfluxClient
from collectors.shipper.journal_source import JournalSource
from collectors.shipper.worker import SinkWorker
from tests.testing.memory_sink import OFFSET_NS, TwinJournal

BYTES_PER_S = 40_000
ANSWER_S = 0.5
ROWS = 2000


class SlowServer(ThreadingHTTPServer):
    """Stores bodies at the speed of the simulated link. The system's buffers accept a body at once."""

    daemon_threads = True
    stamps: set[int]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(len(body) / BYTES_PER_S)
        self.server.stamps |= {int(line.rpartition(b" ")[2]) for line in body.split(b"\n") if line}
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with SlowServer(("127.0.0.1", 0), Handler) as made:
        made.stamps = set()
        thread = Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_batches_shrink_until_the_response_arrives_in_time(server: SlowServer, tmp_path: Path) -> None:
    store = ShipStore(tmp_path / "ship.db")
    journal = TwinJournal(store.path)
    journal.sync()
    journal.append(range(ROWS))
    sink = SinkConfig(
        name="lab",
        dialect="influxdb1",
        url=f"http://127.0.0.1:{server.server_port}",
        database="bat",
        gzip_level=0,
        answer_s=ANSWER_S,
    )
    with InfluxClient(sink, "") as post:
        carried = SinkWorker("lab", store, post, batch_lines=ROWS, uniform=lambda _low, _high: 0.0)
        carried.add(JournalSource("mppt", journal, store, "lab", carried.types))
        assert len(post.pack(["x" * 60] * ROWS)) > 2 * ANSWER_S * BYTES_PER_S, "too much for one answer"
        carried.run_once()
    assert server.stamps == {OFFSET_NS + n for n in range(ROWS)}
    assert carried.limit.lines < ROWS
    assert not store.dead()
    store.close()
