"""Any text of an instrument is stored, sent and shown; unusable characters are replaced, and collection continues."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors import devices, fakes, line_protocol
from collectors.acquisition.poller import RangeGuard
from collectors.cli import cli
from collectors.cli.once import _json
from collectors.device import Output
from collectors.devices import KINDS
from collectors.errors import CollectorError
from collectors.host.clock import FakeClock
from collectors.host.systemd import notify, status_line
from collectors.journal.backlog import EventAt, Row, Work
from collectors.journal.reader import JournalReader
from collectors.journal.row_mapping import canonical
from collectors.journal.writer import JournalWriter
from collectors.reading import Event, Identity, Reading
from collectors.text import MOST_CHARACTERS, encodable, one_line
from tests.testing.conformance import Bench, Case, all_cases, answered, damaged, options_of, play, round_trips
from tests.testing.journal import QUIET

CASES = list(all_cases())
OPTIONS = {kind: options for kind, options, _ in round_trips()}
every_kind = pytest.mark.parametrize("kind", KINDS)
fuzzed = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cs"]),
        st.sampled_from("\x00\x1b\n\r\x7f\x85\u2028\"'\\{}[],:;#\ufffd"),
    ),
    max_size=40,
)
ESCAPES = st.sampled_from([r"\ud800", r"\udfff\ud800", r"\u0000", r"\u001b[2J", "\\", '\\"', "9" * 400, "9" * 5000])
"""As a device may write them inside a text of its own protocol."""


def world(_now_s: float) -> Mapping[str, float]:
    return {"load.voltage_v": 13.2, "load.current_a": 6.0, "battery.voltage_v": 13.2, "battery.current_a": 1.0}


class Store:
    """A journal that takes everything a driver returns, as the collector's does, and reads it back."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock(10**9, 10**18)
        self.reader = JournalReader(directory)
        self._writer = JournalWriter(directory, {"device": "x"}, QUIET, self.clock, lambda *_: None)
        self._guard = RangeGuard()

    def keep(self, outputs: list[Output]) -> None:
        """Store the values as `poller` and `committer` do; then read, send and print them."""
        before = self.reader.newest_seq()
        self.clock.sleep_s(10)
        for item in outputs:
            events = [item] if isinstance(item, Event) else []
            rows = {}
            if isinstance(item, Reading):
                reading, events = self._guard.check(item)
                rows = {(reading.measurement, canonical(reading.tags)): [Row(self._now(), reading.values)]}
            self._writer.commit(Work(rows, [EventAt(self._now(), event.kind, event.detail) for event in events]))
            json.dumps(_json(item), ensure_ascii=False).encode()
        for event in self.reader.events_after(before, 10_000):
            line = line_protocol.encode_event(event, 1, {"device": "x"})
            assert "\n" not in line
            line.encode()

    def close(self) -> None:
        self._writer.close()

    def _now(self) -> int:
        self.clock.sleep_s(1e-3)
        return self.clock.boottime_ns()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "load")
    yield made
    made.close()


@given(HOSTILE | st.text(st.characters(categories=["Cs"]), min_size=3, max_size=9))
def test_cleaned_text_is_encodable_and_unchanged_by_a_second_cleaning(text: str) -> None:
    fit = one_line(text)
    fit.encode()
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in fit)
    assert len(fit.splitlines()) <= 1
    assert one_line(fit) == fit
    assert encodable(text).encode().count(b"\n") == text.count("\n")


def test_valid_text_is_unchanged_and_long_text_is_marked_as_cut() -> None:
    for text in ("", "EL 3160-60A", "25 °C, 12 V, naïve 电池 🔋", "\ufffd"):
        assert one_line(text) == text == encodable(text)
    assert one_line("a\nb\r\n\tc\x00\ud800d") == "a b c\ufffd\ufffdd"
    cut = one_line("x" * (MOST_CHARACTERS + 1))
    assert len(cut) == MOST_CHARACTERS
    assert cut.endswith("x…")


def test_readings_events_and_identities_clean_their_text_when_created() -> None:
    assert Event("link_down", "a\ud800\nb").detail == "a\ufffd b"
    assert Reading("cell", 1, {}, {"cell": "3\udc80"}).tags == {"cell": "3\ufffd"}
    who = Identity("m\ud800", "s\x00", "f\x1b", {"k\udfff": "v\n"})
    assert (who.model, who.serial, who.firmware, who.detail) == ("m\ufffd", "s\ufffd", "f\ufffd", {"k\ufffd": "v "})


@every_kind
@fuzzed
@given(data=st.data())
def test_no_text_that_an_instrument_sends_stops_the_journal(kind: str, store: Store, data: st.DataObject) -> None:
    """Each text that the fake can be configured to send is hostile."""
    fake_kind, device = fakes.load(kind), devices.load(kind)
    texts = [f.name for f in dataclasses.fields(fake_kind.options) if f.type in ("str", str)]
    told = {name: data.draw(HOSTILE | ESCAPES, name) for name in texts if data.draw(st.booleans(), f"change {name}")}
    bench = Bench(fake_kind.make(world, fake_kind.options(**told)), fake_kind.channels or [""])
    driver = device.driver(options_of(device, OPTIONS[kind]))
    outputs: list[Output] = []
    try:
        identity = bench.carry(driver.open())
        json.dumps(dataclasses.asdict(identity), ensure_ascii=False).encode()
        outputs.append(Event("link_up", f"{identity.model} {identity.serial} {identity.firmware}"))
        for _ in range(3):
            outputs += bench.carry(driver.poll())
    except CollectorError as error:
        outputs.append(Event("link_down", f"{type(error).__name__}: {error}"))
    store.keep(outputs)


@pytest.mark.parametrize("case", [case for case in CASES if answered(case)], ids=str)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_reply_with_text_in_it_stops_the_journal_or_decode(case: Case, store: Store, data: st.DataObject) -> None:
    """Hostile text is written over some bytes of a recorded reply, or put between them."""
    index = data.draw(st.sampled_from(answered(case)))
    reply = case.exchanges[index].reply
    at = data.draw(st.integers(0, len(reply)))
    text = data.draw(HOSTILE | ESCAPES).encode(errors="surrogatepass")
    over = data.draw(st.sampled_from([0, len(text)]))
    hostile = reply[:at] + text + reply[at + over :]
    outcome = play(case, damaged(case, index, hostile))
    store.keep([output for poll in outcome.polls for output in poll])
    for found in devices.load(case.kind).decode([hostile, *(e.reply for e in case.exchanges)]):
        encodable(json.dumps(found, ensure_ascii=False)).encode()


def test_decode_prints_a_lone_surrogate_as_the_replacement_character(tmp_path: Path) -> None:
    capture = tmp_path / "capture.txt"
    capture.write_text('# {"Info_s":"x\\ud800"}\n:85 Content. "x\\ud800"\n', encoding="utf-8")
    result = CliRunner().invoke(cli, ["decode", "libresolar_mppt", str(capture)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "x\ufffd" in result.output
    assert "\ud800" not in result.output


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20.0)
        yield listening


def test_no_text_of_an_instrument_is_a_command_to_the_service_manager(manager: socket.socket) -> None:
    notify(status_line("reading x\nMAINPID=1\ud800"))
    assert manager.recv(4096).decode() == "STATUS=reading x MAINPID=1\ufffd"
    notify("STATUS=\ud800")
    assert manager.recv(4096) == b"STATUS=?"


def test_a_path_that_is_no_text_can_be_named_in_an_event(tmp_path: Path, store: Store) -> None:
    store.keep([])
    writer: Any = store._writer
    writer.commit(Work({}, [EventAt(1, "file_dropped", "/x/\udce9/j-00000001.db")]))
    assert store.reader.events_after(0)[-1].detail == "/x/\ufffd/j-00000001.db"
