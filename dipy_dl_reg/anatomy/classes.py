"""Classes of the network `anatomy`: tissues of the brain, bone, soft tissue, air."""

from __future__ import annotations

from typing import NamedTuple

import torch


class AnatomyClass(NamedTuple):
    """One class of the network.

    Attributes
    ----------
    name : str
        Such as "left thalamus".
    label : int
        Its label in FreeSurfer's numbering; 0 is air.
    structure : str
        Its name without the side.
    side : {"left", "right", "both"}
        Side of the head.
    """

    name: str
    label: int
    structure: str
    side: str


#: Structures in the order of the network's classes; left and right label, or one.
_STRUCTURES = (
    ("cerebral white matter", 2, 41),
    ("cerebral cortex", 3, 42),
    ("lateral ventricle", 4, 43),
    ("inferior lateral ventricle", 5, 44),
    ("cerebellar white matter", 7, 46),
    ("cerebellar cortex", 8, 47),
    ("thalamus", 10, 49),
    ("caudate", 11, 50),
    ("putamen", 12, 51),
    ("pallidum", 13, 52),
    ("third ventricle", 14),
    ("fourth ventricle", 15),
    ("brain stem", 16),
    ("hippocampus", 17, 53),
    ("amygdala", 18, 54),
    ("cerebrospinal fluid", 24),
    ("accumbens", 26, 58),
    ("ventral diencephalon", 28, 60),
)


def _make_classes() -> tuple[AnatomyClass, ...]:
    """All classes in the network's order."""
    classes = [AnatomyClass("air", 0, "air", "both")]
    for structure, *labels in _STRUCTURES:
        if len(labels) == 1:
            classes.append(AnatomyClass(structure, labels[0], structure, "both"))
            continue
        for side, label in zip(("left", "right"), labels):
            name = f"{side} {structure}"
            classes.append(AnatomyClass(name, label, structure, side))
    classes.append(AnatomyClass("bone", 165, "bone", "both"))
    classes.append(AnatomyClass("soft tissue", 258, "soft tissue", "both"))
    return tuple(classes)


#: All classes, in the order of the maps.
CLASSES: tuple[AnatomyClass, ...] = _make_classes()
#: Classes that are no part of the brain: air, bone and soft tissue.
OUTSIDE = tuple(
    number
    for number, of in enumerate(CLASSES)
    if of.name in ("air", "bone", "soft tissue")
)
#: Fluid around the brain.
FLUID = next(
    number for number, of in enumerate(CLASSES) if of.name == "cerebrospinal fluid"
)
#: Number of the class of the same structure on the other side, for each class.
MIRRORED = tuple(
    next(
        number
        for number, other in enumerate(CLASSES)
        if other.structure == of.structure and (other is of) == (of.side == "both")
    )
    for of in CLASSES
)


def brain_probability(
    probabilities: torch.Tensor, *, fluid: bool = True
) -> torch.Tensor:
    """Compute the probability of the brain.

    Parameters
    ----------
    probabilities : Tensor, shape (..., K, X, Y, Z)
        Probabilities of the classes.
    fluid : bool, optional
        Whether the fluid around the brain is a part of it.

    Returns
    -------
    probability : Tensor, shape (..., X, Y, Z)
        Sum over the tissues of the brain.
    """
    left_out = (*OUTSIDE, *(() if fluid else (FLUID,)))
    outside = probabilities[..., list(left_out), :, :, :].sum(-4)
    return (1 - outside).clamp(0, 1)
