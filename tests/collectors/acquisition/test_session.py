"""A session does all the waiting. No received byte is lost, duplicated or stamped late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.acquisition.session import BUFFER_BYTES, Inbox, Session, shown
from collectors.errors import BadChecksum, FrameError, LinkDown, NoReply
from collectors.host.clock import FakeClock
from collectors.protocols.dialogue import Ask, Cut, Dialogue, DialogueStopped, Pause
from tests.testing import acme

MS = 1_000_000


def converse(
    *answers: bytes | LinkDown | None, byte_time_s: float = 0.0, stopping: Callable[[], bool] = lambda: False
) -> Session:
    clock = FakeClock()
    return Session(acme.ScriptedLink(clock, list(answers), byte_time_s=byte_time_s), clock, stopping)


def ask(cut: Callable[[bytes], Cut | None] = acme.cut, **more: float) -> Dialogue[object]:
    reply = yield Ask(b"?", cut, **more)  # type: ignore[arg-type]
    return reply


def test_a_reply_carries_payload_and_the_time_of_its_first_byte() -> None:
    reply = converse(acme.frame(7), byte_time_s=0.001).carry(ask())
    assert reply == (7, 10 * MS - 3 * MS)  # read() returns at 10 ms with three bytes


def test_a_second_frame_in_one_read_is_kept_for_the_next_poll_with_a_later_stamp() -> None:
    conversation = converse(acme.frame(1) + acme.frame(2), None, byte_time_s=0.001)
    assert conversation.carry(ask()) == (1, 4 * MS)
    assert conversation.carry(ask()) == (2, 7 * MS)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=6), st.data())
def test_frames_are_the_same_however_the_bytes_are_split(values: list[int], data: st.DataObject) -> None:
    stream = b"".join(map(acme.frame, values))
    inbox = Inbox()
    at = 0
    seen = []
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        inbox.add(stream[at : at + size], at + size, 1e-9)  # one byte per ns: the stamp of a byte is its index
        at += size
        while inbox.data and (found := acme.cut(bytes(inbox.data))):
            seen.append((found.payload, inbox.boottime_ns))
            inbox.drop(found.used)
    assert seen == [(value, 3 * i) for i, value in enumerate(values)]


def test_a_late_read_stamp_does_not_exceed_the_next_one() -> None:
    inbox = Inbox()
    inbox.add(b"abc", 50 * MS, 0.001)  # delayed: its last byte arrived long before 50 ms
    inbox.drop(3)
    inbox.add(b"def", 51 * MS, 0.001)
    assert inbox.boottime_ns == 50 * MS


def test_rubbish_before_a_frame_is_dropped_and_counted_by_name() -> None:
    broken = bytes([acme.HEAD, 5, 0])
    conversation = converse(b"xy" + broken + acme.frame(9))
    reply = conversation.carry(ask())
    assert reply[0] == 9  # type: ignore[index]
    assert conversation.errors == {"FrameError": 4, "BadChecksum": 1}


def test_no_reply_by_the_deadline_is_raised_in_the_dialogue() -> None:
    conversation = converse(None, acme.frame(3))

    def twice() -> Dialogue[int]:
        try:
            yield Ask(b"1", acme.cut, timeout_s=0.7)
        except NoReply:
            reply = yield Ask(b"2", acme.cut)
            return int(reply.payload)
        raise AssertionError("silence gave a reply")

    assert conversation.carry(twice()) == 3
    assert conversation.clock.monotonic_s() == pytest.approx(0.71)


def test_no_reply_names_the_fault_of_the_received_bytes() -> None:
    with pytest.raises(NoReply, match=r"within 0\.5 s; last: expected 0x5a, got 0x78; 2 bytes of an unfinished frame"):
        converse(b"x" + acme.frame(1)[:2]).carry(ask(timeout_s=0.5))


def test_endless_bytes_without_a_frame_are_dropped() -> None:
    conversation = converse(bytes(BUFFER_BYTES + 1))
    with pytest.raises(NoReply):
        conversation.carry(ask(lambda _: None))
    assert conversation.errors["FrameError"] == 1


def test_a_pause_is_kept_between_the_last_frame_and_the_next_send() -> None:
    conversation = converse(acme.frame(1), acme.frame(2))
    conversation.carry(ask())
    conversation.carry(ask(pause_s=0.05))
    assert conversation.clock.monotonic_s() == pytest.approx(0.01 + 0.05 + 0.01)


def test_a_dialogue_may_wait_without_sending() -> None:
    conversation = converse()

    def waits() -> Dialogue[str]:
        assert (yield Pause(1.3)) is None
        return "done"

    assert conversation.carry(waits()) == "done"
    assert conversation.clock.monotonic_s() == pytest.approx(1.3)


def test_flush_discards_bytes_received_before_the_request() -> None:
    conversation = converse(acme.frame(1) + acme.frame(2), acme.frame(3))
    conversation.carry(ask())
    assert conversation.carry(ask(flush=True))[0] == 3  # type: ignore[index]


def test_a_request_to_stop_ends_the_waiting_and_closes_the_dialogue() -> None:
    asked = iter([False, False, True])
    closed = []

    def waits() -> Dialogue[None]:
        try:
            yield Ask(b"?", acme.cut, timeout_s=1e6)
        finally:
            closed.append(True)

    with pytest.raises(DialogueStopped):
        converse(stopping=lambda: next(asked)).carry(waits())
    assert closed == [True]


def test_a_lost_link_passes_through() -> None:
    with pytest.raises(LinkDown, match="pulled"):
        converse(LinkDown("pulled")).carry(ask())


def test_a_dialogue_may_return_received_values_when_the_link_is_lost() -> None:
    def keeps() -> Dialogue[list[object]]:
        heard = []
        with suppress(LinkDown):
            while True:
                reply = yield Ask(b"?", acme.cut)
                heard.append(reply.payload)
        return heard

    assert converse(acme.frame(1), acme.frame(2), LinkDown("pulled")).carry(keeps()) == [1, 2]


@pytest.mark.parametrize("error", [FrameError("x", drop=0), BadChecksum("x", drop=-5)])
def test_a_codec_that_drops_nothing_cannot_hang_the_session(error: FrameError) -> None:
    def stubborn(_: bytes) -> Iterator[Cut]:
        raise error

    with pytest.raises(NoReply):
        converse(b"abc").carry(ask(stubborn))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "shows"), [(b"# {\n", "'# {\\n'"), (b"\x85\x01G", "85 01 47"), (b"ok\x00", "6f 6b 00")]
)
def test_bytes_are_shown_as_text_where_they_are_text(data: bytes, shows: str) -> None:
    assert shown(data) == shows
