"""Pictures that show what they should."""

from maps import affine, blob, make_map, oblique_map
import nibabel as nib
import numpy as np
from numpy.testing import assert_allclose
import pytest

from dipy_dl_reg.maps import figure as picture
from dipy_dl_reg.maps import figure_layers, report
from dipy_dl_reg.maps.regularity import (
    jacobian_determinant,
    measure_regularity,
)
from dipy_dl_reg.maps.report import plot_registration
from dipy_dl_reg.maps.verdict import Verdict


def images(mapping):
    """Two blobs that the map may have come from."""
    found = []
    for side in ("codomain", "domain"):
        shape = getattr(mapping, f"{side}_shape")
        grid = getattr(mapping, f"{side}_grid2world")
        grid = np.eye(mapping.dim + 1) if grid is None else grid
        dim = mapping.dim
        centre = grid[:dim, :dim] @ ((np.array(shape) - 1) / 2) + grid[:dim, dim]
        found.append(blob(shape, grid, centre, 8))
    return found


@pytest.mark.parametrize("dim", [2, 3])
def test_picture_is_written(tmp_path, dim):
    mapping = oblique_map(dim)
    path = tmp_path / "report.png"
    numbers = plot_registration(path, *images(mapping), mapping, title="A title")
    assert numbers == measure_regularity(mapping)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 10_000
    with pytest.raises(FileExistsError):
        plot_registration(path, *images(mapping), mapping, overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["report.png"]


def test_same_world_on_another_grid_looks_the_same():
    """Axes permuted and flipped in memory: the picture does not change."""
    grid = affine([2.0, 1.5, 2.5], origin=[3.0, -4, 5])
    mapping = make_map(
        (12, 15, 10),
        (12, 15, 10),
        static_grid2world=grid,
        moving_grid2world=grid,
    )
    image = blob((12, 15, 10), grid, [14.0, 7, 17], 5)
    turn = nib.orientations.axcodes2ornt("PSL")
    back = nib.orientations.inv_ornt_aff(turn, image.shape)
    shape = nib.apply_orientation(image, turn).shape
    assert shape != image.shape
    turned = make_map(shape, shape, static_grid2world=grid @ back)
    for name in ("forward", "backward"):
        field = getattr(mapping, name)
        components = [nib.apply_orientation(field[..., c], turn) for c in range(3)]
        setattr(turned, name, np.ascontiguousarray(np.stack(components, axis=-1)))
    sheets = []
    for each, data in ((mapping, image), (turned, nib.apply_orientation(image, turn))):
        figure = picture.draw_registration(
            data,
            image,
            each,
            moving_grid2world=grid,
            jacobian=jacobian_determinant(each.backward, each.disp_grid2world),
        )
        panels = [axes.images[0].get_array() for axes in figure.axes if axes.images]
        assert len(panels) == 18
        sheets.append(panels)
    for first, second in zip(*sheets, strict=True):
        assert_allclose(first, second, atol=1e-4)


def test_panels_show_what_they_say():
    """Before is the prealign alone, after the whole map, in true proportions."""
    mapping = oblique_map(2)
    static, moving = images(mapping)
    figure = picture.draw_registration(
        static,
        moving,
        mapping,
        jacobian=jacobian_determinant(mapping.backward, mapping.disp_grid2world),
    )
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == list(picture.PANELS)
    shown = {name: axes.images[0].get_array() for name, axes in panels.items()}
    assert_allclose(shown["static"], static, atol=1e-5)
    assert_allclose(shown["moving after"], mapping.transform(moving), atol=1e-5)
    still = mapping.shallow_copy()
    still.backward = np.zeros_like(mapping.backward)
    assert_allclose(shown["moving before"], still.transform(moving), atol=1e-5)
    assert np.abs(shown["moving after"] - shown["moving before"]).max() > 0.02
    for axes in panels.values():
        assert axes.get_aspect() == pytest.approx(2 / 1.5)


def test_what_is_warped_already_is_not_warped_again(tmp_path, monkeypatch):
    mapping = oblique_map(2)
    static, moving = images(mapping)
    calls, transform = [], figure_layers.transform_array

    def counted(mapping, *arguments, **options):
        calls.append(mapping)
        return transform(mapping, *arguments, **options)

    monkeypatch.setattr(figure_layers, "transform_array", counted)
    pictures = []
    for warped in (None, mapping.transform(moving)):
        calls.clear()
        plot_registration(tmp_path / "a.png", static, moving, mapping, warped=warped)
        pictures.append((tmp_path / "a.png").read_bytes())
        assert (mapping in calls) == (warped is None)
    assert pictures[0] == pictures[1]
    with pytest.raises(ValueError, match="warped must have the shape"):
        plot_registration(tmp_path / "a.png", static, moving, mapping, warped=moving)


@pytest.mark.parametrize("dim", [2, 3])
def test_odd_images_are_drawn_too(tmp_path, dim):
    """Without affines, with missing voxels, constant, on other grids, folded."""
    shape = (12, 11, 10)[:dim]
    mapping = make_map(shape, shape)
    mapping.backward[(5,) * dim] += 5
    holed, plain = np.ones(shape), np.zeros(shape)
    holed[:3] = np.nan
    for static, moving in ((holed, plain), (plain, holed), (holed * np.nan, plain)):
        numbers = plot_registration(tmp_path / "a.png", static, moving, mapping)
        assert numbers.folds_percent > 0
    other = np.zeros((30, 8, 9)[:dim])
    plot_registration(
        tmp_path / "b.png",
        other,
        other,
        mapping,
        static_grid2world=affine([0.5, 2, 1][:dim]),
        moving_grid2world=affine([0.4, 1, 1][:dim]),
    )


def test_thin_slab_is_drawn(tmp_path):
    shape = (20, 18, 1)
    mapping = make_map(shape, shape, static_grid2world=affine([1.0, 1, 5]))
    image = blob(shape, np.eye(4), [9, 9, 0], 4)
    plot_registration(
        tmp_path / "a.png", image, image, mapping, moving_grid2world=affine([1, 1, 5])
    )


def test_bad_input_draws_nothing(tmp_path):
    mapping = oblique_map()
    static, moving = images(mapping)
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="static must be 3D"):
        plot_registration(path, static[0], moving, mapping)
    with pytest.raises(ValueError, match="moving must be 3D"):
        plot_registration(path, static, moving[..., None], mapping)
    with pytest.raises(ValueError, match="mapping must be"):
        plot_registration(path, static, moving, None)
    with pytest.raises(FileNotFoundError, match="folder"):
        plot_registration(tmp_path / "none" / "a.png", static, moving, mapping)
    assert not list(tmp_path.iterdir())


def test_missing_matplotlib_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(picture, "optional_package", lambda name: (None, False, None))
    mapping = oblique_map(2)
    with pytest.raises(ImportError, match=r"dipy_dl_reg\[report\]"):
        plot_registration(tmp_path / "a.png", *images(mapping), mapping)


def test_the_verdict_stands_below_the_picture(tmp_path, monkeypatch):
    """A long one in several lines."""
    shown = []
    draw = report.draw_registration

    def watched(*arguments, lines, **options):
        shown.extend(lines)
        return draw(*arguments, lines=lines, **options)

    monkeypatch.setattr(report, "draw_registration", watched)
    mapping = oblique_map(2)
    verdict = Verdict("doubtful", ("the two objects overlap little " * 8,))
    plot_registration(
        tmp_path / "picture.png", *images(mapping), mapping, verdict=verdict
    )
    text = " ".join(shown)
    assert text.count("overlap little") == 8 and "verdict: doubtful: the two" in text
    assert len(shown) > 3
