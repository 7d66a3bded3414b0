"""The command `dipy_convert_deep`: converts maps between the files of programs.

The options of the command are defined by the signature and the docstring of `run` (see
`dipy_dl_reg.workflows.base`), and the formats by the table
`dipy_dl_reg.maps.formats.table.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipy_dl_reg.maps.formats.table import describe_names
from dipy_dl_reg.options import fill_docstring
from dipy_dl_reg.workflows.base import (
    PathLike,
    StrictWorkflow,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.exit_codes import usage_errors

if TYPE_CHECKING:
    from dipy.align.imwarp import DiffeomorphicMap


class ConvertDeepFlow(StrictWorkflow):
    """`dipy_convert_deep`: convert a map to the files of another program."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "convert_deep".
        """
        return "convert_deep"

    @fill_docstring(formats=describe_names())
    def run(
        self,
        mapping_files: PathLike | Sequence[PathLike],
        inverse: PathLike | None = None,
        affine: PathLike | None = None,
        prealign: PathLike | None = None,
        static: PathLike | None = None,
        moving: PathLike | None = None,
        like_in: str | None = None,
        like: str | None = None,
        out_dir: PathLike = "",
        out_mapping: str = "mapping.npz",
        out_inverse: str | None = None,
        out_affine: str | None = None,
    ) -> None:
        r"""Convert a map to the files of another program, or several maps to one.

        The formats, by name, are: {formats}.

        Parameters
        ----------
        mapping_files : variable string or Path
            The map. If a program stores each direction in a file of its own, give the
            file that warps moving to static. Several maps are combined to one, with one
            interpolation, in the order in which images are transformed: first the map
            of b0 to T1, then that of T1 to a template.
        inverse : string or Path, optional
            The file of the other direction. Without it, if the map does not contain
            this direction, the inverse is computed. Beside a warp of ANTs it is found.
        affine : string or Path, optional
            The file of the affine part, if the map does not contain it: the premat of
            FSL. Beside a warp of ANTs it is found.
        prealign : string or Path, optional
            File of the prealign of the registration, for maps in DIPY's format, which
            do not contain it: text, or an affine of ITK, FSL or FreeSurfer.
        static : string or Path, optional
            The static image, to check that the map is on its grid.
        moving : string or Path, optional
            The moving image, of which only the grid is used. FSL's warps need it; other
            files seldom contain its grid, which the file of the other direction has.
        like_in : string, optional
            Name of the format of the map; by default it is found from the suffix and
            the header.
        like : string, optional
            Name of the format that is written; by default the suffix of --out_mapping
            decides, and it must be given for NIfTI files, except for ANTs
            (1Warp.nii.gz).
        out_dir : string or Path, optional
            Folder of the outputs.
        out_mapping : string, optional
            The map. If the format stores each direction in a file of its own, this is
            the file that warps moving to static.
        out_inverse : string, optional
            The file of the other direction, in formats that store each in a file.
        out_affine : string, optional
            The file of the affine part, in formats that may store it in a file: the
            premat of FSL. That of ANTs is written beside the warp.

        Examples
        --------
        For antsApplyTransforms, with its inverse and affine::

            dipy_convert_deep mapping.npz --out_mapping 1Warp.nii.gz \
                --out_inverse 1InverseWarp.nii.gz

        A warp of FSL, which needs the grid of the moving image, and back to DIPY::

            dipy_convert_deep mapping.npz --like fsl --out_mapping warp.nii.gz \
                --out_inverse warp_inverse.nii.gz
            dipy_convert_deep warp.nii.gz --inverse warp_inverse.nii.gz \
                --like_in fsl --static template.nii.gz --moving t1.nii.gz \
                --out_mapping from_fsl.npz

        Two maps as one, b0 to T1 and T1 to a template, with one interpolation::

            dipy_convert_deep b0_to_t1.npz t1_to_template.npz --out_dir out
        """
        from dipy_dl_reg.maps.exchange import choose_format, write_mapping

        if isinstance(mapping_files, (str, Path)):
            mapping_files = [mapping_files]
        paths = [Path(path) for path in mapping_files]
        sources: dict[str, Any] = {"inverse": inverse, "affine": affine}
        sources |= {"prealign": prealign, "static": static, "moving": moving}
        folder = Path(out_dir or ".")
        targets = {"inverse": out_inverse, "affine": out_affine}
        named = {k: folder / name for k, name in targets.items() if name is not None}
        target = folder / out_mapping
        with usage_errors():
            _check_sources(paths, {**sources, "like_in": like_in})
            outputs = choose_format(target, like).name_files(target, **named)
        self._plan_outputs(outputs, [*paths, *filter(None, sources.values())])
        mapping = _read_maps(paths, sources, like_in)
        write_mapping(
            mapping, target, like=like, overwrite=self._force_overwrite, **named
        )
        log_result(f"Saved {', '.join(map(str, outputs))}")

    def _plan_outputs(self, outputs: list[Path], inputs: list[PathLike]) -> None:
        """Check that all outputs can be written."""
        self.flat_outputs = [str(path) for path in outputs]
        self.last_generated_outputs = {"out_mapping": self.flat_outputs[0]}
        self._check_collisions([inputs])
        self.manage_output_overwrite()


def _check_sources(paths: list[Path], given: dict[str, Any]) -> None:
    """Check that options of one map are not given for several."""
    for name, value in given.items():
        if value is not None and len(paths) > 1:
            raise ValueError(
                f"{name} can only be given for one map, got {len(paths)}: convert each "
                "to .npz first"
            )


def _read_maps(
    paths: list[Path], sources: dict[str, Any], like: str | None
) -> DiffeomorphicMap:
    """Read the map, or combine the maps."""
    from dipy_dl_reg.io.affine_files import read_affine
    from dipy_dl_reg.maps.composition import compose_mappings
    from dipy_dl_reg.maps.exchange import read_mapping

    if len(paths) > 1:
        return compose_mappings(*(read_mapping(path) for path in paths))
    options, prealign = dict(sources), sources["prealign"]
    if prealign is not None:
        images = sources["static"], sources["moving"]
        matrix = read_affine(
            prealign, static=images[0], moving=images[1], name="prealign"
        )
        options["prealign"] = matrix
    return read_mapping(paths[0], like=like, **options)


def convert_deep() -> None:
    """Run the command `dipy_convert_deep`."""
    run_command(ConvertDeepFlow())


if __name__ == "__main__":
    convert_deep()
