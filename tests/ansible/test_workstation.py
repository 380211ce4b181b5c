"""Flashing, with a stand-in for OpenOCD: the steps sent to the probe, their order, and cases without any step."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from collectors.signals import HUMAN_EVENTS
from tests.ansible.conftest import ROOT
from tests.ansible.modules import load
from tests.testing.line_protocol import parse

FLASH = ROOT / "ansible/roles/flash/files/battfleet_flash.py"
STAND_IN = Path(__file__).with_name("openocd_stand_in.py")
IMAGE = struct.pack("<II", 0x20002000, 0x08000199) + random.Random(7).randbytes(5000)
SERIAL = "004700293538353330343833"


class Chip:
    """A chip with firmware and EEPROM, and the program that flashes it."""

    def __init__(self, folder: Path) -> None:
        """Put stand-ins of openocd and systemctl first on the PATH."""
        self.folder, self.state, self.image = folder, folder / "state", folder / "new.bin"
        self.old = {"flash": random.Random(1).randbytes(192 * 1024), "eeprom": random.Random(2).randbytes(6 * 1024)}
        for name, content in self.old.items():
            (folder / name).write_bytes(content)
        self.image.write_bytes(IMAGE)
        (folder / "bin").mkdir()
        self.command("openocd", f'exec "{sys.executable}" "{STAND_IN}" "$@"')
        self.command("systemctl", f'echo "$*" >>"{folder}/systemctl"')
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "OPENOCD_FOLDER": str(folder)}

    def command(self, name: str, script: str) -> None:
        program = self.folder / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def flash(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run battfleet-flash."""
        command = [sys.executable, str(FLASH), str(self.image), "--state", str(self.state), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment)

    def steps(self) -> list[str]:
        """Return every step that the probe was given, in order."""
        path = self.folder / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [word for call in calls for flag, word in pairwise(call) if flag == "-c"]

    def is_untouched(self) -> bool:
        """Return whether the chip's content is unchanged."""
        return all((self.folder / name).read_bytes() == content for name, content in self.old.items())


@pytest.fixture
def chip(tmp_path: Path) -> Chip:
    return Chip(tmp_path)


def test_old_content_is_kept_then_the_image_is_written_verified_and_started(chip: Chip) -> None:
    done = chip.flash("--bench", "bench-1", "--device", "mppt")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["sha256"], told["bytes"]) == (hashlib.sha256(IMAGE).hexdigest(), len(IMAGE))
    assert told["chip"] == SERIAL
    assert told["tool"] == "Open On-Chip Debugger 0.12.0 (stand-in)"
    for name, content in chip.old.items():
        assert (Path(told["kept"]) / f"{name}.bin").read_bytes() == content
    assert (chip.folder / "flash").read_bytes() == IMAGE + chip.old["flash"][len(IMAGE) :]
    assert (chip.folder / "eeprom").read_bytes() == chip.old["eeprom"]
    verbs = [step.split()[0] for step in chip.steps()]
    order = ["mdw", "dump_image", "flash", "verify_image"]
    assert [verb for index, verb in enumerate(verbs) if verb in order and verb not in verbs[:index]] == order
    assert chip.steps()[-2:] == ["reset run", "shutdown"]
    assert "adapter speed 500" in chip.steps()
    assert [json.loads(line) for line in (chip.state / "log.jsonl").read_text().splitlines()] == [told]


def test_the_event_is_one_that_the_vocabulary_knows(chip: Chip) -> None:
    line = json.loads(chip.flash("--bench", "bench 1").stdout)["line"]
    (point,) = parse(line)
    assert point.measurement == "event"
    assert point.tags == {"bench": "bench 1", "device": "mppt", "kind": "flash"}
    assert point.tags["kind"] in HUMAN_EVENTS
    assert SERIAL in str(point.fields["detail"])


def test_a_dry_run_prints_the_commands_and_runs_none(chip: Chip) -> None:
    done = chip.flash("--dry-run", "--unit", "collector@mppt.service")
    lines = done.stdout.splitlines()
    assert lines[0] == "systemctl stop collector@mppt.service" and lines[-1].startswith("systemctl start")
    assert [line.split()[0] for line in lines[1:-1]] == ["openocd"] * 3
    assert chip.steps() == [] and chip.is_untouched() and not chip.state.exists()


def test_a_held_port_is_refused_by_name(chip: Chip) -> None:
    primary, replica = os.openpty()
    try:
        done = chip.flash("--port", os.ttyname(replica))
    finally:
        os.close(primary)
        os.close(replica)
    assert done.returncode == 75
    assert str(os.getpid()) in done.stderr and "--unit" in done.stderr
    assert chip.steps() == []


def test_a_running_collector_is_stopped_and_started_again(chip: Chip) -> None:
    assert chip.flash("--unit", "collector@mppt.service").returncode == 0
    calls = (chip.folder / "systemctl").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["is-active", "stop", "start"]


def test_a_collector_that_was_off_stays_off(chip: Chip) -> None:
    chip.command("systemctl", f'echo "$*" >>"{chip.folder}/systemctl"; exit 3')
    assert chip.flash("--unit", "collector@mppt.service").returncode == 0
    assert (chip.folder / "systemctl").read_text().splitlines() == ["is-active --quiet collector@mppt.service"]


@pytest.mark.parametrize("step", ["init", "dump_image", "flash write_image", "verify_image"])
def test_when_the_probe_fails_the_collector_runs_again(chip: Chip, step: str) -> None:
    (chip.folder / "fail").write_text(step)
    done = chip.flash("--unit", "collector@mppt.service")
    assert done.returncode == 69
    assert "unable to connect" in done.stderr
    assert (chip.folder / "systemctl").read_text().splitlines()[-1].startswith("start")
    assert chip.is_untouched() == (step != "verify_image")
    assert not (chip.state / "log.jsonl").exists()


def test_another_chip_is_not_changed(chip: Chip) -> None:
    (chip.folder / "chip").write_text(json.dumps({"0x40015800": 0x10006413}))
    done = chip.flash()
    assert done.returncode == 65
    assert "0x10006413" in done.stderr and "Nothing is written" in done.stderr
    assert chip.is_untouched()


def test_an_incomplete_copy_stops_the_flashing(chip: Chip) -> None:
    (chip.folder / "eeprom").write_bytes(b"short")
    done = chip.flash()
    assert done.returncode == 69
    assert "not whole; nothing was written" in done.stderr
    assert (chip.folder / "flash").read_bytes() == chip.old["flash"]


NOT_FIRMWARE: dict[str, bytes] = {
    "empty": b"",
    "too long": IMAGE + bytes(192 * 1024),
    "an ELF file": b"\x7fELF" + bytes(100),
    "Intel hex": b":020000040800F2\n:10",
    "stack outside of RAM": struct.pack("<II", 0x20005004, 0x08000199) + bytes(100),
    "start outside of flash": struct.pack("<II", 0x20002000, 0x20000001) + bytes(100),
    "start without the Thumb bit": struct.pack("<II", 0x20002000, 0x08000198) + bytes(100),
}


@pytest.mark.parametrize("title", NOT_FIRMWARE)
def test_an_invalid_firmware_is_rejected_before_the_probe_is_used(chip: Chip, title: str) -> None:
    chip.image.write_bytes(NOT_FIRMWARE[title])
    assert chip.flash().returncode == 65
    assert chip.steps() == []


def test_without_openocd_it_names_the_package_to_install(chip: Chip) -> None:
    (chip.folder / "bin/openocd").unlink()
    chip.environment["PATH"] = str(chip.folder / "bin")
    done = chip.flash()
    assert done.returncode == 69
    assert "apt-get install openocd" in done.stderr


@pytest.mark.parametrize(
    "name", ["with blank", "[exit]", "$x;y", '"quoted" {braces}', "back\\slash", "two\nlines", "#ä"]
)
def test_a_folder_of_any_name_is_a_name_and_no_command(chip: Chip, name: str) -> None:
    chip.state = chip.folder / name
    done = chip.flash()
    assert done.returncode == 0, done.stderr
    (kept,) = [path for path in chip.state.iterdir() if path.is_dir()]
    assert (kept / "flash.bin").read_bytes() == chip.old["flash"]
    assert (chip.folder / "flash").read_bytes().startswith(IMAGE)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--probe", "066F; exec touch x"),
        ("--probe", "[exec touch x]"),
        ("--probe", "0 1"),
        ("--unit", "--force"),
        ("--unit", "a.service b.service"),
        ("--bench", "b\nevent,kind=flash x=1"),
        ("--device", "m\n"),
    ],
)
def test_an_invalid_serial_number_unit_or_tag_is_rejected_by_name(chip: Chip, option: str, value: str) -> None:
    done = chip.flash(f"{option}={value}")
    assert done.returncode == 2
    assert f"argument {option}: expected" in done.stderr
    assert chip.steps() == [] and not (chip.folder / "systemctl").exists()


def test_tcl_reads_every_word_back() -> None:
    tclsh = shutil.which("tclsh") or shutil.which("jimsh")
    if tclsh is None:
        pytest.skip("needs tclsh: apt-get install tcl")
    flash = load("ansible/roles/flash/files/battfleet_flash.py")
    codes = [9, 10, *range(32, 127)]
    word = "".join(map(chr, codes))
    script = f'foreach letter [split {flash.tcl(word)} {{}}] {{ puts -nonewline "[scan $letter %c] " }}'
    said = subprocess.run([tclsh], input=script, capture_output=True, text=True, check=True).stdout
    assert [int(code) for code in said.split()] == codes
