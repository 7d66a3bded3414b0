"""The command line, in DIPY's workflow way.

`dipy_align_deep` registers, `dipy_apply_deep` carries images through the result
(`dipy_train_deep` is in `train_workflow`).

A command's options are the signature and the docstring of its class's `run`. What
DIPY's workflows log and step over is an error here: an output that exists, two inputs
that give one output, an input that is no image. Each registration's files appear
together or not at all.

Whatever loads slowly is imported where it is used: `--help` answers at once.
"""

from dipy.utils.logging import logger

from dipy_dl_reg.workflows.base import (
    StrictWorkflow,
    log_result,
    run_command,
    with_ending,
)

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".pdf", ".svg", ".jpg")


class AlignDeepFlow(StrictWorkflow):
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
        pipeline=None,
        metric="auto",
        level_iters=None,
        model="auto",
        static_mask=None,
        moving_mask=None,
        static_landmarks=None,
        moving_landmarks=None,
        landmark_weight=1.0,
        initialization=None,
        device="auto",
        max_memory=None,
        num_threads=None,
        report=False,
        skip_existing=False,
        out_dir="",
        out_warped="warped_moved.nii.gz",
        out_inv_static=None,
        out_field=None,
        out_mapping="mapping.npz",
        out_prealign="prealign.txt",
        out_report="report.png",
    ):
        """Register images deformably.

        Two volumes, or two slices in 2D: files of shape (X, Y) or (X, Y, 1). Static is
        given first. Writes moving on static's grid, the map, which dipy_apply_deep
        reads, and the prealign; on request static on moving's grid, DIPY's displacement
        field, and a picture. Either all files of a pair are written, or none.

        Parameters
        ----------
        static_image_files : string or Path
            The image that stays: one 3D volume, or one slice. Several (a pattern or a
            folder) pair with as many moving ones.
        moving_image_files : variable string or Path
            The image or images brought onto it. For several, add --mix_names, which
            gives each its own output names.
        prealign : string or Path, optional
            Text file of a 4x4 matrix (3x3 for slices) from static world to moving
            world, as dipy_align_affine writes it; where a pipeline begins.
        affine : boolean, optional
            Find the prealign first, by mutual information: centre of mass with a search
            over rotations, translation, rigid, affine.
        pipeline : variable string, optional
            Steps, in order: some of center_of_mass, translation, rigid,
            rigid_isoscaling, rigid_scaling and affine, then deform. Without the last
            the map holds no displacement. deform alone if not given, with --affine
            what that says and deform.
        metric : string, optional
            What makes images alike: auto (chosen for the pair), cc (local correlation),
            ssd (squared difference), ncc (global correlation), or for unlike contrasts
            mind (self-similarity), mi (mutual information) or cr (correlation ratio).
        level_iters : variable int, optional
            Iterations at each level, the coarsest first. 0 writes the network's field
            unrefined, and is an error where that field is not used.
        model : string, optional
            Network to begin with: the file that dipy_train_deep wrote, the name of one
            that comes with the package (such as voxelmorph-t1), or None. auto is the
            one for images of any contrast that comes with it.
        static_mask : string or Path, optional
            Where static counts: an image on static's grid, above 0 inside.
        moving_mask : string or Path, optional
            Where moving counts: an image on moving's grid, above 0 inside.
        static_landmarks : string or Path, optional
            Text file (such as CSV) of points in static that are known in moving too,
            one a line: x, y, z in mm in the image's world (RAS for NIfTI). At least 4,
            not in one plane. Registration starts from them. Of slices the two
            coordinates in the plane, at least 3 points, not on one line.
        moving_landmarks : string or Path, optional
            The same places in moving's world, line by line.
        landmark_weight : float, optional
            How firmly landmarks are held: 1 does, less lets the images decide, at 0
            they are a start alone.
        initialization : string, optional
            discrete searches for large displacements first; auto keeps what it finds
            only where that clearly helps.
        device : string, optional
            Where to compute: auto, cpu, cuda or mps.
        max_memory : string, optional
            Memory that refinement may take, such as 1.5GB; what is free if not given.
        num_threads : int, optional
            Threads on the CPU; all if not given.
        report : boolean, optional
            Draw a picture too: before, after, warped grid, Jacobian.
        skip_existing : boolean, optional
            Skip pairs whose outputs all exist. A pair of which only some exist is an
            error, unless --force is given.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_warped : string, optional
            Moving on static's grid: the registered image.
        out_inv_static : string, optional
            Static on moving's grid, through the inverse; written only if a name is
            given. dipy_apply_deep --inverse makes the same from the map.
        out_field : string, optional
            Both displacement fields in DIPY's format, for programs that read it; a
            large file, of volumes only, written only if a name is given. It lacks the
            prealign: a program needs out_prealign, too.
        out_mapping : string, optional
            The whole map, prealign included, for dipy_apply_deep and load_mapping.
        out_prealign : string, optional
            The prealign that was used, as text, from static world to moving world; the
            identity if there was none.
        out_report : string, optional
            The picture, if --report is given.
        """
        from dipy_dl_reg.io.atomic_files import write_all_or_none
        from dipy_dl_reg.io.landmark_files import read_landmark_pair
        from dipy_dl_reg.registration.affine_steps import AFFINE_STEPS
        from dipy_dl_reg.registration.deformable import DeepRegistration
        from dipy_dl_reg.registration.pipeline import (
            disable_deformation,
            split_pipeline,
        )
        from dipy_dl_reg.workflows.jobs import (
            DIAGNOSE,
            FilePair,
            check_pair,
            read_prealign,
        )

        for name, other in (("prealign", prealign), ("pipeline", pipeline)):
            if affine and other:
                raise ValueError(f"give either --affine or --{name}, not both")
        steps, deforms = split_pipeline(pipeline)
        if affine:
            steps = list(AFFINE_STEPS)
        if prealign and "center_of_mass" in steps:
            raise ValueError("give either --prealign or center_of_mass, not both")
        outputs = {
            "out_warped": with_ending(out_warped, NIFTI, "out_warped"),
            "out_mapping": with_ending(out_mapping, (".npz",), "out_mapping"),
            "out_prealign": out_prealign,
        }
        large = {"out_inv_static": out_inv_static, "out_field": out_field}
        for name, file in large.items():
            if file is not None:
                outputs[name] = with_ending(file, NIFTI, name)
        if report:
            from dipy_dl_reg.maps.figure import load_matplotlib

            load_matplotlib()
            outputs["out_report"] = with_ending(out_report, PICTURES, "out_report")
        options = {
            "model": model,
            "level_iters": level_iters,
            "initialization": initialization,
        }
        guided = static_landmarks is not None or moving_landmarks is not None
        if guided:
            points = read_landmark_pair(static_landmarks, moving_landmarks)
            options |= {"landmarks": points, "landmark_weight": landmark_weight}
        options = options if deforms else disable_deformation(options)
        registration = DeepRegistration(
            metric, device=device, max_memory=max_memory, **options
        )
        masks = {"static_mask": static_mask, "moving_mask": moving_mask}
        rows = self.plan(
            [static_image_files, moving_image_files],
            out_dir,
            outputs,
            others=[prealign, *masks.values(), static_landmarks, moving_landmarks],
            skip_existing=skip_existing,
        )
        if guided and len(rows) > 1:
            raise ValueError(
                f"static_landmarks and moving_landmarks are of one pair of images, got "
                f"{len(rows)} pairs"
            )
        dims = {check_pair(static, moving, masks) for (static, moving), _ in rows}
        if guided and dims - {points[0].shape[1]}:
            raise ValueError(
                f"static_landmarks and moving_landmarks have {points[0].shape[1]} "
                f"coordinates, and the images are {max(dims)}D"
            )
        if 2 in dims and out_field is not None:
            raise ValueError("out_field: DIPY's format holds 3D maps only, not slices")
        starts = {
            dim: None if prealign is None else read_prealign(prealign, dim)
            for dim in dims
        }
        if self.log_options.quiet:
            registration.progress = False
        if self.log_options.verbose:
            registration.verbosity = DIAGNOSE
        for (static, moving), files in rows:
            with write_all_or_none(
                files.values(), overwrite=self._force_overwrite
            ) as new:
                pair = FilePair(static, moving, **masks)
                matrix = starts[pair.dim]
                if steps:
                    matrix = pair.find_prealign(steps, matrix, num_threads)
                mapping = pair.register(registration, matrix, num_threads)
                places = zip(files.values(), new)
                pair.write(mapping, matrix, dict(zip(files, places)))
            folders = dict.fromkeys(str(path.parent) for path in files.values())
            log_result(
                f"{pair.result}; saved in {', '.join(folders)}; verdict: {pair.verdict}"
            )


class ApplyDeepFlow(StrictWorkflow):
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
        interpolation="auto",
        inverse=False,
        prealign=None,
        skip_existing=False,
        out_dir="",
        out_file="transformed.nii.gz",
    ):
        """Carry images through the map of a registration.

        Any image in moving's world, on any grid: what else was measured of that
        subject, labels, and series, volume by volume (gradients, vectors and tensors
        of diffusion data are not reoriented). With --inverse, images of static's world.
        A map of slices goes with slices.

        Parameters
        ----------
        mapping_file : string or Path
            The map: mapping.npz of dipy_align_deep, or a displacement field in DIPY's
            format.
        image_files : variable string or Path
            The image or images. For several, add --mix_names, which gives each its
            own output name.
        reference : string or Path, optional
            Image whose grid the output has; static's by default, moving's with
            --inverse. A map of slices holds no place of their plane: the output lies in
            the plane of the image, or of this.
        interpolation : string, optional
            linear, or nearest for labels, which keeps their type. auto is nearest for
            files that declare labels (NIfTI intent 1002) and linear for others, with a
            warning where they look like labels.
        inverse : boolean, optional
            From static to moving.
        prealign : string or Path, optional
            For a displacement field in DIPY's format, which does not hold it: the
            prealign of the registration, a text file.
        skip_existing : boolean, optional
            Leave out images whose output exists.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_file : string, optional
            The image carried over.
        """
        from dipy_dl_reg.io.atomic_files import write_all_or_none
        from dipy_dl_reg.workflows.jobs import Carrier, check_carried, read_map

        if interpolation not in ("auto", "linear", "nearest"):
            raise ValueError(
                f"interpolation must be auto, linear or nearest, got {interpolation}"
            )
        outputs = {"out_file": with_ending(out_file, NIFTI, "out_file")}
        rows = self.plan(
            [mapping_file, image_files],
            out_dir,
            outputs,
            others=[reference, prealign],
            skip_existing=skip_existing,
        )
        carrier = Carrier(reference, inverse)
        maps = {
            path: read_map(path, prealign, carrier)
            for path in dict.fromkeys(given[0] for given, _ in rows)
        }
        for (mapping, image), _ in rows:
            check_carried(image, maps[mapping].dim)
        for (mapping, image), files in rows:
            with write_all_or_none(
                files.values(), overwrite=self._force_overwrite
            ) as new:
                logger.info(f"Carrying {image} through {mapping}")
                carrier.write(maps[mapping], image, new[0], interpolation)
            log_result(f"Saved {files['out_file']}")


# Console ----------------------------------------------------------------------------


def align_deep():
    """Run the command `dipy_align_deep`."""
    run_command(AlignDeepFlow())


def apply_deep():
    """Run the command `dipy_apply_deep`."""
    run_command(ApplyDeepFlow())
