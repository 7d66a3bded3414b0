"""Former place of `dipy_dl_reg.maps.verdict`, for code that imports from here."""

import warnings

from dipy_dl_reg.maps.verdict import *  # noqa: F403

warnings.warn(
    "dipy_dl_reg.verdict is deprecated: import Verdict from dipy_dl_reg.",
    DeprecationWarning,
    stacklevel=2,
)
