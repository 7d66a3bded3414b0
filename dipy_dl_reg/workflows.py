"""The command line, in DIPY's workflow way: `dipy_align_deep`, `dipy_apply_deep`.

A command's options are the signature and the docstring of its class's `run`. What
DIPY's workflows log and step over is an error here: an output that exists, two inputs
that give one output, an input that is no image. Each registration's files appear
together or not at all.

Whatever loads slowly is imported where it is used: `--help` answers at once.
"""

from importlib.metadata import version
from pathlib import Path
import sys
import warnings

from dipy.utils.logging import logger
from dipy.workflows.multi_io import IOIterator
from dipy.workflows.workflow import Workflow

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".pdf", ".svg", ".jpg")


class _Planned(IOIterator):
    """DIPY's rules for inputs and output names, without making folders yet."""

    def create_directories(self):
        """Make no folder: they come with the files."""


class _StrictWorkflow(Workflow):
    """A workflow that stops where DIPY's would go on."""

    def plan(self, inputs, out_dir, outputs, *, others=()):
        """Pair inputs with outputs by DIPY's rules, and check all before any work.

        Parameters
        ----------
        inputs : sequence
            For each input, a path, a pattern, or a list of them.
        out_dir : str or Path
            Folder of the outputs.
        outputs : dict
            File name of each output, by its parameter.
        others : sequence of str, Path or None, optional
            Further files that are read, and must not be written over.

        Returns
        -------
        rows : list of tuple
            For each run, the list of its inputs, and the dict of its outputs.

        Raises
        ------
        OSError
            If an input is missing, or an output exists or cannot be written.
        ValueError
            If inputs do not pair, or outputs collide.
        """
        if self._output_strategy not in ("absolute", "append", "prepend"):
            raise ValueError(
                "out_strat must be absolute, append or prepend, got "
                f"{self._output_strategy!r}"
            )
        planned = _Planned(
            output_strategy=self._output_strategy, mix_names=self._mix_names
        )
        planned.set_inputs(
            *([i] if isinstance(i, (str, Path)) else list(i) for i in inputs)
        )
        counts = {len(i) for i in planned.inputs}
        if len(counts - {1}) > 1:
            raise ValueError(
                "inputs must be as many on each side, or one on one side; got "
                + " and ".join(str(len(i)) for i in planned.inputs)
            )
        planned.set_out_dir(out_dir or ".")
        planned.set_out_fnames(*outputs.values())
        planned.create_outputs()
        self.flat_outputs = [path for row in planned.outputs for path in row]
        self.last_generated_outputs = dict(zip(outputs, self.flat_outputs))
        self._check_collisions([*planned.inputs, filter(None, others)])
        self.manage_output_overwrite()
        return [
            ([Path(i) for i in given], dict(zip(outputs, map(Path, made))))
            for *given, made in zip(*planned.inputs, planned.outputs)
        ]

    def _check_collisions(self, inputs):
        """Raise if a file would be written twice, or over an input."""
        made = [Path(path).resolve() for path in self.flat_outputs]
        twice = {path for path in made if made.count(path) > 1}
        if twice:
            raise ValueError(
                f"{len(made)} outputs share names ({sorted(twice)[0]}): add "
                "--mix_names, or give each its own --out_* name"
            )
        given = {Path(path).resolve() for paths in inputs for path in paths}
        for path in given.intersection(made):
            raise ValueError(f"{path} is an input, and would be overwritten")

    def manage_output_overwrite(self):
        """Raise unless every output can be written.

        Returns
        -------
        written : bool
            True.

        Raises
        ------
        FileExistsError
            If outputs exist and `--force` was not given.
        OSError
            If an output cannot be written.
        """
        from dipy_dl_reg.files import check_writable

        there = [str(path) for path in self.flat_outputs if Path(path).is_file()]
        if there and not self._force_overwrite:
            raise FileExistsError(
                f"{', '.join(there)} already there: add --force to overwrite"
            )
        for path in self.flat_outputs:
            check_writable(path, overwrite=self._force_overwrite)
        return True


class AlignDeepFlow(_StrictWorkflow):
    """`dipy_align_deep`: register files with `DeepRegistration`."""

    @classmethod
    def get_short_name(cls):
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "align_deep".
        """
        return "align_deep"

    def run(
        self,
        static_image_files,
        moving_image_files,
        prealign=None,
        affine=False,
        metric="cc",
        level_iters=None,
        model="auto",
        static_mask=None,
        moving_mask=None,
        device="auto",
        num_threads=None,
        report=False,
        out_dir="",
        out_warped="warped_moved.nii.gz",
        out_inv_static="warped_static.nii.gz",
        out_field="displacement_field.nii.gz",
        out_mapping="mapping.npz",
        out_prealign="prealign.txt",
        out_report="report.png",
    ):
        """Register images deformably.

        Writes moving on static's grid, static on moving's grid, and the map: as a
        whole, for dipy_apply_deep, and as DIPY's displacement field. Either all files
        are written, or none.

        Parameters
        ----------
        static_image_files : string or Path
            The image that stays: one 3D volume. Several (a pattern or a folder) pair
            with as many moving ones.
        moving_image_files : variable string or Path
            The image or images brought onto it. For several, add --mix_names, which
            gives each its own output names.
        prealign : string or Path, optional
            Text file of a 4x4 matrix from static world to moving world, as
            dipy_align_affine writes it.
        affine : boolean, optional
            Find the prealign first, by DIPY's affine registration (mutual
            information: centre of mass, translation, rigid, affine).
        metric : string, optional
            What makes images alike: cc (local correlation), ssd (squared difference),
            ncc (global correlation) or mi (mutual information, for unlike contrasts).
        level_iters : variable int, optional
            Steps at each level, the coarsest first.
        model : string, optional
            Network to begin with: a name, auto, or None for no network.
        static_mask : string or Path, optional
            Where static counts: an image on static's grid, above 0 inside.
        moving_mask : string or Path, optional
            Where moving counts: an image on moving's grid, above 0 inside.
        device : string, optional
            Where to compute: auto, cpu, cuda or mps.
        num_threads : int, optional
            Threads on the CPU; all if not given.
        report : boolean, optional
            Draw a picture too: before, after, warped grid, Jacobian.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_warped : string, optional
            Moving on static's grid.
        out_inv_static : string, optional
            Static on moving's grid, through the inverse.
        out_field : string, optional
            Both displacement fields in DIPY's format (without the prealign).
        out_mapping : string, optional
            The whole map.
        out_prealign : string, optional
            The prealign that was used; the identity if there was none.
        out_report : string, optional
            The picture, if --report is given.
        """
        from dipy_dl_reg.files import write_together
        from dipy_dl_reg.jobs import FilePair, check_pair, read_prealign
        from dipy_dl_reg.registration import DeepRegistration

        if prealign is not None and affine:
            raise ValueError("give either --prealign or --affine, not both")
        outputs = {
            "out_warped": _with_ending(out_warped, NIFTI, "out_warped"),
            "out_inv_static": _with_ending(out_inv_static, NIFTI, "out_inv_static"),
            "out_field": _with_ending(out_field, NIFTI, "out_field"),
            "out_mapping": _with_ending(out_mapping, (".npz",), "out_mapping"),
            "out_prealign": out_prealign,
        }
        if report:
            from dipy_dl_reg.picture import load_matplotlib

            load_matplotlib()
            outputs["out_report"] = _with_ending(out_report, PICTURES, "out_report")
        registration = DeepRegistration(
            metric, model=model, level_iters=level_iters, device=device
        )
        masks = {"static_mask": static_mask, "moving_mask": moving_mask}
        rows = self.plan(
            [static_image_files, moving_image_files],
            out_dir,
            outputs,
            others=[prealign, *masks.values()],
        )
        matrix = None if prealign is None else read_prealign(prealign)
        for (static, moving), _ in rows:
            check_pair(static, moving, masks)
        for (static, moving), files in rows:
            with write_together(files.values(), overwrite=self._force_overwrite) as new:
                pair = FilePair(static, moving, **masks)
                if affine:
                    matrix = pair.find_prealign()
                mapping = pair.register(registration, matrix, num_threads)
                pair.write(mapping, matrix, dict(zip(files, new)))
            for path in files.values():
                logger.info(f"Saved {path}")


class ApplyDeepFlow(_StrictWorkflow):
    """`dipy_apply_deep`: carry images through a map that was saved."""

    @classmethod
    def get_short_name(cls):
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "apply_deep".
        """
        return "apply_deep"

    def run(
        self,
        mapping_file,
        image_files,
        reference=None,
        interpolation="linear",
        inverse=False,
        prealign=None,
        out_dir="",
        out_file="transformed.nii.gz",
    ):
        """Carry images through the map of a registration.

        Any image in moving's world, on any grid: what else was measured of that
        subject, labels, and series, volume by volume. With --inverse, images of
        static's world.

        Parameters
        ----------
        mapping_file : string or Path
            The map: mapping.npz of dipy_align_deep, or a displacement field in DIPY's
            format.
        image_files : variable string or Path
            The image or images. For several, add --mix_names, which gives each its
            own output name.
        reference : string or Path, optional
            Image whose grid the output has; static by default, moving with --inverse.
        interpolation : string, optional
            linear, or nearest for labels, which keeps their type.
        inverse : boolean, optional
            From static to moving.
        prealign : string or Path, optional
            For a displacement field in DIPY's format, which does not hold it: the
            prealign of the registration, a text file.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_file : string, optional
            The image carried over.
        """
        from dipy_dl_reg.files import write_together
        from dipy_dl_reg.jobs import Carrier, check_carried, read_map

        if interpolation not in ("linear", "nearest"):
            raise ValueError(
                f"interpolation must be linear or nearest, got {interpolation}"
            )
        outputs = {"out_file": _with_ending(out_file, NIFTI, "out_file")}
        rows = self.plan(
            [mapping_file, image_files], out_dir, outputs, others=[reference, prealign]
        )
        carrier = Carrier(reference, inverse)
        maps = {
            path: read_map(path, prealign, carrier)
            for path in dict.fromkeys(given[0] for given, _ in rows)
        }
        for (_, image), _ in rows:
            check_carried(image)
        for (mapping, image), files in rows:
            with write_together(files.values(), overwrite=self._force_overwrite) as new:
                logger.info(f"Carrying {image} through {mapping}")
                carrier.write(maps[mapping], image, new[0], interpolation)
            logger.info(f"Saved {files['out_file']}")


def _with_ending(name, endings, parameter):
    """`name`, if it ends as its format must."""
    if not str(name).lower().endswith(endings):
        raise ValueError(f"{parameter} must end in {' or '.join(endings)}, got {name}")
    return name


# Console ----------------------------------------------------------------------------


def align_deep():
    """Run the command `dipy_align_deep`."""
    _run(AlignDeepFlow())


def apply_deep():
    """Run the command `dipy_apply_deep`."""
    _run(ApplyDeepFlow())


def _run(flow):
    """Run a workflow from the command line: one line for an error, and exit code 1."""
    from dipy.workflows.flow_runner import run_flow

    release = f"dipy_dl_reg {version('dipy_dl_reg')}"
    warnings.formatwarning = _one_line
    try:
        run_flow(
            flow, extra_args={"version": {"action": "version", "version": release}}
        )
    except KeyboardInterrupt:
        sys.exit(f"{Path(sys.argv[0]).name}: interrupted")
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        sys.exit(f"{Path(sys.argv[0]).name}: error: {text}")


def _one_line(message, category, filename, lineno, line=None):
    """A warning as a user of a command wants it."""
    return f"WARNING: {' '.join(str(message).split())}\n"
