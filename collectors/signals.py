"""The vocabulary: every measurement and signal that a collector may write.

InfluxDB: measurement = the thing measured, field = signal, all numbers float. Names end in their unit; pure
ratios are 0 to 1 and have none. **Positive current charges the battery**; the current into a load and the current
from a panel are positive, too. `low` and `high` bound what is plausible for any bench: a value outside gives an
event and a missing field, never a clipped value.

Collectors, dashboards, alerts, downsampling and docs all use this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    """One number's name, unit, plausible range and meaning."""

    name: str
    unit: str
    low: float
    high: float
    meaning: str
    codes: Mapping[int, str] | None = None
    """For state codes: what each integer means."""
    is_increment: bool = False
    """Whether it is an increment, the amount since the previous row: then its sum over a range is meaningful."""


V, A, W = "V", "A", "W"


def _electrical(volts: str, amps: str, watts: str) -> list[Signal]:
    return [
        Signal("voltage_v", V, -100.0, 1000.0, volts),
        Signal("current_a", A, -1000.0, 1000.0, amps),
        Signal("power_w", W, -100_000.0, 100_000.0, watts),
    ]


def _spread(name: str, unit: str, low: float, high: float, of: str) -> list[Signal]:
    """Minimum, maximum and standard deviation within the bin of a decimated stream; the plain name is the mean."""
    stem, suffix = name.rsplit("_", 1)
    return [
        Signal(f"{stem}_min_{suffix}", unit, low, high, f"least {of} in the bin"),
        Signal(f"{stem}_max_{suffix}", unit, low, high, f"greatest {of} in the bin"),
        Signal(f"{stem}_std_{suffix}", unit, 0.0, high - low, f"standard deviation of {of} in the bin"),
    ]


_SINCE = "since the row before, integrated by the collector from every sample; a gap adds nothing"
_SAMPLES = Signal("samples", "", 0.0, 1e9, "how many raw samples the bin holds; gaps are left out")

LOAD_TEST_STATES = {
    0: "IDLE",
    1: "RUN",
    2: "FINISHED",
    3: "ERROR",
    4: "SIGNAL AH",
    5: "SIGNAL TIME",
    6: "END AH",
    7: "END TIME",
}

# State codes of the Libre Solar charge controller, firmware v20 and later (docs/protocols/libresolar_mppt.md §6).
_SWITCH = {0: "off", 1: "on"}
_CHARGER_STATE = {0: "idle", 1: "bulk", 2: "topping", 3: "trickle", 4: "equalization", 5: "follower"}
_DCDC_STATE = {
    0: "off",
    1: "maximum power point",
    2: "constant current, low side",
    3: "constant voltage, low side",
    4: "constant current, high side",
    5: "constant voltage, high side",
    6: "derating",
}
_OUTPUT_STATE = {
    1: "on",
    0: "off",
    -1: "battery low",
    -2: "overvoltage",
    -4: "overcurrent",
    -8: "short circuit",
    -16: "voltage dip",
    -32: "bus source current",
    -64: "too warm (firmware of 2019)",
}
_CHARGER_ERRORS = {
    1 << bit: meaning
    for bit, meaning in enumerate(
        (
            "battery undervoltage",
            "battery overvoltage",
            "discharge overcurrent",
            "charge overcurrent",
            "discharge undertemperature",
            "discharge overtemperature",
            "charge undertemperature",
            "charge overtemperature",
            "load: battery low",
            "load overvoltage",
            "load overcurrent",
            "load short circuit",
            "load voltage dip",
            "inside overtemperature",
            "high-side MOSFET short",
            "converter high-side overvoltage",
            "solar switch overvoltage",
        )
    )
}

VOCABULARY: Mapping[str, Mapping[str, Signal]] = {
    measurement: {signal.name: signal for signal in signals}
    for measurement, signals in {
        "battery": [
            *_electrical(
                "at the battery", "through the battery; positive charges it", "into the battery; positive charges it"
            ),
            *_spread("voltage_v", V, -100.0, 1000.0, "voltage"),
            *_spread("current_a", A, -1000.0, 1000.0, "current"),
            _SAMPLES,
            Signal("temperature_degc", "°C", -50.0, 120.0, "of the battery"),
            Signal("soc", "", 0.0, 1.0, "state of charge as the instrument itself states it"),
            Signal("soh", "", 0.0, 2.0, "state of health as the instrument itself states it"),
            Signal("discharged_since_full_ah", "Ah", -1e6, 1e6, "net charge taken out since the last full charge"),
            Signal("usable_capacity_ah", "Ah", 0.0, 1e6, "the instrument's estimate of the usable capacity"),
            Signal("charged_today_wh", "Wh", 0.0, 1e7, "energy charged since the instrument's day began"),
            Signal("discharged_today_wh", "Wh", 0.0, 1e7, "energy discharged since the instrument's day began"),
            Signal("charged_total_wh", "Wh", 0.0, 1e9, "energy charged over the instrument's life"),
            Signal("discharged_total_wh", "Wh", 0.0, 1e9, "energy discharged over the instrument's life"),
            Signal("full_charge_count", "", 0.0, 1e6, "full charges over the instrument's life"),
            Signal("deep_discharge_count", "", 0.0, 1e6, "deep discharges over the instrument's life"),
            Signal("batteries_in_series", "", 1.0, 100.0, "nominal 12 V batteries in series"),
            Signal("temperature_sensor", "", 0.0, 1.0, "of the battery, external", {0: "absent", 1: "connected"}),
            Signal("voltage_peak_v", V, 0.0, 1000.0, "highest over the instrument's life"),
            Signal("temperature_peak_degc", "°C", -50.0, 120.0, "highest over the instrument's life"),
        ],
        "throughput": [
            Signal("charge_in_ah", "Ah", 0.0, 1e6, f"into the battery {_SINCE}", is_increment=True),
            Signal("charge_out_ah", "Ah", 0.0, 1e6, f"out of the battery {_SINCE}", is_increment=True),
            Signal("energy_in_wh", "Wh", 0.0, 1e7, f"into the battery {_SINCE}", is_increment=True),
            Signal("energy_out_wh", "Wh", 0.0, 1e7, f"out of the battery {_SINCE}", is_increment=True),
        ],
        "cell": [
            Signal("voltage_v", V, 0.0, 10.0, "of one cell"),
            Signal("temperature_degc", "°C", -50.0, 120.0, "of one cell"),
        ],
        "solar": [
            *_electrical("at the panel", "delivered by the panel", "delivered by the panel"),
            *_spread("voltage_v", V, -100.0, 1000.0, "voltage"),
            *_spread("current_a", A, -1000.0, 1000.0, "current"),
            _SAMPLES,
            Signal("energy_today_wh", "Wh", 0.0, 1e7, "delivered since the instrument's day began"),
            Signal("energy_total_wh", "Wh", 0.0, 1e9, "delivered over the instrument's life"),
            Signal("power_peak_today_w", W, 0.0, 100_000.0, "highest since the instrument's day began"),
            Signal("power_peak_w", W, 0.0, 100_000.0, "highest over the instrument's life"),
            Signal("voltage_peak_v", V, 0.0, 1000.0, "highest over the instrument's life"),
        ],
        "load": [
            *_electrical("at the load's terminals", "into the load", "into the load"),
            *_spread("voltage_v", V, -100.0, 1000.0, "voltage"),
            *_spread("current_a", A, -1000.0, 1000.0, "current"),
            _SAMPLES,
            Signal("charge_ah", "Ah", 0.0, 1e6, "taken by the load, the instrument's own counter"),
            Signal("energy_wh", "Wh", 0.0, 1e7, "taken by the load, the instrument's own counter"),
            Signal(
                "charge_step_ah",
                "Ah",
                0.0,
                1e6,
                "counted since the previous reading; left out where the counter fell",
                is_increment=True,
            ),
            Signal("test_time_s", "s", 0.0, 1e9, "run time of the instrument's battery test"),
            Signal("test_state", "", 0.0, 7.0, "state of the instrument's battery test", LOAD_TEST_STATES),
            Signal("mode", "", 0.0, 3.0, "what the load regulates", {0: "CV", 1: "CR", 2: "CC", 3: "CP"}),
            Signal("input_on", "", 0.0, 1.0, "whether the input is switched on", {0: "off", 1: "on"}),
            Signal("control", "", 0.0, 3.0, "who may set the load", {0: "free", 1: "remote"}),
            Signal("alarms", "", 0.0, 15.0, "sum of: 1 overvoltage, 2 overcurrent, 4 overpower, 8 overtemperature"),
            Signal("status", "", 0.0, 65535.0, "the instrument's own status word, undecoded"),
            Signal("energy_today_wh", "Wh", 0.0, 1e7, "taken since the instrument's day began"),
            Signal("energy_total_wh", "Wh", 0.0, 1e9, "taken over the instrument's life"),
            Signal("power_peak_today_w", W, 0.0, 100_000.0, "highest since the instrument's day began"),
            Signal("power_peak_w", W, 0.0, 100_000.0, "highest over the instrument's life"),
            Signal("current_peak_a", A, 0.0, 1000.0, "highest over the instrument's life"),
            Signal("state", "", -127.0, 1.0, "negative: minus the sum of what switched it off", _OUTPUT_STATE),
            Signal("enabled", "", 0.0, 1.0, "whether it may be switched on", _SWITCH),
        ],
        "charger": [
            Signal("uptime_s", "s", 0.0, 1e10, "since the charger started; going backwards means a restart"),
            Signal("temperature_degc", "°C", -50.0, 150.0, "inside the charger"),
            Signal("mosfet_temperature_degc", "°C", -50.0, 200.0, "of the charger's switching transistors"),
            Signal("target_voltage_v", V, 0.0, 1000.0, "charging voltage aimed at"),
            Signal("target_current_a", A, 0.0, 1000.0, "charging current aimed at"),
            Signal("day_count", "d", 0.0, 1e6, "days the charger has counted"),
            Signal("temperature_peak_degc", "°C", -50.0, 150.0, "highest over the instrument's life"),
            Signal("mosfet_temperature_peak_degc", "°C", -50.0, 200.0, "highest over the instrument's life"),
            Signal("dcdc_current_peak_a", A, 0.0, 1000.0, "highest over the instrument's life"),
            Signal("state", "", 0.0, 5.0, "phase of charging", _CHARGER_STATE),
            Signal("dcdc_state", "", 0.0, 6.0, "what limits the converter", _DCDC_STATE),
            Signal("error_flags", "", 0.0, 2.0**32 - 1, "sum of what is wrong; 0: nothing", _CHARGER_ERRORS),
            Signal("usb_state", "", -127.0, 1.0, "negative: minus the sum of what switched it off", _OUTPUT_STATE),
            Signal("usb_enabled", "", 0.0, 1.0, "whether it may be switched on", _SWITCH),
            Signal("dcdc_enabled", "", 0.0, 1.0, "whether it may be switched on", _SWITCH),
            Signal("pwm_enabled", "", 0.0, 1.0, "whether it may be switched on", _SWITCH),
        ],
        "analog": [
            Signal("raw_v", V, -11.0, 11.0, "at the input's terminals, before any scaling"),
            *_spread("raw_v", V, -11.0, 11.0, "raw voltage"),
            _SAMPLES,
            Signal("temperature_degc", "°C", -50.0, 120.0, "of the converter itself"),
        ],
        "collector": [
            Signal("samples", "", 0.0, 1e15, "readings accepted since start"),
            Signal("skipped", "", 0.0, 1e15, "grid slots that passed without a reading since start"),
            Signal("errors", "", 0.0, 1e15, "outcomes other than ok since start"),
            Signal("outcomes", "", 0.0, 1e15, "how often a turn ended as the tag `outcome` says, since start"),
            Signal("reconnects", "", 0.0, 1e9, "links opened again since start"),
            Signal("last_sample_age_s", "s", 0.0, 1e9, "since the last good reading"),
            Signal("latency_s", "s", 0.0, 1e4, "mean time of one turn since the last report"),
            Signal("bytes_in", "B", 0.0, 1e18, "read from the instrument since start"),
            Signal("queue_rows", "", 0.0, 1e9, "readings accepted and not yet durable"),
            Signal("journal_bytes", "B", 0.0, 1e15, "size of this collector's journal on disk"),
            Signal("disk_free_bytes", "B", 0.0, 1e18, "free on the journal's partition"),
            Signal("memory_bytes", "B", 0.0, 1e13, "resident memory of the process"),
            Signal("cpu_share", "", 0.0, 256.0, "processor time per wall time since the last report"),
            Signal("dropped", "", 0.0, 1e15, "readings dropped since start because memory was full"),
            Signal("clock_state", "", 0.0, 2.0, "", {0: "unsynchronised", 1: "synchronised", 2: "set by a person"}),
            Signal("unsent_rows", "", 0.0, 1e12, "rows in the journal that the sink has not confirmed"),
            Signal("unsent_age_s", "s", 0.0, 1e9, "age of the oldest row that the sink has not confirmed"),
            Signal("dead_letters", "", 0.0, 1e9, "lines that the sink refused for good"),
            Signal("wifi_signal_dbm", "dBm", -150.0, 0.0, "what the host's Wi-Fi hears of its access point (shipper)"),
            Signal("wifi_quality", "", 0.0, 1.0, "link quality as the kernel rates it (shipper)"),
            Signal("lines_sent", "", 0.0, 1e15, "lines that the sink confirmed since start"),
        ],
        "soc": [
            Signal("soc", "", -0.05, 1.05, "estimated state of charge"),
            Signal("soc_lo", "", -2.0, 3.0, "estimate minus three standard deviations"),
            Signal("soc_hi", "", -2.0, 3.0, "estimate plus three standard deviations"),
            Signal("soc_counted", "", -10.0, 11.0, "state of charge by counting alone, beside the estimate"),
            Signal("innovation_v", V, -100.0, 100.0, "measured minus predicted voltage"),
            Signal("innovation_bound_v", V, 0.0, 100.0, "three standard deviations of the predicted voltage"),
            Signal("current_offset_a", A, -1000.0, 1000.0, "estimated offset of the current sensor"),
            Signal("ocv_v", V, 0.0, 1000.0, "open-circuit voltage at the estimate"),
        ],
    }.items()
}


def find(measurement: str, signal: str) -> Signal | None:
    """Return the signal's row, or None if the vocabulary does not contain it."""
    return VOCABULARY.get(measurement, {}).get(signal)


@dataclass(frozen=True, slots=True)
class EventKind:
    """A kind of event: its meaning, and whether it implies that samples are missing."""

    meaning: str
    is_loss: bool = False


EVENTS: Mapping[str, EventKind] = {
    "collector_start": EventKind("a collector process began"),
    "collector_stop": EventKind("a collector process ended, and why"),
    "link_up": EventKind("the instrument answers; who it is"),
    "link_down": EventKind("the instrument is gone or silent, and how that showed", is_loss=True),
    "slots_skipped": EventKind("slots of the sampling grid passed without a reading", is_loss=True),
    "out_of_range": EventKind("the first of a run of implausible values, all left out", is_loss=True),
    "back_in_range": EventKind("the run of implausible values is over; how many were left out"),
    "input_overrange": EventKind("an analog input is beyond its range; its values are left out", is_loss=True),
    "input_back": EventKind("the analog input is within its range again"),
    "stream_taken_over": EventKind(
        "another program's stream, or one of an earlier run, was stopped for this collector"
    ),
    "stream_gap": EventKind("scans of a stream were lost, and where", is_loss=True),
    "stream_ended": EventKind("the instrument ended its stream; it is started again", is_loss=True),
    "stream_backlog": EventKind("the instrument's buffer fills: this host reads too slowly"),
    "stream_time_step": EventKind("the stream's clock moved against this host's"),
    "settings_lost": EventKind("the instrument forgot its settings; they are written again", is_loss=True),
    "device_restart": EventKind("the instrument restarted"),
    "counter_restart": EventKind("a counter of the instrument began anew"),
    "publications_enabled": EventKind("the instrument had stopped talking and was told to go on", is_loss=True),
    "fetch_failed": EventKind("some values were asked for and not given", is_loss=True),
    "object_refused": EventKind("the instrument does not have this object; it is not asked again"),
    "question_unanswered": EventKind("the instrument does not answer this question; it is not asked again"),
    "unknown_member": EventKind("the instrument says something that no table knows; not stored"),
    "duplicate_member": EventKind("the instrument said something twice in one message; the last counts"),
    "power_imbalance": EventKind("the instrument's own powers do not add up"),
    "config_warning": EventKind("the configuration works, but will cost accuracy"),
    "disk_full": EventKind("the disk takes nothing; samples wait in memory"),
    "disk_full_over": EventKind("the disk takes samples again"),
    "disk_error": EventKind("the disk fails, or the journal cannot be written; samples wait in memory"),
    "disk_error_over": EventKind("the journal can be written again"),
    "run_cut_off": EventKind(
        "the run before ended without a stop (kill, power cut, dead disk); what it read last is lost", is_loss=True
    ),
    "samples_dropped": EventKind("the disk took nothing and memory was full; samples were dropped", is_loss=True),
    "events_dropped": EventKind("the disk took nothing and memory was full; events were dropped", is_loss=True),
    "file_quarantined": EventKind("a journal file is damaged and was put aside", is_loss=True),
    "file_salvaged": EventKind("what a damaged journal file still gave"),
    "file_thinned": EventKind("the size limit made a journal file keep its roll-ups only", is_loss=True),
    "file_dropped": EventKind("the size limit made a journal file go", is_loss=True),
    "file_deleted": EventKind("a journal file that every sink has, or that is older than wanted, was deleted"),
    "late_rows": EventKind("rows came after younger ones of their series and were stamped just after those"),
    "journal_over_cap": EventKind("the journal is larger than allowed and nothing may be deleted"),
    "row_damaged": EventKind("a stored row cannot be trusted and is left out", is_loss=True),
    "wal_large": EventKind("a reader keeps the journal's write-ahead log from shrinking"),
    "clock_set_refused": EventKind("a person's time was not taken, and why"),
    "dead_letters_dropped": EventKind("lines refused by the database were too many or too old to keep", is_loss=True),
    "journal_unreadable": EventKind("the shipper cannot read a journal; it goes on with the others"),
    "cursor_reset": EventKind("a journal is another one than before; the shipper sends all of it"),
    "ship_db_damaged": EventKind("the shipper's own file was damaged and put aside; all journals are sent again"),
    "points_missing": EventKind("a database had lost values that it had acknowledged; how many were sent again"),
    "lines_refused": EventKind("a database refused lines for good; they are dead letters now", is_loss=True),
    "sink_ok": EventKind("a database takes lines again"),
    "sink_retry": EventKind("a database does not take lines just now; they are sent again"),
    "sink_hold": EventKind("a database takes nothing until a person acts, and what it says"),
    "shipper_start": EventKind("a shipper process began"),
}
"""Kinds of events; the tag `kind` of measurement `event`."""

HUMAN_EVENTS: Mapping[str, EventKind] = {
    "calibration": EventKind("a person changed a scaling or adjusted an instrument"),
    "deploy": EventKind("a version was installed on this host, and which"),
    "flash": EventKind("firmware was written to an instrument, and which"),
    "test_start": EventKind("a test of a battery began, and which"),
    "test_stop": EventKind("a test of a battery ended, and how"),
}
"""Kinds that are written by people and tools, not by collectors; dashboards draw them separately."""
