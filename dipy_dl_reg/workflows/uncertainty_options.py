"""Options with which `dipy_align_deep --out_uncertainty` repeats the registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipy_dl_reg.workflows.base import PathLike
from dipy_dl_reg.workflows.exit_codes import usage_errors


@usage_errors()
def uncertainty_options(
    given: Mapping[str, Any], channels: Sequence[PathLike], same_subject: bool
) -> dict[str, Any]:
    """Collect the options of `mapping_uncertainty` for a registration.

    Parameters
    ----------
    given : mapping
        Options of the registration; with others, the difference of the two methods
        would count as an error of the map.
    channels : sequence of str or Path
        Further images of static.
    same_subject : bool
        Whether both images show the same person.

    Returns
    -------
    options : dict
        By name.

    Raises
    ------
    ValueError
        If there are channels or landmarks, with which nothing can be repeated.
    """
    if channels:
        raise ValueError("out_uncertainty: give one image of a side, no channels")
    if given.get("landmarks") is not None:
        raise ValueError(
            "out_uncertainty cannot be estimated for a registration with "
            "static_landmarks and moving_landmarks, got both"
        )
    return {"subjects": "same" if same_subject else "different", **given}
