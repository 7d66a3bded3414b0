"""Each network agrees with its publication: layers, initial weights, B-splines."""

import re

import numpy as np
import pytest
from scipy.interpolate import BSpline
import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.networks import NETWORKS, make_network, network_class
from dipy_dl_reg.networks.dirnet import bspline, bspline_field, bspline_matrix

KINDS = {
    "Conv": "conv",
    "ConvTranspose": "up",
    "BatchNorm": "norm",
    "MaxPool": "max",
    "AvgPool": "mean",
    "ReLU": "relu",
    "LeakyReLU": "leaky",
    "ELU": "elu",
}

every_dim = pytest.mark.parametrize("dim", [2, 3])


def layers(network, size):
    """What an image of that size goes through, one line for each layer.

    ``conv 16 3/2 @8``: a convolution to 16 channels, 3 wide, of stride 2, its output
    8 voxels wide.
    """
    found = []

    def note(layer, inputs, output):
        words = [KINDS[re.sub(r"\dd$", "", type(layer).__name__)]]
        if words[0] in ("conv", "up"):
            words.append(str(layer.out_channels))
        if hasattr(layer, "kernel_size"):
            (width,) = set(np.atleast_1d(layer.kernel_size))
            (stride,) = set(np.atleast_1d(layer.stride))
            words.append(f"{width}/{stride}")
        (size,) = set(output.shape[2:])
        found.append(" ".join([*words, f"@{size}"]))

    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if not list(module.children())
    ]
    image = torch.rand(1, 1, *(size,) * network.dim)
    network.eval()(image, image)
    for hook in hooks:
        hook.remove()
    return found


def each(size, activation, *steps):
    """Convolutions with what follows each of them."""
    return [line for step in steps for line in (f"{step} @{size}", activation(size))]


def leaky(size):
    return f"leaky @{size}"


VM_DOWN = [
    *each(17, leaky, "conv 16 3/2"),
    *each(9, leaky, "conv 32 3/2"),
    *each(5, leaky, "conv 32 3/2"),
    *each(3, leaky, "conv 32 3/2"),
    *each(3, leaky, "conv 32 3/1"),
    *each(5, leaky, "conv 32 3/1"),
    *each(9, leaky, "conv 32 3/1"),
    *each(17, leaky, "conv 32 3/1"),
]
VM1 = [
    *VM_DOWN,
    *each(17, leaky, "conv 8 3/1"),
    *each(33, leaky, "conv 8 3/1"),
    "conv D 3/1 @33",
]
VM2 = [
    *VM_DOWN,
    *each(17, leaky, "conv 32 3/1"),
    *each(33, leaky, "conv 16 3/1", "conv 16 3/1"),
    "conv D 3/1 @33",
]
VM1_HALF = [*VM_DOWN, *each(17, leaky, "conv 8 3/1"), "conv D 3/1 @17"]
DIRNET_16 = [
    *["conv 16 3/1 @32", "elu @32", "norm @32", "mean 2/2 @16"],
    *["conv 16 3/1 @16", "elu @16", "norm @16", "mean 2/2 @8"],
    *["conv 16 3/1 @8", "elu @8", "norm @8", "mean 2/2 @4"],
    *["conv 16 3/1 @4", "elu @4", "norm @4", "mean 2/2 @2"],
    *["conv 16 1/1 @2", "elu @2", "conv 16 1/1 @2", "elu @2", "conv D 1/1 @2"],
]
DIRNET_4 = [
    *["conv 8 3/1 @32", "elu @32", "norm @32", "mean 2/2 @16"],
    *["conv 8 3/1 @16", "elu @16", "norm @16", "mean 2/2 @8"],
    *["conv 8 1/1 @8", "elu @8", "conv 8 1/1 @8", "elu @8", "conv D 1/1 @8"],
]
SELFSUP_FCN = [
    *["conv 32 3/1 @33", "norm @33", "relu @33", "max 3/2 @17"],
    *["conv 64 3/1 @17", "norm @17", "relu @17", "max 3/2 @9"],
    *["conv 128 3/1 @9", "norm @9", "relu @9"],
    *["up 64 3/2 @17", "norm @17", "relu @17"],
    *["conv 64 3/1 @17", "norm @17", "relu @17"],
    *["up 32 3/2 @33", "norm @33", "relu @33"],
    *["conv D 3/1 @33", "conv D 3/1 @17", "conv D 3/1 @9"],
]
UNET = [
    *["conv 16 3/1 @32", "relu @32", "conv 16 3/1 @32", "relu @32", "max 2/2 @16"],
    *["conv 32 3/1 @16", "relu @16", "conv 32 3/1 @16", "relu @16", "max 2/2 @8"],
    *["conv 64 3/1 @8", "relu @8", "conv 64 3/1 @8", "relu @8"],
    *["conv 32 3/1 @16", "relu @16", "conv 32 3/1 @16", "relu @16"],
    *["conv 16 3/1 @32", "relu @32", "conv 16 3/1 @32", "relu @32"],
    "conv D 3/1 @32",
]

PYRAMID = [
    *each(17, leaky, "conv 16 3/2", "conv 16 3/1"),
    *each(9, leaky, "conv 32 3/2", "conv 32 3/1"),
    *each(5, leaky, "conv 32 3/2", "conv 32 3/1"),
    # Each resolution is looked at twice.
    *[*each(5, leaky, "conv 16 3/1", "conv 16 3/1"), "conv D 3/1 @5"] * 2,
    *[*each(9, leaky, "conv 16 3/1", "conv 16 3/1"), "conv D 3/1 @9"] * 2,
    *[*each(17, leaky, "conv 16 3/1", "conv 16 3/1"), "conv D 3/1 @17"] * 2,
]


@every_dim
@pytest.mark.parametrize(
    "name, arguments, size, expected",
    [
        ("voxelmorph", {}, 33, VM1),
        ("voxelmorph", {"variant": "vm2"}, 33, VM2),
        ("voxelmorph", {"half_resolution": True}, 33, VM1_HALF),
        ("dirnet", {}, 32, DIRNET_16),
        ("dirnet", {"grid_spacing": 4, "features": 8}, 32, DIRNET_4),
        ("selfsup-fcn", {}, 33, SELFSUP_FCN),
        ("unet", {}, 32, UNET),
        ("pyramid", {}, 33, PYRAMID),
    ],
)
def test_layers(name, arguments, size, expected, dim):
    found = layers(make_network(name, dim, **arguments), size)
    assert found == [line.replace("D", str(dim)) for line in expected]


@every_dim
@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        # Own features, and those joined from the way down.
        ("voxelmorph", {}, [32, 32 + 32, 32 + 32, 32 + 16, 32, 8 + 2, 8]),
        ("voxelmorph", {"variant": "vm2"}, [32, 64, 64, 48, 32, 32 + 2, 16, 16]),
        ("unet", {}, [64 + 32, 32, 32 + 16, 16, 16]),
    ],
)
def test_what_the_way_up_is_given(name, arguments, expected, dim):
    network = make_network(name, dim, **arguments)
    convolutions = [m for m in network.modules() if hasattr(m, "in_channels")]
    assert [c.in_channels for c in convolutions][-len(expected) :] == expected


def test_skips_are_those_of_the_same_resolution():
    """Skip connections pass features and images unchanged."""
    network = make_network("voxelmorph", 2).eval()
    down, up = [], []
    for layer in network.down:
        layer.register_forward_hook(
            lambda m, i, o: down.append(network.activation(o).detach())
        )
    for layer in network.up:
        layer.register_forward_pre_hook(lambda m, i: up.append(i[0].detach()))
    images = torch.rand(2, 1, 1, 33, 33)
    network(*images)
    skips = [None, down[2], down[1], down[0], None, torch.cat([*images], 1)]
    for given, skip in zip(up, skips):
        if skip is not None:
            assert torch.equal(given[:, -skip.shape[1] :], skip)


def test_slope_of_the_leaky_relu():
    slopes = [
        m.negative_slope
        for m in make_network("voxelmorph", 2).modules()
        if isinstance(m, nn.LeakyReLU)
    ]
    assert slopes == [0.2]


@every_dim
@pytest.mark.parametrize("name, flow", [("voxelmorph", "flow"), ("unet", "flow")])
def test_flow_begins_near_zero(name, flow, dim):
    torch.manual_seed(0)
    layer = getattr(make_network(name, dim), flow)
    assert layer.weight.std().item() == pytest.approx(1e-5, rel=0.2)
    assert not layer.bias.any()


@every_dim
def test_dirnet_begins_at_the_identity(dim):
    network = make_network("dirnet", dim)
    last = network.regressor[-1]
    assert not last.weight.any() and not last.bias.any()
    images = torch.rand(2, 1, 1, *(32,) * dim)
    assert not network(*images).displacement.any()


@pytest.mark.parametrize(
    "name, output, weights",
    [
        ("voxelmorph", "velocity", (1.0,)),
        ("dirnet", "displacement", (1.0,)),
        ("selfsup-fcn", "displacement", (1.0, 0.6, 0.3)),
        ("unet", "displacement", (1.0,)),
        ("pyramid", "velocity", (1.0,)),
    ],
)
def test_output_and_weights_of_the_levels(name, output, weights):
    network = make_network(name, 2)
    assert network.output == output
    assert network.level_weights == weights


@pytest.mark.parametrize("name", NETWORKS)
def test_number_of_parameters_is_as_documented(name):
    stated = re.search(r"Parameters: (.*)", network_class(name).__doc__).group(1)
    for dim in (2, 3):
        counts = re.search(rf"{dim}D ((?:vm\d )?\d+(?:, vm\d \d+)*)", stated).group(1)
        for variant, count in re.findall(r"(vm\d)? ?(\d+)(?=,|$)", counts):
            arguments = {"variant": variant} if variant else {}
            network = make_network(name, dim, **arguments)
            assert sum(p.numel() for p in network.parameters()) == int(count)


def test_coarse_voxels_stand_at_every_second_fine_one():
    """With symmetric kernels, a point has the same position at every level."""
    network = make_network("selfsup-fcn", 2, features=(2, 2, 2)).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(0.1 if weights.ndim > 1 else 0)
        for module in network.modules():
            if hasattr(module, "running_var"):
                module.weight.fill_(1)
    static = torch.zeros(1, 1, 97, 97)
    static[..., 40, 52] = 1
    prediction = network(static, static)
    for level, u in enumerate((prediction.displacement, *prediction.coarse)):
        i, j, reach = 40 >> level, 52 >> level, 40 >> level
        around = u[0, 0, i - reach : i + reach + 1, j - reach : j + reach + 1]
        assert around.max() > 0
        torch.testing.assert_close(around, around.flip(0, 1))


def test_bspline_is_scipys():
    spline = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    distance = np.linspace(-2.5, 2.5, 101)
    expected = np.nan_to_num(spline(distance))
    found = bspline(torch.from_numpy(distance)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.parametrize("spacing", [2, 4, 8, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_weights_add_up_to_one(count, spacing):
    weights = bspline_matrix(count, spacing)
    assert weights.shape == (count * spacing, count)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)).double())


@pytest.mark.parametrize("shape", [(3, 5), (4, 1, 3)])
@pytest.mark.parametrize("spacing", [2, 8])
def test_field_is_a_transposed_convolution(shape, spacing):
    """With one kernel 4 blocks wide, on control points continued beyond the edges."""
    dim = len(shape)
    points = torch.randn(2, dim, *shape, dtype=torch.float64)
    spline = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    line = torch.from_numpy(spline((np.arange(4 * spacing) + 0.5) / spacing - 2))
    kernel = line
    for _ in range(dim - 1):
        kernel = kernel[..., None] * line
    continued = F.pad(points, (2, 2) * dim, mode="replicate")
    transposed = {2: F.conv_transpose2d, 3: F.conv_transpose3d}[dim]
    expected = transposed(
        continued.flatten(0, 1)[:, None],
        kernel[None, None],
        stride=spacing,
        padding=7 * spacing // 2,
    )
    found = bspline_field(points, spacing)
    torch.testing.assert_close(found, expected.view_as(found))


@every_dim
@pytest.mark.parametrize("spacing", [2, 8])
def test_control_points_stand_in_the_middle_of_their_blocks(spacing, dim):
    """Away from the edges a line gives itself, a parabola itself a third of the
    squared spacing higher, for a B-spline smooths."""
    count = 6
    centres = torch.arange(count).double() * spacing + (spacing - 1) / 2
    voxels = torch.arange(count * spacing).double()
    inner = slice(2 * spacing, -2 * spacing)
    for axis in range(dim):
        along = [-1 if a == axis else 1 for a in range(dim)]
        for power, lift in ((1, 0), (2, spacing**2 / 3)):
            values = (centres**power).view(1, 1, *along)
            points = values.expand(1, dim, *(count,) * dim)
            u = bspline_field(points, spacing).movedim(axis + 2, -1)[..., inner]
            expected = (voxels[inner] ** power + lift).expand_as(u)
            torch.testing.assert_close(u, expected, rtol=1e-12, atol=1e-9)


@every_dim
def test_single_precision_in_mixed_precision(dim):
    points = torch.randn(1, dim, *(3,) * dim)
    expected = bspline_field(points, 4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(bspline_field(points, 4), expected)
        assert bspline_field(points.bfloat16(), 4).dtype == torch.float32


def shaken(dim, spacing, bounded):
    """Smallest Jacobian of many fields with the largest displacements allowed."""
    torch.manual_seed(0)
    network = make_network("dirnet", dim, grid_spacing=spacing, bounded=bounded)
    last = network.regressor[-1]
    lowest = []
    for images in torch.rand(20, 2, 1, 1, *(6 * spacing,) * dim):
        nn.init.normal_(last.weight, std=100 if bounded else spacing)
        with torch.no_grad():
            displacement = network(*images).displacement
        lowest.append(jacobian(displacement).min().item())
    return min(lowest)


@every_dim
@pytest.mark.parametrize("spacing", [2, 4])
def test_bounded_dirnet_cannot_fold(spacing, dim):
    assert shaken(dim, spacing, bounded=True) > 0
    assert shaken(dim, spacing, bounded=False) < 0


@every_dim
@pytest.mark.parametrize("spacing", [2, 4, 8])
def test_bound_holds_for_any_control_points(spacing, dim, rng):
    """Every control point at a corner of its range, which no network can exceed."""
    shape = (20, dim, *(6,) * dim)
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], shape))
    inwards = torch.sign(2.5 - torch.arange(6.0).double())
    for axis in range(dim):
        along = [-1 if a == axis else 1 for a in range(dim)]
        signs[0, axis] = inwards.view(along)
    u = bspline_field(0.4 * spacing * signs, spacing)
    assert 0 < jacobian(u).min() < 0.6
    assert jacobian(2.5 * u).min() < 0
