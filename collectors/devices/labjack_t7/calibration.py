"""Codes of a stream to volts, with the type's nominal constants or the device's own from its flash.

    code >= centre    volts = (code - centre) x pslope
    code <  centre    volts = (centre - code) x nslope

A code has 16 bits. So calibration *and* scaling of a channel are one table of 65536 numbers, computed once; a sample
then costs one look-up. In the table, codes that mean "outside the range" are NaN.
Facts: docs/protocols/labjack_t7.md §4.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collectors.devices.labjack_t7.scaling import Scaling
from collectors.errors import Refused

Floats = npt.NDArray[np.float64]

CODES = 65536
OVERRANGE_CODES = (0, 65534, 65535)
"""Both ends of the scale. In a stream an analog input gives at most 65534, because 65535 is reserved as the mark of a
gap (vendor's note on LJM_STREAM_DIGITAL_AUTO_RECOVERY_ERROR_DETECTION_DISABLED)."""
HIGH_SHARE, LOW_SHARE = 1.01, -1.05
"""Shares of the range beyond which a sampled value is the end of the scale (about +10.1 and -10.6 of ±10 V)."""
NOMINAL_CENTRE = 33523.0
NOMINAL_PSLOPE, NOMINAL_NSLOPE = 0.000315805780, -0.000315805800
FLASH_ADDRESS = 0x3C4000
FLASH_FLOATS_PER_READ = 13
"""Floats per read: 52 bytes fit into one packet over USB, and LJM cannot split a read through a pointer."""
GAINS = (1, 10, 100, 1000)
FLASH_BYTES = 4 * 4 * len(GAINS)
"""pslope, nslope, centre, offset for each gain of the high-speed converter, which is the one that streams."""


class Calibration(NamedTuple):
    """The calibration constants of one range."""

    pslope: float
    nslope: float
    centre: float

    def volts(self, codes: Floats) -> Floats:
        """Return the volts of codes (16-bit scale)."""
        above = codes - self.centre
        return np.where(above >= 0, above * self.pslope, -above * self.nslope)

    def codes(self, volts: Floats) -> Floats:
        """Return the codes (not rounded) of volts: the inverse of `volts`, as the converter computes it."""
        return np.where(volts >= 0, self.centre + volts / self.pslope, self.centre - volts / self.nslope)


def nominal(range_v: float) -> Calibration:
    """Return the type's nominal constants for a range."""
    share = range_v / 10.0
    return Calibration(NOMINAL_PSLOPE * share, NOMINAL_NSLOPE * share, NOMINAL_CENTRE)


def from_flash(data: bytes) -> Mapping[float, Calibration]:
    """Return the constants by range. Raise Refused if they differ by more than 5 % from the type's nominal ones."""
    found: dict[float, Calibration] = {}
    for at, gain in enumerate(GAINS):
        pslope, nslope, centre, _ = struct.unpack_from(">4f", data, 16 * at)
        expected = nominal(10.0 / gain)
        own = Calibration(pslope, nslope, centre)
        for name, value, usual in zip(Calibration._fields, own, expected, strict=True):
            if not math.isclose(value, usual, rel_tol=0.05):
                raise Refused(
                    f"calibration in flash, gain {gain}: {name} {value:g}, expected {usual:g} within 5 %;"
                    " have the device calibrated, or set calibration = 'nominal'"
                )
        found[10.0 / gain] = own
    return found


def to_flash(sets: Mapping[float, Calibration]) -> bytes:
    """Return the constants in the format of the flash."""
    return b"".join(struct.pack(">4f", *sets[10.0 / gain], 0.0) for gain in GAINS)


def table(calibration: Calibration, scaling: Scaling) -> Floats:
    """Return the measured value of every code, shape (65536,); NaN if input or sensor is out of its range."""
    volts = calibration.volts(np.arange(CODES, dtype=np.float64))
    values = scaling.apply(volts)
    values[list(OVERRANGE_CODES)] = np.nan
    for is_beyond, _ in scaling.outside(volts):
        values[is_beyond] = np.nan
    return values


def is_overrange(volts: float, range_v: float) -> bool:
    """Return whether a sampled voltage is the end of the scale and not a measurement."""
    return not LOW_SHARE * range_v < volts < HIGH_SHARE * range_v
