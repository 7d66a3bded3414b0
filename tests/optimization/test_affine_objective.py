"""Values against NumPy and DIPY, gradients against differences, for every metric."""

from dipy.align.imaffine import MutualInformationMetric
from dipy.align.transforms import TranslationTransform2D
import numpy as np
from phantom import grid, image
import pytest
from scipy.ndimage import map_coordinates
import torch

from dipy_dl_reg.geometry.pair import Pair
from dipy_dl_reg.grid import Grid
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.registry import metric_by_name
from dipy_dl_reg.optimization.affine_objective import AffineObjective
from dipy_dl_reg.optimization.affine_sampling import make_levels, measure_overlap
from dipy_dl_reg.optimization.masked_image import MaskedImage, open_faces

KINDS = ["MI", "NCC", "SSD", "CC"]
SHAPES = {2: (40, 44), 3: (26, 30, 24)}


def tensors(array):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None]


def make_pair(dim, cut=False, mask=False):
    """Two views of the phantom; `cut` moving through its middle, or mask them."""
    shape = SHAPES[dim]
    spacing = 200 / min(shape)
    grids = grid(shape, spacing), grid(shape, 0.95 * spacing, np.full(dim, 3.0))
    images = [image(shape, matrix) for matrix in grids]
    if cut:
        images[1] = images[1][: shape[0] // 2]
    masks = [tensors(x > 0.2) if mask else None for x in images]
    return Pair(
        *map(tensors, images),
        *(Grid(x.shape, matrix) for x, matrix in zip(images, grids)),
        np.eye(dim + 1),
        *masks,
    )


def level_of(pair, metric="MI", **options):
    options = {"most_points": 100_000, "grids": metric == "CC"} | options
    return make_levels(pair, [1], [0], **options)[0]


@pytest.mark.parametrize("known", ["all", "cut", "masked"])
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("metric", KINDS)
def test_slope(metric, dim, known, rng):
    if metric == "CC" and known != "all":
        pytest.skip("its mask moves in steps")
    pair = make_pair(dim, cut=known == "cut", mask=known == "masked")
    objective = AffineObjective(level_of(pair, metric), metric_by_name(metric))
    matrix = torch.eye(dim + 1, dtype=torch.float64)
    matrix[0, 1], matrix[:dim, dim] = 0.05, torch.tensor([6.0, -5.0, 4.0][:dim])
    value, gradient = objective(matrix[None])
    for _ in range(4):
        # Turns and stretches that move the rim as far as the shift moves all.
        step = torch.from_numpy(rng.normal(size=(dim, dim + 1)))
        step[:, :dim] /= 60
        ahead, behind = (matrix.clone() for _ in range(2))
        ahead[:dim] += 0.2 * step
        behind[:dim] -= 0.2 * step
        up, down = (objective(m[None])[0] for m in (ahead, behind))
        wanted = float(up - down) / 0.4
        found = float((gradient[0] * step).sum())
        scale = float((gradient[0] ** 2).sum(0)[dim] ** 0.5)
        assert abs(found - wanted) < 0.05 * abs(wanted) + 0.05 * scale


def test_values_by_numpy_and_dipy():
    """On points that see both images whole."""
    pair = make_pair(2)
    level = level_of(pair)
    matrix = torch.eye(3, dtype=torch.float64)[None]
    static = level.static.numpy()
    where = torch.cat([level.points, torch.ones(len(level.points), 1)], 1).double()
    world = where[:, :2] + level.centre
    voxels = world.numpy() @ np.linalg.inv(pair.moving_grid.affine)[:2, :2].T
    voxels = voxels + np.linalg.inv(pair.moving_grid.affine)[:2, 2]
    moving = map_coordinates(
        pair.moving[0, 0].numpy(), voxels.T, order=1, mode="nearest"
    )
    ncc = float(AffineObjective(level, metric_by_name("NCC"))(matrix)[0])
    ssd = float(AffineObjective(level, metric_by_name("SSD"))(matrix)[0])
    assert ncc == pytest.approx(1 - np.corrcoef(static, moving)[0, 1], abs=1e-4)
    assert ssd == pytest.approx(((static - moving) ** 2).mean(), rel=1e-3)
    dipy = MutualInformationMetric(nbins=32)
    dipy.setup(
        TranslationTransform2D(),
        pair.static[0, 0].numpy(),
        pair.moving[0, 0].numpy(),
        static_grid2world=pair.static_grid.affine,
        moving_grid2world=pair.moving_grid.affine,
    )
    mi = float(AffineObjective(level)(matrix)[0])
    assert mi == pytest.approx(dipy.distance(np.zeros(2)), rel=0.1)


@pytest.mark.parametrize("metric", KINDS)
def test_a_batch_is_its_entries(metric):
    pair = make_pair(3, cut=True)
    objective = AffineObjective(level_of(pair, metric), metric_by_name(metric))
    matrices = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    matrices[1, :3, 3], matrices[2, 0, 0] = 9.0, 1.1
    together = objective(matrices)
    for k in range(3):
        for whole, one in zip(together, objective(matrices[k : k + 1])):
            torch.testing.assert_close(whole[k], one[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", KINDS)
def test_alike_is_best_and_no_overlap_is_unlike(metric):
    pair = make_pair(3, cut=True)
    objective = AffineObjective(level_of(pair, metric), metric_by_name(metric))
    matrices = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    matrices[1, 0, 3], matrices[2, 0, 3] = 25.0, 1000.0
    right, off, away = objective(matrices)[0].tolist()
    assert right < off < away
    assert away == pytest.approx(objective.unlike, abs=1e-5)


def test_the_metrics_own_options():
    level = level_of(make_pair(2), "CC")
    matrix = torch.eye(3, dtype=torch.float64)[None]
    matrix[0, 0, 2] = 8.0
    views = level.static.view(1, 1, *level.shape)
    for options in ({"radius": 1}, {"radius": 3}, {"variance_floor": 0.1}):
        metric = CCMetric(**options)
        value = float(AffineObjective(level, metric)(matrix)[0])
        seen = moved_to(level, matrix[0]).view_as(views)
        assert value == pytest.approx(float(metric(views, seen)), abs=1e-4)


def moved_to(level, matrix):
    """Moving's intensities through a matrix, read by SciPy."""
    world = level.points.double() + level.centre
    whole = (level.world2volume @ matrix).numpy()
    normal = world.numpy() @ whole[:2, :2].T + whole[:2, 2]
    sizes = np.array(level.volume.shape[2:])
    voxels = (normal + 1) / 2 * (sizes - 1)
    values = map_coordinates(
        level.volume[0, 0].numpy(), voxels.T, order=1, mode="nearest"
    )
    return torch.from_numpy(values).float()


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_overlap(dim, cut, mask):
    level = level_of(make_pair(dim, cut=cut, mask=mask))
    matrices = np.tile(np.eye(dim + 1), (3, 1, 1))
    matrices[1:, 0, dim] = 40, 1000
    together, less, apart = (measure_overlap(level, matrix) for matrix in matrices)
    assert together > 0.9 and 0.2 < less < 0.7 and apart == 0


def test_faces_that_cut_are_open():
    """Only these faces are open; with a mask all faces are."""
    pair = make_pair(3, cut=True)
    view = MaskedImage(pair.moving, None, pair.moving_grid)
    assert open_faces(view) == [(False, True), (False, False), (False, False)]
    masked = view._replace(mask=torch.ones_like(pair.moving))
    assert all(all(faces) for faces in open_faces(masked))


def test_points_are_the_same_each_time_and_as_many_as_asked():
    pair = make_pair(3, mask=True)
    first, second = (level_of(pair, most_points=500) for _ in range(2))
    assert len(first.points) == 500 and torch.equal(first.points, second.points)
    part = level_of(pair, proportion=0.01)
    assert len(part.points) == np.ceil(0.01 * np.prod(SHAPES[3]))
    assert float(first.static.min()) > 0.05  # inside the mask, or beside its edge
