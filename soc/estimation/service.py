"""The live service: it reads new samples and writes estimates without end, and keeps its state across restarts.

order      results are stored, then the state estimates are saved. After a crash the results since the last save are
           computed again and overwrite themselves.
state      one JSON file, replaced as a whole: the state estimates, on the clock of the recording
start      from the saved state, at the first sample after it; a backlog is processed piece by piece
retry      a store that does not respond is queried again after 1, 2, 4 … 60 s; results computed meanwhile wait
SIGTERM    ends the service at once, at any point: all that matters is on disk or can be computed again
systemd    Type=notify: READY, WATCHDOG and STATUS; nothing is sent where there is no service manager
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from soc import stores
from soc.errors import BeliefError, SocError
from soc.estimation.session import Setup, Start, Stream
from soc.estimation.session import run as through
from soc.files import opened, whole_file
from soc.models.state import StateEstimate
from soc.stores import Recording, Results, Rules, StoreDown, StoreError, Writer

LOG = logging.getLogger(__name__)

STATE_FORMAT = 1
PAUSE_LEAST_S, PAUSE_MOST_S = 1.0, 60.0
SIGN_OF_LIFE_S = 5.0


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived. It is not an error, so that no error handler catches it."""


def run(
    place: str,
    rules: Rules,
    setup_of: Callable[[Recording], Setup],
    *,
    sink: str | None,
    state: Path,
    every_s: float,
    settle_s: float,
) -> None:
    """Follow a place until SIGTERM. Raises `StoreError` for what a retry cannot solve, `CellError`, `OptionError`."""
    target = sink or place
    if sink is None and stores.name_of(place) != "influx":
        raise StoreError(f"{place}: cannot be written to; say with --to where results go (influx:… or a .csv file)")
    setup = setup_of(Recording(place, iter(())))
    stream = resumed(setup, state)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        with stores.appender(target) as writer:
            notify(f"READY=1\nSTATUS=following {place}")
            warned: set[str] = set()
            while True:
                _catch_up(place, rules, stream, writer, state, settle_s, warned)
                _say_silence(place, stream, warned)
                _wait(every_s)
    except Stopped:
        notify("STOPPING=1")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _say_silence(place: str, stream: Stream, warned: set[str]) -> None:
    """Report why there is no estimate yet: log each reason once, and put it into the status."""
    reason = stream.intake.silence()
    if reason is not None:
        _warn_once(f"{place}: {reason}", warned)
        notify(f"WATCHDOG=1\nSTATUS=waiting: {reason}")


def _warn_once(warning: str, warned: set[str]) -> None:
    """Log a warning unless one with the same text, apart from its numbers, was logged before."""
    kind = re.sub(r"[0-9.]+", "", warning)
    if kind not in warned:
        warned.add(kind)
        LOG.warning("%s", warning)


def _catch_up(
    place: str, rules: Rules, stream: Stream, writer: Writer, state: Path, settle_s: float, warned: set[str]
) -> None:
    """Process all samples that the place has by now; retries while it does not respond."""

    def pieces() -> Iterable[Results]:
        return through(stores.read(place, rules, stream.intake.last_s, time.time() - settle_s), stream)

    pause_s = PAUSE_LEAST_S
    while True:
        try:
            for results in pieces():
                _store(results, writer)
                save(stream.beliefs, state)
                _say(results)
                for warning in results.warnings:
                    _warn_once(f"{place}: {warning}", warned)
                pause_s = PAUSE_LEAST_S
        except StoreDown as error:
            _complain(error, pause_s)
            _wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)
        else:
            return


def _store(results: Results, writer: Writer) -> None:
    """Store the results; retries until the store accepts them."""
    pause_s = PAUSE_LEAST_S
    while True:
        try:
            return writer.write(results)
        except StoreDown as error:
            _complain(error, pause_s)
            _wait(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)


def _say(results: Results) -> None:
    z, low, high = (float(results.signals[name][-1]) for name in ("soc", "soc_lo", "soc_hi"))
    when = datetime.fromtimestamp(float(results.time_s[-1]), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    warning = f"; warning: {results.warnings[0]}" if results.warnings else ""
    notify(f"WATCHDOG=1\nSTATUS=soc {z:.3f} ({low:.3f} to {high:.3f}) at {when}{warning}")


def _complain(error: SocError, pause_s: float) -> None:
    LOG.warning("%s; trying again in %g s", error, pause_s)
    notify(f"WATCHDOG=1\nSTATUS=waiting: {error}")


def _wait(seconds: float) -> None:
    """Sleep, and send the watchdog's keep-alive."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        notify("WATCHDOG=1")
        time.sleep(min(left, SIGN_OF_LIFE_S))


def notify(state: str) -> None:
    """Send a state to the service manager, as sd_notify(3) does; do nothing if there is none or it has gone."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return  # the manager restarts; it misses one message


# ---- the state between starts ---------------------------------------------------------------------------------------


def save(beliefs: Mapping[str, StateEstimate], path: Path) -> None:
    """Save the state estimates in this file. The file has either the old or the new content, never a part."""
    values = {"format": STATE_FORMAT, "beliefs": {name: belief.to_dict() for name, belief in beliefs.items()}}
    with whole_file(path, "w", sync=True) as file:
        json.dump(values, file)


def load(path: Path) -> dict[str, StateEstimate]:
    """Return the state estimates in this file, none if it does not exist. Raises `BeliefError` if it is not valid."""
    if not path.exists():
        return {}
    with opened(path) as file:
        text = file.read()
    try:
        values: dict[str, Any] = json.loads(text)
        if values.get("format") != STATE_FORMAT:
            raise BeliefError(f"{path}: format {values.get('format')!r}, expected {STATE_FORMAT}")
        return {name: StateEstimate.from_dict(belief) for name, belief in values["beliefs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BeliefError(f"{path}: not a stored belief ({error}); move it away to start anew") from error


def resumed(setup: Setup, path: Path) -> Stream:
    """Return a session that continues from the file's state estimates.

    From state estimates of another cell file, filter or version only the state of charge and its deviation are used, as
    the initial state at the same time. Raises `BeliefError` if the file is not valid.
    """
    beliefs = load(path)
    try:
        return Stream(setup, resume=beliefs, strict=False)
    except BeliefError as error:
        old = next(iter(beliefs.values()))
        LOG.warning("%s: %s; its state of charge is kept", path, error)
        return Stream(setup, start=Start(old["z"], old.sd("z"), old.time_s), strict=False)
