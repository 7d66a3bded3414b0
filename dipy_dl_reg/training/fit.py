"""`fit`: trains a network on the user's own images, in files or arrays.

`fit` checks the headers of the images, resamples them to a grid in the standard form of
networks (`pairing`), and trains on pairs of them (`loop`).
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
import platform
from typing import TYPE_CHECKING, Any

from dipy.utils.logging import logger

from dipy_dl_reg.io.atomic_files import check_writable, write_all_or_none
from dipy_dl_reg.networks import NETWORKS, make_network
from dipy_dl_reg.networks.array_file import read_arrays
from dipy_dl_reg.networks.base import RegistrationNetwork
from dipy_dl_reg.networks.checkpoint import network_header, save_network
from dipy_dl_reg.options import fill_docstring, takes_options
from dipy_dl_reg.registration.devices import find_device, threads
from dipy_dl_reg.training.image_tensors import INTENSITY
from dipy_dl_reg.training.initial_network import load_initial_network
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.loop.distributed import Group, join
from dipy_dl_reg.training.loop.losses import TrainingLoss
from dipy_dl_reg.training.loop.train_network import check_files, train_network
from dipy_dl_reg.training.pairing import open_training_images, read_pairs
from dipy_dl_reg.training.prealigns import find_prealigns
from dipy_dl_reg.training.training_images import TrainingImages
from dipy_dl_reg.training.training_options import DataOptions, TrainingOptions
from dipy_dl_reg.training.training_set import Pairs

if TYPE_CHECKING:
    import torch

_LICENCE = "that of the training images, which was not stated"


@takes_options(DataOptions, "data")
@takes_options(TrainingOptions, "training")
@fill_docstring(networks=NETWORKS)
def fit(
    network: RegistrationNetwork | str | None,
    images: Any,
    *,
    init: str | Path | None = None,
    network_arguments: dict[str, Any] | None = None,
    save: str | Path | None = None,
    overwrite: bool = False,
    licence: str = _LICENCE,
    device: torch.device | str = "auto",
    num_threads: int | None = None,
    training: TrainingOptions,
    data: DataOptions,
) -> RegistrationNetwork:
    r"""Train a network on images, in files or in memory.

    Images on different grids are resampled to a common grid, through their affines and
    the prealign, by one linear interpolation.  This grid is isotropic, and its axes are
    along those of the world, as when the network is applied.  Intensities are scaled so
    that the quantiles .001 and .999 become 0 and 1; NaN (missing data) becomes 0.

    Parameters
    ----------
    network : RegistrationNetwork, str or None
        The network, which is trained in place; or the name of a new network:
        {networks}; None is the type of `init`.
    images : str, Path, or sequence
        A folder, of which all NIfTI files are used; a list of files, nibabel images or
        arrays, all 2D or all 3D; or a list of one or more pairs (static, moving) of
        these.  Arrays have no affine and must be on the same grid.
    init : str or Path, optional
        Trained network whose weights a new network begins with: the name of one that
        comes with the package (`list_models`), such as "pyramid-brain", or a file.
        Its type, arguments, dimension and voxel size must be those of the new network.
        By default the weights are random.
    network_arguments : dict, optional
        Arguments of a new network's class, see `make_network`.
    save : str or Path, optional
        File to which the trained network and its card are written.
    overwrite : bool, optional
        Replace this file; a training that is resumed always replaces it.
    licence : str, optional
        Licence of the trained network, to be written into the file.
    device : str or torch.device, optional
        ``"auto"`` is CUDA if available, else MPS if it works, else the CPU.
    num_threads : int, optional
        Threads on the CPU; None uses Torch's default, -1 all processors.
    training : TrainingOptions
        Options of the loss and of the loop.
    data : DataOptions
        Options of the images.

    Returns
    -------
    network : RegistrationNetwork
        The trained network; ``network.history`` holds the steps and losses, and
        ``network.card`` the recipe.

    Raises
    ------
    FileNotFoundError, FileExistsError
        If a file or folder is missing, or `save` exists.
    ValueError
        If images or options cannot be used, before any training.
    TimeoutError
        If `time_limit`, which counts from the call, is reached before the first step.

    See Also
    --------
    DeepRegistration : uses the network (`model`).
    make_network : a new network, with its options.
    save_network, load_network : files of networks.

    Notes
    -----
    With the pair of images :math:`s, m` and the field :math:`u` that the network
    predicts, the weights of the network minimize the mean over the pairs of

    .. math:: D(s, m \circ (id + u)) + w\, R(u) + w_d\, \big(1 - \mathrm{Dice}\big)

    with the metric :math:`D`, the `regularizer` :math:`R` of `weight` :math:`w`, and
    the overlap of the labels, if they are given, of `dice_weight` :math:`w_d`.

    References
    ----------
    .. footbibliography::

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
    limit = TimeLimit(training.time_limit)
    _check_before_reading(training, data)
    device = find_device(device)
    if init is not None:
        network = load_initial_network(init, network, network_arguments, data.spacing)
        network_arguments = None
    elif network is None:
        raise ValueError("network may be None only if init is given")
    overwrite = overwrite or training.is_resumed
    if save is not None:
        check_writable(save, overwrite=overwrite)
    wanted = _choose_spacing(network, data.spacing)
    opened = open_training_images(
        images, seed=training.seed, data=replace(data, spacing=wanted)
    )
    _check_images(opened, training)
    network = _prepare_network(
        network, opened, data.spacing, network_arguments, training.seed
    )
    if save is not None:
        network_header(network)  # raises for a class of the user, which cannot be saved
    card = _describe(network, opened, training, licence)
    group = join(device)
    with threads(num_threads):
        pairs, validation = _read(opened, training, group, limit)
        if limit.exceeded():
            limit.stop("the first step")
        if limit.seconds is not None:
            training = replace(training, time_limit=limit.left())
        if group.leads:
            logger.info(f"Training {network.name}: {training.steps} steps on {device}")
        network.history = train_network(
            network, pairs, validation=validation, device=device, card=card,
            options=training,
        )  # fmt: skip
    if save is not None and group.leads:
        with write_all_or_none([save], overwrite=overwrite) as (temporary,):
            save_network(temporary, network, overwrite=True)
    return network


def _check_before_reading(training: TrainingOptions, data: DataOptions) -> None:
    """Check options before the images are read."""
    training.check_validation(data.validation is not None)
    TrainingLoss.from_options(training)
    check_files(training)


def _read(
    images: TrainingImages, training: TrainingOptions, group: Group, limit: TimeLimit
) -> tuple[Pairs, Pairs | None]:
    """Read the pairs for training and validation, after affine registrations."""
    path = training.checkpoint and Path(training.checkpoint)
    images = find_prealigns(
        images,
        group=group,
        path=path.with_suffix(".prealign.json") if path else None,
        reuse=training.is_resumed,
        limit=limit,
    )
    return read_pairs(images, limit)


def _choose_spacing(
    network: RegistrationNetwork | str, spacing: float | None
) -> float | None:
    """Return the voxel size of the network or, without one, the given voxel size."""
    own = getattr(network, "spacing", None)
    if own is not None and spacing not in (None, own):
        raise ValueError(f"spacing is {spacing!r}, but the network's is {own} mm")
    return spacing if own is None else own


def _check_images(images: TrainingImages, training: TrainingOptions) -> None:
    """Check that the images have what the options require."""
    if training.dice_weight and not images.has_labels:
        raise ValueError("dice_weight is above 0, but there are no labels")
    shapes = images.grids()
    if len(shapes) > 1 and training.batch_size > 1:
        raise ValueError(
            f"a batch_size above 1 requires images on one grid, got {shapes}: give a "
            "reference"
        )


def _prepare_network(
    network: RegistrationNetwork | str,
    images: TrainingImages,
    spacing: float | None,
    arguments: dict[str, Any] | None,
    seed: int,
) -> RegistrationNetwork:
    """Check the network; make a new one if its name was given."""
    if isinstance(network, RegistrationNetwork):
        if arguments is not None:
            raise ValueError("network_arguments require a network given by its name")
        if network.dim != images.dim:
            raise ValueError(
                f"network is for {network.dim}D images, but images are {images.dim}D"
            )
        if images.has_affine:
            # Without a voxel size it would be applied to voxels of any size.
            network.spacing = network.arguments["spacing"] = images.spacing
        return network
    arguments = dict(arguments or {})
    for name in {"dim", "spacing", "seed"} & arguments.keys():
        raise ValueError(f"network_arguments must not contain {name}: it is known")
    # Arrays have no unit of length; their network is applied to voxels of any size.
    size = images.spacing if images.has_affine else spacing
    return make_network(network, images.dim, spacing=size, seed=seed, **arguments)


def _card_before(
    network: RegistrationNetwork, training: TrainingOptions
) -> dict[str, Any] | None:
    """Return the card of the network before its training first began."""
    if not training.is_resumed or training.checkpoint is None:
        return getattr(network, "card", None)
    header, _ = read_arrays(training.checkpoint)
    recipe = header["card"]["recipe"]
    return recipe.get("before") if isinstance(recipe, dict) else None


def _describe(
    network: RegistrationNetwork,
    images: TrainingImages,
    training: TrainingOptions,
    licence: str,
) -> dict[str, Any]:
    """Make the card of the network, without names of files."""
    packages = ("dipy_dl_reg", "torch", "dipy")
    versions = {name: version(name) for name in packages}
    recipe = {
        **images.summary(),
        **training.recipe(),
        "versions": {"python": platform.python_version(), **versions},
    }
    before = _card_before(network, training)
    if before is not None:
        recipe["before"] = before
    return {
        "recipe": recipe,
        "licence": licence,
        "preprocessing": {
            "intensity": INTENSITY,
            "grid": "axes along the world's, isotropic",
            "spacing": images.spacing if images.has_affine else None,
        },
    }
