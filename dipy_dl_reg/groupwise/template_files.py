"""The files of a finished template."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipy.utils.logging import logger
import nibabel as nib
import numpy as np

from dipy_dl_reg.groupwise.provenance import describe_provenance, write_json
from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.groupwise.template_plot import plot_iterations
from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.maps.storage import load_mapping, save_mapping

if TYPE_CHECKING:
    from dipy_dl_reg.grid import Grid
    from dipy_dl_reg.groupwise.template import Template
    from dipy_dl_reg.groupwise.template_stages import IterationMeasures


def check_outputs(
    out_dir: Path, names: Sequence[str], channels: int, *, overwrite: bool
) -> None:
    """Check that the results can be written.

    Parameters
    ----------
    out_dir : Path
        Folder of the results.
    names : sequence of str
        Names of the subjects.
    channels : int
        Number of channels.
    overwrite : bool
        Replace results that exist.

    Raises
    ------
    OSError
        If a result exists or cannot be written.
    """
    files = [*_image_names(channels), "template_mask.nii.gz", "template.json"]
    files += ["iterations.tsv", "iterations.png"]
    for name in names:
        files += [f"{name}_mapping.npz", f"{name}_affine.txt"]
    for file in files:
        check_writable(out_dir / file, overwrite=overwrite)


def _image_names(channels: int) -> list[str]:
    """Names of the files of the template's channels."""
    if channels == 1:
        return ["template.nii.gz"]
    return [f"template_channel-{k + 1}.nii.gz" for k in range(channels)]


def describe_inputs(
    images: Sequence[Any],
    masks: Sequence[Any] | None,
    digests: dict[str, str],
    options: TemplateOptions,
    call: str,
) -> dict[str, Any]:
    """Describe how a template was made, for its JSON file.

    Parameters
    ----------
    images, masks : sequence
        As the user gave them.
    digests : dict of str
        Checksum of each subject's values, by its name.
    options : TemplateOptions
        The options.
    call : str
        The command or call.

    Returns
    -------
    provenance : dict
        The content.
    """
    files = [*_paths(images), *_paths(masks or [])]
    described = describe_provenance(call, files)
    return described | {"Options": options.describe(), "SubjectDigests": digests}


def _paths(images: Sequence[Any]) -> list[str]:
    """Files of images, which may have several channels."""
    flat = []
    for image in images:
        flat += list(image) if isinstance(image, (list, tuple)) else [image]
    names = [
        image
        if isinstance(image, (str, os.PathLike))
        else getattr(image, "get_filename", lambda: None)()
        for image in flat
    ]
    return [str(name) for name in names if name is not None and Path(name).is_file()]


def write_results(
    template: Template, folder: Path, out_dir: Path, provenance: dict[str, Any]
) -> None:
    """Write the template, the maps and the measures of the iterations.

    Parameters
    ----------
    template : Template
        The template.
    folder : Path
        Folder with the maps of the last iteration.
    out_dir : Path
        Folder of the results.
    provenance : dict
        Entries of the JSON file, which is written last.
    """
    for k, name in enumerate(_image_names(template.values.shape[-1])):
        write_image(template.values[..., k], template.grid, out_dir / name)
    mask = template.mask.astype(np.uint8)
    write_image(mask, template.grid, out_dir / "template_mask.nii.gz")
    each = zip(template.names, template.affines, template.mapping_files)
    for name, affine, path in each:
        save_mapping(load_mapping(folder / f"{name}.npz"), path, overwrite=True)
        with write_atomically(
            path.with_name(f"{name}_affine.txt"), overwrite=True
        ) as t:
            np.savetxt(t, affine, fmt="%.10f")
    write_history(template.history, out_dir / "iterations.tsv")
    try:
        plot_iterations(template.history, out_dir / "iterations.png", overwrite=True)
    except ImportError as error:
        logger.info(f"iterations.png is not drawn: {error}")
    content = provenance | {"Iterations": [m._asdict() for m in template.history]}
    write_json(out_dir / "template.json", content, overwrite=True)


def write_image(values: np.ndarray, grid: Grid, path: Path) -> None:
    """Write an image on the template's grid.

    Parameters
    ----------
    values : ndarray
        The image.
    grid : Grid
        Its grid.
    path : Path
        The file; an existing one is replaced.
    """
    affine = np.eye(4)
    affine[: grid.dim, : grid.dim] = grid.affine[:-1, :-1]
    affine[: grid.dim, 3] = grid.affine[:-1, -1]
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 2)
    image.set_qform(affine, 2)
    with write_atomically(path, overwrite=True) as temporary:
        nib.save(image, temporary)


def write_history(history: Sequence[IterationMeasures], path: Path) -> None:
    """Write the measures of all iterations as a table.

    Parameters
    ----------
    history : sequence of IterationMeasures
        One for each iteration.
    path : Path
        The file, with tabs; an existing one is replaced.
    """
    lines = ["\t".join(history[0]._fields)]
    for measures in history:
        entries = ["n/a" if v is None else f"{v:.6g}" for v in measures]
        lines.append("\t".join(entries))
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
