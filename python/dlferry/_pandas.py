"""pandas' series, indexes, frames and arrays, by their own `to_numpy`.

Not by Arrow, whose export turns NaN into null.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlferry._errors import UnsupportedInput
from dlferry._foreign import Array, Foreign, exported


def is_pandas(kind: type) -> bool:
    """Whether this is a type of pandas', or derived from one, with a `to_numpy`."""
    of_pandas = (base.__module__.partition(".")[0] == "pandas" for base in kind.__mro__)
    return hasattr(kind, "to_numpy") and any(of_pandas)


def memory_of(obj: Any, never_copy: bool) -> Foreign:
    """The array that `to_numpy` gives; on the object's own memory where pandas shares it.

    Args:
        obj: An object of a type that `is_pandas`.
        never_copy: Find out whether the array is a copy.

    Raises:
        UnsupportedInput: Values are missing, and would vanish.
    """
    is_frame = hasattr(type(obj), "columns")
    for column in [column for _, column in obj.items()] if is_frame else [obj]:
        _refuse_missing(column)

    def array() -> Array:
        return np.asarray(obj.to_numpy())

    made = array()
    if hasattr(type(obj), "get_indexer"):  # an Index is immutable, though the array is not
        made = made.view()
        made.flags.writeable = False
    return exported(made, array if never_copy else None)


def _refuse_missing(column: Any) -> None:
    """Raise `UnsupportedInput` where `to_numpy` would turn a missing value into NaN."""
    dtype = getattr(column, "dtype", None)
    if dtype is None or isinstance(dtype, np.dtype) or type(dtype).__name__ == "SparseDtype":
        return
    is_number = dtype.kind in "biufc" or dtype.name == "category"
    if is_number and column.isna().any():
        raise UnsupportedInput(
            f"pandas data of dtype {dtype} with missing values: a tensor has none, and they must "
            "not vanish; pass fillna(...), dropna(), or to_numpy(dtype=float, na_value=nan)"
        )
