"""Training a network on a user's own images: files and arrays in, a network out.

Start reading at `fit`: images are found and their headers checked (`cohort`), brought
onto a grid of the form in which networks are applied (`scan`), paired (`training.data`)
and trained on (`training.fit`).
"""

from importlib.metadata import version
from inspect import signature
from pathlib import Path
import platform

from dipy.utils.logging import logger

from dipy_dl_reg.io.atomic_files import check_writable, write_all_or_none
from dipy_dl_reg.networks import make_network
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import network_header, read_arrays, save_network
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.loop.distributed import join
from dipy_dl_reg.training.loop.fit import check_options
from dipy_dl_reg.training.loop.fit import fit as train
from dipy_dl_reg.training.pairing import Cohort
from dipy_dl_reg.training.training_set import INTENSITY

_LICENCE = "that of the training images, which was not stated"
#: Arguments of the training that are made here.
_OURS = {"network", "pairs", "validation", "device", "card"}
#: Arguments that say where it ran and wrote, and not what it did.
_NO_MATTER = {"checkpoint", "checkpoint_every", "resume", "log", "progress", "workers"}


def fit(
    network,
    images,
    *,
    steps,
    atlas=None,
    labels=None,
    atlas_labels=None,
    reference=None,
    prealign=None,
    spacing=None,
    validation=None,
    validation_labels=None,
    network_arguments=None,
    save=None,
    overwrite=False,
    licence=_LICENCE,
    seed=0,
    device="auto",
    num_threads=None,
    **options,
):
    """Train a network on images, in files or in memory.

    Images on different grids are brought onto one, through their affines and the
    prealign, by one linear interpolation; it is isotropic, its axes along the world's,
    as it is when the network is applied.  Intensities are scaled so that the quantiles
    .001 and .999 become 0 and 1; NaN, missing data, becomes 0.

    Parameters
    ----------
    network : RegistrationNetwork or str
        What is trained, in place; or the name of a new one: "dirnet", "pyramid",
        "selfsup-fcn", "unet" or "voxelmorph".
    images : str, Path, or sequence
        A folder, of which all NIfTI files are taken; a list of files, nibabel images
        or arrays, all 2D or all 3D; or a list of pairs (static, moving) of these, of
        which one is enough.  Arrays have no affine and are on one grid already.
    steps : int
        Steps of training.
    atlas : str, Path, nibabel image or array, optional
        The static image of every pair.  By default images are paired with each other.
    labels : str, Path, or sequence, optional
        Label maps, for ``dice_weight`` above 0: a list as `images` is; or a folder
        with a file for each image, of its name or of that and ``_labels``, ``_label``,
        ``_seg`` or ``_dseg``.
    atlas_labels : str, Path, nibabel image or array, optional
        Label map of the atlas; goes with `labels`.
    reference : str, Path, nibabel image or array, optional
        Image whose field of view the common grid has.  By default the atlas, else the
        first image; of a list of pairs each has its own, that of its static image.
    prealign : {None, "affine"} or sequence of array, shape (dim+1, dim+1), optional
        None takes world coordinates as they are; "affine" registers each image to
        the reference first (of a pair, moving to static; to an atlas, which
        itself is registered to a `reference`); or a matrix for each image, the
        validation's last: reference world (static's) to its world.  What is found is
        kept beside the checkpoint, ``NAME.prealign.json``, for a training that goes on.
    spacing : float, optional
        Voxel size, mm.  By default the network's, else the finest of the reference;
        a network without one takes it on, unless the images are arrays.
    validation : float or as `images`, optional
        Part of the images (or pairs) that is held out, chosen by `seed`; or others.
        The network ends with the weights that did best on it.
    validation_labels : as `labels`, optional
        Goes with `labels` where validation images are given.
    network_arguments : dict, optional
        Of a new network's class, see `make_network`.
    save : str or Path, optional
        Where to write the trained network, with what is known about it.
    overwrite : bool, optional
        Replace that file; so does a training that goes on from its checkpoint.
    licence : str, optional
        Under which the trained network may be used, to be written into the file.
    seed : int, optional
        Of all that is random: a new network's weights, the choice of pairs.
    device : str or torch.device, optional
        ``"auto"`` is CUDA, else MPS where it works, else the CPU.
    num_threads : int, optional
        Threads on the CPU; None is Torch's own choice, -1 all processors.
    **options : dict
        Of `dipy_dl_reg.training.loop.fit.fit`: ``batch_size``,
        ``metric``, ``regularizer``,
        ``weight``, ``dice_weight``, ``learning_rate``, ``augment``, ``patience``,
        ``checkpoint``, ``resume``, ``time_limit``, ``log`` ...

    Returns
    -------
    network : RegistrationNetwork
        The trained one; ``network.history`` says how the training went, and
        ``network.card`` what it was.

    Raises
    ------
    FileNotFoundError, FileExistsError
        If a file or folder is missing, or `save` exists.
    ValueError
        If images or options are unfit, before any training.
    TimeoutError
        If `time_limit`, which counts from the call, is reached before the first step.

    Examples
    --------
    >>> import numpy as np
    >>> from dipy_dl_reg import fit
    >>> x, y = np.mgrid[-1:1:16j, -1:1:16j]
    >>> images = [np.exp(-8 * (x**2 + (1 + s) * y**2)) for s in (0, 0.5, 1)]
    >>> network = fit("unet", images, steps=2, metric="SSD", device="cpu")
    >>> network.history.steps
    2
    """
    limit = TimeLimit(options.get("time_limit"))
    settings = _settings(steps=steps, seed=seed, **options)
    check_options({**settings, "validation": validation})
    device = find_device(device)
    going_on = _goes_on(settings)
    overwrite = overwrite or going_on
    if save is not None:
        check_writable(save, overwrite=overwrite)
    cohort = Cohort(
        images,
        labels=labels,
        atlas=atlas,
        atlas_labels=atlas_labels,
        reference=reference,
        prealign=prealign,
        spacing=_spacing(network, spacing),
        validation=validation,
        validation_labels=validation_labels,
        seed=seed,
        limit=limit,
    )
    _check_fit(cohort, settings)
    network = _made(network, cohort, spacing, network_arguments, seed)
    if save is not None:
        network_header(network)  # a class of the user's own cannot be saved
    card = _card(network, cohort, settings, licence)
    group, checkpoint = join(device), settings["checkpoint"]
    with threads(num_threads):
        beside = checkpoint and Path(checkpoint).with_suffix(".prealign.json")
        cohort.find_prealigns(group, beside, reuse=going_on)
        pairs, validation = cohort.read()
        if limit.exceeded():
            limit.stop("the first step")
        if limit.seconds is not None:
            options["time_limit"] = limit.left()
        if group.leads:
            logger.info(f"Training {network.name}: {steps} steps on {device}")
        network.history = train(
            network,
            pairs,
            steps=steps,
            seed=seed,
            validation=validation,
            device=device,
            card=card,
            **options,
        )
    if save is not None and group.leads:
        with write_all_or_none([save], overwrite=overwrite) as (new,):
            save_network(new, network, overwrite=True)
    return network


def _settings(**options):
    """All arguments of the training, or an error for what is none."""
    parameters = signature(train).parameters.items()
    defaults = {name: p.default for name, p in parameters if name not in _OURS}
    for name in options.keys() - defaults.keys():
        raise TypeError(f"fit has no option {name!r}; there are {sorted(defaults)}")
    return {**defaults, **options}


def _goes_on(settings):
    """Whether a training is resumed."""
    checkpoint = settings["checkpoint"]
    return settings["resume"] and checkpoint is not None and Path(checkpoint).exists()


def _spacing(network, spacing):
    """The voxel size asked for, by the network or else by the user."""
    own = getattr(network, "spacing", None)
    if own is not None and spacing not in (None, own):
        raise ValueError(f"spacing is {spacing!r}, and the network's is {own} mm")
    return spacing if own is None else own


def _check_fit(cohort, settings):
    """Raise if the images are not what the training's options ask for."""
    if settings["dice_weight"] and not cohort.labelled:
        raise ValueError("dice_weight is above 0 and there are no labels")
    shapes = cohort.grids()
    if len(shapes) > 1 and settings["batch_size"] > 1:
        raise ValueError(
            f"a batch_size above 1 needs images on one grid, got {shapes}: give a "
            "reference"
        )


def _made(network, cohort, spacing, arguments, seed):
    """The network, made now if it was named."""
    if isinstance(network, RegistrationNetwork):
        if arguments is not None:
            raise ValueError("network_arguments are for a network given by its name")
        if network.dim != cohort.dim:
            raise ValueError(
                f"network is for {network.dim}D images, these are {cohort.dim}D"
            )
        if cohort.placed:
            # Without a size of its own it would be applied to voxels of any size.
            network.spacing = network.arguments["spacing"] = cohort.spacing
        return network
    arguments = dict(arguments or {})
    for name in {"dim", "spacing", "seed"} & arguments.keys():
        raise ValueError(f"network_arguments must not hold {name}, which is known")
    # Arrays have no mm: their network takes images as they are.
    size = cohort.spacing if cohort.placed else spacing
    return make_network(network, cohort.dim, spacing=size, seed=seed, **arguments)


def _card_before(network, settings):
    """What was known about the network when the training first began."""
    if not _goes_on(settings):
        return getattr(network, "card", None)
    header, _ = read_arrays(settings["checkpoint"])
    recipe = header["card"]["recipe"]
    return recipe.get("before") if isinstance(recipe, dict) else None


def _card(network, cohort, settings, licence):
    """What is known about the network, without names of files."""
    recipe = {
        **cohort.summary(),
        **{k: _plain(v) for k, v in settings.items() if k not in _NO_MATTER},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("dipy_dl_reg", "torch", "dipy")},
        },
    }
    before = _card_before(network, settings)
    if before is not None:
        recipe["before"] = before
    return {
        "recipe": recipe,
        "licence": licence,
        "preprocessing": {
            "intensity": INTENSITY,
            "grid": "axes along the world's, isotropic",
            "spacing": cohort.spacing if cohort.placed else None,
        },
    }


def _plain(value):
    """What JSON holds, of an option."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", repr(value))
