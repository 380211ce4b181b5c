r"""Zephyr's shell on a serial port, with ThingSet as one of its commands.

    uart:~$ thingset ?Battery [\\"rVoltage_V\\"]      typed and echoed; the prompt is coloured
    :85 [12.90]                                     printed by the command, CR LF
    uart:~$

It splits a line at blanks and takes quotes and backslashes away, so that JSON must be escaped; the command joins its
arguments by single blanks. Log lines, and reports where they are on, erase the prompt, print, and print it again.
Facts: thingset-zephyr-sdk (src/shell.c), Zephyr's documentation of the shell; python-thingset 0.5.3 speaks to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from collectors.fakes import Fake, Out

PROMPT = b"\x1b[1;32muart:~$ \x1b[m"
ERASE_PROMPT = b"\x1b[8D\x1b[J"
COMMAND = "thingset"
BUFFER_BYTES = 255
MOST_ARGUMENTS = 10
BACKSPACES, ERASE_LINE, INTERRUPT = b"\x08\x7f", 0x15, 0x03


class Responder(Fake, Protocol):
    """A device that a shell command can send requests to."""

    def respond(self, line: str, now_s: float) -> tuple[str, float]:
        """Return what it prints ("" for nothing), and how long that takes in s."""
        ...


class ZephyrShell:
    """A device behind its shell; see `collectors.fakes.Fake`."""

    def __init__(self, device: Responder, *, log_lines: bool) -> None:
        """`log_lines`: whether the firmware logs a line every second on this port."""
        self._device = device
        self._log_lines = log_lines
        self._typed = bytearray()

    def connected(self, now_s: float, channel: str = "") -> None:
        """Do nothing: what another program typed is still in the input line."""
        self._device.connected(now_s, channel)

    def next_tick_s(self) -> float | None:
        """Return when the device's current second ends."""
        return self._device.next_tick_s()

    def tick(self, now_s: float) -> Sequence[Out]:
        """Return the reports and log lines of the seconds that have ended."""
        outs = [out._replace(data=self._between_prompts(out.data)) for out in self._device.tick(now_s)]
        if self._log_lines:
            text = f"[00:00:{now_s % 60:06.3f},000] \x1b[0m<inf> charger: running\x1b[0m\n"
            outs.append(Out(self._between_prompts(text.encode()), now_s))
        return outs

    def _between_prompts(self, line: bytes) -> bytes:
        return ERASE_PROMPT + line.replace(b"\n", b"\r\n") + PROMPT + bytes(self._typed)

    def receive(self, data: bytes, now_s: float, channel: str = "") -> Sequence[Out]:
        """Echo what is typed, and run every complete command."""
        del channel
        outs: list[Out] = []
        echo = bytearray()
        for byte in data:
            if byte in b"\r\n":
                outs.append(Out(bytes(echo) + b"\r\n", now_s))
                echo.clear()
                text, delay_s = self._run(self._typed.decode("latin-1"), now_s)
                self._typed.clear()
                outs.append(Out(text.encode() + PROMPT, now_s + delay_s))
            else:
                echo += self._type(byte)
        if echo:
            outs.append(Out(bytes(echo), now_s))
        return outs

    def _type(self, byte: int) -> bytes:
        """Return the output for one typed character."""
        if byte in BACKSPACES:
            had = bool(self._typed)
            del self._typed[-1:]
            return b"\x08\x1b[J" * had
        if byte in (ERASE_LINE, INTERRUPT):
            erase = b"\x1b[%dD\x1b[J" % len(self._typed) if self._typed else b""
            self._typed.clear()
            return erase
        if not 0x20 <= byte < 0x7F or len(self._typed) >= BUFFER_BYTES:
            return b""
        self._typed.append(byte)
        return bytes([byte])

    def _run(self, line: str, now_s: float) -> tuple[str, float]:
        """Return what a command prints and how long it takes in s."""
        name, *arguments = split(line) or [""]
        if not name:
            return "", 0.0
        if name != COMMAND:
            return f"{name}: command not found\r\n", 0.0
        if not 1 <= len(arguments) <= MOST_ARGUMENTS:
            return f"{name}: wrong parameter count\r\n", 0.0
        text, delay_s = self._device.respond(" ".join(arguments), now_s)
        return text.replace("\n", "\r\n"), delay_s


def split(line: str) -> list[str]:
    """Return the words of a command line, without quotes and backslashes, as the shell splits it."""
    words: list[str] = []
    word, quote, is_word = "", "", False
    characters = iter(line)
    for character in characters:
        if character == "\\":
            word, is_word = word + next(characters, ""), True
        elif quote:
            word, quote = (word, "") if character == quote else (word + character, quote)
        elif character in "\"'":
            quote, is_word = character, True
        elif character == " ":
            words += [word] if is_word else []
            word, is_word = "", False
        else:
            word, is_word = word + character, True
    return words + ([word] if is_word else [])
