"""Registration of all pairs of images, each to each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
import hashlib
from itertools import permutations
import json
from os import PathLike
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import numpy as np

from dipy_dl_reg.groupwise.parallel import check_engine, run_in_parallel
from dipy_dl_reg.groupwise.provenance import write_json
from dipy_dl_reg.groupwise.study_files import format_cell
from dipy_dl_reg.groupwise.template_files import describe_inputs
from dipy_dl_reg.groupwise.template_jobs import SubjectJob, register_subject
from dipy_dl_reg.groupwise.template_options import TemplateOptions
from dipy_dl_reg.groupwise.template_stages import align_all
from dipy_dl_reg.groupwise.template_study import WORK, prepare_study
from dipy_dl_reg.groupwise.template_subjects import name_subjects
from dipy_dl_reg.io.atomic_files import check_writable, write_atomically
from dipy_dl_reg.options import takes_options

#: Name of the function, for the JSON file.
NAME = "dipy_dl_reg.register_all_pairs"
#: Name of the table of measures.
TABLE = "pairs.tsv"


class PairResult(NamedTuple):
    """The registration of a pair.

    Attributes
    ----------
    static, moving : str
        Names of the subjects.
    mapping_file : Path
        File of the map: ``mapping.transform(moving)`` lies on static's grid.
    measures : dict
        Grade and reasons of the verdict, energy, smallest Jacobian determinants, and
        inverse consistency errors.
    """

    static: str
    moving: str
    mapping_file: Path
    measures: dict[str, Any]


@takes_options(TemplateOptions)
def register_all_pairs(
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
    call: str | None = None,
    options: TemplateOptions,
) -> list[PairResult]:
    """Register each of several images to each other one, directly.

    The images are aligned affinely with their mean first, as in `build_template`; the
    affine of a pair leads through this mean. Each of the N (N - 1) ordered pairs is
    then registered deformably.

    Parameters
    ----------
    images : sequence
        At least two subjects, as in `build_template`.
    out_dir : str or Path
        Folder of the results: ``static-A_moving-B_mapping.npz`` and ``.json`` for each
        pair, and ``pairs.tsv`` with the measures of all.  If the computation is
        interrupted, the same call continues it.
    masks, names : sequence, optional
        As in `build_template`.
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
        Replace the table in `out_dir`, and discard the state of another computation.
    call : str, optional
        The command or call that is written to ``pairs.json``.
    options : TemplateOptions

    Returns
    -------
    pairs : list of PairResult
        One for each ordered pair, in the order of the images.

    Raises
    ------
    ValueError
        As from `build_template`.
    FileExistsError
        If `out_dir` contains the table and `overwrite` is False.
    RuntimeError
        If a registration fails.

    See Also
    --------
    build_template : registers all images to their mean.
    register_cohort : registers all images to one template.

    Notes
    -----
    With :math:`A_i` the affine from the world of the mean to that of image :math:`i`,
    the prealign of the pair (static :math:`i`, moving :math:`j`) is
    :math:`A_j A_i^{-1}`.  The folder holds two fields for each of the N (N - 1) pairs.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from dipy_dl_reg import register_all_pairs
    >>> x, y, z = np.mgrid[-1:1:10j, -1:1:10j, -1:1:10j]
    >>> images = [
    ...     nib.Nifti1Image(np.exp(-6 * (x**2 + y**2 + k * z**2)), np.eye(4))
    ...     for k in (1.0, 2.0)
    ... ]
    >>> with TemporaryDirectory() as folder:
    ...     pairs = register_all_pairs(
    ...         images, folder, names=["a", "b"], level_iters=[5]
    ...     )
    >>> [(pair.static, pair.moving) for pair in pairs]
    [('a', 'b'), ('b', 'a')]
    """
    check_engine(engine, address)
    out_dir = Path(out_dir)
    images, names = list(images), name_subjects(list(images), names)
    check_writable(out_dir / TABLE, overwrite=overwrite)
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
    affines, _ = align_all(study)
    by_name = dict(zip(study.names, affines))
    pairs = list(permutations(names, 2))
    jobs = [
        SubjectJob(
            study.subject_file(moving),
            study.subject_file(static),
            out_dir / f"static-{static}_moving-{moving}_mapping.npz",
            by_name[moving] @ np.linalg.inv(by_name[static]),
            _compute_key(digests[static], digests[moving], options),
        )
        for static, moving in pairs
    ]
    function = partial(register_subject, options=options, fine=True)
    study.call(function, jobs, "Registration of pairs")
    results = [
        PairResult(*pair, job.result, json.loads(job.record.read_text()))
        for pair, job in zip(pairs, jobs)
    ]
    provenance = describe_inputs(images, masks, digests, options, call or NAME)
    write_json(out_dir / "pairs.json", provenance, overwrite=True)
    write_pairs(results, out_dir / TABLE)
    shutil.rmtree(out_dir / WORK)
    return results


def _compute_key(static: str, moving: str, options: TemplateOptions) -> str:
    """Checksum of the images of a pair and of the options."""
    content = json.dumps([static, moving, options.describe()])
    return hashlib.sha256(content.encode()).hexdigest()


def write_pairs(pairs: Sequence[PairResult], path: Path) -> None:
    """Write the measures of all pairs as a table.

    Parameters
    ----------
    pairs : sequence of PairResult
        The pairs.
    path : Path
        The file, with tabs; an existing one is replaced.
    """
    columns = [n for n in pairs[0].measures if n not in ("reasons", "key")]
    lines = ["\t".join(["static", "moving", *columns])]
    for pair in pairs:
        values = [format_cell(pair.measures[name]) for name in columns]
        lines.append("\t".join([pair.static, pair.moving, *values]))
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
