"""An unbiased template of many subjects, or of the visits of one.

`build_template` performs all steps; those of all subjects together are in
`template_stages`, those of one subject in `template_jobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
import shutil
from typing import Any, NamedTuple

from dipy.align.imwarp import DiffeomorphicMap
import numpy as np

from dipy_dl_reg.grid import Grid
from dipy_dl_reg.groupwise.parallel import check_engine, run_in_parallel
from dipy_dl_reg.groupwise.template_files import (
    check_outputs,
    describe_inputs,
    write_results,
)
from dipy_dl_reg.groupwise.template_jobs import load_reference
from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.groupwise.template_stages import (
    IterationMeasures,
    align_all,
    iterate,
)
from dipy_dl_reg.groupwise.template_study import AVERAGE, WORK, prepare_study
from dipy_dl_reg.groupwise.template_subjects import name_subjects
from dipy_dl_reg.maps.storage import load_mapping
from dipy_dl_reg.options import takes_options

#: Name of the function, for the JSON file.
NAME = "dipy_dl_reg.build_template"


class Template(NamedTuple):
    """A template and the maps from it to its subjects.

    Attributes
    ----------
    values : ndarray of float32, shape (*shape, K)
        The template, with K channels.  In each channel 0 is the background and 1 about
        the median of the foreground.
    grid : Grid
        Grid of the template.
    mask : ndarray of bool, shape (*shape,)
        Voxels that at least half of the subjects show.
    names : list of str
        Names of the subjects, in the order of the images.
    affines : list of ndarray, shape (D + 1, D + 1)
        World of the template to the world of each subject, without the deformation.
    mapping_files : list of Path
        File of the map of each subject: ``mapping.transform(subject)`` lies on the
        template's grid.
    history : list of IterationMeasures
        Measures of the template after each iteration.
    """

    values: np.ndarray
    grid: Grid
    mask: np.ndarray
    names: list[str]
    affines: list[np.ndarray]
    mapping_files: list[Path]
    history: list[IterationMeasures]

    def load_mapping(self, name: str) -> DiffeomorphicMap:
        """Read the map of a subject.

        Parameters
        ----------
        name : str
            Name of the subject.

        Returns
        -------
        mapping : DiffeomorphicMap
            From the template to the subject.
        """
        return load_mapping(self.mapping_files[self.names.index(name)])


@takes_options(TemplateOptions)
def build_template(
    images: Sequence[Any],
    out_dir: str | PathLike,
    *,
    masks: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    engine: str = "serial",
    n_jobs: int = 1,
    address: str | None = None,
    num_threads: int | None = None,
    overwrite: bool = False,
    keep_work: bool = False,
    call: str | None = None,
    options: TemplateOptions,
) -> Template:
    r"""Build a template from images of many subjects, or of the visits of one.

    The subjects are aligned affinely with their mean, and then registered to the
    average of all, deformably and repeatedly. In each iteration, with :math:`A_i` the
    affine and :math:`\phi_i` the deformation of subject :math:`i`,

    .. math:: M = \frac{1}{N} \sum_i \phi_i, \qquad
              \phi_i \leftarrow \phi_i \circ M^{-1}, \qquad
              T(x) = \frac{1}{N} \sum_i I_i(A_i \phi_i(x))

    so that the mean displacement over the subjects is 0: the template has the mean
    shape :footcite:p:`Guimond2000`. The mean of :math:`\log A_i` is 0, too, so that
    the template also has the mean size and pose. Each subject is interpolated once,
    and the result does not depend on the order of the images.

    The shape is changed by the inverse of the mean displacement, not of the mean of
    velocities: the mean of :math:`\phi_i \circ M^{-1}` is exactly the identity,
    while the exponential of minus the mean velocity is so only for small deformations.

    Parameters
    ----------
    images : sequence
        At least two subjects or visits: files or nibabel images, or for several
        channels a sequence of them for each subject, such as ``[[t1, fa], [t1, fa]]``.
        Their grids and poses may differ.  All must show the same: skull-stripped brains
        or whole heads.
    out_dir : str or Path
        Folder of the results: ``template.nii.gz`` (``template_channel-1.nii.gz`` and so
        on for several channels), ``template_mask.nii.gz``, for each subject
        ``NAME_mapping.npz`` and ``NAME_affine.txt``, the measures of the iterations in
        ``iterations.tsv`` and ``iterations.png`` (with matplotlib), and
        ``template.json``, which says how they were made.  If the computation is
        interrupted, the same call continues it.
    masks : sequence, optional
        A mask for each subject, or None: only voxels other than 0 are compared and
        averaged.
    names : sequence of str, optional
        Names of the subjects; by default those of the files.
    engine : {"serial", "joblib", "dask", "ray"}, optional
        What runs the processes.  ``"serial"`` uses this process alone.
    n_jobs : int, optional
        Number of processes; -1 uses all processors.
    address : str, optional
        Address of a dask or ray cluster that runs already.
    num_threads : int, optional
        Threads of each process on the CPU; by default the number of processors,
        divided by the number of processes.
    overwrite : bool, optional
        Replace results in `out_dir`, and discard the state of another computation.
    keep_work : bool, optional
        Keep the folder ``.template_work`` with the state of all iterations.
    call : str, optional
        The command or call that is written to ``template.json``.
    options : TemplateOptions

    Returns
    -------
    template : Template
        The template; the maps are in files.

    Raises
    ------
    ValueError
        If there are fewer than two images, an image, mask, name or option cannot be
        used, the numbers of channels or axes differ, or `out_dir` contains the state of
        a template of other images or options.
    FileNotFoundError
        If a file is missing.
    FileExistsError
        If `out_dir` contains results and `overwrite` is False.
    RuntimeError
        If the registration of a subject fails.

    See Also
    --------
    register_cohort : registers further subjects to the template.
    register_all_pairs : maps between the subjects without a template.

    Notes
    -----
    A script must call this function below ``if __name__ == "__main__":`` unless the
    engine is "serial".

    References
    ----------
    .. footbibliography::

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from dipy_dl_reg import build_template
    >>> x, y, z = np.mgrid[-1:1:10j, -1:1:10j, -1:1:10j]
    >>> images = [
    ...     nib.Nifti1Image(np.exp(-6 * (x**2 + y**2 + k * z**2)), np.eye(4))
    ...     for k in (1.0, 2.0)
    ... ]
    >>> with TemporaryDirectory() as folder:
    ...     template = build_template(images, folder, iterations=1, level_iters=[5])
    >>> bool(template.history[-1].mean_displacement < 0.1)
    True
    """
    check_engine(engine, address)
    out_dir = Path(out_dir)
    images, names = list(images), name_subjects(list(images), names)
    # A state in the folder means that these files were written by this computation.
    continues = (out_dir / WORK / "settings.json").is_file()
    replaces = overwrite or (continues and not (out_dir / "template.json").is_file())
    check_outputs(out_dir, names, _count_channels(images), overwrite=replaces)
    parallel = partial(
        run_in_parallel,
        engine=engine,
        n_jobs=n_jobs,
        address=address,
        num_threads=num_threads,
    )
    study, digests = prepare_study(
        images, masks, names, out_dir / WORK, options, run=parallel, overwrite=overwrite
    )
    affines, grid = align_all(study)
    history = iterate(study, affines, grid)
    last = study.iteration(options.iterations)
    by_name = dict(zip(study.names, affines))
    reference = load_reference(last / AVERAGE)
    mask = np.ones(grid.shape, bool) if reference.mask is None else reference.mask
    template = Template(
        reference.values,
        grid,
        mask,
        names,
        [by_name[name] for name in names],
        [out_dir / f"{name}_mapping.npz" for name in names],
        history,
    )
    provenance = describe_inputs(images, masks, digests, options, call or NAME)
    write_results(template, last, out_dir, provenance)
    if not keep_work:
        shutil.rmtree(out_dir / WORK)
    return template


def _count_channels(images: Sequence[Any]) -> int:
    """Number of channels of the first image."""
    first = images[0] if images else None
    return len(first) if isinstance(first, (list, tuple)) else 1
