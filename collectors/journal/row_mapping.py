"""Maps rows of the journal's tables to records, for the writer and the readers."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

from collectors.journal.codec import Undecodable, decode_block, decode_hot
from collectors.journal.records import Boot, Chunk, ClockStep, Column, FieldSpec, IntArray, Stream

_HEAD = struct.Struct("<qqqq")


def checksum(stream: int, boot: int, first_ns: int, n: int, payload: bytes) -> int:
    """Return the CRC32 of a row's payload together with its stream, boot, first stamp and number of rows."""
    return zlib.crc32(payload, zlib.crc32(_HEAD.pack(stream, boot, first_ns, n)))


def canonical(pairs: Mapping[str, str]) -> str:
    """Return the canonical text of tags: JSON, sorted."""
    return json.dumps(dict(pairs), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fields_text(fields: Sequence[FieldSpec]) -> str:
    """Return a stream's field list as it is stored."""
    listed = [{"name": f.name, "type": f.type, "unit": f.unit} for f in fields]
    return json.dumps(listed, separators=(",", ":"), ensure_ascii=False)


def stream_hash(measurement: str, tags: str, fields: str) -> str:
    """Return the hash that identifies a stream, whatever its number in a file."""
    return hashlib.blake2b("\n".join((measurement, tags, fields)).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def parse_stream(stream: int, measurement: str, tags: str, fields: str) -> Stream:
    """Return a row of the stream table as a record; the same content is the same object."""
    specs = tuple(FieldSpec(f["name"], f["type"], f["unit"]) for f in json.loads(fields))
    return Stream(stream, measurement, json.loads(tags), specs)


def read_streams(connection: sqlite3.Connection) -> dict[int, Stream]:
    """Return the file's streams by number."""
    rows = connection.execute("SELECT stream, measurement, tags, fields FROM stream")
    return {row[0]: parse_stream(*row) for row in rows}


def read_boot_ids(connection: sqlite3.Connection) -> dict[int, str]:
    """Return the file's boots by number."""
    return dict(connection.execute("SELECT boot, boot_id FROM boot").fetchall())


def read_steps(connection: sqlite3.Connection, boot: int) -> list[ClockStep]:
    """Return the clock table of one boot, in order."""
    rows = connection.execute("SELECT bt, off, state, frozen FROM clock WHERE boot=? ORDER BY bt, id", (boot,))
    return [ClockStep(bt, off, state, bool(frozen)) for bt, off, state, frozen in rows]


def read_boots(connection: sqlite3.Connection) -> list[Boot]:
    """Return all boots that the file knows, oldest first."""
    rows = connection.execute("SELECT boot, boot_id, bt_first FROM boot ORDER BY boot").fetchall()
    return [Boot(boot_id, first_ns, read_steps(connection, boot)) for boot, boot_id, first_ns in rows]


class Lookup:
    """Maps the numbers of one file to streams and boots."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.streams = read_streams(connection)
        self.boot_ids = read_boot_ids(connection)

    def hot(self, row: tuple[int, int, int, int, int, int, bytes]) -> Chunk:
        """Return (seq, stream, boot, bt0, n, crc, payload) as a chunk; Undecodable if it is damaged."""
        seq, stream, boot, first_ns, n, crc, payload = row
        known = self._checked(stream, boot, first_ns, n, crc, payload)
        stamps, columns = decode_hot(payload, first_ns, n, len(known.fields))
        return self._chunk(seq, seq, known, boot, stamps, columns)

    def block(self, row: tuple[int, int, int, int, int, int, int, int, bytes]) -> Chunk:
        """Return (lo, hi, stream, boot, bt0, n, codec, crc, payload) as a chunk; Undecodable if it is damaged."""
        lo, hi, stream, boot, first_ns, n, codec, crc, payload = row
        known = self._checked(stream, boot, first_ns, n, crc, payload)
        stamps, columns = decode_block(payload, codec, n, len(known.fields))
        return self._chunk(lo, hi, known, boot, stamps, columns)

    def _checked(self, stream: int, boot: int, first_ns: int, n: int, crc: int, payload: bytes) -> Stream:
        if checksum(stream, boot, first_ns, n, payload) != crc:
            raise Undecodable(f"checksum {checksum(stream, boot, first_ns, n, payload):#010x}, row says {crc:#010x}")
        if stream not in self.streams or boot not in self.boot_ids:
            raise Undecodable(f"stream {stream} of boot {boot}: not in this file's tables")
        return self.streams[stream]

    def _chunk(self, lo: int, hi: int, stream: Stream, boot: int, stamps: IntArray, columns: Sequence[Column]) -> Chunk:
        return Chunk(lo, hi, stream, self.boot_ids[boot], stamps, columns)


HOT = "seq, stream, boot, bt0, n, crc, payload"
BLK = "lo, hi, stream, boot, bt0, n, codec, crc, payload"
"""Columns in the order that Lookup expects."""
