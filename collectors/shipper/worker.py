"""Sends the rows of all journals to one sink, one request at a time, in a thread of its own.

Cursors move only when every row of a page is stored, is rejected, or waits for its clock; `collectors.shipper.cursors`
states the guarantee. Live rows have priority. When more than LIVE_LAG commits wait, all of them become a backlog range
and live rows continue after it; live rows and backlog take turns until the range has reached the live cursor and is
removed. When `interval_s` is over during a request, a live round follows as soon as its response has arrived. The size
of requests is adapted so that one takes a few seconds at most on a slow connection.
"""

from __future__ import annotations

import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from collectors.errors import JournalError
from collectors.shipper.batches import LineBatch, Prefetch, batches
from collectors.shipper.cursors import (
    UNSORTED,
    BacklogRange,
    Cursors,
    Health,
    ShipStore,
    StoreDamaged,
    StoreUnavailable,
)
from collectors.shipper.influxdb.responses import WriteResponse
from collectors.shipper.journal_source import EncodedRows, JournalSource, Page
from collectors.shipper.retry import BatchLimit, Delivered, Refusal, Send, Wait, deliver

log = logging.getLogger("collectors.ship")

LIVE_LAG = 60
"""More unread commits than this (a minute at one per second) become a backlog range."""
SAVE_LINES = 20_000
LOOK_S = 5.0
NEWEST = 2**63 - 1
"""Higher than every sequence number."""
STORE_RETRY_S = 5.0
BEYOND_S = 60.0
UNSORTED_AT_ONCE = 20
REFUSED_EVENT_S = 60.0
"""Within this time, rejected lines of one collector and reason give one event, for any number of requests."""
EVENT_OF_STATE = {"ok": "sink_ok", "retry": "sink_retry", "hold": "sink_hold"}
TYPE_CONFLICT = re.compile(
    r'input field \\*"(.+?)\\*" on measurement \\*"(.+?)\\*" is type \w+, already exists as type (\w+)'
)
TYPE_OF_WORD = {"float": "f", "integer": "i", "boolean": "b", "string": "s"}


class WorkerStopped(Exception):
    """The shipper was asked to stop; rows that are not confirmed are sent again at the next start."""


class PendingRows(NamedTuple):
    """How far behind a sink is with one collector."""

    rows: int
    """Rows of the journal, each one commit of a stream."""
    age_s: float | None
    """Age of the oldest row; None while its wall time is not known."""


class Sender(Protocol):
    """A connection to the sink: `collectors.shipper.influxdb.client.InfluxClient`, or a test double."""

    def pack(self, lines: list[str]) -> bytes:
        """Return the body of a request with these lines."""
        ...

    def send(self, body: bytes) -> WriteResponse | None:
        """Send the body; return None when it was sent, or a response when sending failed."""
        ...

    def answer(self) -> WriteResponse:
        """Return the response to the body that was sent."""
        ...


class SinkWorker:
    """Sends all journals to one sink. `run` repeats live rounds and backlog turns until stopped."""

    def __init__(
        self,
        sink: str,
        store: ShipStore,
        sender: Sender,
        *,
        batch_lines: int = 5000,
        save_s: float = 5.0,
        on_event: Callable[[str, str], None] = lambda _kind, _detail: None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`on_event` takes kind and detail of events: changes of the sink's state, rejected lines."""
        self.sink = sink
        self.stop = threading.Event()
        self.marks = store.marks(sink)
        self.types = store.types(sink)
        self.readings: dict[str, JournalSource] = {}
        self.unsent: dict[str, PendingRows] = {}
        self.limit = BatchLimit(batch_lines)
        self.lines_sent = 0
        self.refused = 0
        self.alive_s = time.monotonic()
        """Monotonic time of the last activity; the service compares it with ALIVE_S for the watchdog."""
        self.interval_s = math.inf
        """How long live rows wait while backlog is sent; after it, they wait for the current request only."""
        self.asking_since_s: float | None = None
        """Monotonic time since which the worker waits for a response; None when no request is under way."""
        self.health = Health("ok", "", time.time_ns(), 0)
        self._store = store
        self._sender = sender
        self._save_s = save_s
        self._on_event = on_event
        self._uniform = uniform
        self._known_good = store.known_good(sink)
        self._refused_untold: dict[tuple[str, str], tuple[int, str]] = {}
        self._refused_told_s: dict[tuple[str, str], float] = {}
        self._saved_s, self._saved_lines = time.monotonic(), 0
        self._looked_s = -LOOK_S
        self._live_s = -math.inf
        self._unreadable: dict[tuple[str, str], str] = {}
        self._beyond_since_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, reading: JournalSource) -> None:
        """Ship this collector's journal as well; from its beginning if the sink has no cursor for it."""
        self.readings[reading.collector] = reading
        with self._lock:
            self.marks.setdefault(reading.collector, Cursors())

    def run(self, interval_s: float) -> None:
        """Ship until stopped. Live rounds are at most `interval_s` plus one request apart."""
        self.interval_s = interval_s
        try:
            while not self.stop.is_set():
                try:
                    busy = self._turn()
                except StoreUnavailable as error:  # nothing was changed, so the turn can be repeated
                    self._set_health("retry", str(error))
                    self._pause(STORE_RETRY_S)
                    continue
                if not busy:
                    self.save_if_due()
                    self._pause(max(0.0, self._live_s + interval_s - time.monotonic()))
        except WorkerStopped:
            return
        finally:
            self._tell_refused(now=True)
            self.save()

    def _turn(self) -> bool:
        busy = self._live_is_due() and self.live_round()
        return self.backlog_turn() or busy or self.isolate_turn()

    def run_once(self) -> None:
        """Ship until everything that may be shipped is confirmed or rejected permanently, or until stopped."""
        try:
            while self.live_round() or self.backlog_turn() or self.isolate_turn():
                pass
        except WorkerStopped:
            return
        finally:
            self._tell_refused(now=True)
            self.save()

    def _live_is_due(self) -> bool:
        return time.monotonic() - self._live_s >= self.interval_s

    def live_round(self, *, within_window: bool = False) -> bool:
        """Ship the new rows of every collector; return whether there were any.

        Within a page of a backlog range no rows become backlog: the page may have omitted rows behind the live cursor,
        and the range's own cursor is about to pass them.
        """
        busy = False
        self._live_s = time.monotonic()
        for name, reading in list(self.readings.items()):
            marks = self.marks[name]
            with self._readable(name):
                newest = reading.source.newest_seq()
                if newest < marks.live:
                    marks = self._begin_anew(name, newest)
                else:
                    self._beyond_since_s.pop(name, None)
                if newest - marks.live > LIVE_LAG:
                    if within_window:
                        continue
                    with self._lock:
                        marks.split(newest)
                busy |= self._ship(reading, marks, None)
        return busy

    def _begin_anew(self, name: str, newest: int) -> Cursors:
        """Return new cursors for a journal that ends before its cursor: the directory holds another one than before.

        JournalError for the first BEYOND_S, because renaming a damaged file looks the same for a short time.
        """
        marks = self.marks[name]
        why = f"{name}: the cursor stands at {marks.live}, the journal ends at {newest}: it is another one than before"
        since_s = self._beyond_since_s.setdefault(name, time.monotonic())
        if time.monotonic() - since_s < BEYOND_S:
            raise JournalError(f"{why}; if that stays so for {BEYOND_S:g} s, all of it is sent")
        del self._beyond_since_s[name]
        log.warning("sink %s: %s; all of it is sent", self.sink, why)
        self._on_event("cursor_reset", f"{self.sink}: {why}; all of it is sent")
        with self._lock:
            self.marks[name] = Cursors()
        return self.marks[name]

    @contextmanager
    def _readable(self, name: str, part: str = "live") -> Iterator[None]:
        """Record that a journal cannot be read (for example: newer version), without stopping others; it is retried.

        `part` names the part that is read: one part may be readable while another is not.
        """
        try:
            yield
        except (StoreDamaged, StoreUnavailable):  # an error of ship.db, not of the journal
            raise
        except JournalError as error:
            is_news = str(error) != self.unreadable.get(name)
            self._unreadable[name, part] = str(error)
            if is_news:
                log.error("sink %s: %s", self.sink, error)
                self._on_event("journal_unreadable", f"{self.sink}: {error}")
        else:
            self._unreadable.pop((name, part), None)

    def backlog_turn(self) -> bool:
        """Ship one page of the longest backlog range that may be shipped; return whether there was one."""
        spans = [(name, span) for name, marks in self.marks.items() for span in marks.spans]
        for name, span in sorted(spans, key=lambda item: item[1].after - item[1].upto):
            with self._readable(name, f"to {span.upto}"):
                if self._is_due(name, span):
                    return self._ship(self.readings[name], self.marks[name], span)
        return False

    def _is_due(self, name: str, span: BacklogRange) -> bool:
        if name not in self.readings:  # a journal that is absent may return: its cursors are kept
            return False
        return span.boot_id is None or self.readings[name].clock_has_news(span.boot_id)

    def isolate_turn(self) -> bool:
        """Send some lines that a bisection left unsorted, one by one; return whether there were any."""
        letters = self._store.dead(self.sink, reason=UNSORTED, limit=UNSORTED_AT_ONCE)
        for letter in letters:
            batch = LineBatch([letter.line], pieces=[EncodedRows(letter.seq, [letter.line])])
            done = self._deliver(batch, lambda: None)
            if done.refused:
                self._keep_refused(letter.collector, [(letter.seq, done.refused[0])])
            else:
                self._store.remove_dead([letter.id])
        return bool(letters)

    def _ship(self, reading: JournalSource, marks: Cursors, span: BacklogRange | None) -> bool:
        """Ship the next page after a cursor and move the cursor; return whether there was one."""
        after, upto = (marks.live, None) if span is None else (span.after, span.upto)
        window = reading.window(after, upto, 2 * self.limit.lines)
        if window is None:
            if span is not None:
                with self._lock:
                    marks.advance(span, marks.live)
            return span is not None
        ahead = Prefetch(batches(window.pieces, self.limit, self._sender.pack))
        for batch in ahead:
            done = self._deliver(batch, ahead.prepare)
            unsorted = [Refusal(line, None, UNSORTED, "") for line in done.unsorted]
            refused = [(batch.seq_of(refusal.line), refusal) for refusal in done.refused + unsorted]
            self._learn(done.refused)
            self._keep_refused(window.collector, refused)
            if span is not None and self._live_is_due():
                self.live_round(within_window=True)
        self._keep_refused(window.collector, window.refused)
        self._move(marks, span, window)
        return True

    def _move(self, marks: Cursors, span: BacklogRange | None, window: Page) -> None:
        with self._lock:
            marks.advance(span, window.hi)
            for hold in window.holds:
                marks.hold(*hold)
        self.save_if_due()

    def _deliver(self, batch: LineBatch, meanwhile: Callable[[], None]) -> Delivered:
        """Deliver one batch, including all waits; raise WorkerStopped when asked to stop."""
        delivery = deliver(batch.lines, self.limit, self._uniform, self._known_good)
        answer: WriteResponse | None = None
        seconds = 0.0
        while True:
            if self.stop.is_set():
                raise WorkerStopped
            try:
                step = delivery.send(answer)
            except StopIteration as end:
                done: Delivered = end.value
                break
            if isinstance(step, Wait):
                self._wait(step)
                answer = None
            else:
                began_s = time.monotonic()
                answer = self._ask(step, batch, meanwhile)
                seconds = time.monotonic() - began_s
                if answer.status == 204:
                    self._known_good = step.lines[-1]
        left = len(batch.lines) - len(done.refused) - len(done.unsorted)
        self.lines_sent += left
        if left:
            self.limit.stored(seconds)
        self._set_health("ok", "")
        return done

    def _ask(self, step: Send, batch: LineBatch, meanwhile: Callable[[], None]) -> WriteResponse:
        whole = step.lines is batch.lines and batch.body
        body = batch.body if whole else self._sender.pack(list(step.lines))
        self.asking_since_s = self.alive_s = time.monotonic()
        try:
            early = self._sender.send(body)
            if early is not None:
                return early
            meanwhile()
            return self._sender.answer()
        finally:
            self.asking_since_s = None
            self.alive_s = time.monotonic()

    def _wait(self, wait: Wait) -> None:
        self._set_health(wait.state, wait.why)
        self.save_if_due()
        self._pause(wait.seconds)
        if self.stop.is_set():
            raise WorkerStopped

    def _pause(self, seconds: float) -> None:
        """Wait, and update `alive_s` meanwhile."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0 and not self.stop.is_set():
            self.alive_s = time.monotonic()
            self.look()
            self.stop.wait(min(left_s, LOOK_S))

    def _set_health(self, state: str, why: str) -> None:
        if (state, why) != self.health[:2]:
            changed = state != self.health.state
            since_ns = time.time_ns() if changed else self.health.since_ns
            self.health = Health(state, why[:500], since_ns, self.lines_sent)
            if changed:
                log.log(logging.INFO if state == "ok" else logging.WARNING, "sink %s: %s %s", self.sink, state, why)
                self._on_event(EVENT_OF_STATE[state], f"{self.sink}: {why}" if why else self.sink)

    def _learn(self, refused: Iterable[Refusal]) -> None:
        """Record a field's type from the sink's error text: further lines of another type are rejected locally."""
        for refusal in refused:
            if found := TYPE_CONFLICT.search(refusal.error):
                name, measurement, word = found.groups()
                if word in TYPE_OF_WORD and self.types.get((measurement, name)) != TYPE_OF_WORD[word]:
                    self.types[measurement, name] = TYPE_OF_WORD[word]
                    self._store.set_types(self.sink, {(measurement, name): TYPE_OF_WORD[word]})

    def _keep_refused(self, collector: str, refused: Iterable[tuple[int, Refusal]]) -> None:
        """Store rejected lines as dead letters; one event per reason, not per line."""
        by_seq: dict[int, list[Refusal]] = {}
        for seq, refusal in refused:
            by_seq.setdefault(seq, []).append(refusal)
        for seq, some in by_seq.items():
            self._store.add_dead(self.sink, collector, seq, some)
        final = [refusal for some in by_seq.values() for refusal in some if refusal.reason != UNSORTED]
        self.refused += len(final)
        for reason in sorted({refusal.reason for refusal in final} - {"expired"}):
            words = [refusal.error for refusal in final if refusal.reason == reason]
            count, first = self._refused_untold.get((collector, reason), (0, words[0]))
            self._refused_untold[collector, reason] = (count + len(words), first)
        self._tell_refused()

    def _tell_refused(self, *, now: bool = False) -> None:
        """Emit the events of rejected lines that are due; `now`: all of them."""
        now_s = time.monotonic()
        for key, (count, words) in list(self._refused_untold.items()):
            if now or now_s - self._refused_told_s.get(key, -math.inf) >= REFUSED_EVENT_S:
                collector, reason = key
                del self._refused_untold[key]
                self._refused_told_s[key] = now_s
                log.warning("sink %s: %s lines of %s refused (%s): %s", self.sink, count, collector, reason, words)
                self._on_event("lines_refused", f"{self.sink}: {count} of {collector} ({reason}): {words[:200]}")

    def save_if_due(self) -> None:
        """Write the cursors to the disk when `save_s` or SAVE_LINES is reached: each write wears the SD card."""
        due = time.monotonic() - self._saved_s >= self._save_s or self.lines_sent - self._saved_lines >= SAVE_LINES
        if due:
            self.save()

    def save(self) -> None:
        """Write the cursors and the sink's state to the disk now."""
        with self._lock:
            self._saved_s, self._saved_lines = time.monotonic(), self.lines_sent
            try:
                self._store.save(self.sink, self.marks, self._known_good)
                self._store.set_health(self.sink, self.health._replace(lines_sent=self.lines_sent))
            except StoreUnavailable as error:  # a full disk: cursors that lag only cause a resend
                log.warning("sink %s: marks not saved: %s", self.sink, error)

    def look(self, *, now: bool = False) -> None:
        """Read the types again, and count each collector's pending rows; every LOOK_S, or at once with `now`."""
        if not now and time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        self._tell_refused()
        self.types.clear()  # `collectors dead resend` may have found that the sink accepts another type now
        self.types |= self._store.types(self.sink)
        for name, reading in list(self.readings.items()):
            if name in self.unreadable:
                continue
            marks = self.marks[name]
            with self._readable(name, "look"):
                rows = reading.source.commits_between(marks.live, NEWEST)
                rows += sum(reading.source.commits_between(span.after, span.upto) for span in marks.spans)
                self.unsent[name] = PendingRows(rows, reading.age_after_s(marks.confirmed) if rows else 0.0)

    def waiting_for_clock(self) -> dict[str, int]:
        """Return the number of commits that wait for the clock offset of their boot, for collectors that have any."""
        found = {}
        for name, reading in self.readings.items():
            with self._readable(name, "look"):
                spans = [span for span in self.marks[name].spans if span.boot_id is not None]
                found[name] = sum(reading.source.commits_between(span.after, span.upto) for span in spans)
        return {name: count for name, count in found.items() if count}

    @property
    def unreadable(self) -> dict[str, str]:
        """Return collector to reason, for the journals that cannot be read."""
        return {name: why for (name, _), why in list(self._unreadable.items())}
