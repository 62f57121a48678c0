"""Results show themselves in the same ways: text, HTML in a notebook, data, JSON, a frame."""

import json
import math
from typing import Any

import numpy as np

from quantal._core.table import Table


class Views:
    """A result with views is shown as a table, and given on as data.

    A subclass says what its `table` and its `to_dict` are, and has all views by that.
    """

    def table(self) -> Table:
        """Return the result as a table, which can be drawn in several ways."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data that JSON can hold."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Return the result as JSON."""
        return json.dumps(plain(self.to_dict()), indent=2, allow_nan=False)

    def to_frame(self) -> Any:
        """Return the rows of the table as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        return self.table().to_frame()

    def __str__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def __rich__(self) -> Any:
        return self.table()


def plain(data: Any) -> Any:
    """Return data as JSON can hold it.

    Arrays become lists, numbers of NumPy those of Python, complex numbers `{"real": ...,
    "imag": ...}`, and numbers that JSON does not have, NaN and the infinite, None.

    >>> plain({"codes": np.array([1, 0]), "bound": float("-inf")})
    {'codes': [1, 0], 'bound': None}
    """
    if isinstance(data, dict):
        return {str(key): plain(entry) for key, entry in data.items()}
    if isinstance(data, (np.ndarray, np.generic)):
        if np.iscomplexobj(data):
            return {"real": plain(data.real), "imag": plain(data.imag)}
        return plain(data.tolist())
    if isinstance(data, complex):
        return {"real": plain(data.real), "imag": plain(data.imag)}
    if isinstance(data, (list, tuple)):
        return [plain(entry) for entry in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if data is None or isinstance(data, (str, bool, int, float)):
        return data
    return str(data)
