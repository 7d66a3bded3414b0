"""Every format of the table: what is written is read as the same map."""

from maps import affine, make_map, maps_of_all_forms
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg.maps.formats.table import (
    FORMATS,
    find_format,
    recognise_format,
    whole_map_suffixes,
)

#: Voxel sizes (signed) and rotations of static and of moving; the grids are unequal.
GRIDS = {
    "RAS": ([2.0, 2.0, 2.0], (), [1.5, 1.5, 1.5], ()),
    "LAS": ([-2.0, 2.0, 2.0], (), [-1.5, 1.5, 1.5], ()),
    "LPS": ([-2.0, -2.0, 2.0], (), [1.5, 1.5, 1.5], ()),
    "anisotropic": ([1.0, 1.5, 3.0], (), [2.5, 1.0, 2.0], ()),
    "oblique": ([2.0, -1.5, 2.5], (0.1, -0.2, 0.05), [-1.8, 2.2, 1.6], (-0.2, 0.1)),
}


def map_on(kind, dim, *, prealign):
    """A map between two unequal grids, with a scaled and sheared prealign or none."""
    static, static_angles, moving, moving_angles = GRIDS[kind]
    shapes = (13, 16, 11)[:dim], (15, 12, 17)[:dim]
    grids = [
        affine(static[:dim], static_angles, [5.0, -9.0, 3.0][:dim]),
        affine(moving[:dim], moving_angles, [4.0, -2.0, 5.0][:dim]),
    ]
    matrix = affine([1.05, 0.95, 1.02][:dim], (0.05, 0.1, -0.05))
    matrix[0, 1] += 0.04
    # the middle of static's grid onto that of moving's
    middles = [
        (grid @ [*(np.array(shape) - 1) / 2, 1])[:dim]
        for grid, shape in zip(grids, shapes)
    ]
    linear = matrix[:dim, :dim] if prealign else np.eye(dim)
    shift = middles[1] - linear @ middles[0]
    matrix[:dim, dim] = shift + 0.7
    if not prealign:
        grids[1][:dim, dim] -= shift
    return make_map(
        *shapes,
        static_grid2world=grids[0],
        moving_grid2world=grids[1],
        prealign=matrix if prealign else None,
        amplitude=1.5,
    )


def image_of(mapping, side):
    """A NIfTI image with the grid of one side of a map; of a slice in 2D."""
    matrix, dim = np.eye(4), mapping.dim
    rows = [*range(dim), 3]
    matrix[np.ix_(rows, rows)] = getattr(mapping, f"{side}_grid2world")
    shape = (*getattr(mapping, f"{side}_shape"), 1)[:3]
    return nib.Nifti1Image(np.zeros(shape, np.uint8), matrix)


#: Made once; the tests do not change them.
FORMS = maps_of_all_forms()


@pytest.fixture(params=FORMATS)
def map_format(request):
    """Each format of the table."""
    return FORMATS[request.param]


def write_and_read(entry, mapping, folder, **given):
    """Write a map, with both directions, and read it with what the files lack."""
    path = folder / f"map{entry.suffixes[0]}"
    inverse = folder / f"inverse{entry.suffixes[0]}" if entry.kind != "map" else None
    entry.write(mapping, path, inverse)
    if not entry.holds_static_grid:
        given["static"] = image_of(mapping, "codomain")
    composed = entry.kind == "dense"  # with the displacement, and separated again
    if mapping.prealign is not None and (composed or not entry.holds_prealign):
        given["prealign"] = mapping.prealign_inv
    return entry.read(path, inverse=inverse, **given)


def cases():
    """All grids for formats of both directions; `test_exchange` has them for others."""
    return [
        pytest.param(entry, dim, kind, prealign, id=f"{name}-{dim}D-{kind}-{prealign}")
        for name, entry in FORMATS.items()
        for dim in (2, 3)
        for kind in (GRIDS if entry.kind == "map" else ("oblique",))
        for prealign in (False, True)
    ]


@pytest.mark.parametrize("map_format, dim, kind, prealign", cases())
def test_written_map_is_read_as_the_same(
    map_format, dim, kind, prealign, tmp_path, rng
):
    mapping = map_on(kind, dim, prealign=prealign)
    if dim not in map_format.dimensions:
        with pytest.raises(ValueError, match="3D"):
            write_and_read(map_format, mapping, tmp_path)
        return
    given = {"static": image_of(mapping, "codomain")}
    if not map_format.holds_moving_grid:
        given["moving"] = image_of(mapping, "domain")
    found = write_and_read(map_format, mapping, tmp_path, **given)

    for side in ("domain", "codomain"):
        assert tuple(getattr(found, f"{side}_shape")) == tuple(
            getattr(mapping, f"{side}_shape")
        )
        name = f"{side}_grid2world"
        assert_allclose(getattr(found, name), getattr(mapping, name), atol=1e-5)
    image = rng.random(mapping.domain_shape).astype(np.float32)
    warped = mapping.transform(image)
    assert warped.std() > 0.05  # the grids overlap
    assert_allclose(found.transform(image), warped, atol=1e-4)
    image = rng.random(mapping.codomain_shape).astype(np.float32)
    back = mapping.transform_inverse(image)
    assert back.std() > 0.05
    assert_allclose(found.transform_inverse(image), back, atol=1e-4)
    points = rng.uniform(-5, 30, (50, dim))
    # A file of positions determines the inverse at the voxels of moving.
    tolerance = 0.1 if map_format.kind == "dense" else 1e-4
    moved = found.transform_points_inverse(points)
    assert_allclose(moved, mapping.transform_points_inverse(points), atol=tolerance)
    moved = found.transform_points(points)
    assert_allclose(moved, mapping.transform_points(points), atol=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_map_of_another_form_is_read_as_the_same_or_refused(
    map_format, name, tmp_path, rng
):
    mapping = FORMS[name]
    given = {}
    if map_format.kind != "map" and mapping.domain_grid2world is not None:
        given["moving"] = image_of(mapping, "domain")
    try:
        found = write_and_read(map_format, mapping, tmp_path, **given)
    except ValueError:
        assert name not in ("2D", "3D") or mapping.dim not in map_format.dimensions
        return
    points = rng.uniform(-5, 30, (50, mapping.dim))
    tolerance = 0.1 if map_format.kind == "dense" else 1e-4
    for call in ("transform_points", "transform_points_inverse"):
        wanted = getattr(mapping, call)(points)
        assert_allclose(getattr(found, call)(points), wanted, atol=tolerance)


def test_map_is_read_without_images(map_format, tmp_path):
    """As commands read it; moving's grid may then be static's."""
    mapping = map_on("oblique", 3, prealign=False)
    path = tmp_path / f"map{map_format.suffixes[0]}"
    map_format.write(mapping, path)
    missing = "static" if not map_format.holds_static_grid else None
    missing = "moving" if map_format.needs_moving else missing
    if missing:
        with pytest.raises(ValueError, match=missing):
            map_format.read(path)
        return
    found = map_format.read(path)
    assert has_grid_of(found, "codomain", mapping, "codomain")
    moving_is_kept = has_grid_of(found, "domain", mapping, "domain")
    assert moving_is_kept or has_grid_of(found, "domain", mapping, "codomain")
    assert moving_is_kept or not map_format.holds_moving_grid


def has_grid_of(found, side, mapping, wanted):
    """Whether a side of a map has the grid of a side of another map."""
    values = [
        (getattr(found, f"{side}_{name}"), getattr(mapping, f"{wanted}_{name}"))
        for name in ("shape", "grid2world")
    ]
    return all(np.allclose(a, b, atol=1e-4) for a, b in values)


def test_entries_are_complete(map_format, tmp_path):
    assert map_format.description and set(map_format.dimensions) <= {2, 3}
    mapping = map_on("oblique", 3, prealign=False)
    given = {"moving": image_of(mapping, "domain")} if map_format.needs_moving else {}
    for suffix in map_format.suffixes:
        assert suffix == suffix.lower()
        path = tmp_path / f"map{suffix.upper()}"
        assert suffix in find_format(path).suffixes
        map_format.write(mapping, path.with_name(f"map{suffix}"))
    with pytest.raises(FileNotFoundError):
        map_format.read(tmp_path / f"none{map_format.suffixes[0]}", **given)
    path.with_name(f"map{suffix}").write_bytes(b"no map")
    with pytest.raises(ValueError, match="path: "):
        map_format.read(path.with_name(f"map{suffix}"), **given)


@pytest.mark.parametrize("dim", [2, 3])
def test_format_is_recognised_from_the_file(map_format, dim, tmp_path):
    if dim not in map_format.dimensions:
        return
    mapping = map_on("oblique", dim, prealign=False)
    for suffix in map_format.suffixes:
        path = tmp_path / f"map{suffix}"
        map_format.write(mapping, path)
        assert recognise_format(path) is map_format


def test_unknown_suffix_is_an_error():
    with pytest.raises(ValueError, match=r"a file of a map: \.npz .*DIPY's format"):
        find_format("map.dipy")


def test_formats_of_whole_maps():
    assert whole_map_suffixes() == (".npz",)
