"""Warnings that show the user's line of code as their origin."""

from __future__ import annotations

import sys
from types import FrameType
import warnings

#: Packages between a user's call and this package: its own, and DIPY's decorators.
_SKIPPED = ("dipy_dl_reg.", "dipy.testing.")


def warn_user(message: str) -> None:
    """Warn with the place of the first caller outside this package.

    Parameters
    ----------
    message : str
        Text of the `UserWarning`.

    Warns
    -----
    UserWarning
        Always.
    """
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and _module_of(frame).startswith(_SKIPPED):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _module_of(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "")
