"""A stand-in for OpenOCD with an STM32L072 behind it: keeps flash and EEPROM in files, records every call.

    OPENOCD_FOLDER/calls.jsonl    one list of words for each call
    OPENOCD_FOLDER/flash, eeprom  what is on the chip
    OPENOCD_FOLDER/fail           the first word of a step that is to fail, where there is such a file

It knows the few steps that battfleet-flash uses and refuses others. No real chip or probe was used in these tests.
"""

import json
import os
import sys
from pathlib import Path

FOLDER = Path(os.environ["OPENOCD_FOLDER"])
WORDS = {0x40015800: 0x20086447, 0x1FF80050: 0x00470029, 0x1FF80054: 0x35383533, 0x1FF80064: 0x30343833}
AREAS = {0x08000000: "flash", 0x08080000: "eeprom"}
SILENT = ("transport", "adapter", "reset_config", "init", "halt", "reset", "shutdown")


def tcl_words(step: str) -> list[str]:
    """Return the words of a Tcl command, as far as it has only blanks and backslashes; others would be commands."""
    words, inside, letters = [""], False, iter(step)
    for letter in letters:
        if letter in '[]$;"{}\n':
            sys.exit(f"the stand-in would run {step!r} as a program")
        if letter == " ":
            words, inside = [*words, ""] if inside else words, False
        else:
            following = next(letters) if letter == "\\" else letter
            words[-1] += "\n" if letter == "\\" and following == "n" else following
            inside = True
    return words


def do(step: str) -> None:
    """Execute one step of a command line."""
    name, *words = tcl_words(step)
    fail = FOLDER / "fail"
    if fail.exists() and step.startswith(fail.read_text()):
        sys.exit("Error: init mode failed (unable to connect to the target)")
    if name in SILENT:
        return
    if name == "mdw":
        known = json.loads(chip.read_text()) if (chip := FOLDER / "chip").exists() else {}
        word = known.get(words[0], WORDS[int(words[0], 16)])
        sys.stderr.write(f"{words[0]}: {word:08x} \n")
    elif name == "dump_image":
        content = (FOLDER / AREAS[int(words[1], 16)]).read_bytes()
        Path(words[0]).write_bytes(content[: int(words[2], 16)])
    elif step.startswith("flash write_image erase"):
        old = (FOLDER / "flash").read_bytes()
        new = Path(words[2]).read_bytes()
        (FOLDER / "flash").write_bytes(new + old[len(new) :])
    elif name == "verify_image":
        new = Path(words[0]).read_bytes()
        if not (FOLDER / "flash").read_bytes().startswith(new):
            sys.exit("Error: checksum mismatch")
    else:
        sys.exit(f"the stand-in does not know {step!r}")


def main() -> None:
    """Record the call and execute its steps."""
    with (FOLDER / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write("Open On-Chip Debugger 0.12.0 (stand-in)\n")
        return
    for flag, step in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        if flag == "-c":
            do(step)


main()
