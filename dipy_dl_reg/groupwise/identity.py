"""Describes options so that two calls can be compared: equal text, equal results."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from dipy_dl_reg.groupwise.provenance import compute_checksum

#: Depth to which attributes of attributes are described.
_DEPTH = 4


def describe_value(value: Any, depth: int = _DEPTH) -> Any:
    """Describe the value of an option by types that JSON has.

    Parameters
    ----------
    value : object
        Such as a number, a name, a file, a metric or a network.
    depth : int, optional
        Depth to which the attributes of objects are described.

    Returns
    -------
    description : object
        The same for equal values, also in another process: a file is described by its
        checksum, an array by that of its values, and an object by its class and its
        attributes, not by its address.

    Examples
    --------
    >>> from dipy_dl_reg import CCMetric
    >>> from dipy_dl_reg.groupwise.identity import describe_value
    >>> describe_value(CCMetric(3)) == describe_value(CCMetric(3))
    True
    >>> describe_value(CCMetric(3)) == describe_value(CCMetric(3, radius=2))
    False
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (str, os.PathLike)):
        path = Path(value)
        return {"SHA256": compute_checksum(path)} if path.is_file() else str(value)
    if isinstance(value, Mapping):
        return {str(k): describe_value(v, depth) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe_value(each, depth) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "tolist"):  # an array or a tensor
        array = np.ascontiguousarray(value.detach().cpu() if hasattr(value, "detach")
                                     else value)  # fmt: skip
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        return {"dtype": str(array.dtype), "shape": list(array.shape), "SHA256": digest}
    return _describe_object(value, depth)


def _describe_object(value: Any, depth: int) -> Any:
    """The class of an object, and its attributes; the name of a function."""
    own = value if hasattr(value, "__qualname__") else type(value)
    name = f"{own.__module__}.{own.__qualname__}"
    if own is value or not depth:
        return name
    weights = value.state_dict() if hasattr(value, "state_dict") else {}
    attributes = {
        key: each
        for key, each in getattr(value, "__dict__", {}).items()
        if not (weights and key.startswith("_"))
    }
    described = {**attributes, **weights}
    return [name, {k: describe_value(v, depth - 1) for k, v in described.items()}]
