"""The command `dipy_train_deep`: a network from a folder of images.

As in `workflows`, the options are the signature and the docstring of `run`, and
whatever loads slowly is imported where it is used.
"""

from ast import literal_eval
from contextlib import suppress
from glob import glob
from pathlib import Path
from time import monotonic

from dipy_dl_reg.workflows.base import (
    StrictWorkflow,
    check_suffix,
    log_result,
    run_command,
)


class TrainDeepFlow(StrictWorkflow):
    """`dipy_train_deep`: train a network on image files with `fit`."""

    @classmethod
    def get_short_name(cls):
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "train_deep".
        """
        return "train_deep"

    def run(
        self,
        image_files,
        network="voxelmorph",
        variant=None,
        output=None,
        network_arguments=None,
        labels=None,
        atlas=None,
        atlas_labels=None,
        reference=None,
        affine=False,
        spacing=None,
        validation=None,
        validation_labels=None,
        steps=10000,
        batch_size=1,
        metric="ncc",
        regularizer="diffusion",
        weight=None,
        dice_weight=None,
        learning_rate=1e-4,
        schedule=None,
        augment=False,
        patience=None,
        checkpoint=None,
        checkpoint_every=500,
        resume=False,
        time_limit=None,
        log=None,
        licence=None,
        seed=0,
        device="auto",
        num_threads=None,
        out_dir="",
        out_model="model.npz",
    ):
        """Train a network on images of your own.

        The images are brought onto one grid and paired: with each other, or with an
        atlas. The network learns to bring the second of a pair onto the first. It is
        then used by dipy_align_deep --model model.npz, if it is one for volumes; one
        for slices is used from Python, by DeepRegistration(model="model.npz").

        Parameters
        ----------
        image_files : variable string or Path
            A folder of NIfTI files, or the files, or patterns: all 3D, or all 2D.
        network : string, optional
            What is trained: dirnet, pyramid, selfsup-fcn, unet or voxelmorph; or a file
            that this command wrote, to go on from.
        variant : string, optional
            Size of a new voxelmorph: vm1 or vm2, which is the larger.
        output : string, optional
            What a new network predicts: velocity, whose flow is invertible, or
            displacement. By default velocity for voxelmorph and pyramid, displacement
            for the others.
        network_arguments : variable string, optional
            More of a new network: features=8,16,32 (pyramid, selfsup-fcn, unet),
            repeats=1 or width=32 (pyramid), grid_spacing=8 or bounded=true (dirnet),
            half_resolution=true (voxelmorph).
        labels : variable string, optional
            Label maps, for --dice_weight: a folder with a file for each image, of its
            name or of that and _labels, _label, _seg or _dseg; or as many files.
        atlas : string or Path, optional
            The first image of every pair.
        atlas_labels : string or Path, optional
            Its label map.
        reference : string or Path, optional
            Image whose field of view is taken; by default the atlas, else the first.
        affine : boolean, optional
            Register each image to the reference first by an affine, with a search over
            rotations.
        spacing : float, optional
            Voxel size in mm; by default the finest of the reference.
        validation : variable string, optional
            Part of the images that is held out, such as 0.2; or a folder or files of
            others. The weights that do best on it are kept.
        validation_labels : variable string, optional
            Label maps of those others.
        steps : int, optional
            Steps of training.
        batch_size : int, optional
            Pairs in each step.
        metric : string, optional
            What makes images alike: cc (local correlation), ssd (squared difference),
            ncc (global correlation), mi (mutual information), cr (correlation ratio),
            mind (self-similarity); or None, for the labels alone.
        regularizer : string, optional
            Penalty on the field: diffusion, bending, tv, or None.
        weight : float, optional
            Of that penalty; 0.1 if not given.
        dice_weight : float, optional
            Of the overlap of the labels; 1 if labels are given.
        learning_rate : float, optional
            Of Adam.
        schedule : string, optional
            cosine lets the learning rate go down to 0; by default it stays.
        augment : boolean, optional
            Change images at random: place, contrast, bias field, noise.
        patience : int, optional
            Validations (one every 100 steps) without a better one, after which to
            stop.
        checkpoint : string or Path, optional
            File for the state of the training, to --resume from.
        checkpoint_every : int, optional
            Steps between writing it; it is also written at the end, and if the
            training is interrupted (Ctrl-C).
        resume : boolean, optional
            Go on from the checkpoint, if there is one. Then out_model is replaced.
        time_limit : float, optional
            Seconds after which to stop, the time for reading and --affine included; the
            current step is finished. out_model is written if a step was done.
        log : string or Path, optional
            A .csv file for the losses, or a folder for TensorBoard.
        licence : string, optional
            Of the trained network, to be written into its file.
        seed : int, optional
            Of all that is random.
        device : string, optional
            Where to compute: auto, cpu, cuda or mps.
        num_threads : int, optional
            Threads on the CPU; all if not given.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_model : string, optional
            The trained network.
        """
        began = monotonic()
        from dipy_dl_reg.training.fit import fit

        if time_limit is not None and time_limit > 0:  # loading took some of it
            time_limit = max(1e-3, time_limit - (monotonic() - began))
        out_model = check_suffix(out_model, (".npz",), "out_model")
        if resume and checkpoint is not None and Path(checkpoint).exists():
            self._force_overwrite = True  # what the training wrote before
        path = self.plan_one(out_dir, "out_model", out_model, [network, checkpoint])
        images = _files_or_part(image_files, "image_files")
        options = _loss_options(metric, regularizer, weight, dice_weight, labels)
        if licence is not None:
            options["licence"] = licence
        if augment:
            from dipy_dl_reg.training.examples.augmentation import Augment

            options["augment"] = Augment()
        fit(
            _start_network(network),
            images,
            network_arguments=_network_arguments(variant, output, network_arguments),
            steps=steps,
            atlas=atlas,
            labels=_files_or_part(labels, "labels"),
            atlas_labels=atlas_labels,
            reference=reference,
            prealign="affine" if affine else None,
            spacing=spacing,
            validation=_files_or_part(validation, "validation", part=True),
            validation_labels=_files_or_part(validation_labels, "validation_labels"),
            save=path,
            overwrite=self._force_overwrite,
            seed=seed,
            device=device,
            num_threads=num_threads,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule=schedule and schedule.lower(),
            patience=patience,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
            time_limit=time_limit,
            log=log,
            **options,
        )
        log_result(f"Saved {path}")


def _files_or_part(given, name, *, part=False):
    """What a command was given as a folder, files, patterns, or a number."""
    if given is None:
        return None
    given = [given] if isinstance(given, (str, Path)) else list(given)
    if len(given) == 1 and Path(given[0]).is_dir():
        return Path(given[0])
    if part and len(given) == 1:
        with suppress(ValueError):
            return float(given[0])
    found = []
    for path in map(str, given):
        matching = [path] if Path(path).exists() else sorted(glob(path))
        if not matching:
            raise FileNotFoundError(f"{name}: no such file or folder: {path}")
        found += map(Path, matching)
    return found


def _start_network(network):
    """The network of a file, or the name of a new one."""
    if not str(network).endswith(".npz"):
        return network
    from dipy_dl_reg.networks.checkpoint import load_network

    return load_network(network)


def _network_arguments(variant, output, more):
    """Arguments of a new network, from words such as ``features=8,16``; or None."""
    arguments = {"variant": variant, "output": output}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    for word in more or []:
        name, equals, text = word.partition("=")
        if not equals or name in arguments:
            raise ValueError(
                f"network_arguments must be NAME=VALUE, each once, got {word}"
            )
        arguments[name] = _value(text)
    return arguments or None


def _value(text):
    """A number, several with commas between, true, false, none, or the text itself."""
    if text.lower() in ("true", "false", "none"):
        text = text.title()
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _loss_options(metric, regularizer, weight, dice_weight, labels):
    """Options of the loss; what is not given stays `fit`'s own, but labels count."""
    if dice_weight is None:
        dice_weight = 0.0 if labels is None else 1.0
    options = {
        "metric": metric and metric.upper(),
        "regularizer": regularizer and regularizer.lower(),
        "dice_weight": dice_weight,
    }
    return options if weight is None else {**options, "weight": weight}


def train_deep():
    """Run the command `dipy_train_deep`."""
    run_command(TrainDeepFlow())
