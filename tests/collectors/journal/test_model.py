"""Random commits, maintenance and crashes against a list: acknowledged rows are read back, once, in order."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collectors.host.clock import FakeClock
from collectors.journal.backlog import EventAt, Row, Work
from collectors.journal.reader import JournalReader
from collectors.journal.row_mapping import canonical
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter

NAMES = st.sampled_from(["voltage_v", "current_a", "power_w"])
VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 99).map(lambda i: i / 100)
Twin = tuple[str, tuple[tuple[str, float], ...]]
"""A row's cell and present values."""
MEMORY = Path("/dev/shm")


class JournalModel(RuleBasedStateMachine):
    """`written` is the reference: the rows whose COMMIT returned."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="journal-model-", dir=MEMORY if MEMORY.is_dir() else None))
        self.runs = 0
        self.clock = FakeClock(boottime_ns=10**9, offset_ns=1_700_000_000 * 10**9)
        self.written: list[Twin] = []
        self.happened: list[str] = []
        self.open()

    def open(self) -> None:
        settings = JournalSettings(ballast_mib=0.0, min_free_mib=0.0)
        self.writer = JournalWriter(self.root / str(self.runs), {}, settings, self.clock, lambda *_: None)
        self.reader = JournalReader(self.root / str(self.runs))

    @rule(
        cell=st.sampled_from("12"),
        batch=st.lists(
            st.tuples(st.integers(0, 3), st.dictionaries(NAMES, VALUES, min_size=1)), min_size=1, max_size=6
        ),
        with_event=st.booleans(),
    )
    def commit(self, cell: str, batch: Sequence[tuple[int, dict[str, float | None]]], with_event: bool) -> None:
        stamp, rows, twins = self.clock.boottime_ns(), [], list[Twin]()
        for ahead, values in batch:
            rows.append(Row(stamp, values))
            self.clock.sleep_s(ahead)
            present = tuple(sorted((k, float(v)) for k, v in values.items() if v is not None))
            twins.append((cell, present))
            stamp = self.clock.boottime_ns()
        work = Work({("battery", canonical({"cell": cell})): rows}, [EventAt(stamp, "hello", cell)] * with_event)
        self.writer.commit(work)
        self.written += twins
        self.happened += [cell] * with_event

    @rule()
    def compact(self) -> None:
        self.writer.compact()

    @rule()
    def roll(self) -> None:
        self.writer.roll()

    @rule()
    def upkeep_later(self) -> None:
        self.clock.sleep_s(700)
        self.writer.upkeep()

    @rule(state=st.sampled_from([0, 1]), seconds=st.integers(-5, 5))
    def step_the_clock(self, state: int, seconds: int) -> None:
        self.clock.step_s(seconds)
        self.clock.state = state

    @rule()
    def stop_and_start(self) -> None:
        self.writer.close()
        self.open()

    @rule()
    def reboot(self) -> None:
        self.writer.close()
        self.clock = FakeClock(10**9, self.clock.offset_ns, boot_id=f"boot-{len(self.written)}-{self.runs}")
        self.runs += 1
        shutil.copytree(self.root / str(self.runs - 1), self.root / str(self.runs))
        self.open()

    @rule()
    def crash(self) -> None:
        """The folder as it is now, WAL included, is what the next process opens."""
        self.runs += 1
        shutil.copytree(self.root / str(self.runs - 1), self.root / str(self.runs))
        self.writer.close()
        self.open()

    @rule(max_rows=st.integers(1, 7), start=st.floats(0, 1))
    def every_cursor_finds_all_that_lies_behind_it(self, max_rows: int, start: float) -> None:
        cursor = first = int(self.reader.newest_seq() * start)
        chunks_behind = {chunk.hi for chunk in self.everything()[2] if chunk.hi > first}
        while (batch := self.reader.after(cursor, max_rows)).hi > cursor:
            assert all(cursor < e.seq <= batch.hi for e in batch.events)
            assert all(cursor < c.hi <= batch.hi for c in batch.chunks)
            chunks_behind -= {c.hi for c in batch.chunks}
            cursor = batch.hi
        assert not chunks_behind

    def everything(self) -> tuple[list[Twin], list[str], list]:  # type: ignore[type-arg]
        batch = self.reader.after(0, 10**9)
        found: list[Twin] = []
        for chunk in batch.chunks:
            for i in range(len(chunk.boottime_ns)):
                present = [
                    (spec.name, float(c.values[i]))
                    for spec, c in zip(chunk.stream.fields, chunk.columns, strict=True)
                    if c.missing is None or not c.missing[i]
                ]
                found.append((chunk.stream.tags["cell"], tuple(sorted(present))))
        return found, [e.detail for e in batch.events if e.kind == "hello"], list(batch.chunks)

    @invariant()
    def the_journal_is_the_list(self) -> None:
        found, events, chunks = self.everything()
        for cell in "12":
            expected = [values for c, values in self.written if c == cell]
            assert [values for c, values in found if c == cell] == expected
        assert events == self.happened
        for chunk in chunks:
            assert all(a < b for a, b in zip(chunk.boottime_ns[:-1], chunk.boottime_ns[1:], strict=True))
        assert len({chunk.hi for chunk in chunks}) == len(chunks)
        assert self.reader.newest_seq() == self.writer.seq
        assert not self.reader.take_damage()

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
            shutil.rmtree(self.root)


TestJournal = JournalModel.TestCase
TestJournal.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
