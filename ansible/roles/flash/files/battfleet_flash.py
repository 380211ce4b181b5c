#!/usr/bin/python3
"""Flash a Libre Solar MPPT-1210-HUS (STM32L072RZ) by an ST-Link: probe, back up, write, verify, reset.

    battfleet-flash firmware.bin --port /dev/bat/mppt --unit collector@mppt.service --bench bench-1 --device mppt
    battfleet-flash firmware.bin --dry-run          says what would be run, and runs nothing

Prints one JSON object: what was written (sha256, bytes), to which chip (its 96-bit serial number), by what, where the
old image and EEPROM are, and `line`, the event in line protocol. The same object is appended to
/var/lib/battfleet-flash/log.jsonl. With --note the event also goes into the notes of this bench (`collectors note`);
where that fails, `note` says why. Exit code 0; 75 when a program holds the port; 65 when image or chip are not the
expected ones; 69 when OpenOCD fails. Nothing is written before the old content is on the disk. Standard library only.

Addresses: RM0367 (STM32L0x2): flash 0x08000000, 192 KiB in two banks; EEPROM 0x08080000, 6 KiB; DBG_IDCODE 0x40015800,
whose low 12 bits are 0x447 for category 5; unique id at 0x1FF80050, offsets 0, 4 and 0x14. RAM 0x20000000, 20 KiB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FLASH, FLASH_BYTES = 0x08000000, 192 * 1024
EEPROM, EEPROM_BYTES = 0x08080000, 6 * 1024
RAM, RAM_BYTES = 0x20000000, 20 * 1024
IDCODE, CATEGORY_5 = 0x40015800, 0x447
SERIAL_WORDS = (0x1FF80050, 0x1FF80054, 0x1FF80064)
STATE = Path("/var/lib/battfleet-flash")
OPENOCD_S, NOTE_S = 180.0, 30.0
BUSY, BAD_DATA, UNAVAILABLE = 75, 65, 69


class Stop(Exception):
    """It cannot go on; the exit code and why."""

    def __init__(self, code: int, why: str) -> None:
        """Say with which exit code, and why."""
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class Probe:
    """How OpenOCD reaches the chip."""

    serial: str
    khz: int

    def command(self, *steps: str) -> list[str]:
        """Return the command line that does these steps and ends."""
        chosen = [f"adapter serial {tcl(self.serial)}"] if self.serial else []
        link = ["-f", "interface/stlink.cfg", *_each([*chosen, "transport select hla_swd"])]
        # The target's file has a speed of its own, so ours comes after it.
        begin = [f"adapter speed {self.khz}", "reset_config none", "init"]
        return ["openocd", *link, "-f", "target/stm32l0_dual_bank.cfg", *_each([*begin, *steps, "shutdown"])]


PLAIN = re.compile(r"[A-Za-z0-9_./-]")
PROBE_SERIAL = re.compile(r"[A-Za-z0-9]{1,64}")


def tcl(word: object) -> str:
    """Return the word as Tcl reads it back, whatever is in it: OpenOCD's steps are Tcl, where [ ] ; $ are commands.

    Backslash substitution, tcl(n) rule 9: before what is neither letter nor digit it stands for that character itself.
    """
    return "".join("\\n" if c == "\n" else c if PLAIN.fullmatch(c) or ord(c) > 0x7F else f"\\{c}" for c in str(word))


def probe_serial(text: str) -> str:
    """Return the serial number of a probe; ArgumentTypeError if it is none."""
    if text and not PROBE_SERIAL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected letters and digits, as `st-info --probe` says them, got {text!r}")
    return text


def tag(text: str) -> str:
    """Return a name that may be a tag; ArgumentTypeError if it is none."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected printable letters, got {text!r}")
    return text


def unit_name(text: str) -> str:
    """Return the name of a unit; ArgumentTypeError if it is none."""
    if text and not re.fullmatch(r"[A-Za-z0-9:_.\\][A-Za-z0-9:_.\\@-]*\.service", text):
        raise argparse.ArgumentTypeError(f"expected a unit such as collector@mppt.service, got {text!r}")
    return text


def _each(steps: Sequence[str]) -> list[str]:
    return [word for step in steps for word in ("-c", step)]


def reads() -> list[str]:
    """Return the steps that tell which chip it is."""
    return ["halt", *(f"mdw {address:#010x}" for address in (IDCODE, *SERIAL_WORDS))]


def dumps(folder: Path) -> list[str]:
    """Return the steps that copy what is there into files."""
    wanted = (("flash", FLASH, FLASH_BYTES), ("eeprom", EEPROM, EEPROM_BYTES))
    return ["halt", *(f"dump_image {tcl(folder / name)}.bin {start:#010x} {size:#x}" for name, start, size in wanted)]


def writes(image: Path) -> list[str]:
    """Return the steps that write, verify, and start the new firmware."""
    at = f"{tcl(image)} {FLASH:#010x}"
    return ["reset halt", f"flash write_image erase {at}", f"verify_image {at}", "reset run"]


def check_image(content: bytes) -> None:
    """Return when this can be firmware for this chip: its first two words are the stack's top and where it starts."""
    if not 8 <= len(content) <= FLASH_BYTES:
        raise Stop(BAD_DATA, f"the image has {len(content)} bytes; expected a .bin of 8 to {FLASH_BYTES}")
    stack, start = struct.unpack("<II", content[:8])
    if not RAM < stack <= RAM + RAM_BYTES or not FLASH < start < FLASH + FLASH_BYTES or not start % 2:
        raise Stop(
            BAD_DATA,
            f"the image begins with {stack:#010x} {start:#010x}: no stack in RAM and start in flash; is it a .bin?",
        )


def words_in(output: str) -> dict[int, int]:
    """Return address to word, of what `mdw` says: "0x40015800: 20086447"."""
    found = re.findall(r"^(0x[0-9a-f]{8}): ([0-9a-f]{8})\b", output, re.MULTILINE)
    return {int(address, 16): int(word, 16) for address, word in found}


def chip_serial(output: str) -> str:
    """Return the chip's serial number, 24 hexadecimal digits; Stop when it is another kind of chip."""
    words = words_in(output)
    if missing := [address for address in (IDCODE, *SERIAL_WORDS) if address not in words]:
        raise Stop(UNAVAILABLE, f"OpenOCD did not say what is at {missing[0]:#010x}; it said:\n{output}")
    if words[IDCODE] & 0xFFF != CATEGORY_5:
        raise Stop(
            BAD_DATA, f"the chip's id is {words[IDCODE]:#010x}; an STM32L072 has …{CATEGORY_5:03x}. Nothing is written"
        )
    return "".join(f"{words[address]:08x}" for address in SERIAL_WORDS)


def holders(port: Path) -> list[str]:
    """Return the programs that have this port open, as "pid name"."""
    wanted, found = port.resolve(), []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            opened = {link.readlink() for link in (process / "fd").iterdir()}
            name = (process / "comm").read_text().strip()
        except OSError:
            continue  # it ended, or it is not ours to look into
        if wanted in opened:
            found.append(f"{process.name} {name}")
    return found


def run(command: Sequence[str]) -> str:
    """Return what the program says; Stop when it fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=OPENOCD_S)
    except FileNotFoundError:
        raise Stop(UNAVAILABLE, f"{command[0]} is not installed: apt-get install {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise Stop(
            UNAVAILABLE, f"{command[0]} did not end within {OPENOCD_S:.0f} s; is the probe plugged in?"
        ) from None
    if done.returncode:
        raise Stop(UNAVAILABLE, f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


@contextmanager
def without(unit: str) -> Iterator[None]:
    """Stop a unit for this block, if it runs, and start it again whatever happens."""
    runs = bool(unit) and subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0
    if runs:
        run(["systemctl", "stop", unit])
    try:
        yield
    finally:
        if runs:
            run(["systemctl", "start", unit])


def event_line(bench: str, device: str, detail: str, time_ns: int) -> str:
    """Return the event in line protocol."""
    tags = f"bench={_tag(bench)},device={_tag(device)},kind=flash"
    return f'event,{tags} detail="{detail}" {time_ns}'


def _tag(text: str) -> str:
    return re.sub(r"([,= ])", r"\\\1", text)


def note_command(asked: argparse.Namespace, detail: str) -> list[str]:
    """Return the command that writes the event into this host's notes."""
    bench = ["--bench", asked.bench] if asked.bench else []
    return ["collectors", "note", "flash", detail, "--device", asked.device, *bench]


def noted(asked: argparse.Namespace, detail: str) -> str:
    """Write the event into this host's notes; return "kept", or why not: what was written stays written."""
    try:
        done = subprocess.run(
            note_command(asked, detail), capture_output=True, text=True, check=False, timeout=NOTE_S, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "kept" if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def flash(image: Path, probe: Probe, asked: argparse.Namespace) -> dict[str, object]:
    """Do it; return what was done."""
    content = image.read_bytes()
    check_image(content)
    with without(asked.unit):
        if asked.port and (found := holders(asked.port)):
            raise Stop(
                BUSY,
                f"{asked.port} is held by {', '.join(found)}; stop it, or say its unit: --unit collector@NAME.service",
            )
        serial = chip_serial(run(probe.command(*reads())))
        folder = asked.state / f"{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}-{serial}"
        folder.mkdir(parents=True)
        run(probe.command(*dumps(folder)))
        check_dump(folder)
        copied = Path(shutil.copy(image, folder / "new.bin"))
        run(probe.command(*writes(copied)))
    sha256 = hashlib.sha256(content).hexdigest()
    tool = (run(["openocd", "--version"]).splitlines() or ["openocd"])[0]
    detail = f"sha256={sha256} bytes={len(content)} chip={serial}"
    line = event_line(asked.bench, asked.device, detail, time.time_ns())
    told = {"sha256": sha256, "bytes": len(content), "chip": serial, "tool": tool, "kept": str(folder), "line": line}
    return told | ({"note": noted(asked, detail)} if asked.note else {})


def check_dump(folder: Path) -> None:
    """Return when the old content is whole on the disk."""
    for name, size in (("flash", FLASH_BYTES), ("eeprom", EEPROM_BYTES)):
        path = folder / f"{name}.bin"
        if not path.exists() or path.stat().st_size != size:
            raise Stop(UNAVAILABLE, f"{path}: the copy of what is on the chip is not whole; nothing was written")
        with path.open("rb") as file:
            os.fsync(file.fileno())


def rehearsal(image: Path, probe: Probe, asked: argparse.Namespace) -> list[str]:
    """Return the commands that would be run, one line each."""
    check_image(image.read_bytes())
    folder = asked.state / "TIME-SERIAL"
    unit = [["systemctl", action, asked.unit] for action in ("stop", "start")] if asked.unit else []
    calls = [probe.command(*steps) for steps in (reads(), dumps(folder), writes(folder / "new.bin"))]
    note = [note_command(asked, "sha256=… bytes=… chip=…")] if asked.note else []
    return [shlex.join(call) for call in [*unit[:1], *calls, *unit[1:], *note]]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="battfleet-flash", description="Flash an MPPT-1210-HUS by an ST-Link.")
    parser.add_argument("image", type=Path, help="a .bin file")
    parser.add_argument("--port", type=Path, help="the instrument's serial port; while it is held, nothing is flashed")
    parser.add_argument(
        "--unit", default="", type=unit_name, help="stopped before and started after, e.g. collector@mppt.service"
    )
    parser.add_argument("--bench", default="", type=tag, help="tag of the event")
    parser.add_argument("--device", default="mppt", type=tag, help="tag of the event")
    parser.add_argument("--note", action="store_true", help="write the event into the notes of this bench")
    parser.add_argument(
        "--probe", default="", type=probe_serial, help="serial number of the ST-Link, where there are several"
    )
    parser.add_argument("--adapter-khz", type=int, default=500, help="500: an STM32L072 often fails above")
    parser.add_argument("--state", type=Path, default=STATE, help="where old images and the log are kept")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Flash; return the exit code."""
    asked = parse(arguments)
    probe = Probe(asked.probe, asked.adapter_khz)
    try:
        if asked.dry_run:
            print("\n".join(rehearsal(asked.image, probe, asked)))
            return 0
        done = json.dumps(flash(asked.image, probe, asked))
        with (asked.state / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(f"{done}\n")
        print(done)
    except Stop as stop:
        print(f"battfleet-flash: {stop}", file=sys.stderr)
        return stop.code
    except OSError as error:
        print(f"battfleet-flash: {error}", file=sys.stderr)
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
