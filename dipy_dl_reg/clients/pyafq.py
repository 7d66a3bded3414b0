"""A mapping definition for pyAFQ, in place of its ``SynMap``.

pyAFQ (3.4) stores a map as two NIfTI files of displacements in voxels: from subject to
template on the subject's grid, and from template to subject on the template's grid.
Files that exist are used again.  Therefore the files of `DeepMap` have names of their
own, and the JSON files beside them contain the options and the checksums of both
images, which are compared before a map is used again.

This module can be imported without pyAFQ, but `DeepMap` cannot be used then.
"""

from __future__ import annotations

import glob
import json
import logging
from pathlib import Path
import time
from typing import Any

from dipy.align.imwarp import DiffeomorphicMap
import nibabel as nib
import numpy as np

from dipy_dl_reg.io.atomic_files import write_all_or_none
from dipy_dl_reg.io.checksums import compute_image_checksum
from dipy_dl_reg.registration.affine.call import find_affine
from dipy_dl_reg.registration.deformable import DeepRegistration

try:
    # `GroupAFQ.combine_bundle` accepts no other definition than a SynMap.
    from AFQ.definitions.mapping import SynMap
    from AFQ.registration import read_syn_mapping
    from AFQ.utils.path import space_from_fname
except ImportError:
    SynMap, read_syn_mapping, space_from_fname = object, None, None

#: pyAFQ's own log: pyAFQ silences DIPY's, which this package uses otherwise.
logger = logging.getLogger("AFQ")
#: Files that pyAFQ computes with the map and does not compute again, by the folder of
#: the subject's files and the beginning of their names.
_DERIVED = (
    "{folder}/{stem}_space-{template}_b0ref.nii.gz",
    "{folder}/{stem}_space-{subject}_desc-template_anat.nii.gz",
    "{folder}/ROIs/{stem}_*",
    "{folder}/bundles/{stem}_*",
)


class DeepMap(SynMap):
    """Mapping definition for pyAFQ: subject to template, by `DeepRegistration`.

    An affine registration is followed by a deformable one.  The map has the form of
    pyAFQ's ``SynMap``.  It is computed again if these options or one of the images have
    changed since it was stored.

    Parameters
    ----------
    use_prealign : bool, optional
        Whether an affine registration comes first.  Without it the images must lie
        in the same world.
    affine_kwargs : dict, optional
        Options of `deep_affine_registration`, such as ``{"pipeline":
        ["center_of_mass", "rigid"]}``.
    deep_kwargs : dict, optional
        Options of `DeepRegistration`, such as ``{"metric": "CC", "device": "cpu"}``.

    Raises
    ------
    ImportError
        If pyAFQ is not installed.

    See Also
    --------
    DeepRegistration : does the deformable part.
    deep_affine_registration : does the affine part.

    Notes
    -----
    In a configuration file or an option of the command ``pyAFQ``, write
    ``"__import__('dipy_dl_reg').DeepMap()"``, because pyAFQ knows only its own
    definitions by their names alone.

    pyAFQ does not compute regions, bundles and profiles again if they exist.  A warning
    names the folder if a new map is computed beside such files of an earlier map.

    Examples
    --------
    >>> from AFQ.api.group import GroupAFQ  # doctest: +SKIP
    >>> from dipy_dl_reg import DeepMap
    >>> profiles = GroupAFQ("bids", mapping_definition=DeepMap())  # doctest: +SKIP
    """

    # pyAFQ takes the names of all arguments and local variables of this method for the
    # names of attributes that hold the arguments: it must have no local variables.
    def __init__(
        self,
        use_prealign: bool = True,
        affine_kwargs: dict[str, Any] | None = None,
        deep_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if SynMap is object:
            raise ImportError("DeepMap needs pyAFQ: pip install pyAFQ")
        self.use_prealign = use_prealign
        self.affine_kwargs = affine_kwargs
        self.deep_kwargs = deep_kwargs

    def str_formal(self) -> str:
        """Expression that pyAFQ writes to its configuration files.

        Returns
        -------
        expression : str
            Python code that makes this definition, without import statements.
        """
        return f"__import__('dipy_dl_reg').{super().str_formal()}"

    def get_fnames(
        self, extension: str, base_fname: str, sub_name: str, tmpl_name: str
    ) -> tuple[str, str]:
        """Names of the files of one direction of the map.

        Parameters
        ----------
        extension : str
            Suffix of the map.
        base_fname : str
            Folder and beginning of the names of the subject's files.
        sub_name, tmpl_name : str
            Names of the two spaces, from which and to which the map leads.

        Returns
        -------
        mapping_file, meta_file : str
            The map, and the JSON file beside it.  The names differ from those of
            ``SynMap``, so that neither uses a map of the other.
        """
        stem = f"{base_fname}_desc-deepmapping_from-{sub_name}_to-{tmpl_name}_xform"
        return stem + extension, f"{stem}.json"

    def get_for_subses(
        self,
        base_fname: str,
        dwi: Any,
        dwi_data_file: str,
        reg_subject: Any,
        reg_template: Any,
        tmpl_name: str,
        subject_sls: Any = None,
        template_sls: Any = None,
    ) -> DiffeomorphicMap:
        """Compute the map of a subject, or read it if it is stored; called by pyAFQ.

        Parameters
        ----------
        base_fname : str
            Folder and beginning of the names of the subject's files.
        dwi : nibabel image
            Not used.
        dwi_data_file : str
            Its file, whose name contains the name of the subject's space.
        reg_subject, reg_template : nibabel image, str or Path
            The images that are registered: moving and static.
        tmpl_name : str
            Name of the template's space.
        subject_sls, template_sls : streamlines, optional
            Not used.

        Returns
        -------
        mapping : DiffeomorphicMap
            From voxels of the subject to voxels of the template: ``transform`` brings
            an image of the template to the subject's grid, ``transform_points`` points
            of the subject to the template.
        """
        subject = space_from_fname(dwi_data_file)
        forward, forward_meta = self.get_fnames(
            ".nii.gz", base_fname, subject, tmpl_name
        )
        backward, backward_meta = self.get_fnames(
            ".nii.gz", base_fname, tmpl_name, subject
        )
        images = _open(reg_subject), _open(reg_template)
        origin = self._describe_origin(*images)
        files = [forward, backward, forward_meta, backward_meta]
        if not _is_stored(files, origin):
            _warn_of_derived_files(base_fname, subject, tmpl_name)
            simplified, meta = self._register(*images)
            _write(files, simplified, *images, meta | origin)
        return read_syn_mapping(forward, backward)

    def _describe_origin(self, subject: Any, template: Any) -> dict[str, Any]:
        """Everything that the map depends on, as JSON holds it."""
        return {
            "definition": self.str_formal(),
            "sha256_subject": _checksum(subject),
            "sha256_template": _checksum(template),
        }

    def _register(
        self, subject: Any, template: Any
    ) -> tuple[DiffeomorphicMap, dict[str, Any]]:
        """Register the subject to the template; return the map in voxels, and notes."""
        start = time.perf_counter()
        images = {"static": template.get_fdata(), "moving": subject.get_fdata()}
        registration = DeepRegistration(**self.deep_kwargs or {})
        prealign = None
        if self.use_prealign:
            found = find_affine(
                **images,
                static_affine=template.affine,
                moving_affine=subject.affine,
                **{"device": registration.device} | (self.affine_kwargs or {}),
            )
            prealign, registration.poses = found.matrix, found.poses
        mapping = registration.optimize(
            **images,
            static_grid2world=template.affine,
            moving_grid2world=subject.affine,
            prealign=prealign,
        )
        verdict = registration.verdict
        level = logging.INFO if verdict.grade == "good" else logging.WARNING
        logger.log(level, f"Verdict on the map to the template: {verdict}.")
        meta = {
            "type": "displacementfield",
            "dependent": "dwi",  # pyAFQ's name of the step after which it is removed
            "total_time": time.perf_counter() - start,
            "verdict": str(verdict),
        }
        return mapping.get_simplified_transform(), meta


def _open(image: Any) -> Any:
    """The image, opened if it is a file."""
    return nib.load(image) if isinstance(image, (str, Path)) else image


def _checksum(image: Any) -> str:
    """Checksum of the values and the affine of an image."""
    return compute_image_checksum(image.get_fdata(dtype=np.float32), image.affine)


def _is_stored(files: list[str], origin: dict[str, Any]) -> bool:
    """Whether the map is stored, and has the same origin."""
    if not all(Path(file).exists() for file in files[:2]):
        return False
    if all(origin.items() <= _read_meta(file).items() for file in files[2:]):
        return True
    logger.warning(
        f"The map in {files[0]} was computed with other options or from other images, "
        "or the JSON file beside it is missing: it is computed again."
    )
    return False


def _read_meta(path: str) -> dict[str, Any]:
    """The content of a JSON file; nothing if it cannot be read."""
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    plain = found if isinstance(found, dict) else {}
    return {key: value for key, value in plain.items() if isinstance(value, str)}


def _warn_of_derived_files(base_fname: str, subject: str, template: str) -> None:
    """Warn if files of an earlier map exist, because pyAFQ uses them again."""
    base = Path(base_fname)
    names = {"folder": glob.escape(str(base.parent)), "stem": glob.escape(base.name)}
    names |= {"subject": glob.escape(subject), "template": glob.escape(template)}
    found = [f for pattern in _DERIVED for f in glob.glob(pattern.format(**names))]
    if found:
        logger.warning(
            f"A new map is computed, but {base.parent} already contains {len(found)} "
            f"files that were made with another map, such as {Path(found[0]).name}. "
            "pyAFQ uses them again: choose another output folder, or remove them with "
            "the method clobber."
        )


def _write(
    files: list[str],
    simplified: DiffeomorphicMap,
    subject: Any,
    template: Any,
    meta: dict[str, Any],
) -> None:
    """Write both directions of a map in voxels, and the JSON files beside them."""
    logger.info(f"Saving {files[0]} and {files[1]}")
    fields = (simplified.forward, subject), (simplified.backward, template)
    with write_all_or_none(files, overwrite=True) as targets:
        for target, (field, image) in zip(targets[:2], fields, strict=True):
            nib.save(nib.Nifti1Image(field, image.affine), target)
        for target in targets[2:]:
            target.write_text(json.dumps(meta, indent=2))
