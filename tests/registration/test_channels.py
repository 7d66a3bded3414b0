"""Registration of images with several channels on the last axis."""

from dipy.align.metrics import CCMetric as DipyCCMetric
import nibabel as nib
import numpy as np
from pairs import make_pair
import pytest

from dipy_dl_reg import DeepRegistration, deep_registration
from dipy_dl_reg.metrics.channels import ChannelsMetric
from dipy_dl_reg.metrics.local_correlation import CCMetric
from dipy_dl_reg.metrics.mutual_information import MIMetric
from dipy_dl_reg.registration.channels import make_pair as make_channels

SHORT = {"level_iters": [4, 3], "model": None, "progress": False}


@pytest.fixture(scope="module")
def channels():
    """A 3D pair of two channels: an image, and a function of it."""
    pair = make_pair(*[2.0 * np.eye(3)] * 2, (22, 24, 20), (22, 24, 20), None)
    images = [np.stack([i, np.sin(5 * i)], -1) for i in (pair.static, pair.moving)]
    return pair._replace(static=images[0], moving=images[1])


def register(pair, metric, **options):
    registration = DeepRegistration(metric, **SHORT | options)
    return registration, registration.optimize(pair.static, pair.moving, **pair.affines)


@pytest.mark.parametrize(
    "metric, options",
    [
        ([CCMetric(3), MIMetric(3)], {"channel_weights": [1, 2]}),
        ([DipyCCMetric(3), "SSD"], {}),
        ("CC", {"channel_weights": [1, 1]}),
        (None, {"channel_weights": [1, 1]}),
        (["auto", None], {}),
    ],
)
def test_metrics_for_channels(channels, metric, options):
    registration, mapping = register(channels, metric, **options)
    assert isinstance(registration.metric, ChannelsMetric)
    assert len(registration.metric.metrics) == 2
    assert mapping.backward.shape == (22, 24, 20, 3)
    energies = registration.energy_list
    assert energies[-1] < energies[0]
    wanted = options.get("channel_weights")
    if wanted:
        np.testing.assert_allclose(
            registration.metric.weights, np.array(wanted) / sum(wanted)
        )


def test_one_channel_gives_the_result_without_channels(channels):
    one = channels._replace(
        static=channels.static[..., :1], moving=channels.moving[..., :1]
    )
    plain = channels._replace(
        static=channels.static[..., 0], moving=channels.moving[..., 0]
    )
    first, second = register(one, ["CC"])[1], register(plain, "CC")[1]
    assert np.array_equal(first.backward, second.backward)
    assert np.array_equal(first.forward, second.forward)


def test_each_channel_is_scaled_and_masked_by_itself(channels):
    moving = channels.moving.copy()
    moving[..., 1] *= 1e6
    moving[:3, ..., 1] = np.nan
    affines = channels.affines
    pair = make_channels(2, static=channels.static, moving=moving, **affines)
    assert pair.static_mask is None
    assert pair.moving_mask[0, 0].all()
    assert not pair.moving_mask[0, 1, :3].any()
    assert pair.moving_mask[0, 1, 3:].all()
    for k in range(2):
        alone = make_channels(
            None, static=channels.static[..., k], moving=moving[..., k], **affines
        )
        assert (pair.channel(k).moving == alone.moving).all()


def test_mask_for_all_or_one_for_each(channels):
    mask = np.zeros((22, 24, 20))
    mask[4:] = 1
    each = np.stack([mask, np.ones_like(mask)], -1)
    images = {"static": channels.static, "moving": channels.moving}
    one = make_channels(2, **images, static_mask=mask)
    assert one.static_mask.shape[1] == 1
    two = make_channels(2, **images, static_mask=each)
    assert two.static_mask.shape[1] == 2 and two.static_mask[0, 1].all()
    assert (two.static_mask[:, :1] == one.static_mask).all()


def test_weights_are_estimated_from_the_images(channels, log):
    noise = np.random.default_rng(0).random(channels.moving.shape[:3])
    static, moving = channels.static.copy(), channels.moving.copy()
    moving[..., 1] = noise
    pair = channels._replace(static=static, moving=moving)
    registration, _ = register(pair, ["CC", "CC"])
    first, second = registration.metric.weights
    assert first > 5 * second > 0
    assert any("Weights of the channels" in line for line in log())


def test_phase_encoding_with_channels(channels):
    _, mapping = register(channels, ["CC", "CC"], phase_encoding="j")
    assert mapping.backward[..., 1].any()
    assert not mapping.backward[..., [0, 2]].any()


@pytest.mark.parametrize("search", ["discrete", "auto"])
def test_search_uses_one_channel(channels, search):
    images = [image[:, :, 10] for image in channels[:2]]
    registration = DeepRegistration(["CC", "CC"], **SHORT, initialization=search)
    registration.optimize(*images)
    assert registration.initialization_used or search == "auto"


PICTURE = np.random.default_rng(0).random((12, 13, 11, 2))
CONSTANT = np.stack([PICTURE[..., 0], np.ones((12, 13, 11))], -1)


@pytest.mark.parametrize(
    "images, words",
    [
        ((PICTURE, PICTURE[..., :1]), "same number of channels.*2 and 1"),
        ((np.repeat(PICTURE, 2, -1),) * 2, "2 channels.*got 4"),
        ((PICTURE[..., 0], PICTURE), r"\(12, 13, 11\) and \(12, 13, 11, 2\)"),
        ((PICTURE, CONSTANT), "channel 2 of 2: moving is constant"),
        ((PICTURE * [1, np.nan], PICTURE), "channel 2 of 2: static is NaN"),
    ],
)
def test_bad_channels(images, words):
    with pytest.raises(ValueError, match=words):
        DeepRegistration(["CC", "CC"], **SHORT).optimize(*images)


def test_bad_mask():
    with pytest.raises(ValueError, match=r"static_mask.*without channels.*\(3, 3\)"):
        DeepRegistration(["CC", "CC"], **SHORT).optimize(
            PICTURE, PICTURE, static_mask=np.ones((3, 3))
        )


@pytest.mark.parametrize(
    "metric, options, words",
    [
        ([], {}, "one entry for each channel"),
        (["CC", "XX"], {}, "got 'XX'"),
        ([CCMetric(2), CCMetric(3)], {}, "one dimension"),
        (["CC", "CC"], {"channel_weights": [1]}, "1 weights and 2 metrics"),
        (["CC", "CC"], {"channel_weights": [1, -1]}, r"channel_weights\[1\]"),
        (["CC", "CC"], {"channel_weights": [0, 0]}, "not 0 for all"),
        (["CC", "CC"], {"channel_weights": 1}, "a sequence of numbers"),
        (["CC", "CC"], {"phase_encoding": "j", "modulate": True}, "one channel"),
    ],
)
def test_bad_options(metric, options, words):
    with pytest.raises(ValueError, match=words):
        DeepRegistration(metric, **SHORT | options)


def test_lists_of_images(channels):
    static, moving = (
        [image[..., k] for k in range(2)]
        for image in (channels.static, channels.moving)
    )
    affines = {
        "static_affine": channels.static_grid2world,
        "moving_affine": channels.moving_grid2world,
    }
    options = SHORT | {"metric": "CC", "prealign": channels.prealign}
    warped, mapping = deep_registration(moving, static, **affines, **options)
    wanted = register(channels, ["CC", "CC"])[1]
    assert np.array_equal(mapping.backward, wanted.backward)
    np.testing.assert_array_equal(warped[..., 1], mapping.transform(moving[1]))


def test_images_of_a_side_on_other_grids(channels, tmp_path):
    fine, coarse = channels.static_grid2world, channels.static_grid2world.copy()
    coarse[:3, :3] *= 2
    coarse[:3, 3] += 1
    second = channels.static[..., 1]
    second = second.reshape(11, 2, 12, 2, 10, 2).mean((1, 3, 5))
    nib.save(nib.Nifti1Image(second, coarse), tmp_path / "second.nii.gz")
    static = [
        nib.Nifti1Image(channels.static[..., 0], fine),
        tmp_path / "second.nii.gz",
    ]
    moving = [nib.Nifti1Image(channels.moving[..., k], fine) for k in range(2)]
    warped, _ = deep_registration(moving, static, **SHORT)
    assert warped.shape == (22, 24, 20, 2)


@pytest.mark.parametrize(
    "moving, static, options, words",
    [
        ([PICTURE[..., 0]], [PICTURE[..., 0], PICTURE[..., 1]], {}, "got 2 and 1"),
        ([PICTURE[..., 0]] * 2, [PICTURE[..., 1]] * 2, {"metric": ["CC"]}, "got 1"),
        (
            [PICTURE[..., 0], PICTURE[:9, ..., 1]],
            [PICTURE[..., 0]] * 2,
            {},
            "channel 2",
        ),
        ([], [], {}, "static and moving must have at least one image each"),
    ],
)
def test_bad_lists(moving, static, options, words):
    with pytest.raises(ValueError, match=words):
        deep_registration(moving, static, **SHORT | options)


def test_single_slices(channels):
    static, moving = (
        [image[:, :, 10:11, k] for k in range(2)] for image in channels[:2]
    )
    warped, mapping = deep_registration(moving, static, **SHORT)
    assert warped.shape == (22, 24, 1, 2) and mapping.dim == 2
