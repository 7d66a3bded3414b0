"""A real brain for the network that segments: nilearn's MNI152 template.

It is cut to the brain, a third of the volume: the network takes as long as its volume.
"""

import functools

import nibabel as nib
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
import numpy as np


@functools.cache
def brain_box(resolution):
    """Slices of the voxels within 6 mm of the brain."""
    inside = load_mni152_brain_mask(resolution=resolution).get_fdata() > 0
    margin = 6 // resolution
    return tuple(
        slice(max(found.min() - margin, 0), found.max() + margin + 1)
        for found in map(np.array, np.nonzero(inside))
    )


def cut_to_brain(image, resolution):
    """Cut an image on the template's grid to the brain."""
    return nib.nifti1.Nifti1Image.from_image(image).slicer[brain_box(resolution)]


def load_brain(resolution):
    """Load the template with voxels of some mm, cut to the brain."""
    return cut_to_brain(load_mni152_template(resolution=resolution), resolution)
