"""Messages about the start of a refinement, for the log."""

from __future__ import annotations

from typing import NamedTuple

#: Message if level_iters=0 was given and no field of a network or search is used.
NO_DISPLACEMENT = (
    "level_iters=0 means no refinement, so that the map has no displacement: it "
    "contains only the affine (prealign), or the spline through landmarks."
)


class Message(NamedTuple):
    """A line for the log.

    Attributes
    ----------
    text : str
        Text of the message.
    warns : bool
        Whether it is logged as a warning.
    """

    text: str
    warns: bool = False


def describe_dropped_field(metric_name: str, *, default: bool, alone: bool) -> Message:
    """Describe that a network's field is not used, and what the user can do.

    Parameters
    ----------
    metric_name : str
        Name of the metric by which the field was rejected.
    default : bool
        Whether the package chose the network.
    alone : bool
        Whether no refinement follows.

    Returns
    -------
    message : Message
        A warning, unless the default network was only tried.
    """
    fact = (
        "The network's field is not used: with it, the images are not more similar "
        f"than without it, by the metric {metric_name}"
    )
    if default and not alone:
        return Message(f"{fact}. Refinement begins without it.")
    advice = (
        "check that the images are aligned affinely, and are similar to the images "
        "on which the network was trained"
    )
    if alone:
        advice = f"{NO_DISPLACEMENT} Omit level_iters, or {advice}"
    else:
        advice = f"Refinement begins without it; {advice}"
    return Message(f"{fact}. {advice}.", warns=True)
