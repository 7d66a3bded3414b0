"""The cases of tools/experiments/map_checksums.py: a table of names and functions.

The functions take no arguments; checksum_runs.py describes what they return.
"""

from functools import partial

import checksum_images as images
import checksum_runs as runs

#: Cases of ``--quick``.
QUICK = (
    *("inputs", "T1 default 2 mm", "T1 SSD", "T1 MI", "b0-like", "landmarks"),
    *("search", "network alone voxelmorph-t1", "regularizer bending", "2D"),
    *("affine class rigid MI", "affine call default", "thin-plate spline"),
    *("fit unet", "little memory"),
)
METRICS = ("CC", "SSD", "NCC", "MI", "CR", "MIND")
STEPS = ("translation", "rigid", "rigid_isoscaling", "rigid_scaling", "affine")
TRANSFORMS = {
    "translation": "TranslationTransform3D",
    "rigid": "RigidTransform3D",
    "rigid_isoscaling": "RigidIsoScalingTransform3D",
    "rigid_scaling": "RigidScalingTransform3D",
    "affine": "AffineTransform3D",
}


def masked_brain_pair(data, kind=None):
    """Two brains with masks, the moving one in another contrast if `kind` is given."""
    if kind is None:
        return images.add_masks(images.brain_pair(data, 4.0))
    return images.add_masks(images.contrast_pair(data, 4.0, kind))


def far_brain_pair(data, shift):
    """Two brains with an error of `shift` mm in the prealign."""
    return images.far_pair(images.brain_pair(data, 4.0), shift)


def far_slice_pair(data, shift):
    """Two slices with an error of `shift` mm in the prealign."""
    return images.far_pair(images.slice_pair(data, 2.0), shift)


def metric_cases(data, diffusion):
    """Cases of `DeepRegistration` in 3D: contrasts and metrics."""
    coarse, fine = (partial(images.brain_pair, data, mm) for mm in (4.0, 2.0))
    like = {k: partial(images.contrast_pair, data, 2.0, k) for k in images.CONTRASTS}
    like_4mm = partial(images.contrast_pair, data, 4.0, "b0")
    run, plain = partial(partial, runs.register_pair), {"model": None}
    cases = {
        "T1 default 2 mm": run(fine),
        "T1 default 4 mm": run(coarse),
        "T1 no network 2 mm": run(fine, **plain),
        "b0-like": run(like["b0"]),
        "FA-like": run(like["FA"]),
        "b0-like without network": run(like_4mm, **plain),
    }
    cases |= {f"T1 {name}": run(coarse, name, **plain) for name in METRICS}
    cases |= {
        "T1 CCMetric with options": run(coarse, runs.cc_with_options, **plain),
        "T1 DIPY's CCMetric": run(coarse, runs.dipy_cc, **plain),
        "T1 DIPY's SSDMetric with mask0": run(
            coarse, runs.dipy_ssd_of_nonzero, **plain
        ),
        "T1 MI with network": run(coarse, "MI"),
        "T1 default 12 mm": run(partial(images.brain_pair, data, 12.0)),
        "inverted contrast": run(partial(images.inverted_pair, data, 4.0), **plain),
        "missing values": run(partial(images.missing_pair, data, 4.0)),
    }
    if diffusion is not None:
        real = {k: partial(images.real_pair, diffusion, k) for k in ("b0", "FA")}
        cases |= {f"real {k} to T1": run(pair) for k, pair in real.items()}
    return cases


def start_cases(data):
    """Cases of `DeepRegistration` in 3D: masks, landmarks, search and networks."""
    coarse = partial(images.brain_pair, data, 4.0)
    like_4mm = partial(images.contrast_pair, data, 4.0, "b0")
    run, plain = partial(partial, runs.register_pair), {"model": None}
    masked = partial(masked_brain_pair, data)
    far = partial(far_brain_pair, data, 40.0)
    same = partial(images.same_pair, data, 4.0)
    cases = {
        "masks": run(masked),
        "masks without network": run(masked, **plain),
        "masks b0-like": run(partial(masked_brain_pair, data, "b0")),
        "masks named network": run(masked, model="pyramid-brain"),
        "landmarks": run(coarse, landmarks=True),
        "landmarks weight 0": run(coarse, landmarks=True, landmark_weight=0),
        "landmarks alone": run(coarse, landmarks=True, level_iters=0, **plain),
        "landmarks and search": run(coarse, landmarks=True, initialization="auto"),
        "landmarks named network": run(coarse, landmarks=True, model="pyramid-brain"),
        "search": run(coarse, initialization="discrete"),
        "search auto": run(coarse, initialization="auto"),
        "search without network": run(coarse, initialization="auto", **plain),
        "search alone": run(coarse, initialization="discrete", level_iters=0, **plain),
        "search and named network": run(
            coarse, initialization="auto", model="pyramid-brain"
        ),
        "far, search": run(far, initialization="auto"),
        "far, search, without network": run(far, initialization="auto", **plain),
        "far, search, MI": run(far, "MI", initialization="discrete", **plain),
        "network dropped": run(same, model="voxelmorph-t1", level_iters=0),
        "network dropped, refined": run(same, model="voxelmorph-t1"),
        "one object, two pairs": partial(
            runs.register_pairs_with_one_object, like_4mm, coarse
        ),
        "callback": partial(runs.record_callback, coarse),
        "affine only": run(coarse, level_iters=0, **plain),
    }
    cases |= {
        f"network alone {name}": run(coarse, model=name, level_iters=0)
        for name in ("pyramid-brain", "voxelmorph-t1")
    }
    return cases | {
        "network alone auto b0-like": run(like_4mm, level_iters=0),
        "network voxelmorph-t1": run(coarse, model="voxelmorph-t1"),
    }


def option_cases(data):
    """Cases of `DeepRegistration` in 3D: penalties, levels, grids and memory."""
    coarse, fine = (partial(images.brain_pair, data, mm) for mm in (4.0, 2.0))
    run, plain = partial(partial, runs.register_pair), {"model": None}
    few = {"level_iters": [20, 0, 5], "opt_tol": 0, "step_length": 0.3}
    cases = {
        f"regularizer {name}": run(
            coarse, regularizer=name, regularizer_weight=0.02, **plain
        )
        for name in ("bending", "tv", "diffusion")
    }
    return cases | {
        "levels and steps given": run(
            coarse, sigma_field=1.0, ss_sigma_factor=0.5, **few, **plain
        ),
        "oblique": run(partial(images.oblique_pair, data)),
        "oblique without network": run(partial(images.oblique_pair, data), **plain),
        "little memory": run(fine, max_memory="60 MB", **plain),
        "little memory, search": run(
            coarse, max_memory="5 MB", initialization="discrete", **plain
        ),
    }


def slice_cases(data):
    """Cases of 2D images and of volumes of one slice."""
    flat = partial(images.slice_pair, data, 2.0)
    volume = partial(images.slice_pair, data, 2.0, keep_axis=True)
    run = partial(partial, runs.register_pair)
    cases = {f"2D {name}": run(flat, name, model=None) for name in METRICS}
    return cases | {
        "2D": run(flat),
        "2D far": run(partial(far_slice_pair, data, 24.0)),
        "2D FA-like": run(partial(images.slice_pair, data, 2.0, kind="FA")),
        "2D network alone": run(flat, model="pyramid-slices", level_iters=0),
        "2D search": run(flat, initialization="discrete"),
        "2D far, search": run(
            partial(far_slice_pair, data, 24.0), initialization="auto"
        ),
        "2D landmarks": run(flat, landmarks=True),
        "one slice": run(volume),
        "one slice, network alone": run(volume, level_iters=0),
        "one slice without network": run(volume, model=None),
        "2D call": partial(runs.register_arrays, flat),
        "one slice, call": partial(runs.register_arrays, volume),
        "2D affine": partial(runs.run_affine_function, flat),
        "2D thin-plate spline": partial(runs.register_landmarks, flat),
    }


def affine_cases(data):
    """Cases of affine registration."""
    coarse = partial(images.brain_pair, data, 4.0)
    apart = partial(images.unaligned_pair, data)
    one, call = (
        partial(partial, runs.run_affine_class),
        partial(partial, runs.run_affine_function),
    )
    cases = {
        f"affine class {name} MI": one(coarse, transform)
        for name, transform in TRANSFORMS.items()
    }
    rigid, full = TRANSFORMS["rigid"], TRANSFORMS["affine"]
    for name in ("NCC", "CC", "SSD"):
        cases[f"affine class {name}"] = one(coarse, full, metric=name)
    levels = {"level_iters": [30, 10], "factors": [2, 1], "sigmas": [1, 0]}
    cases |= {
        "affine class starts all": one(apart, rigid, starts="all"),
        "affine class starts auto": one(apart, rigid, starts="auto"),
        "affine class sampling": one(coarse, full, sampling_proportion=0.2),
        "affine class levels": one(coarse, full, **levels),
        "affine class masks": one(partial(masked_brain_pair, data), full),
        "affine call default": call(apart),
        "affine call starts one": call(apart, starts="one"),
        "affine call starts all": call(apart, starts="all"),
        "affine call nbins": call(coarse, pipeline=["rigid"], nbins=16),
        "affine call centre of mass": call(
            apart, pipeline=["center_of_mass"], ret_metric=False
        ),
    }
    cases |= {f"affine call {step}": call(coarse, pipeline=[step]) for step in STEPS}
    return cases


def other_cases(data):
    """Cases of the calls, the spline, finished maps and training."""
    coarse = partial(images.brain_pair, data, 4.0)
    apart = partial(images.unaligned_pair, data)
    steps = ["center_of_mass", "translation", "rigid", "affine", "deform"]
    plate, biharmonic = (
        partial(partial, runs.register_landmarks),
        {"kernel": "biharmonic"},
    )
    cases = {
        "files, whole pipeline": partial(runs.register_files, apart, pipeline=steps),
        "files, affine pipeline": partial(
            runs.register_files, apart, pipeline=["center_of_mass", "rigid"]
        ),
        "arrays, radius 3": partial(runs.register_arrays, coarse, radius=3, model=None),
        "DWI to template": partial(runs.register_dwi, data),
        "DWI to template, affine": partial(runs.register_dwi, data, reg_method="aff"),
        "thin-plate spline": plate(coarse),
        "thin-plate spline, regularization": plate(coarse, regularization=0.01),
        "thin-plate spline, biharmonic": plate(coarse, **biharmonic),
        "map applied": partial(runs.apply_map, coarse),
        "map stored": partial(runs.store_map, coarse),
    }
    names = ("dirnet", "pyramid", "selfsup-fcn", "unet", "voxelmorph")
    cases |= {f"fit {name}": partial(runs.train_on_arrays, name) for name in names}
    cases |= {
        f"fit {name}": partial(runs.train_on_arrays, "unet", metric=name)
        for name in METRICS
    }
    held_out = {"validation": 0.3, "validate_every": 1, "batch_size": 2}
    return cases | {
        "fit with labels": partial(
            runs.train_on_arrays, "unet", dice_weight=0.1, metric="CC", **held_out
        ),
        "fit to atlas": partial(
            runs.train_on_arrays,
            "unet",
            atlas=images.make_blobs(1)[0][0],
            regularizer="bending",
        ),
        "fit resumed": runs.resume_training,
        "fit on brains": partial(runs.train_on_brains, data),
    }


def make_cases(data, diffusion=None):
    """All cases by name.

    `data` is a folder of labelled brains; `diffusion` is a folder of diffusion images
    of one subject, or None.
    """
    return {
        "inputs": partial(runs.input_arrays, data),
        **metric_cases(data, diffusion),
        **start_cases(data),
        **option_cases(data),
        **slice_cases(data),
        **affine_cases(data),
        **other_cases(data),
    }
