"""A time limit counts from the call of `fit`, for all processes."""

from typing import NamedTuple

from image_files import OPTIONS, picture
import numpy as np
import pytest

from dipy_dl_reg import fit
from dipy_dl_reg.training.lazy_image import LazyImage
from dipy_dl_reg.training.pairing import open_training_images
from dipy_dl_reg.training.prealigns import find_prealigns


class Clock:
    """Seconds that pass only where a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("dipy_dl_reg.training.loop.clock.monotonic", clock)
    return clock


@pytest.mark.parametrize("where", ["affine", "reading", "both"])
def test_time_limit_counts_from_the_call(where, clock, monkeypatch, tmp_path):
    """Ten seconds an image: the limit is passed by one image at most, and said."""
    calls, values_of = [], LazyImage.values_on

    def find_prealign(*images):
        calls.append("affine")
        clock.now += 0 if where == "reading" else 10
        return np.eye(4)

    def values_on(image, *arguments):
        calls.append("reading")
        clock.now += 0 if where == "affine" else 10
        return values_of(image, *arguments)

    monkeypatch.setattr("dipy_dl_reg.training.prealigns.find_prealign", find_prealign)
    monkeypatch.setattr(LazyImage, "values_on", values_on)
    images = [picture("ras") for _ in range(6)]
    limit = {"affine": 25, "reading": 25, "both": 75}[where]
    with pytest.raises(TimeoutError, match="before all .*nothing is saved"):
        fit(
            "voxelmorph",
            images,
            steps=1,
            prealign="affine",
            time_limit=limit,
            save=tmp_path / "model.npz",
            **OPTIONS,
        )
    # One image is the reference, and needs no affine registration.
    assert (
        calls
        == {
            "affine": ["affine"] * 3,
            "reading": ["affine"] * 5 + ["reading"] * 3,
            "both": ["affine"] * 5 + ["reading"] * 3,
        }[where]
    )
    assert limit < clock.now < limit + 10 and not list(tmp_path.iterdir())


def test_time_limit_of_one_process_ends_all(clock, monkeypatch):
    """It may be over in one process and not in the other, which waits for it."""

    class Two(NamedTuple):
        rank: int
        size = 2

        def total(self, found):
            return found * np.nan  # the other process's share

    monkeypatch.setattr(
        "dipy_dl_reg.training.prealigns.find_prealign", lambda *a: np.eye(4)
    )
    opened = open_training_images([picture("ras"), picture("lps")], prealign="affine")
    with pytest.raises(TimeoutError, match="affine registrations"):
        find_prealigns(opened, group=Two(0))
