"""The images of a training: who is paired with whom, on which grid.

Grids have the form in which networks are applied, `Grid.standard`: a network meets in
training what it meets later.
"""

from hashlib import sha256
import json
from pathlib import Path
from typing import NamedTuple

from dipy.utils.logging import logger
import numpy as np

from dipy_dl_reg.io.atomic_files import write_all_or_none
from dipy_dl_reg.registration.affine_call import find_prealign
from dipy_dl_reg.training.loop.clock import TimeLimit
from dipy_dl_reg.training.scan import open_scan
from dipy_dl_reg.training.subjects import Subject, check_together, open_subjects
from dipy_dl_reg.training.training_set import (
    AtlasPairs,
    CrossSubject,
    ListedPairs,
    normalize,
)
from dipy_dl_reg.validation import check_affine


class Case(NamedTuple):
    """An image, and what it is registered to.

    Attributes
    ----------
    subject : Subject
        The image.
    static : Subject or None
        The other one of a listed pair.
    prealign : ndarray, shape (D + 1, D + 1), "affine" or None
        World of the reference (of `static`) to the image's; "affine" until it is found.
    """

    subject: Subject
    static: Subject | None = None
    prealign: np.ndarray | None = None


class Cohort:
    """Images to train on; their headers are checked here, their values read later.

    Parameters
    ----------
    images, labels, atlas, atlas_labels, reference, prealign, spacing
        As `dipy_dl_reg.fit` takes them.
    validation, validation_labels, seed
        As `dipy_dl_reg.fit` takes them.
    limit : TimeLimit, optional
        Checked before each affine registration and each image that is read, which
        raise TimeoutError.

    Attributes
    ----------
    dim : int
        2 or 3.
    spacing : float
        Voxel size, mm, of all grids.
    placed : bool
        Whether the images have affines.
    kind : {"cross-subject", "atlas", "pairs"}
        How they are paired.
    labelled : bool
        Whether they have label maps.

    Raises
    ------
    FileNotFoundError
        If a file or folder is missing.
    ValueError
        If an image is unfit, or arguments do not go together.
    """

    def __init__(
        self,
        images,
        *,
        labels=None,
        atlas=None,
        atlas_labels=None,
        reference=None,
        prealign=None,
        spacing=None,
        validation=None,
        validation_labels=None,
        seed=0,
        limit=None,
    ):
        self._limit = TimeLimit() if limit is None else limit
        if spacing is not None and not 0 < spacing < float("inf"):
            raise ValueError(f"spacing must be above 0 mm, got {spacing!r}")
        self.labelled = labels is not None
        self.cases, self.held = _cases(images, labels, "images"), []
        self.atlas = _atlas(atlas, atlas_labels, labels)
        self.kind = self._kind()
        if validation is not None and not _is_number(validation):
            self.held = self._others(validation, validation_labels)
        self._fixed = None if reference is None else open_scan(reference, "reference")
        # Before any is held out: matrices lead from the world of the first image given.
        self._first = (self.atlas or self.cases[0].subject).image
        first = self._fixed or self._own_reference(self.cases[0])
        self.dim, self.placed = first.grid.dim, first.placed
        self.spacing = float(spacing or _finest(first.grid))
        self._check(first)
        self._set_prealign(prealign)
        if _is_number(validation):
            self._hold_out(validation, seed)
        self._check_counts()

    def grids(self):
        """Shapes of the grids that images are brought onto.

        Returns
        -------
        shapes : list of tuple
            Each once.
        """
        cases = self.cases + self.held
        return list(dict.fromkeys(self._grid(case).shape for case in cases))

    def summary(self):
        """What may be told of the images: numbers, and no names.

        Returns
        -------
        summary : dict
            What JSON holds.
        """
        return {
            "images": len(self.cases),
            "validation": len(self.held),
            "pairs": self.kind,
            "labels": self.labelled,
            "prealign": self._prealigned,
            "spacing": self.spacing,
            "shapes": [list(shape) for shape in self.grids()],
        }

    def find_prealigns(self, group=None, path=None, *, reuse=False):
        """Find the matrices that are to be found, if any.

        Parameters
        ----------
        group : Group, optional
            Processes among which the work is shared out; all get the same matrices.
        path : str or Path, optional
            File to keep them in: found again, they might differ in the last digit.
        reuse : bool, optional
            Take those of the file, if it has them for images that lie as these do.
        """
        cases = self.cases + self.held
        if not isinstance(cases[0].prealign, str):
            return
        tasks = [self._registered(case) for case in cases]
        if self.atlas is not None and self._fixed is not None:
            tasks.append((self._fixed, self.atlas.image))
        found = _kept(path, tasks) if reuse else None
        if found is None:
            found = _found(tasks, group, self._limit)
            if path is not None and (group is None or group.leads):
                _keep(path, tasks, found)
        if len(found) > len(cases):
            *found, self._atlas_prealign = found
            found = [matrix @ self._atlas_prealign for matrix in found]
        self._give(found)

    def read(self):
        """Read all images, and bring them where they belong.

        Returns
        -------
        pairs : CrossSubject, AtlasPairs or ListedPairs
            To train on.
        validation : AtlasPairs, ListedPairs or None
            Of those held out; without an atlas, each of them once to the next.

        Raises
        ------
        ValueError
            If a file is damaged, or there is nothing in it to be registered.
        """
        many = len(self.cases) + len(self.held)
        self.find_prealigns()
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.grids()[:3])
        logger.info(f"Reading {many} images: {shapes} voxels of {self.spacing:g} mm")
        pairs = self._pairs(self.cases, CrossSubject)
        return pairs, self._pairs(self.held, _each_to_the_next) if self.held else None

    def _kind(self):
        if self.cases[0].static is None:
            return "cross-subject" if self.atlas is None else "atlas"
        if self.atlas is not None:
            raise ValueError("atlas: images are pairs, which have their static images")
        return "pairs"

    def _others(self, validation, labels):
        """Images that are held out, if they are given as those trained on are."""
        if (labels is not None) != self.labelled:
            raise ValueError("validation_labels go with labels, and only with them")
        held = _cases(validation, labels, "validation")
        if (held[0].static is None) != (self.cases[0].static is None):
            raise ValueError("validation must be pairs as images are, or not")
        return held

    def _own_reference(self, case):
        """What a case is brought onto if no reference is given."""
        if case.static is not None:
            return case.static.image
        return self._first

    def _grid(self, case):
        """The grid of a case."""
        reference = self._fixed or self._own_reference(case)
        return reference.grid.to_standard(self.spacing)

    def _check(self, first):
        """Raise unless all images can be brought together."""
        cases = self.cases + self.held
        scans = [scan for case in cases for scan in (case.static, case.subject) if scan]
        scans = [subject.image for subject in filter(None, [self.atlas, *scans])]
        check_together([first, *scans])

    def _set_prealign(self, prealign):
        """Give each case its matrix, or the order to find one."""
        cases, dim = self.cases + self.held, self.dim
        self._atlas_prealign = None
        self._prealigned = prealign if isinstance(prealign, str) else "matrices"
        if prealign is None:
            self._prealigned = "none"
            return
        if isinstance(prealign, str):
            if prealign != "affine" or dim == 2:
                raise ValueError(
                    "prealign must be None, 'affine' (for 3D images) or matrices, got "
                    f"{prealign!r} for {dim}D images"
                )
            matrices = [prealign] * len(cases)
        else:
            matrices = [
                check_affine(matrix, dim, f"prealign[{i}]")
                for i, matrix in enumerate(prealign)
            ]
        if len(matrices) != len(cases):
            raise ValueError(
                f"prealign must hold a matrix for each of {len(cases)} images (or "
                f"pairs), the validation's last, got {len(matrices)}"
            )
        self._give(matrices)

    def _give(self, prealigns):
        """Each case its own, those held out last."""
        cases = self.cases + self.held
        cases = [case._replace(prealign=m) for case, m in zip(cases, prealigns)]
        self.cases, self.held = cases[: len(self.cases)], cases[len(self.cases) :]

    def _hold_out(self, part, seed):
        """Move a part of the cases, chosen by the seed, to those held out."""
        if not 0 < part < 1:
            raise ValueError(f"validation must be above 0 and below 1, got {part!r}")
        order = np.random.default_rng(seed).permutation(len(self.cases))
        count = max(self._least, round(part * len(order)))
        held = set(order[:count].tolist())
        self.held = [case for i, case in enumerate(self.cases) if i in held]
        self.cases = [case for i, case in enumerate(self.cases) if i not in held]

    def _check_counts(self):
        """Raise unless there is someone to pair with."""
        for cases, name in ((self.cases, "images"), (self.held, "validation")):
            if len(cases) < self._least and (cases or name == "images"):
                left = " besides those held out" if self.held else ""
                raise ValueError(
                    f"{name} must be {self._least} at least{left}, got {len(cases)}: "
                    "give more, an atlas, or pairs (static, moving)"
                )

    @property
    def _least(self):
        """How many cases make a pair."""
        return 2 if self.kind == "cross-subject" else 1

    def _pairs(self, cases, pair):
        """The pairs of some cases."""
        images, maps = self._moved(cases)
        if self.kind == "cross-subject":
            return pair(images, maps, normalized=True)
        if self.kind == "atlas":
            grid = self._grid(cases[0])
            atlas, atlas_map = self._read(self.atlas, grid, self._atlas_prealign)
            return AtlasPairs(atlas, images, atlas_map, maps, normalized=True)
        static = [self._read(case.static, self._grid(case)) for case in cases]
        static_images, static_maps = zip(*static)
        return ListedPairs(
            list(zip(static_images, images)),
            maps and list(zip(static_maps, maps)),
            normalized=True,
        )

    def _moved(self, cases):
        """Images on their grids, and label maps if there are any."""
        grids = [self._grid(case) for case in cases]
        read = [self._read(c.subject, g, c.prealign) for c, g in zip(cases, grids)]
        images, maps = ([both[i] for both in read] for i in (0, 1))
        return images, None if maps[0] is None else maps

    def _read(self, subject, grid, prealign=None):
        """Image scaled to about [0, 1] and label map, on a grid."""
        if self._limit.exceeded():
            self._limit.stop("all images were read")
        image = normalize(subject.image.values_on(grid, prealign)).numpy()
        if subject.labels is None:
            return image, None
        return image, subject.labels.labels_on(grid, prealign)

    def _registered(self, case):
        """What a case is registered to, and its image."""
        static = self._own_reference(case)
        if self.kind == "cross-subject" and self._fixed is not None:
            static = self._fixed
        return static, case.subject.image


def _found(tasks, group, limit):
    """The matrices of affine registrations, of which each process does a part."""
    found = np.zeros((len(tasks), 4, 4))
    rank, size = (0, 1) if group is None else (group.rank, group.size)
    for i in range(rank, len(tasks), size):
        late = limit.exceeded()
        found[i] = np.nan if late else _affine(*tasks[i], f"{i + 1} of {len(tasks)}")
    found = found if group is None else group.total(found)
    if np.isnan(found).any():  # in all processes, or in none
        limit.stop("all affine registrations were done")
    return found


def _affine(static, moving, number):
    """World of one image to that of another."""
    if static is moving:
        return np.eye(4)
    logger.info(f"Affine registration {number}: {moving.name} to {static.name}")
    return find_prealign(
        static.values(), moving.values(), static.grid.affine, moving.grid.affine
    )


def _keep(path, tasks, found):
    """Write matrices down."""
    text = json.dumps({"of": _lie(tasks), "matrices": found.tolist()})
    with write_all_or_none([path], overwrite=True) as (new,):
        Path(new).write_text(text)


def _kept(path, tasks):
    """The matrices of a file, or None if it is missing or another's."""
    try:
        kept = json.loads(Path(path).read_text())
        if kept["of"] == _lie(tasks):
            return np.array(kept["matrices"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError):
        logger.info(f"{path} holds no matrices; they are found anew")
    return None


def _lie(tasks):
    """Digest of how images lie that are registered."""
    grids = [[scan.grid.shape, scan.grid.affine.tolist()] for t in tasks for scan in t]
    return sha256(json.dumps(grids).encode()).hexdigest()


def _each_to_the_next(images, maps, *, normalized):
    """Every image once as static, and once as moving: not all pairs, which are many."""
    pairs = list(zip(images, images[1:] + images[:1]))
    maps = maps and list(zip(maps, maps[1:] + maps[:1]))
    return ListedPairs(pairs, maps, normalized=normalized)


def _cases(images, labels, name):
    """What was given, unread."""
    found = open_subjects(images, labels, name=name)
    if isinstance(found[0], Subject):
        return [Case(subject) for subject in found]
    return [Case(moving, static) for static, moving in found]


def _atlas(atlas, atlas_labels, labels):
    """The atlas, unread."""
    if atlas is None:
        if atlas_labels is not None:
            raise ValueError("atlas_labels go with an atlas")
        return None
    if (atlas_labels is None) != (labels is None):
        raise ValueError("atlas_labels and labels go together: both, or neither")
    atlas = open_scan(atlas, "atlas")
    if atlas_labels is not None:
        atlas_labels = open_scan(atlas_labels, "atlas_labels")
    return Subject.checked(atlas, atlas_labels)


def _finest(grid):
    """The smallest voxel size, of axes that have more than one."""
    return min((s for s, n in zip(grid.spacing, grid.shape) if n > 1), default=1.0)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
