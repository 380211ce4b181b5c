"""A proxy between shipper and database that injects network and server faults at random from a seed."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

FAULTS: Mapping[str, int] = {
    "forward": 60, "lose the answer": 8, "reset": 6, "503": 6, "500": 4, "429": 4, "cut the answer": 4, "hang": 3,
    "drip": 5,
}  # fmt: skip
"""What happens to a request, and how often, in percent."""
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST


class FaultProxy:
    """Listens on loopback; the shipper sends to `url`."""

    def __init__(self, upstream_port: int, seed: int, weights: Mapping[str, int] = FAULTS, hang_s: float = 1.0) -> None:
        """Forward requests to 127.0.0.1:`upstream_port`."""
        self.seen: Counter[str] = Counter()
        self._upstream_port = upstream_port
        self._random = random.Random(seed)
        self._weights = weights
        self._hang_s = hang_s
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Stop listening and wait for the requests under way."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(5.0)
        with client, suppress(OSError, http.client.HTTPException), client.makefile("rb") as stream:
            while (request := stream.readline()) and self._handle(client, request, stream):
                pass

    def _handle(self, client: socket.socket, request: bytes, stream: IO[bytes]) -> bool:
        """Handle one request, perhaps with a fault; return whether the connection is still usable."""
        headers = http.client.parse_headers(stream)
        with self._lock:
            (mode,) = self._random.choices(list(self._weights), list(self._weights.values()))
            cut_after = self._random.random()
            self.seen[mode] += 1
        length = int(headers["Content-Length"])
        if mode == "reset":
            stream.read(int(length * cut_after))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return False
        body = stream.read(length)
        if mode.isdigit():
            client.sendall(f"HTTP/1.1 {mode} No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        if mode == "hang":
            time.sleep(self._hang_s)
            return False
        answer = self._forward(request, dict(headers), body)
        if mode == "lose the answer":
            return False
        if mode == "cut the answer":
            client.sendall(answer[: int(len(b"HTTP/1.1 204") * cut_after)])
            return False
        if mode == "drip":
            for at in range(len(answer)):
                client.sendall(answer[at : at + 1])
                time.sleep(0.002)
            return True
        client.sendall(answer)
        return True

    def _forward(self, request: bytes, headers: dict[str, str], body: bytes) -> bytes:
        method, path, _ = request.decode().split()
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream_port, timeout=30)
        try:
            upstream.request(method, path, body, headers)
            response = upstream.getresponse()
            text = response.read()
        finally:
            upstream.close()
        head = f"HTTP/1.1 {response.status} {response.reason}\r\nContent-Length: {len(text)}\r\n\r\n"
        return (head if response.status != 204 else "HTTP/1.1 204 No Content\r\n\r\n").encode() + text


@contextmanager
def faults(upstream_port: int, seed: int, weights: Mapping[str, int] = FAULTS) -> Iterator[FaultProxy]:
    """Yield a proxy that ends with the block."""
    proxy = FaultProxy(upstream_port, seed, weights)
    try:
        yield proxy
    finally:
        proxy.close()
