"""Other programs' resamplers, for the files of maps of tools/experiments/exchange.py.

Each takes the file of a map, an image and a reference, all in files, and returns the
image on the reference's grid, interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Callable
import gzip
from pathlib import Path
import struct
import subprocess
from typing import NamedTuple

import nibabel as nib
from nibabel.affines import apply_affine
import numpy as np
from scipy.ndimage import map_coordinates


class Resampler(NamedTuple):
    """A resampler of another program.

    Attributes
    ----------
    like, suffix : str
        The format of the map, as `write_mapping` names it, and the suffix of its files.
    resample : callable
        ``resample(path, image, reference, affine)``, all paths, returns an array.
    affine : str or None
        Suffix of the file of the affine part, if it is not in the map's.
    """

    like: str
    suffix: str
    resample: Callable[[Path, Path, Path, Path | None], np.ndarray]
    affine: str | None = None


def by_itk(path: Path, image: Path, reference: Path, affine: Path | None):
    """ITK, for a field that contains the whole map."""
    return _resample_by_itk([_itk_field(path)], image, reference)


def by_itk_triple(path: Path, image: Path, reference: Path, affine: Path | None):
    """ITK, for ANTs' warps and affine, in the order of ``antsApplyTransforms``."""
    import SimpleITK as sitk

    matrix = sitk.ReadTransform(str(path.with_name("map_0GenericAffine.mat")))
    transforms = [matrix, _itk_field(path)]
    if "Inverse" in path.name:
        transforms = [_itk_field(path), matrix.GetInverse()]
    return _resample_by_itk(transforms, image, reference)


def by_itk_composite(path: Path, image: Path, reference: Path, affine: Path | None):
    """ITK, for a composite transform in a file."""
    import SimpleITK as sitk

    return _resample_by_itk([sitk.ReadTransform(str(path))], image, reference)


def _itk_field(path: Path):
    """A displacement field of ITK."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    return sitk.DisplacementFieldTransform(image)


def _resample_by_itk(transforms: list, image: Path, reference: Path) -> np.ndarray:
    """Interpolate an image by ITK; the last transform is applied to points first."""
    import SimpleITK as sitk

    composite = sitk.CompositeTransform(3)
    for transform in transforms:
        composite.AddTransform(transform)
    images = [sitk.ReadImage(str(p), sitk.sitkFloat64) for p in (image, reference)]
    resampled = sitk.Resample(*images, composite, sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(resampled).T


def by_nitransforms(path: Path, image: Path, reference: Path, affine: Path | None):
    """NiTransforms, for X5."""
    from nitransforms.nonlinear import DenseFieldTransform
    from nitransforms.resampling import apply

    transform = DenseFieldTransform.from_filename(str(path), fmt="X5")
    warped = apply(transform, str(image), reference=str(reference), order=1)
    return np.asanyarray(warped.dataobj)


def by_mrtransform(path: Path, image: Path, reference: Path, affine: Path | None):
    """MRtrix3; it writes the axes of the image, so that they are turned back."""
    out = path.with_name("mrtransform.nii")
    words = ["mrtransform", image, "-warp", path, "-interp", "linear", out]
    words += ["-force", "-quiet"]
    subprocess.run([*map(str, words)], check=True, capture_output=True)
    warped, wanted = nib.load(out), nib.load(reference)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(warped.affine), nib.io_orientation(wanted.affine)
    )
    return warped.as_reoriented(turn).get_fdata()


def by_fslpy(path: Path, image: Path, reference: Path, affine: Path | None):
    """FSL's Python library."""
    from fsl.data.image import Image
    from fsl.transform.nonlinear import DeformationField, applyDeformation

    moving, static = Image(str(image)), Image(str(reference))
    field = DeformationField(str(path), moving, static, defType="relative")
    return applyDeformation(moving, field, mode="constant")


def by_workbench(path: Path, image: Path, reference: Path, affine: Path | None):
    """Connectome Workbench, which reads FSL's warps and FLIRT's matrices."""
    out = path.with_name("workbench.nii.gz")
    words = ["-volume-resample", image, reference, "TRILINEAR", out]
    source = image
    if affine is not None:
        words += ["-affine", affine, "-flirt", image, reference]
        source = reference
    words += ["-warp", path, "-fnirt", source]
    subprocess.run(["wb_command", *map(str, words)], check=True, capture_output=True)
    return nib.load(out).get_fdata()


def by_spm(path: Path, image: Path, reference: Path, affine: Path | None):
    """The steps of SPM's *Pullback*, in NumPy: SPM itself needs MATLAB."""
    moving = nib.load(image)
    positions = np.squeeze(nib.load(path).get_fdata())
    return _sample(moving, apply_affine(np.linalg.inv(moving.affine), positions))


def by_surfa(path: Path, image: Path, reference: Path, affine: Path | None):
    """FreeSurfer's Python library."""
    import surfa

    # surfa 0.6 calls this function, which NumPy 2.3 has dropped for bytes.
    np.fromstring = np.frombuffer
    return surfa.load_warp(str(path))(surfa.load_volume(str(image))).data


def by_nodes(path: Path, image: Path, reference: Path, affine: Path | None):
    """The steps of FreeSurfer's ``mris_read_m3z.m``; the image sampled at the nodes."""
    content = gzip.decompress(path.read_bytes())
    shape = struct.unpack_from(">3i", content, 4)
    numbers = np.frombuffer(content, ">f4", 9 * int(np.prod(shape)), 24)
    return _sample(nib.load(image), numbers.reshape(*shape, 9)[..., 3:6])


def _sample(image: nib.Nifti1Image, voxels: np.ndarray) -> np.ndarray:
    """Interpolate an image linearly at positions in voxels."""
    return map_coordinates(image.get_fdata(), np.moveaxis(voxels, -1, 0), order=1)


#: By name, as the experiment prints it.
RESAMPLERS = {
    "ITK field: SimpleITK": Resampler("itk", ".nii.gz", by_itk),
    "ANTs' triple: SimpleITK": Resampler("ants", "1Warp.nii.gz", by_itk_triple),
    "ANTs' .h5: SimpleITK": Resampler("itk_composite", ".h5", by_itk_composite),
    "X5: nitransforms": Resampler("x5", ".x5", by_nitransforms),
    "MRtrix3: mrtransform": Resampler("mrtrix", ".nii.gz", by_mrtransform),
    "FSL: fslpy": Resampler("fsl", ".nii.gz", by_fslpy),
    "FSL: Workbench": Resampler("fsl", ".nii.gz", by_workbench),
    "FSL, premat: Workbench": Resampler("fsl", ".nii.gz", by_workbench, ".mat"),
    "SPM: pull": Resampler("spm", ".nii", by_spm),
    "FreeSurfer .nii.gz: surfa": Resampler("freesurfer", ".nii.gz", by_surfa),
    "FreeSurfer .mgz: surfa": Resampler("freesurfer", ".mgz", by_surfa),
    "FreeSurfer .m3z: nodes": Resampler("m3z", ".m3z", by_nodes),
}
