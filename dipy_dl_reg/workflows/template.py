"""The command `dipy_template_deep`: builds a template, or registers all pairs.

The options of a template are those of `TemplateOptions` (see
`dipy_dl_reg.workflows.command_options`).
"""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from os.path import commonprefix
from pathlib import Path
import shlex
import sys
from typing import Any

from dipy.utils.logging import logger

from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.workflows.base import (
    PathLike,
    StrictWorkflow,
    log_result,
    run_command,
)
from dipy_dl_reg.workflows.command_options import (
    CommandOption,
    command_options,
    takes_command_options,
)
from dipy_dl_reg.workflows.commands import name_of_command
from dipy_dl_reg.workflows.exit_codes import usage_errors

#: Fields of `TemplateOptions` that are options of the command.
_FIELDS = [
    "iterations",
    "affine_iterations",
    "transform",
    "average",
    "sharpening",
    "voxel_size",
    "level_iters",
    "channel_weights",
    "model",
]
#: Options of the processes and of the names.
_RUNNING = ("engine", "n_jobs", "address", "num_threads", "names")
OPTIONS = [
    CommandOption(
        "image_files",
        "variable string or Path",
        "Images of at least two subjects, or of the visits of one; or a pattern in "
        "quotes.",
    ),
    CommandOption(
        "channels",
        "variable string",
        "Patterns in quotes, one for each further channel: its images are "
        "assigned to the subjects by the part of their names that differs.",
        None,
    ),
    CommandOption(
        "masks",
        "string",
        "Pattern in quotes of the masks, assigned like channels: only voxels other "
        "than 0 are compared and averaged.",
        None,
    ),
    CommandOption(
        "names",
        "variable string",
        "Names of the subjects in the results; by default those of the files.",
        None,
    ),
    CommandOption(
        "all_pairs",
        "boolean",
        "Register each image to each other one instead; the results are a map for each "
        "pair and pairs.tsv.",
        False,
    ),
    *command_options(TemplateOptions, _FIELDS),
    CommandOption(
        "metric",
        "variable string",
        "Metric, or one for each channel; by default chosen for the images.",
        None,
    ),
    CommandOption(
        "device", "string", "Where to compute: auto, cpu, cuda or mps.", "auto"
    ),
    CommandOption(
        "engine",
        "string",
        "What runs several processes: serial (none), joblib, dask or ray.",
        "serial",
    ),
    CommandOption("n_jobs", "int", "Number of processes.", 1),
    CommandOption(
        "address", "string", "Address of a dask or ray cluster that runs already.", None
    ),
    CommandOption("num_threads", "int", "Threads of each process on the CPU.", None),
    CommandOption(
        "out_dir",
        "string or Path",
        "Folder of the results: template.nii.gz; template_mask.nii.gz, the voxels that "
        "at least half of the subjects show; for each subject its map to the template "
        "(NAME_mapping.npz) and the affine part of this map (NAME_affine.txt); "
        "iterations.tsv and .png, which show whether more iterations would help; "
        "template.json, the call and checksums. The same command continues what was "
        "interrupted there.",
        "",
    ),
]


class TemplateDeepFlow(StrictWorkflow):
    """`dipy_template_deep`: build a template of images, or register all pairs."""

    @classmethod
    def get_short_name(cls) -> str:
        """Name of this workflow among others.

        Returns
        -------
        name : str
            "template_deep".
        """
        return "template_deep"

    @takes_command_options(OPTIONS)
    def run(self, **given: Any) -> None:
        r"""Build an unbiased template of subjects, or of the visits of one.

        The images are aligned with their mean, and registered to the average of all
        repeatedly; the template has the mean shape, size and pose. The results are
        template.nii.gz, a map and an affine for each image (NAME_mapping.npz,
        NAME_affine.txt), iterations.tsv, and template.json. Images must all be
        skull-stripped, or all whole heads.

        Parameters
        ----------
        given : CommandOption
            The options by name.

        Examples
        --------
        A template of the images in a folder::

            dipy_template_deep "subjects/*.nii.gz" --out_dir template

        The halfway space of the visits of one subject, whose head does not grow::

            dipy_template_deep "visits/*.nii.gz" --transform rigid \
                --out_dir halfway

        A map from each image to each other one, without a template::

            dipy_template_deep "subjects/*.nii.gz" --all_pairs --out_dir pairs
        """
        from dipy_dl_reg.groupwise.all_pairs import register_all_pairs
        from dipy_dl_reg.groupwise.template import build_template

        with usage_errors():
            options = _make_options(given)
        images = _find_images(given["image_files"], given["channels"])
        pattern, files = given["masks"], given["image_files"]
        masks = None
        if pattern is not None:
            listed = [files] if isinstance(files, (str, Path)) else files
            masks = _find_partners(_find_files(listed), pattern, "masks")
        out_dir = Path(given["out_dir"] or ".")
        common: dict[str, Any] = {
            "masks": masks,
            "options": options,
            "call": shlex.join([name_of_command(), *sys.argv[1:]]),
            "overwrite": self._force_overwrite,
        }
        common |= {name: given[name] for name in _RUNNING}
        if given["all_pairs"]:
            pairs = register_all_pairs(images, out_dir, **common)
            grades = [pair.measures["grade"] for pair in pairs]
            log_result(
                f"Saved {out_dir / 'pairs.tsv'}: {len(pairs)} pairs, "
                f"{grades.count('good')} of them good"
            )
            return
        last = build_template(images, out_dir, **common).history[-1]
        log_result(
            f"Saved the template of {len(images)} images in {out_dir}: mean "
            f"displacement {last.mean_displacement:.3f} voxel"
        )


def _make_options(given: dict[str, Any]) -> TemplateOptions:
    """The options of the template."""
    fields = {name: given[name] for name in (*_FIELDS, "device")}
    for name in ("level_iters", "channel_weights"):
        if isinstance(fields[name], (int, float)):
            fields[name] = [fields[name]]
    metric = given["metric"]
    if isinstance(metric, (list, tuple)) and len(metric) == 1:
        metric = metric[0]
    return TemplateOptions(metric=metric, **fields)


def _find_images(
    files: PathLike | Sequence[PathLike], channels: str | Sequence[str] | None
) -> list[Any]:
    """The images, or the lists of channels, of all subjects."""
    first = _find_files([files] if isinstance(files, (str, Path)) else files)
    if channels is None:
        return list(first)
    patterns = [channels] if isinstance(channels, str) else channels
    further = [_find_partners(first, pattern, "channels") for pattern in patterns]
    return [list(each) for each in zip(first, *further)]


def _find_partners(first: list[Path], pattern: str, parameter: str) -> list[Path]:
    """The file of a pattern that belongs to each image, by the part that differs."""
    others = _find_files([pattern])
    keys, found = _differing_parts(first), _differing_parts(others)
    if len(others) != len(first):
        raise ValueError(
            f"{parameter}: {pattern} matches {len(others)} files, but there are "
            f"{len(first)} images"
        )
    if len(set(keys)) < len(keys) or set(keys) != set(found):
        raise ValueError(
            f"{parameter}: it is not clear which of the files of {pattern} belongs to "
            f"which image: the names must differ in one part, which is the same, as "
            f"in sub-01_T1w and sub-01_FA; got {sorted(found)} for {sorted(keys)}"
        )
    partners = [others[found.index(key)] for key in keys]
    for image, partner in zip(first, partners):
        logger.info(f"{parameter}: {partner} belongs to {image}")
    return partners


def _differing_parts(paths: Sequence[Path]) -> list[str]:
    """What is left of paths without their common beginning and end."""
    texts = [str(path) for path in paths]
    start = len(commonprefix(texts))
    texts = [text[start:] for text in texts]
    end = len(commonprefix([text[::-1] for text in texts]))
    return [text[: len(text) - end] for text in texts]


def _find_files(names: Sequence[PathLike]) -> list[Path]:
    """Files in the order of their names or patterns; those of a pattern sorted."""
    found: list[Path] = []
    for name in names:
        matches = sorted(glob(str(name))) if not Path(name).is_file() else [str(name)]
        if not matches:
            raise FileNotFoundError(f"no such file: {name}")
        found += map(Path, matches)
    return found


def template_deep() -> None:
    """Run the command `dipy_template_deep`."""
    run_command(TemplateDeepFlow())


if __name__ == "__main__":
    template_deep()
