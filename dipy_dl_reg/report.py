"""Former place of `dipy_dl_reg.maps.report`, for code that imports from here."""

import warnings

from dipy_dl_reg.maps.report import *  # noqa: F403

warnings.warn(
    "dipy_dl_reg.report is deprecated: import plot_registration from dipy_dl_reg.",
    DeprecationWarning,
    stacklevel=2,
)
