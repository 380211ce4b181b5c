"""Child processes of the bench: restarted when they end unexpectedly, stopped by SIGTERM so that they save data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SETPRIV = shutil.which("setpriv")
DIE_WITH_PARENT = [SETPRIV, "--pdeathsig", "TERM"] if SETPRIV else []
"""setpriv is part of util-linux: when the bench is killed, its child processes get SIGTERM."""
RESTART_S = 0.5
STOP_S = 5.0


class Worker:
    """One `collectors …` process with its log file."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.restarts = 0
        self._command = [*DIE_WITH_PARENT, sys.executable, "-m", "collectors", *arguments]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._ended_s: float | None = None

    def start(self) -> None:
        """Start the process in a session of its own: Ctrl-C in a terminal does not reach it."""
        with self.log.open("ab") as words:
            self._process = subprocess.Popen(
                self._command, stdout=words, stderr=words, env=self._environment, start_new_session=True
            )
        self._ended_s = None

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while the process runs, or before it was started."""
        return self._process.poll() if self._process else None

    def supervise(self) -> None:
        """Restart the process RESTART_S after it ended."""
        if self.exit_code is None:
            return
        now_s = time.monotonic()
        if self._ended_s is None:
            self._ended_s = now_s
        elif now_s - self._ended_s >= RESTART_S:
            self.restarts += 1
            self.start()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process and self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)

    def await_end(self) -> int | None:
        """Wait until the process ends, kill it after STOP_S; return its exit code."""
        if self._process is None:
            return None
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def run(self, timeout_s: float) -> int | None:
        """Run the process to its end; return its exit code, or None when it took longer and was stopped."""
        self.start()
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.ask_to_stop()
            self.await_end()
            return None

    def last_words(self) -> str:
        """Return the last line of the process's log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""
