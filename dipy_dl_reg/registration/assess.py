"""Verdict on a map that was computed earlier or by another program."""

from __future__ import annotations

from typing import Any

from dipy.align.imwarp import DiffeomorphicMap

from dipy_dl_reg.maps.checks import add_regularity
from dipy_dl_reg.maps.measures import measure_registration
from dipy_dl_reg.maps.regularity import measure_regularity
from dipy_dl_reg.maps.verdict import Verdict, judge
from dipy_dl_reg.registration import dipy_adapter
from dipy_dl_reg.registration.anatomy_check import check_anatomy
from dipy_dl_reg.registration.devices import threads
from dipy_dl_reg.registration.mapped_images import read_mapped_images


def assess_mapping(
    mapping: DiffeomorphicMap,
    static: Any,
    moving: Any,
    *,
    static_mask: Any = None,
    moving_mask: Any = None,
    anatomy: bool = False,
    num_threads: int | None = None,
) -> Verdict:
    """Assess a registration by its images and its map.

    `DeepRegistration.verdict` is the same verdict for the last registration, but it
    also uses the result of the search over poses, which a map does not contain.

    Parameters
    ----------
    mapping : DiffeomorphicMap
        A map from this package, from SyN, or from `load_mapping`.
    static, moving : array, nibabel image, str or Path
        The images that were registered, on their own grids.
    static_mask, moving_mask : array, nibabel image, str or Path, optional
        The masks that were used.
    anatomy : bool, optional
        Also measure the overlap of the anatomy maps of both images before and after the
        registration (``verdict.measures.anatomy_affine`` and ``anatomy``), for 3D
        images that show a brain.  A network predicts the maps of each image, in one to
        three seconds of a core; masks are not used for the maps.  For two whole heads
        without masks, it also predicts two maps to find masks, with every value of
        `anatomy`.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.

    Returns
    -------
    verdict : Verdict
        "good", "doubtful" or "failed" (``verdict.grade``), and the reasons
        (``verdict.reasons``).  A map with folds, or whose directions are no inverses of
        each other, is at least "doubtful".

    Raises
    ------
    ValueError
        If `mapping` is not a map in SyN's form, or the shape of an image differs from
        that of its grid in the map.

    See Also
    --------
    Verdict : what is returned; :doc:`/verdict` describes how it is computed.
    write_report : the verdict with pictures.
    mapping_uncertainty : the error of the map in mm.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, assess_mapping
    >>> x, y = np.mgrid[-1:1:48j, -1:1:48j]
    >>> disc = (x**2 + y**2 < 0.6) * (1 + np.cos(9 * x) * np.cos(7 * y))
    >>> mapping = DeepRegistration("SSD", level_iters=[5]).optimize(
    ...     static=disc, moving=disc
    ... )
    >>> verdict = assess_mapping(mapping, disc, disc)
    >>> verdict.grade
    'good'
    """
    images = read_mapped_images(mapping, static, moving, static_mask, moving_mask)
    with threads(num_threads):
        pair = dipy_adapter.make_pair(
            **images._asdict(), prealign=mapping.prealign_inv, find_masks=True
        )
        displacement = dipy_adapter.displacement_to_tensor(
            mapping.backward, pair.static_grid
        )
        verdict = judge(measure_registration(pair, displacement))
    verdict = add_regularity(verdict, measure_regularity(mapping))
    if anatomy:
        both = images.static, images.moving
        verdict = check_anatomy(verdict, mapping, *both, num_threads=num_threads)
    return verdict
