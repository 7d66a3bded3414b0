"""Registrations and other calls that tools/experiments/map_checksums.py runs.

Each function runs the package once, on one thread. It returns the arrays to be compared
and a text that describes the result. Only public names of the package are used. They
are imported in the functions, after the number of threads has been set.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import checksum_images as images
import nibabel as nib
import numpy as np

CPU = {"device": "cpu"}


def map_arrays(mapping):
    """Both fields of a map and its prealign."""
    prealign = np.eye(mapping.dim + 1) if mapping.prealign is None else mapping.prealign
    return [mapping.forward, mapping.backward, prealign]


def describe_registration(registration):
    """Describe a registration in one line."""
    return " ".join(
        (
            f"metric={type(registration.metric).__name__}",
            f"network={registration.network_used}",
            f"search={registration.initialization_used}",
            f"iterations={len(registration.full_energy_profile)}",
            f"verdict={registration.verdict.grade}",
        )
    )


def register_pair(make_pair, metric=None, **options):
    """`DeepRegistration` of a pair: its three maps, energies and landmark distances."""
    from dipy_dl_reg import DeepRegistration

    pair = make_pair()
    if options.get("landmarks") is True:
        options["landmarks"] = images.make_landmarks(pair)
    metric = metric() if callable(metric) else metric
    registration = DeepRegistration(metric, progress=False, **CPU, **options)
    mapping = registration.optimize(**pair, num_threads=1)
    halves = registration.static_to_ref, registration.moving_to_ref
    arrays = [a for m in (mapping, *halves) for a in map_arrays(m)]
    arrays.append(registration.full_energy_profile)
    if registration.landmark_distances is not None:
        arrays.append(registration.landmark_distances)
    return arrays, describe_registration(registration)


def register_pairs_with_one_object(*make_pairs):
    """One object for several pairs: an earlier pair must not change later results."""
    from dipy_dl_reg import DeepRegistration

    registration, arrays, facts = DeepRegistration(progress=False, **CPU), [], []
    for make_pair in make_pairs:
        arrays += map_arrays(registration.optimize(**make_pair(), num_threads=1))
        facts.append(f"{describe_registration(registration)}")
    return arrays, "; ".join(facts)


def record_callback(make_pair):
    """Arguments of the callback: stage, level, iteration and energy."""
    from dipy_dl_reg import DeepRegistration

    rows = []

    def callback(registration, stage):
        level = registration.current_level
        energies = registration.energy_list
        rows.append(
            (
                int(getattr(stage, "value", stage)),
                -1 if level is None else level,
                registration.niter,
                energies[-1] if energies else np.nan,
            )
        )

    registration = DeepRegistration(callback=callback, progress=False, **CPU)
    mapping = registration.optimize(**make_pair(), num_threads=1)
    return [np.array(rows, float), *map_arrays(mapping)], f"calls={len(rows)}"


def run_affine_class(make_pair, transform, **options):
    """`DeepAffineRegistration` of a pair: matrix, parameters and metric's value."""
    from dipy.align import transforms

    from dipy_dl_reg import DeepAffineRegistration

    pair = dict(make_pair())
    pair["starting_affine"] = pair.pop("prealign", "mass")
    options = {"verbosity": 0, **CPU} | options
    registration = DeepAffineRegistration(**options)
    found, theta, value = registration.optimize(
        **pair,
        transform=getattr(transforms, transform)(),
        params0=None,
        ret_metric=True,
        num_threads=1,
    )
    return [found.affine, theta, value], f"verdict={registration.verdict.grade}"


def run_affine_function(make_pair, **options):
    """`deep_affine_registration`: resampled image, matrix, parameters and value."""
    from dipy_dl_reg import deep_affine_registration

    pair = images.drop_prealign(make_pair())
    given = {key.replace("_grid2world", "_affine"): v for key, v in pair.items()}
    options = {"ret_metric": True, "num_threads": 1, **CPU} | options
    return deep_affine_registration(**given, **options), ""


def register_files(make_pair, **options):
    """`deep_registration` from files: warped image and map."""
    from dipy_dl_reg import deep_registration

    pair = make_pair()
    with TemporaryDirectory() as folder:
        paths = {role: Path(folder) / f"{role}.nii.gz" for role in ("static", "moving")}
        for role, path in paths.items():
            nib.save(nib.Nifti1Image(pair[role], pair[f"{role}_grid2world"]), path)
        warped, mapping = deep_registration(
            **paths, progress=False, num_threads=1, **CPU, **options
        )
    return [warped, *map_arrays(mapping)], ""


def register_arrays(make_pair, **options):
    """`deep_registration` of arrays: warped image and map."""
    from dipy_dl_reg import deep_registration

    pair = make_pair()
    given = {key.replace("_grid2world", "_affine"): v for key, v in pair.items()}
    warped, mapping = deep_registration(
        **given, progress=False, num_threads=1, **CPU, **options
    )
    return [warped, *map_arrays(mapping)], ""


def register_dwi(data, **options):
    """`register_dwi_to_template`: the b0, and the map or matrix."""
    from dipy_dl_reg import register_dwi_to_template

    pair = images.brain_pair(data, 4.0)
    dwi, gradients = images.make_dwi_series(data)
    warped, found = register_dwi_to_template(
        dwi,
        gradients,
        dwi_affine=pair["moving_grid2world"],
        template=pair["static"],
        template_affine=pair["static_grid2world"],
        num_threads=1,
        **CPU,
        **options,
    )
    found = [found] if isinstance(found, np.ndarray) else map_arrays(found)
    return [warped, *found], ""


def register_landmarks(make_pair, **options):
    """`ThinPlateSplineRegistration`: map and distances.

    What is in double precision is compared in single precision: the least-squares fit
    of the affine part differs in its last bits from call to call.
    """
    registration, mapping = fit_thin_plate(make_pair(), **options)
    arrays = [*map_arrays(mapping), registration.distances]
    return [np.asarray(array, np.float32) for array in arrays], ""


def fit_thin_plate(pair, prealign=None, **options):
    """The spline through landmarks of a pair: the registration and its map."""
    from dipy_dl_reg import ThinPlateSplineRegistration

    registration = ThinPlateSplineRegistration(**CPU, **options)
    mapping = registration.optimize(
        *images.make_landmarks(pair),
        static_shape=pair["static"].shape,
        moving_shape=pair["moving"].shape,
        static_grid2world=pair["static_grid2world"],
        moving_grid2world=pair["moving_grid2world"],
        prealign=prealign,
        num_threads=1,
    )
    return registration, mapping


def apply_map(make_pair):
    """Images, labels and streamlines transformed by a map, and its verdict."""
    from dipy_dl_reg import apply_mapping, assess_mapping, transform_streamlines

    pair = make_pair()
    _, mapping = fit_thin_plate(pair, pair["prealign"])
    labels = (pair["moving"] > 0.3 * pair["moving"].max()).astype(np.int16)
    warped = [
        apply_mapping(mapping, pair["moving"]),
        apply_mapping(mapping, pair["moving"], interpolation="linear"),
        apply_mapping(mapping, labels),
        apply_mapping(mapping, pair["static"], inverse=True),
    ]
    lines = [np.linspace(p, p + 20, 9) for p in images.make_landmarks(pair)[0]]
    moved = [np.asarray(line) for line in transform_streamlines(mapping, lines)]
    verdict = assess_mapping(mapping, pair["static"], pair["moving"], num_threads=1)
    return [*warped, *moved], f"verdict={verdict.grade}"


def store_map(make_pair):
    """A map written and read in the package's own format and in DIPY's."""
    import dipy_dl_reg

    pair = make_pair()
    _, mapping = fit_thin_plate(pair, pair["prealign"])
    with TemporaryDirectory() as folder:
        own, dipys = Path(folder) / "map.npz", Path(folder) / "map.nii.gz"
        dipy_dl_reg.save_mapping(mapping, own)
        dipy_dl_reg.write_dipy_mapping(mapping, dipys)
        grids = (
            nib.Nifti1Image(pair[role], pair[f"{role}_grid2world"])
            for role in ("static", "moving")
        )
        read = dipy_dl_reg.read_dipy_mapping(dipys, *grids, prealign=mapping.prealign)
        loaded = dipy_dl_reg.load_mapping(own)
    return map_arrays(loaded) + map_arrays(read), ""


def train_on_arrays(network, **options):
    """The weights after a few steps of `fit` on 2D arrays, and after save and load."""
    from dipy_dl_reg import fit, load_network

    pictures, labels = images.make_blobs()
    if options.get("dice_weight"):
        options["labels"] = labels
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        options = {"steps": 3, "progress": False, "num_threads": 1, **CPU} | options
        fit(network, pictures, save=path, **options)
        weights = load_network(path).state_dict()
    return [weights[name].numpy() for name in sorted(weights)], ""


def resume_training():
    """The weights of a training that continues from its checkpoint."""
    from dipy_dl_reg import fit

    pictures, _ = images.make_blobs()
    options = {"progress": False, "num_threads": 1, "augment": None, **CPU}
    with TemporaryDirectory() as folder:
        options["checkpoint"] = Path(folder) / "checkpoint.npz"
        fit("unet", pictures, steps=2, **options)
        network = fit("unet", pictures, steps=4, resume=True, **options)
    weights = network.state_dict()
    return [weights[name].numpy() for name in sorted(weights)], ""


def train_on_brains(data):
    """The weights after training on NIfTI images of different grids."""
    from dipy_dl_reg import fit

    pair = images.brain_pair(data, 6.0)
    both = [
        nib.Nifti1Image(pair[role], pair[f"{role}_grid2world"])
        for role in ("static", "moving")
    ]
    options = {"steps": 2, "prealign": "affine", "spacing": 6.0, "num_threads": 1}
    network = fit("unet", both, progress=False, **CPU, **options)
    weights = network.state_dict()
    return [weights[name].numpy() for name in sorted(weights)], ""


def input_arrays(data):
    """The input images: they must be equal, or no other case can be compared."""
    pairs = [
        images.brain_pair(data, 4.0),
        *(images.contrast_pair(data, 4.0, kind) for kind in images.CONTRASTS),
        images.oblique_pair(data),
        images.slice_pair(data, 2.0),
    ]
    return [value for pair in pairs for value in pair.values()], ""


def cc_with_options():
    from dipy_dl_reg import CCMetric

    return CCMetric(3, radius=2, sigma_diff=0.7)


def dipy_cc():
    from dipy.align.metrics import CCMetric

    return CCMetric(3, radius=3)


def dipy_ssd_of_nonzero():
    """The metric compares only where both images are not 0."""
    from dipy.align.metrics import SSDMetric

    metric = SSDMetric(3)
    metric.mask0 = True
    return metric
