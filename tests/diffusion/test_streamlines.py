"""Streamlines are transformed like the images, by the inverse map of points."""

from dipy.tracking.streamline import Streamlines
from maps import affine, blob, make_map, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
import pytest

from dipy_dl_reg.diffusion.streamlines import transform_streamlines


def lines_in(mapping, rng, *, dtype=np.float32, side="domain"):
    """Streamlines of unlike lengths within one image of a map."""
    shape, matrix = (getattr(mapping, f"{side}_{k}") for k in ("shape", "grid2world"))
    dim = mapping.dim
    lines = []
    for n in (5, 1, 9, 2, 7):
        voxels = rng.uniform(0.25, 0.75, (n, dim)) * (np.array(shape) - 1)
        lines.append((voxels @ matrix[:dim, :dim].T + matrix[:dim, dim]).astype(dtype))
    return lines


def centre_of_mass(image, grid2world):
    dim = image.ndim
    voxels = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
    middle = (voxels * image[..., None]).reshape(-1, dim).sum(0) / image.sum()
    return grid2world[:dim, :dim] @ middle + grid2world[:dim, dim]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("inverse", [False, True])
def test_streamline_through_a_blob_goes_where_the_blob_goes(dim, inverse):
    """Points on the blob of moving are mapped to the blob of the warped image."""
    grids = affine([1.0, -1.0, 1.0][:dim], (0.1,)), affine([1.0, 1.0, -1.0][:dim])
    shape = (33, 31, 29)[:dim]
    middles = [g[:dim, :dim] @ ((np.array(shape) - 1) / 2) for g in grids]
    prealign = affine([1.05, 0.95, 1.0][:dim], (0.1,))
    prealign[:dim, dim] = middles[1] - prealign[:dim, :dim] @ middles[0]
    prealign[0, dim] += 4
    mapping = make_map(
        shape,
        shape,
        static_grid2world=grids[0],
        moving_grid2world=grids[1],
        prealign=prealign,
        amplitude=2,
    )
    own, other = (0, 1) if inverse else (1, 0)
    start = middles[own] + 1.5
    image = blob(shape, grids[own], start, 1.5)
    warped = (mapping.transform_inverse if inverse else mapping.transform)(image)
    wanted = centre_of_mass(warped, grids[other])
    assert np.linalg.norm(wanted - start) > 3
    (moved,) = transform_streamlines(mapping, [start[None]], inverse=inverse)
    assert np.linalg.norm(moved[0] - wanted) < 0.5
    (opposite,) = transform_streamlines(mapping, [start[None]], inverse=not inverse)
    assert np.linalg.norm(opposite[0] - wanted) > 3


@pytest.mark.parametrize("inverse", [False, True])
def test_there_and_back(rng, inverse):
    mapping = oblique_map()
    side = "codomain" if inverse else "domain"
    lines = Streamlines(lines_in(mapping, rng, side=side, dtype=np.float64))
    there = transform_streamlines(mapping, lines, inverse=inverse)
    back = transform_streamlines(mapping, there, inverse=not inverse)
    assert np.abs(there.get_data() - lines.get_data()).max() > 1
    assert_allclose(back.get_data(), lines.get_data(), atol=0.1)


@pytest.mark.parametrize(
    "choose",
    [
        lambda s: s,
        lambda s: s[1:],
        lambda s: s[::-1],
        lambda s: s[[3, 0]],
        lambda s: s[np.array([True, False, True, False, True])],
        lambda s: s[1:][::2],
    ],
)
def test_selections_are_safe(rng, choose):
    mapping = oblique_map()
    whole = Streamlines(lines_in(mapping, rng))
    chosen = choose(whole)
    plain = [line.copy() for line in chosen]
    before = whole.get_data().copy()
    carried = transform_streamlines(mapping, chosen)
    assert type(carried) is type(chosen)
    wanted = transform_streamlines(mapping, [p.astype(float) for p in plain])
    assert [len(line) for line in carried] == [len(line) for line in plain]
    for line, want in zip(carried, wanted, strict=True):
        assert line.dtype == np.float32
        assert_allclose(line, want, rtol=1e-6, atol=1e-5)
    assert_array_equal(whole.get_data(), before)
    assert not np.shares_memory(carried.get_data(), whole._data)
    # what comes out can be chosen from, and carried, again
    again = transform_streamlines(mapping, carried[1:], inverse=True)
    assert_allclose(again.get_data(), np.concatenate(plain[1:]), atol=0.1)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", ">f4", "i4"])
def test_lists_keep_their_type(rng, dtype):
    mapping = oblique_map()
    lines = lines_in(mapping, rng, dtype=dtype)
    lines[0].flags.writeable = False
    before = [line.copy() for line in lines]
    carried = transform_streamlines(mapping, lines)
    assert type(carried) is list
    wanted = np.float64 if dtype == "i4" else np.dtype(dtype)
    for new, old in zip(carried, before, strict=True):
        assert new.shape == old.shape and new.dtype == wanted
        (exact,) = transform_streamlines(mapping, [old.astype(float)])
        assert_allclose(new, exact, rtol=1e-2 if dtype == "f2" else 1e-6, atol=1e-3)
        near = mapping.transform_points_inverse(old.astype(float))
        assert_allclose(exact, near, atol=0.3)
    for line, kept in zip(lines, before, strict=True):
        assert_array_equal(line, kept)
    generated = transform_streamlines(mapping, (line for line in lines))
    assert_array_equal(np.concatenate(generated), np.concatenate(carried))


def test_empty_input_comes_back_empty(rng):
    mapping = oblique_map()
    assert transform_streamlines(mapping, []) == []
    assert len(transform_streamlines(mapping, Streamlines())) == 0
    lines = Streamlines(lines_in(mapping, rng))
    assert len(transform_streamlines(mapping, lines[:0])) == 0
    (none,) = transform_streamlines(mapping, [np.zeros((0, 3))])
    assert none.shape == (0, 3)
    holed = transform_streamlines(mapping, [lines[0], np.zeros((0, 3)), lines[2]])
    assert [len(line) for line in holed] == [5, 0, 9]


def test_beyond_the_field_only_the_prealign_acts():
    mapping = oblique_map()
    far = np.array([[500.0, 500, 500]])
    (carried,) = transform_streamlines(mapping, [far], inverse=True)
    prealign = mapping.prealign_inv
    assert_allclose(carried, far @ prealign[:3, :3].T + prealign[:3, 3])


def test_bad_streamlines_are_named():
    mapping = oblique_map()
    good = np.zeros((4, 3))
    for wrong, message in (
        ([good, np.zeros((4, 2))], r"streamlines\[1\] must be an array of points"),
        (good, r"streamlines\[0\] must be an array of points"),
        ([np.array([["a", "b", "c"]])], r"streamlines\[0\] must be"),
        ([np.full((2, 3), np.nan)], r"streamlines\[0\] must be finite"),
        (Streamlines([np.full((2, 3), np.inf)]), "streamlines must be finite"),
        (Streamlines([np.zeros((2, 2))]), "streamlines must be an array of points"),
        (nib.streamlines.Tractogram([good]), r"pass its attribute \.streamlines"),
    ):
        with pytest.raises(ValueError, match=message):
            transform_streamlines(mapping, wrong)
    with pytest.raises(ValueError, match="mapping must be"):
        transform_streamlines(np.eye(4), [good])


def test_the_inverse_is_exact(rng):
    """DIPY's two directions are inverses of each other only to about .1 mm."""
    mapping = oblique_map()
    points = np.concatenate(lines_in(mapping, rng)).astype(float)
    there = transform_streamlines(mapping, [points])[0]
    errors = np.linalg.norm(mapping.transform_points(there) - points, axis=1)
    rough = mapping.transform_points_inverse(points)
    before = np.linalg.norm(mapping.transform_points(rough) - points, axis=1)
    assert errors.max() < 0.025 < before.max()
