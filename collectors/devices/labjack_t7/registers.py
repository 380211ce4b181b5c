"""The T7's registers that the driver uses, as data. Big-endian; 32-bit values take two registers, high word first.

A name with # is a family: AIN#_RANGE stands for AIN0_RANGE, AIN1_RANGE, …, each `step` registers after the previous.
Facts: docs/protocols/labjack_t7.md §1 and §2, from the vendor's constants file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

FORMATS = {"FLOAT32": ">f", "UINT32": ">I", "UINT16": ">H"}
NUMBER = re.compile(r"\d+(?=_|$)")


@dataclass(frozen=True, slots=True)
class Register:
    """One value of the device, or a family of them."""

    name: str
    address: int
    type: str = "UINT32"
    access: str = "RW"
    members: int = 1
    step: int = 2

    @property
    def size(self) -> int:
        """Return the number of 16-bit registers of the value."""
        return struct.calcsize(FORMATS[self.type]) // 2

    def pack(self, value: float) -> bytes:
        """Return the value's bytes."""
        return struct.pack(FORMATS[self.type], value if self.type == "FLOAT32" else int(value))

    def unpack(self, data: bytes) -> float | int:
        """Return the value of these bytes."""
        value: float | int = struct.unpack(FORMATS[self.type], data)[0]
        return value


R = Register
REGISTERS = (
    R("AIN#", 0, "FLOAT32", "R", 250),
    R("STREAM_SCANRATE_HZ", 4002, "FLOAT32"),
    R("STREAM_NUM_ADDRESSES", 4004),
    R("STREAM_SAMPLES_PER_PACKET", 4006),
    R("STREAM_SETTLING_US", 4008, "FLOAT32"),
    R("STREAM_RESOLUTION_INDEX", 4010),
    R("STREAM_BUFFER_SIZE_BYTES", 4012),
    R("STREAM_CLOCK_SOURCE", 4014),
    R("STREAM_AUTO_TARGET", 4016),
    R("STREAM_DATATYPE", 4018),
    R("STREAM_NUM_SCANS", 4020),
    R("STREAM_EXTERNAL_CLOCK_DIVISOR", 4022),
    R("STREAM_TRIGGER_INDEX", 4024),
    R("STREAM_START_TIME_STAMP", 4026, access="R"),
    R("STREAM_AUTORECOVER_DISABLE", 4028),
    R("STREAM_SCANLIST_ADDRESS#", 4100, members=128),
    R("STREAM_SETTLING_US_ACTUAL", 4490, "FLOAT32", "R"),
    R("STREAM_RESOLUTION_INDEX_ACTUAL", 4492, access="R"),
    R("STREAM_SCANRATE_HZ_ACTUAL", 4494, "FLOAT32", "R"),
    R("STREAM_DATA_CR", 4500, access="R"),
    R("STREAM_DATA_CAPTURE_16", 4899, "UINT16", "R"),
    R("STREAM_ENABLE", 4990),
    R("AIN#_EF_READ_A", 7000, "FLOAT32", "R", 150),
    R("AIN#_EF_READ_B", 7300, "FLOAT32", "R", 150),
    R("AIN#_EF_READ_C", 7600, "FLOAT32", "R", 150),
    R("AIN#_EF_READ_D", 7900, "FLOAT32", "R", 150),
    R("AIN#_EF_INDEX", 9000, members=150),
    R("AIN#_EF_CONFIG_A", 9300, members=150),
    R("AIN#_EF_CONFIG_B", 9600, members=150),
    R("AIN#_EF_CONFIG_C", 9900, members=150),
    R("AIN#_EF_CONFIG_D", 10200, "FLOAT32", members=150),
    R("AIN#_EF_CONFIG_E", 10500, "FLOAT32", members=150),
    R("AIN#_RANGE", 40000, "FLOAT32", members=250),
    R("AIN#_NEGATIVE_CH", 41000, "UINT16", members=250, step=1),
    R("AIN#_RESOLUTION_INDEX", 41500, "UINT16", members=250, step=1),
    R("AIN#_SETTLING_US", 42000, "FLOAT32", members=250),
    R("AIN_ALL_RANGE", 43900, "FLOAT32"),
    R("AIN_ALL_NEGATIVE_CH", 43902, "UINT16"),
    R("AIN_ALL_RESOLUTION_INDEX", 43903, "UINT16"),
    R("AIN_ALL_SETTLING_US", 43904, "FLOAT32"),
    R("AIN_ALL_EF_INDEX", 43906),
    R("POWER_AIN", 48005, "UINT16"),
    R("ETHERNET_IP", 49100, access="R"),
    R("WIFI_IP", 49200, access="R"),
    R("AIN#_BINARY", 50000, access="R", members=250),
    R("LAST_ERR_DETAIL", 55000, "UINT16", "R"),
    R("TEST", 55100, access="R"),
    R("TEST_FLOAT32", 55124, "FLOAT32"),
    R("PRODUCT_ID", 60000, "FLOAT32", "R"),
    R("HARDWARE_VERSION", 60002, "FLOAT32", "R"),
    R("FIRMWARE_VERSION", 60004, "FLOAT32", "R"),
    R("BOOTLOADER_VERSION", 60006, "FLOAT32", "R"),
    R("WIFI_VERSION", 60008, "FLOAT32", "R"),
    R("HARDWARE_INSTALLED", 60010, access="R"),
    R("SERIAL_NUMBER", 60028, access="R"),
    R("TEMPERATURE_AIR_K", 60050, "FLOAT32", "R"),
    R("TEMPERATURE_DEVICE_K", 60052, "FLOAT32", "R"),
    R("RTC_TIME_S", 61500, access="R"),
    R("CORE_TIMER", 61520, access="R"),
    R("SYSTEM_TIMER_20HZ", 61522, access="R"),
    R("WATCHDOG_ENABLE_DEFAULT", 61600),
    R("WATCHDOG_TIMEOUT_S_DEFAULT", 61604),
    R("WATCHDOG_STARTUP_DELAY_S_DEFAULT", 61606),
    R("WATCHDOG_STRICT_ENABLE_DEFAULT", 61610),
    R("WATCHDOG_STRICT_KEY_DEFAULT", 61612),
    R("WATCHDOG_STRICT_CLEAR", 61614, access="W"),
    R("WATCHDOG_RESET_ENABLE_DEFAULT", 61620),
    R("INTERNAL_FLASH_READ_POINTER", 61810),
    R("INTERNAL_FLASH_READ", 61812, access="R"),
    R("SYSTEM_REBOOT", 61998, access="W"),
)
_BY_NAME: Mapping[str, Register] = {register.name: register for register in REGISTERS}


def register(name: str) -> Register:
    """Return the register of this name; a family's member has its own name and address. KeyError if unknown."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    number = NUMBER.search(name)
    family = _BY_NAME.get(NUMBER.sub("#", name, count=1))
    if number is None or family is None or int(number[0]) >= family.members:
        raise KeyError(name)
    return Register(name, family.address + int(number[0]) * family.step, family.type, family.access)


def at(address: int) -> Register | None:
    """Return the register that begins at this address, or None."""
    for row in REGISTERS:
        member, rest = divmod(address - row.address, row.step)
        if not rest and 0 <= member < row.members:
            return Register(row.name.replace("#", str(member)), address, row.type, row.access)
    return None


def walk(address: int, count: int) -> list[Register]:
    """Return the registers in `count` 16-bit registers from `address` on, up to the first unknown one."""
    found: list[Register] = []
    end = address + count
    while address < end and (row := at(address)) and address + row.size <= end:
        found.append(row)
        address += row.size
    return found


def unpack(rows: Sequence[Register], data: bytes) -> list[float | int]:
    """Return the values of adjacent registers."""
    values, at_byte = [], 0
    for row in rows:
        values.append(row.unpack(data[at_byte : at_byte + 2 * row.size]))
        at_byte += 2 * row.size
    return values


def blocks(rows: Sequence[Register], most: int) -> Iterator[list[Register]]:
    """Split a list of registers into runs of adjacent ones, of at most `most` 16-bit registers each."""
    run: list[Register] = []
    for row in rows:
        joins = run and row.address == run[-1].address + run[-1].size
        if run and (not joins or row.address + row.size - run[0].address > most):
            yield run
            run = []
        run.append(row)
    if run:
        yield run
