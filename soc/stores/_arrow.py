"""Arrow columns as numpy doubles."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from soc.stores._errors import StoreError
from soc.stores._join import seconds


def numbers(column: pa.Array, name: str, where: str) -> NDArray[np.float64]:
    """Return the column as doubles, NaN where it has no value; times as seconds since 1970. Raises `StoreError`."""
    try:
        if pa.types.is_timestamp(column.type):
            whole = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64()).fill_null(0).to_numpy()
            return np.where(column.is_valid().to_numpy(zero_copy_only=False), seconds(whole), np.nan)
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise StoreError(f"{where}: column {name} is {column.type}, expected numbers: {error}") from error
    return np.asarray(values, dtype=np.float64)
