"""The training loss: each term against its definition written another way."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
import torch

from dipy_dl_reg.geometry.fields import exp, warp
from dipy_dl_reg.metrics.registry import METRICS, metric_class, regularizer_by_name
from dipy_dl_reg.networks.base import Prediction
from dipy_dl_reg.registration.factory import make_metric
from dipy_dl_reg.training.loop import losses
from dipy_dl_reg.training.loop.losses import TrainingLoss, dice_loss
from dipy_dl_reg.training.training_set import Example

SHAPES = [(9, 8), (6, 7, 5)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def field(shape, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, len(shape), *shape, generator=generator).double()


def label_maps(shape, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (2, batch, 1, *shape), generator=generator)


def soft_dice(static, moving, u):
    """The mean over labels, one by one, sampled by SciPy."""
    places = np.indices(static.shape) + u.numpy()
    scores = []
    for k in set(np.unique(static)) | set(np.unique(moving)):
        if k == 0:
            continue
        s, m = (static == k).astype(float), (moving == k).astype(float)
        w = map_coordinates(m, places, order=1, mode="nearest")
        scores.append(2 * (s * w).sum() / ((s * s).sum() + (w * w).sum()))
    return np.mean(scores) if scores else 1.0


@pytest.mark.parametrize("name", [*METRICS, *map(str.lower, METRICS), "MSE", "mse"])
def test_names_mean_the_same_in_training_and_in_use(name):
    used, trained = make_metric(name), TrainingLoss(name).metric
    wanted = metric_class("SSD" if name.upper() == "MSE" else name.upper())
    assert type(used) is type(trained) is wanted and repr(used) == repr(trained)


@pytest.mark.parametrize("name", ["best", "", "tv", 3])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="metric must be one of .*'CC'.*, got"):
        TrainingLoss(name)
    if name != "tv":
        with pytest.raises(ValueError, match="regularizer must be one of"):
            TrainingLoss("NCC", name)


@every_shape
@pytest.mark.parametrize("chunk", [2**24, 1])
def test_dice_is_its_definition(shape, chunk, monkeypatch):
    monkeypatch.setattr(losses, "_CHUNK", chunk)
    (static, moving), u = label_maps(shape), field(shape)
    static[0][static[0] == 3] = 0
    moving[0][moving[0] == 3] = 0
    moving[1][moving[1] == 2] = 7
    u.requires_grad_()
    loss = dice_loss(static, moving, u)
    expected = [
        1 - soft_dice(s.numpy(), m.numpy(), v)
        for s, m, v in zip(static[:, 0], moving[:, 0], u.detach())
    ]
    assert loss.item() == pytest.approx(np.mean(expected))
    direction = field(shape, seed=5)
    (gradient,) = torch.autograd.grad(loss, u)
    ahead, behind = (
        dice_loss(static, moving, u.detach() + s * direction).item()
        for s in (1e-6, -1e-6)
    )
    slope = (ahead - behind) / 2e-6
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


@every_shape
def test_dice_of_equal_and_of_separate_labels(shape):
    static, moving = label_maps(shape)
    still = torch.zeros_like(field(shape))
    assert dice_loss(static, static, still).item() == pytest.approx(0, abs=1e-12)
    assert dice_loss(static, torch.where(static > 0, static + 9, 0), still) == 1
    assert dice_loss(static * 0, static * 0, still) == 0


@every_shape
@pytest.mark.parametrize("chunk", [2**24, 1])
def test_dice_of_shares(shape, chunk, monkeypatch):
    """Shares of 0 and 1 are a label map; any shares overlap wholly with themselves."""
    monkeypatch.setattr(losses, "_CHUNK", chunk)
    (static, moving), u = label_maps(shape), field(shape)
    one_hot = [
        torch.cat([x == k for k in range(1, 5)], 1).float() for x in (static, moving)
    ]
    assert dice_loss(*one_hot, u).item() == pytest.approx(
        dice_loss(static, moving, u).item()
    )
    shares = torch.rand(2, 3, *shape)
    assert dice_loss(shares, shares, u * 0).item() == pytest.approx(0, abs=1e-6)


@every_shape
def test_terms_are_their_definitions(shape):
    u = field(shape).float()
    static, moving = torch.rand(2, 2, 1, *shape)
    batch = Example(static, moving, *label_maps(shape))
    loss = TrainingLoss("SSD", "bending", weight=0.3, dice_weight=0.7)
    terms = loss(Prediction(u), batch)
    expected = (
        (static - warp(moving, u)).square().mean(),
        0.3 * regularizer_by_name("bending")(u),
        0.7 * dice_loss(batch.static_labels, batch.moving_labels, u),
    )
    torch.testing.assert_close(terms[:3], expected)
    torch.testing.assert_close(terms.total, sum(expected))


def test_velocity_is_regularised_where_there_is_one():
    v = field((9, 8)).float()
    batch = Example(*torch.rand(2, 2, 1, 9, 8))
    terms = TrainingLoss("MSE", "tv", weight=2.0)(Prediction(exp(v), v), batch)
    torch.testing.assert_close(terms.regularity, 2 * regularizer_by_name("tv")(v))


def test_every_resolution_counts_by_its_weight():
    shape = (9, 8)
    fields = [field(shape).float(), field((5, 4)).float(), field((3, 2)).float()]
    static, moving = torch.rand(2, 2, 1, *shape)
    weights = (1.0, 0.6, 0.3)
    terms = TrainingLoss("SSD", "tv", weight=0.5)(
        Prediction(fields[0], None, tuple(fields[1:])), Example(static, moving), weights
    )
    similarity = regularity = 0
    for w, u in zip(weights, fields):
        similarity += w * (static - warp(moving, u)).square().mean()
        regularity += w * 0.5 * regularizer_by_name("tv")(u)
        static, moving = (halved(x) for x in (static, moving))
    torch.testing.assert_close(terms.similarity, similarity)
    torch.testing.assert_close(terms.regularity, regularity)


def halved(images):
    """Voxel i of the result: the mean of those within 1 of voxel 2 i."""
    n, m = images.shape[2:]
    rows = [
        [
            images[:, :, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean((2, 3))
            for j in range(0, m, 2)
        ]
        for i in range(0, n, 2)
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_batch_is_the_mean_of_its_examples(name):
    u = field((9, 8), batch=3).float()
    images = torch.rand(2, 3, 1, 9, 8) * torch.tensor([1.0, 4.0, 0.3]).view(3, 1, 1, 1)
    batch = Example(*images, *label_maps((9, 8), batch=3))
    loss = TrainingLoss(name, "diffusion", weight=0.1, dice_weight=1.0)
    together = loss(Prediction(u), batch)
    alone = [
        loss(Prediction(u[i : i + 1]), Example(*(x[i : i + 1] for x in batch)))
        for i in range(3)
    ]
    for term, parts in zip(together, zip(*alone)):
        torch.testing.assert_close(term, torch.stack(parts).mean())


def test_labels_alone():
    u, maps = field((9, 8)).float(), label_maps((9, 8))
    batch = Example(*torch.rand(2, 2, 1, 9, 8), *maps)
    terms = TrainingLoss(None, dice_weight=1.0)(Prediction(u), batch)
    assert terms.similarity == 0 and terms.total == dice_loss(*maps, u)


@pytest.mark.parametrize(
    "options, word",
    [
        ({"metric": "L2"}, "metric"),
        ({"metric": None}, "dice_weight"),
        ({"regularizer": "smooth"}, "regularizer"),
        ({"weight": -1}, "weight"),
        ({"dice_weight": float("nan")}, "dice_weight"),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        TrainingLoss(**options)


def test_labels_are_asked_for():
    batch = Example(*torch.rand(2, 1, 1, 9, 8))
    with pytest.raises(ValueError, match="no labels"):
        TrainingLoss(dice_weight=1.0)(Prediction(field((9, 8), 1).float()), batch)
