"""The command `dipy_apply_deep`: transforms files by a map that is read from a file.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`), and the kinds of files by the table
`dipy_dl_reg.diffusion.kinds.table.KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipy.utils.logging import logger

from dipy_dl_reg.diffusion.kinds.table import KINDS, describe_kinds, find_kind
from dipy_dl_reg.maps.formats.table import describe_formats
from dipy_dl_reg.options import fill_docstring
from dipy_dl_reg.validation import check_choice
from dipy_dl_reg.workflows.base import (
    PathLike,
    StrictWorkflow,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.exit_codes import usage_errors

if TYPE_CHECKING:
    from dipy_dl_reg.diffusion.kinds.base import FileKind

#: The output's name by default, with the suffix of an image.
_OUT_FILE = "transformed.nii.gz"


class ApplyDeepFlow(StrictWorkflow):
    """`dipy_apply_deep`: transform files by a map."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "apply_deep".
        """
        return "apply_deep"

    @fill_docstring(formats=describe_formats(), kinds=describe_kinds())
    def run(
        self,
        mapping_file: PathLike,
        image_files: PathLike | Sequence[PathLike],
        reference: PathLike | None = None,
        interpolation: str = "auto",
        inverse: bool = False,
        prealign: PathLike | None = None,
        kind: str = "auto",
        frame: str | None = None,
        tensor_order: str | None = None,
        method: str | None = None,
        basis: str | None = None,
        modulate: bool = False,
        bvals: PathLike | None = None,
        bvecs: PathLike | None = None,
        moving: PathLike | None = None,
        inverse_mapping: PathLike | None = None,
        skip_existing: bool = False,
        out_dir: PathLike = "",
        out_file: str = _OUT_FILE,
    ) -> None:
        r"""Transform images, directions and streamlines by the map of a registration.

        The files lie in moving's world, on any grid, and come to lie in static's, as
        the image of moving does: other images of that subject, labels, directions,
        which are reoriented, and streamlines. With --inverse they lie in static's world
        and come to lie in moving's. A map of slices transforms slices.

        Parameters
        ----------
        mapping_file : string or Path
            The map, such as mapping.npz of dipy_align_deep, or a map of another
            program: a file in {formats}. If the program stores each direction in a
            file of its own, give the file that warps moving to static. The files that
            ANTs writes beside it are found.
        image_files : variable string or Path
            The image or images, or other files of the kinds of --kind. For several, add
            --mix_names, which gives each its own output name.
        reference : string or Path, optional
            Image whose grid the output has; by default static's, with --inverse
            moving's. A map of slices does not hold the position of their plane: the
            output lies in the plane of the image, or of this reference. The header of a
            tractogram describes this grid.
        interpolation : string, optional
            For images linear, or nearest for labels, which keeps their type. auto is
            nearest for files that declare labels (NIfTI intent 1002) and linear for
            others, with a warning if they look like labels. For tensors log-euclidean
            (auto), linear or nearest, for vectors and peaks dyadic (auto) or nearest.
        inverse : boolean, optional
            Transform from static to moving.
        prealign : string or Path, optional
            File of the prealign of the registration: text, or an affine of ITK, FSL or
            FreeSurfer. It is needed for a map that does not contain the prealign, such
            as DIPY's.
        kind : string, optional
            What the files are: {kinds}. auto recognizes each file by its suffix, its
            NIfTI intent, the number of its volumes and the files beside it; if it may
            be of several kinds, it stops and names them.
        frame : string, optional
            Axes along which the components of directions are given: voxel (those of the
            image), fsl (the same, the first reversed if the affine's determinant is
            positive; what DIPY fitted with FSL's b-vectors is so) or world (as in
            MRtrix3). By default that of --tensor_order or --basis, and fsl for
            b-vectors; it must be given for vectors, and where voxel and fsl differ.
        tensor_order : string, optional
            Order of the six components of tensors: dipy (also NIfTI's and ANTs's), fsl
            or mrtrix. It must be given unless the NIfTI intent says it.
        method : string, optional
            Reorientation of tensors and of diffusion-weighted series: ppd (preservation
            of principal direction, by default) or finite_strain.
        basis : string, optional
            Basis of the spherical harmonics of FODs, which must be given: descoteaux07
            or tournier07 (as DIPY's commands write them), descoteaux07_nonlegacy or
            tournier07_nonlegacy (with legacy=False in DIPY), or mrtrix.
        modulate : boolean, optional
            Multiply FODs by the change of the bundle's cross-section.
        bvals : string or Path, optional
            File of the b-values of a diffusion-weighted series; by default that beside
            it (.bval).
        bvecs : string or Path, optional
            File of its b-vectors; by default that beside it (.bvec). Both remain valid
            for the output, beside which they are copied.
        moving : string or Path, optional
            The moving image, of which only the grid is used. FSL's warps need it; with
            --inverse it is the grid of the output, if the map does not contain it.
        inverse_mapping : string or Path, optional
            The file of the other direction, for --inverse, of a program that stores
            each direction in a file; without it this direction is computed.
        skip_existing : boolean, optional
            Skip images whose output exists.
        out_dir : string or Path, optional
            Folder of the outputs.
        out_file : string, optional
            The transformed file. Its suffix must fit the kind; by default that of the
            kind is used: .nii.gz for images, the suffix of the input for tractograms.

        Examples
        --------
        Another image of the subject to the template::

            dipy_apply_deep mapping.npz fa.nii.gz --out_file fa_template.nii.gz

        Labels of the template to the subject, with their numbers unchanged::

            dipy_apply_deep mapping.npz labels.nii.gz --inverse \
                --interpolation nearest --out_file labels_subject.nii.gz

        Bundles of the subject to the template, each under its own name::

            dipy_apply_deep mapping.npz "bundles/*.trk" --mix_names --out_dir out
        """
        from dipy_dl_reg.workflows.transform_files import open_reference, read_map

        options = _given(
            interpolation=None if interpolation == "auto" else interpolation,
            frame=frame,
            tensor_order=tensor_order,
            method=method,
            basis=basis,
            modulate=modulate,
            bvals=bvals,
            bvecs=bvecs,
        )
        with usage_errors():
            check_choice("kind", kind, ["auto", *KINDS])
        kinds: dict[Path, FileKind] = {}

        def name_outputs(path: Path, output: Path) -> list[Path]:
            name = find_kind(path, **options) if kind == "auto" else kind
            kinds[path] = KINDS[name].load()
            logger.info(f"{path}: {KINDS[name].description}")
            _check_options(name, kinds[path], path, options)
            is_default = out_file == _OUT_FILE
            with usage_errors():
                return kinds[path].name_outputs(path, output, is_default=is_default)

        rows = self.plan(
            [mapping_file, image_files],
            out_dir,
            {"out_file": out_file},
            others=[reference, prealign, bvals, bvecs, moving, inverse_mapping],
            skip_existing=skip_existing,
            adapt=name_outputs,
        )
        grid = open_reference(reference)
        maps = {
            path: read_map(
                path,
                prealign=prealign,
                reference=grid,
                inverse=inverse,
                moving=moving,
                inverse_mapping=inverse_mapping,
            )
            for path in dict.fromkeys(inputs[0] for inputs, _ in rows)
        }
        request = {"reference": grid, "inverse": inverse, "options": options}
        self._transform(rows, kinds, maps, request)

    def _transform(
        self,
        rows: list[tuple[list[Path], dict[str, Path]]],
        kinds: Mapping[Path, FileKind],
        maps: Mapping[Path, Any],
        arguments: Mapping[str, Any],
    ) -> None:
        """Check all files, and then transform them."""
        from dipy_dl_reg.diffusion.kinds.base import Request
        from dipy_dl_reg.io.atomic_files import write_all_or_none
        from dipy_dl_reg.workflows.transform_files import warn_of_other_space

        requests = {
            path: Request(mapping, **arguments) for path, mapping in maps.items()
        }
        for (mapping, path), _ in rows:
            kinds[path].check(path, requests[mapping])
            warn_of_other_space(path, maps[mapping], inverse=arguments["inverse"])
        for (mapping, path), files in rows:
            outputs, overwrite = list(files.values()), self._force_overwrite
            with write_all_or_none(outputs, overwrite=overwrite) as targets:
                logger.info(f"Transforming {path} by {mapping}")
                kinds[path].transform(path, targets, requests[mapping])
            for output in outputs:
                log_result(f"Saved {output}")


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value}


@usage_errors()
def _check_options(
    name: str, kind: FileKind, path: Path, options: Mapping[str, Any]
) -> None:
    """Check that all options that were given apply to a kind, and their values."""
    for option, value in options.items():
        if option not in kind.choices:
            raise ValueError(
                f"{option} does not apply to the kind of {path}, which is {name}"
            )
        choices = kind.choices[option]
        if choices is not None:
            check_choice(option, value, choices)


def apply_deep() -> None:
    """Run the command `dipy_apply_deep`."""
    run_command(ApplyDeepFlow())


if __name__ == "__main__":
    apply_deep()
