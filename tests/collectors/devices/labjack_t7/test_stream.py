"""A T7 stream: every scan is counted and lost scans are gaps with a cause, however the bytes are split."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import config
from collectors.device import Output
from collectors.devices.labjack_t7 import DEVICE, configuration
from collectors.devices.labjack_t7 import calibration as volts
from collectors.devices.labjack_t7 import stream as streamer
from collectors.devices.labjack_t7 import stream_packets as stream
from collectors.devices.labjack_t7.configuration import Streams
from collectors.devices.labjack_t7.scaling import Scaling
from collectors.devices.labjack_t7.scan_clock import BLOCK_NS, ScanClock
from collectors.errors import ConfigError, FrameError, LinkBusy, LinkDown, NoReply, Refused
from collectors.reading import Event, Reading
from tests.testing.conformance import options_of
from tests.testing.t7 import CURRENT, STREAM, VOLTAGE, Setup, events, readings

SHEET = [
    bytes.fromhex("00 00 00 00 00 12 01 4C 10 00 00 00 00 00 00 00 82 F3 C0 CB 82 F4 C0 D0"),
    bytes.fromhex("00 01 00 00 00 0E 01 4C 10 00 02 00 0B 7C 00 00 82 DC C0 94"),
    bytes.fromhex("00 02 00 00 00 12 01 4C 10 00 00 00 0B 7D 00 89 FF FF FF FF 82 F0 C0 BC"),
]
modest = settings(max_examples=60, deadline=None)


def codes_of(packets: int, scans: int, channels: int) -> stream.Words:
    return np.arange(1, packets * scans * channels + 1, dtype=np.uint16).reshape(packets, scans * channels)


def track(data: bytes, channels: int) -> tuple[list[stream.StreamSegment], list[Event], stream.Tracker]:
    tracker = stream.Tracker(channels)
    cut = stream.cut_packets(data)
    assert cut is not None
    segments, found = tracker.feed(cut.payload)
    return segments, found, tracker


# packets


def test_packets_become_scans_with_a_gap_of_137() -> None:
    segments, found, tracker = track(b"".join(SHEET), channels=2)
    scans = {s.first + i: codes for s in segments for i, codes in enumerate(s.codes.tolist())}
    assert scans == {0: [33523, 49355], 1: [33524, 49360], 2: [33500, 49300], 140: [33520, 49340]}
    assert [(e.kind, e.detail.partition(",")[0]) for e in found] == [
        ("stream_backlog", "the device's buffer ran over"),
        ("stream_gap", "137 scans lost while the device's buffer was full"),
    ]
    assert tracker.lost == 137


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 4), st.integers(0, 0xFFFF))
@modest
def test_many_packets_at_once_are_the_packets_one_by_one(packets: int, scans: int, channels: int, first: int) -> None:
    codes = codes_of(packets, scans, channels)
    data = stream.encode_many(first, codes)
    assert data == b"".join(stream.encode((first + i) & 0xFFFF, row) for i, row in enumerate(codes))
    cut = stream.cut_packets(data)
    assert cut is not None
    (run,) = cut.payload
    assert cut.used == len(data)
    assert (run.codes == codes).all()
    assert run.transaction.tolist() == [(first + i) & 0xFFFF for i in range(packets)]


@given(st.data())
@modest
def test_however_the_bytes_are_split_the_scans_are_the_same(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    whole = b"".join(stream.encode(i, np.full(2 * n, i + 1, dtype=np.uint16)) for i, n in enumerate(sizes))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    tracker, buffer, seen = stream.Tracker(2), b"", []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        buffer += whole[start:end]
        if cut := stream.cut_packets(buffer):
            buffer = buffer[cut.used :]
            segments, found = tracker.feed(cut.payload)
            assert found == []
            seen += [(s.first, s.codes.tolist()) for s in segments]
    assert buffer == b""
    assert [code for _, codes in seen for code, _ in codes] == [i + 1 for i, n in enumerate(sizes) for _ in range(n)]
    assert tracker.counter == sum(sizes)


@pytest.mark.parametrize("at", [2, 3, 6, 7, 8])
@pytest.mark.parametrize("follows", [b"", SHEET[1]])
def test_an_invalid_header_is_dropped_up_to_the_next_possible_one(at: int, follows: bytes) -> None:
    bad = bytearray(SHEET[0])
    bad[at] ^= 0x81
    with pytest.raises(FrameError, match="expected the head of a stream packet") as caught:
        stream.cut_packets(bytes(bad) + follows)
    assert caught.value.drop == len(bad) - (0 if follows else 8)


@given(st.binary(max_size=40))
@modest
def test_the_next_packet_is_found_after_random_bytes(rubbish: bytes) -> None:
    buffer, found = rubbish.replace(stream.MARK, b"") + SHEET[0], None
    while found is None:
        try:
            found = stream.cut_packets(buffer)
        except FrameError as error:
            buffer = buffer[error.drop :]
        else:
            assert found is not None, "waits for a packet that rubbish announced"
    assert found.payload[0].codes.tolist() == [[33523, 49355, 33524, 49360]]


def test_good_packets_before_a_bad_one_are_not_lost() -> None:
    cut = stream.cut_packets(SHEET[0] + b"rubbish that is no packet")
    assert cut is not None
    assert cut.used == len(SHEET[0])


def test_a_hole_in_the_numbers_is_lost_packets_and_moves_the_counter() -> None:
    data = stream.encode_many(0xFFFE, codes_of(2, 5, 2)) + stream.encode_many(3, codes_of(2, 5, 2))
    segments, found, tracker = track(data, channels=2)
    assert [(s.first, s.end) for s in segments] == [(0, 10), (25, 35)]
    assert [e.detail for e in found] == ["3 packets with 15 scans never arrived"]
    assert tracker.lost == 15


def test_a_hole_between_two_polls_is_detected_too() -> None:
    tracker = stream.Tracker(1)
    for first in (0, 2):
        cut = stream.cut_packets(stream.encode_many(first, codes_of(1, 4, 1)))
        assert cut is not None
        segments, found = tracker.feed(cut.payload)
    assert events(list(found)) == ["stream_gap"]
    assert segments[0].first == 8


def test_a_gap_without_its_mark_lies_before_the_packet() -> None:
    data = stream.encode(0, np.array([5, 6], dtype=np.uint16), stream.RECOVERED, 10)
    segments, _, _ = track(data, channels=1)
    assert [(s.first, s.codes.ravel().tolist()) for s in segments] == [(10, [5, 6])]


@pytest.mark.parametrize("status", [2942, 2943, 2944, 2945, 7])
def test_packets_after_the_end_of_a_stream_are_ignored(status: int) -> None:
    good = np.array([5, 6], dtype=np.uint16)
    data = stream.encode(0, good) + stream.encode(1, good, status) + stream.encode(2, good)
    segments, found, tracker = track(data, channels=1)
    assert [s.end for s in segments] == [2]
    assert [e.kind for e in found] == ["stream_ended"]
    assert tracker.ended == status


@pytest.mark.parametrize(
    "data",
    [
        stream.encode(9, np.array([1, 2], dtype=np.uint16)) + stream.encode(8, np.array([1, 2], dtype=np.uint16)),
        stream.encode(0, np.array([1, 2, 3], dtype=np.uint16)),
    ],
    ids=["numbers go backwards", "no whole scans"],
)
def test_packets_of_another_stream_end_this_one(data: bytes) -> None:
    _, found, tracker = track(data, channels=2)
    assert tracker.ended is not None
    assert len(found) == 1


# bins


def plain_bins(scans: dict[int, Sequence[float]], per_bin: int, over: int) -> list[tuple[int, int, list[float]]]:
    """Return number, samples and [mean, minimum, maximum, std of each column] of every bin, by plain loops."""
    bins = []
    for number in sorted({counter // per_bin for counter in scans}):
        inside = [v for c, v in sorted(scans.items()) if c // per_bin == number]
        if (number + 1) * per_bin <= over:
            columns = np.array(inside)
            spread = [columns.mean(0), columns.min(0), columns.max(0), columns.std(0)]
            bins.append((number, len(inside), np.concatenate(spread).tolist()))
    return bins


@given(st.data())
@modest
def test_bins_do_not_depend_on_chunks_and_gaps_only_lower_their_samples(data: st.DataObject) -> None:
    per_bin = data.draw(st.integers(1, 12))
    chunks = data.draw(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 15)), min_size=1, max_size=8))
    table = np.linspace(-3.0, 9.0, volts.CODES) ** 2
    binner = stream.Binner(per_bin, [(0, table), (1, -table)])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scans: dict[int, Sequence[float]] = {}
    found = []
    counter = 0
    for length, lost in chunks:
        codes = rng.integers(0, 65535, (length, 2)).astype(np.uint16)
        scans |= {counter + i: [table[a], -table[b]] for i, (a, b) in enumerate(codes)}
        segment = stream.StreamSegment(counter, codes)
        counter = segment.end + lost
        bins = binner.feed([segment] if length else [], counter)
        if bins is not None:
            rows = np.concatenate([bins.mean, bins.least, bins.greatest, bins.std], axis=1).tolist()
            found += list(zip(bins.number.tolist(), bins.samples.tolist(), rows, strict=True))
    expected = plain_bins(scans, per_bin, counter)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    for (_, _, values), (_, _, true) in zip(found, expected, strict=True):
        assert values == pytest.approx(true, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("code", volts.OVERRANGE_CODES)
def test_a_code_at_the_end_of_the_range_invalidates_its_bin_of_its_channel_only(code: int) -> None:
    table = volts.table(volts.nominal(10.0), Scaling())
    binner = stream.Binner(3, [(0, table), (1, table)])
    codes = np.array([[33523, 33523], [code, 33523], [33523, 33523]] + [[33523, 33523]] * 3, dtype=np.uint16)
    bins = binner.feed([stream.StreamSegment(0, codes)], 6)
    assert bins is not None
    assert np.isnan(bins.mean).tolist() == [[True, False], [False, False]]
    assert np.isnan(bins.greatest).tolist() == np.isnan(bins.std).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("range_v", [10.0, 1.0, 0.1, 0.01])
def test_volts_become_codes_and_volts_again(range_v: float) -> None:
    true = np.linspace(-1.05, 1.0, 101) * range_v
    calibration = volts.nominal(range_v)
    assert calibration.volts(calibration.codes(true)) == pytest.approx(true, rel=1e-9)


def test_an_impossible_calibration_is_rejected() -> None:
    sets = {r: volts.nominal(r) for r in (10.0, 1.0, 0.1, 0.01)}
    assert volts.from_flash(volts.to_flash(sets))[1.0] == pytest.approx(sets[1.0], rel=1e-6)
    for data in (b"\xff" * volts.FLASH_BYTES, volts.to_flash({**sets, 0.1: sets[1.0]})):
        with pytest.raises(Refused, match="set calibration = 'nominal'"):
            volts.from_flash(data)


# time


@pytest.mark.parametrize("ppm", [-80.0, 0.0, 35.0])
@pytest.mark.parametrize("rate_hz", [10.0, 50_000.0])
def test_the_clock_follows_a_crystal_through_late_arrivals(ppm: float, rate_hz: float) -> None:
    rng = random.Random(1)
    clock = ScanClock(rate_hz)
    worst_s = 0.0
    for tenth in range(6000):  # ten minutes
        counter = round(tenth * 0.1 * rate_hz)
        true_s = 100.0 + counter / (rate_hz * (1 + ppm * 1e-6))
        late_s = rng.expovariate(1 / 0.003) + (0.3 if rng.random() < 0.02 else 0.0)
        assert clock.anchor(counter, round((true_s + late_s) * 1e9)) == 0.0
        if true_s > 170.0:
            worst_s = max(worst_s, abs(clock.boottime_ns(counter) / 1e9 - true_s))
    assert worst_s < 0.0015


def test_a_counter_that_missed_scans_makes_the_clock_jump_once() -> None:
    clock = ScanClock(1000.0)
    jumps = []
    for second in range(60):
        counter = second * 1000 - (200 if second >= 30 else 0)
        jumps.append(clock.anchor(counter, second * 1_000_000_000))
    assert [round(j / 1e6) for j in jumps if j] == [200]
    assert clock.boottime_ns(59_800) == pytest.approx(60e9, abs=1e6)
    assert BLOCK_NS < 60e9


def test_before_the_first_packet_there_is_no_time() -> None:
    with pytest.raises(ValueError, match="no packet"):
        ScanClock(1.0).boottime_ns(0)


# the driver on the fake


def stream_setup(**table: Any) -> Setup:
    options = {"channels": [VOLTAGE, CURRENT], "mode": "stream", "scan_rate_hz": 1000, "bin_s": 0.1, **table}
    return Setup(options).open()


def take(setup: Setup, bins: int) -> list[Output]:
    outputs: list[Output] = []
    while len(readings(outputs)) < bins:
        outputs += setup.poll(0.0)
    return outputs


def test_bins_are_true_within_a_step_of_the_converter() -> None:
    for reading in readings(take(stream_setup(), 5)):
        assert reading.values["voltage_v"] == pytest.approx(13.2, abs=0.0007)
        assert reading.values["current_a"] == pytest.approx(-4.5, abs=0.0017)
        assert reading.values["current_std_a"] == 0.0
        assert reading.values["samples"] == 100.0


def test_bins_are_stamped_at_their_middle_one_bin_apart() -> None:
    stamps = [r.boottime_ns for r in readings(take(stream_setup(), 20))]
    assert np.diff(stamps).tolist() == pytest.approx([100_000_000] * (len(stamps) - 1), abs=1)


def test_raw_volts_are_kept_beside_on_request() -> None:
    outputs = readings(take(stream_setup(channels=[VOLTAGE, {**CURRENT, "keep_raw": True}]), 4))
    battery, raw = outputs[:2]
    assert (raw.measurement, raw.tags) == ("analog", {"channel": "AIN1"})
    assert raw.values["raw_v"] == pytest.approx((battery.values["current_a"] or 0.0) / 10, rel=1e-9)
    assert raw.values["samples"] == battery.values["samples"]


def test_nominal_constants_are_off_by_the_devices_own_error() -> None:
    for calibration, least, most in (("device", 0.0, 0.0017), ("nominal", 0.005, 0.02)):
        reading = readings(take(stream_setup(calibration=calibration), 1))[0]
        assert least <= abs((reading.values["current_a"] or 0.0) + 4.5) <= most


def test_an_overrun_is_a_gap_with_its_cause_and_fewer_samples() -> None:
    setup = stream_setup()
    take(setup, 3)
    setup.fake.overflow(330)
    outputs = take(setup, 6)
    assert events(outputs) == ["stream_backlog", "stream_gap"]
    found = readings(outputs)
    assert sum(100 - (r.values["samples"] or 0) for r in found) + 100 * missing(found) == 330
    assert {r.values["voltage_min_v"] for r in found} == {found[0].values["voltage_v"]}


def missing(found: list[Reading]) -> int:
    """Return how many bins are missing between these."""
    steps = np.rint(np.diff([r.boottime_ns for r in found]) / 1e8)
    return int((steps - 1).sum())


def test_a_lost_packet_is_a_gap_with_its_cause() -> None:
    setup = stream_setup()
    before = take(setup, 2)
    setup.fake.lose_packets(2)
    outputs = take(setup, 3)
    assert events(outputs) == ["stream_gap"]
    assert missing(readings([*before, *outputs])) == 2  # a packet has 100 scans, as a bin has


@pytest.mark.parametrize("status", [2943, 2945])
def test_a_stream_that_ended_is_restarted_and_its_time_continues(status: int) -> None:
    setup = stream_setup()
    before = readings(take(setup, 3))
    setup.fake.end_stream(status)
    outputs = take(setup, 5)
    assert events(outputs) == ["stream_ended"]
    stamps = [r.boottime_ns for r in [*before, *readings(outputs)]]
    assert stamps == sorted(set(stamps))
    assert setup.fake.stream.is_on


def test_a_scan_overlap_names_the_setting_and_ends_the_connection() -> None:
    setup = stream_setup()
    setup.fake.end_stream(stream.OVERLAP)
    assert events(setup.poll()) == ["stream_ended"]
    with pytest.raises(LinkDown, match="lower scan_rate_hz"):
        setup.poll()


def test_a_gap_of_the_simulated_values_is_a_gap_in_the_stream() -> None:
    setup = stream_setup()
    take(setup, 2)
    setup.world["battery.current_a"] = None
    with pytest.raises(NoReply):
        for _ in range(5):
            setup.poll()
    setup.world["battery.current_a"] = 1.0
    outputs = take(setup, 2)
    assert events(outputs) == ["stream_gap"]
    assert readings(outputs)[-1].values["current_a"] == pytest.approx(1.0, abs=0.002)


def test_an_input_at_the_end_of_its_range_has_no_bins_and_one_event() -> None:
    setup = stream_setup()
    take(setup, 2)
    setup.world["battery.current_a"] = 150.0
    outputs = take(setup, 4)
    assert events(outputs) == ["input_overrange"]
    assert readings(outputs)[-1].values["current_a"] is None
    assert readings(outputs)[-1].values["voltage_v"] == pytest.approx(13.2, abs=0.0007)


def test_after_a_power_cycle_the_stream_is_silent_until_it_is_opened_again() -> None:
    setup = stream_setup()
    take(setup, 1)
    setup.fake.power_cycle(setup.bench.now_s)
    with pytest.raises(NoReply):
        for _ in range(3):
            setup.poll()
    assert readings(take(stream_setup(), 1))


def test_reopening_discards_packets_of_the_previous_stream() -> None:
    setup = stream_setup()
    take(setup, 1)
    setup.bench.now_s += 0.35
    setup.fake.tick(setup.bench.now_s)  # packets that no one read
    setup.world["battery.voltage_v"] = 12.0
    first = readings(take(setup.open(), 1))[0]
    assert first.values["voltage_max_v"] == pytest.approx(12.0, abs=0.0007)
    assert first.values["samples"] == 100.0


def test_close_stops_the_stream() -> None:
    setup = stream_setup()
    setup.bench.carry(setup.driver.close())
    assert not setup.fake.stream.is_on


def test_after_a_lost_link_the_own_stream_is_not_taken_for_another_programs() -> None:
    setup = stream_setup()
    take(setup, 2)
    setup.driver = DEVICE.driver(setup.driver._options)
    assert events(take(setup.open(), 2)) == []


def test_a_stream_taken_over_by_another_program_is_reported_and_not_stopped() -> None:
    setup = stream_setup()
    take(setup, 2)
    setup.bench.now_s += 5.0
    other = DEVICE.driver(options_of(DEVICE, {"channels": [CURRENT], **STREAM, "scan_rate_hz": 2000}))
    setup.bench.carry(setup.driver._session.write({"STREAM_ENABLE": 0}))
    setup.bench.carry(other.open())
    with pytest.raises(LinkDown, match="another program has ended this T7's stream"):
        for _ in range(5):
            setup.poll()
    setup.bench.carry(setup.driver.close())
    assert setup.fake.stream.is_on
    setup.driver = DEVICE.driver(options_of(DEVICE, {"channels": [VOLTAGE, CURRENT], **STREAM}))
    assert events(take(setup.open(), 2)) == ["stream_taken_over"]


def test_over_wifi_a_stream_is_rejected_with_a_remedy() -> None:
    setup = Setup({"channels": [VOLTAGE, CURRENT], **STREAM}, wifi=True).open()
    with pytest.raises(ConfigError, match=r"Wi-Fi .*cannot stream.* mode = 'sample'"):
        setup.poll()


def test_over_wifi_the_inputs_can_be_sampled() -> None:
    assert readings(Setup({"channels": [VOLTAGE]}, wifi=True).open().poll())


def test_a_link_that_names_wifi_is_rejected_for_a_stream_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "t7.toml"
    channel = '[[device.channels]]\ninput = "AIN0"\nsignal = "battery.voltage_v"\n'
    link = "ljm:WIFI:470012345?tcp=192.0.2.7"
    head = f'[collector]\nname = "t7"\nbench = "b"\nkind = "labjack_t7"\nlink = "{link}"\n'
    path.write_text(f'{head}[device]\nmode = "stream"\n{channel}')
    with pytest.raises(ConfigError, match="over Wi-Fi a T7 cannot stream"):
        config.load(path)
    path.write_text(f'{head}[device]\nmode = "sample"\n{channel}')
    assert config.load(path)


def test_a_bin_beyond_its_sensors_range_is_missing_and_an_event() -> None:
    lem = {**CURRENT, "scaling": {"hall": {"burden_ohm": 100, "range_a": 70.0}}}
    setup = stream_setup(channels=[VOLTAGE, lem])
    take(setup, 2)
    setup.world["battery.current_a"] = 75.0  # within what the input can measure
    outputs = take(setup, 4)
    assert events(outputs) == ["input_overrange"]
    assert "its sensor" in next(output.detail for output in outputs if isinstance(output, Event))
    last = readings(outputs)[-1].values
    assert [last[f"current_{part}a"] for part in ("", "min_", "max_", "std_")] == [None] * 4
    assert last["voltage_v"] == pytest.approx(13.2, abs=0.0007)


def test_two_collectors_that_stream_from_one_device_do_not_stop_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup({"channels": [VOLTAGE], **STREAM})
    processes = [Streams(), Streams()]
    drivers: list[Any] = [None, None]
    taken_over, waits, readings_of = 0, [0, 0], [0, 0]
    for turn in range(60):
        number = turn % 2
        for module in (configuration, streamer):
            monkeypatch.setattr(module, "STREAMS", processes[number])
        try:
            if drivers[number] is None:
                driver = DEVICE.driver(options_of(DEVICE, {"channels": [VOLTAGE], **STREAM}))
                setup.bench.carry(driver.open())
                drivers[number] = driver
            outputs = setup.bench.carry(drivers[number].poll())
        except LinkBusy:
            waits[number] += 1
        except (LinkDown, NoReply):
            drivers[number] = None
        else:
            taken_over += events(outputs).count("stream_taken_over")
            readings_of[number] += len(readings(outputs))
    assert taken_over == 2, "each has stopped the other's stream once"
    assert sorted(bool(count) for count in waits) == [False, True]
    assert readings_of[waits.index(0)] > 10
