"""
Learned registration from first principles
==========================================

A registration network predicts from two images the displacement field that aligns them.
It is trained without known displacements: the loss is the dissimilarity of the images
after warping. This page implements each part in a few lines and applies it to
handwritten digits: the displacement field, the warp, the similarity, the network and
the training loop. The network is then applied to digits that were not used in
training, and compared with SyN and with the default of this package.
"""

# sphinx_gallery_thumbnail_number = 1

from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric

# The first page of the tutorials links the file example_figures.py.
from example_figures import COLOURS, new_figure
from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg import DeepRegistration

torch.manual_seed(0)

###############################################################################
# Images
# ------
# Handwritten threes of 8x8 pixels, upsampled to 24x24, with a margin of 4 pixels. The
# first images are held out for testing. Images by the same writer follow each other in
# the data set, so the test images are by other writers than the training images.

digits = load_digits()
threes = digits.images[digits.target == 3] / 16
smooth = {"order": 3, "mode": "grid-constant", "grid_mode": True}
threes = np.stack([zoom(image, 3, **smooth) for image in threes])
threes = torch.from_numpy(threes.clip(0, 1)).float()[:, None]
threes = F.pad(threes, (4, 4, 4, 4))
held_out, training = threes[:40], threes[40:]
print(f"{len(training)} digits to train with, {len(held_out)} held out")

###############################################################################
# Displacement field and warp
# ---------------------------
# For every pixel :math:`x` of *static*, a displacement field :math:`u` gives the
# position of the corresponding point of *moving*, :math:`y = x + u(x)`. The field is a
# tensor ``(batch, 2, rows, columns)`` in pixels. The warp interpolates moving linearly
# at :math:`y`.
#
# In this example the displacement is zero at the edges and 4 pixels down in the middle.
# Because intensities are read further **down**, the digit moves **up**.


def identity(shape):
    """Coordinates of all pixels, (1, 2, rows, columns)."""
    return torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))[None]


def warp(image, u):
    """Interpolate an image at ``x + u(x)``."""
    rows, columns = image.shape[2:]
    y = identity((rows, columns)) + u
    y = 2 * y / torch.tensor([rows - 1, columns - 1]).view(1, 2, 1, 1) - 1
    at = y.flip(1).movedim(1, -1).expand(len(image), -1, -1, -1)  # (x, y), from -1 to 1
    return F.grid_sample(image, at, align_corners=True, padding_mode="border")


rows, columns = identity((32, 32))[0]
window = torch.exp(-((rows - 15.5) ** 2 + (columns - 15.5) ** 2) / 60)
by_hand = torch.stack([4 * window, 0 * window])[None]
moving = held_out[:1]
moved = warp(moving, by_hand)


def draw_field(ax, u):
    """Draw the pixel grid of static, mapped to moving."""
    y = (identity(u.shape[2:]) + u)[0].detach()
    for lines in (y[:, ::2], y[:, :, ::2].mT):
        ax.plot(lines[1].T, lines[0].T, color="#0072B2", linewidth=0.6)
    ax.set(xlim=(-2, 33), ylim=(33, -2), aspect="equal")
    ax.spines[:].set_visible(False)


def draw(ax, image, title):
    """Draw an image."""
    ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()


fig, axes = new_figure(
    "A handwritten three; the pixel grid bent downwards in the middle; and the warped "
    "three, whose middle has moved up.",
    columns=3,
)
draw(axes[0, 0], moving, "moving")
draw_field(axes[0, 1], by_hand)
axes[0, 1].set(title="x + u(x)", xticks=[], yticks=[])
draw(axes[0, 2], moved, "warped")

###############################################################################
# Similarity
# ----------
# The similarity is Pearson's correlation of the intensities, which is 1 for equal
# images. The loss to be minimized is 1 minus the correlation.


def correlation(first, second):
    """Correlation of each pair of a batch."""
    first, second = (x.flatten(1) - x.flatten(1).mean(1, True) for x in (first, second))
    return F.cosine_similarity(first, second)


static = held_out[1:2]
print(f"correlation of two threes: {correlation(static, moving).item():.3f}")

###############################################################################
# Gradient
# --------
# The loss can be differentiated with respect to the field: a small change of the
# displacement at a pixel changes the warped intensity in proportion to the image
# gradient of *moving*. PyTorch computes this derivative for all values of the field.
# One step of gradient descent, at most 1 pixel long, decreases the loss:

u = torch.zeros(1, 2, 32, 32, requires_grad=True)
loss = 1 - correlation(static, warp(moving, u)).mean()
loss.backward()
with torch.no_grad():
    step = -u.grad / u.grad.abs().max()
    after = 1 - correlation(static, warp(moving, step)).mean()
print(f"loss {loss.item():.3f}, after one step {after.item():.3f}")

###############################################################################
# Classical registration repeats such steps for one pair of images. Learned registration
# instead optimizes the weights of a network that predicts the field for any pair.
#
# The network
# -----------
# Static and moving are the two input channels. Convolutions of stride 2 increase the
# receptive field, so that the network can detect displacements of several pixels. The
# decoder restores the resolution; skip connections add the features of the encoder at
# the same resolution. The last convolution has two output channels, the components of
# the field. Its weights are initialized close to zero, so that training starts with
# zero displacement.
#
# The output is a stationary **velocity field**. Its exponential map, the flow for one
# unit of time, is the deformation. If the velocity is smooth enough, the deformation
# has no folds, and the exponential map of the negative velocity is its inverse. It is
# computed by scaling and squaring: a small step, composed with itself six times.


def compose(u, v):
    """The displacement of ``u`` followed by ``v``."""
    return u + warp(v, u)


def exp(velocity, squarings=6):
    """Flow along a stationary velocity field for one unit of time."""
    u = velocity / 2**squarings
    for _ in range(squarings):
        u = compose(u, u)
    return u


class Network(nn.Module):
    """Predict a velocity field from two images."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1)
            for a, b in ((2, 16), (16, 32), (32, 32))
        )
        self.up = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((64, 32), (48, 16), (18, 16))
        )
        self.flow = nn.Conv2d(16, 2, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=1e-5)

    def forward(self, static, moving):
        """Compute the velocity in pixels per unit of time."""
        x = torch.cat([static, moving], 1)
        seen = []
        for layer in self.down:
            seen.append(x)
            x = F.relu(layer(x))
        for layer in self.up:
            x = F.interpolate(x, scale_factor=2)
            x = F.relu(layer(torch.cat([x, seen.pop()], 1)))
        return self.flow(x)


network = Network()
count = sum(weights.numel() for weights in network.parameters())
print(f"{count} weights")

###############################################################################
# Training
# --------
# Each step draws random pairs, predicts the velocities, warps the moving images, and
# computes the loss: 1 minus the correlation plus a penalty on rough fields (the mean
# squared difference between neighbouring pixels). Backpropagation computes the gradient
# for all weights, and Adam updates them.

optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
losses = []
for _ in range(300):
    chosen = torch.randint(len(training), (2, 16))
    static, moving = training[chosen]

    velocity = network(static, moving)
    warped = warp(moving, exp(velocity))
    dissimilarity = 1 - correlation(static, warped).mean()
    roughness = (
        velocity.diff(dim=2).square().mean() + velocity.diff(dim=3).square().mean()
    )
    loss = dissimilarity + 0.05 * roughness

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(dissimilarity.item())

fig, axes = new_figure(
    "The loss against the step of the training: it falls steeply at first, and then "
    "slowly.",
    aspect=0.5,
)
axes[0, 0].plot(losses, linewidth=0.8, color=COLOURS["network alone"])
axes[0, 0].set(xlabel="step", ylabel="1 - correlation", ylim=(0, None))

###############################################################################
# Held-out digits
# ---------------
# Each held-out digit is registered with another one. The Jacobian determinant of the
# deformation is the relative change of area at each pixel; where it is 0 or negative,
# the deformation folds.


def jacobian(u):
    """Determinant of the derivative of ``x + u(x)``, by differences."""
    (a, b), (c, d) = (
        [torch.gradient(u[:, i], dim=j + 1)[0] + (i == j) for j in range(2)]
        for i in range(2)
    )
    return a * d - b * c


static, moving = held_out, held_out.roll(20, 0)
with torch.no_grad():
    displacement = exp(network(static, moving))
    warped = warp(moving, displacement)
print(f"correlation before {correlation(static, moving).mean():.3f}")
print(f"            after  {correlation(static, warped).mean():.3f}")
print(f"least Jacobian determinant {jacobian(displacement).min():.2f}")

fig, axes = new_figure(
    "Three pairs of held-out threes: static, moving, warped, and the bent grid. Each "
    "warped three resembles its static one.",
    rows=3,
    columns=4,
)
for index, row in enumerate(axes):
    one = slice(index, index + 1)
    draw(row[0], static[one], "static")
    draw(row[1], moving[one], "moving")
    draw(row[2], warped[one], "warped")
    draw_field(row[3], displacement[one])
    row[3].set(title="x + u(x)", xticks=[], yticks=[])

###############################################################################
# The inverse
# -----------
# The exponential map of the negative velocity is the inverse deformation. It warps
# static to moving without another prediction. The composition of both deformations is
# close to the identity.

with torch.no_grad():
    inverse = exp(-network(static, moving))
    back = warp(static, inverse)
print(f"static onto moving: correlation {correlation(moving, back).mean():.3f}")
error = compose(displacement, inverse).norm(dim=1)
print(f"mean inversion error: {error.mean():.3f} pixel")

###############################################################################
# Compared with classical registration
# ------------------------------------
# The same pairs by SyN, and by the default of this package. Neither has seen a digit
# before; they optimize the field for each pair, by local correlation.

methods = {
    "SyN": SymmetricDiffeomorphicRegistration(CCMetric(2), level_iters=[50, 25]),
    "default": DeepRegistration(progress=False),
}
pairs = [(s[0].double().numpy(), m[0].double().numpy()) for s, m in zip(static, moving)]
pairs = pairs[:12]
values = {
    "before": correlation(static, moving),
    "network alone": correlation(static, warped),
}
values = {name: found[:12].tolist() for name, found in values.items()}
for name, registration in methods.items():
    registration.verbosity = 0  # no log
    values[name] = []
    for s, m in pairs:
        image = registration.optimize(static=s, moving=m).transform(m)
        values[name].append(np.corrcoef(s.ravel(), image.ravel())[0, 1])
for name, found in values.items():
    print(f"{name:14} mean correlation {np.mean(found):.3f}, least {min(found):.3f}")

fig, axes = new_figure(
    "The correlation of twelve pairs before registration and after it by the network, "
    "by SyN and by the default.",
    aspect=0.5,
)
for place, (name, found) in enumerate(values.items()):
    axes[0, 0].plot(found, [place] * len(found), "o", color=COLOURS[name], alpha=0.6)
axes[0, 0].set_yticks(range(len(values)), values)
axes[0, 0].set(xlabel="correlation with static", ylim=(-0.6, len(values) - 0.4))
plt.show()

###############################################################################
# SyN is better than this small network, and the default is better than SyN, by little.
# But the network has used one evaluation for a pair, and they have optimized each pair.
# A network with a refinement after it combines both: that is what ``DeepRegistration``
# does with a ``model``.
#
# Networks of the package
# -----------------------
# :doc:`/auto_examples/networks/plot_four_networks` uses the networks and the training
# loop of ``dipy_dl_reg``, which work in 2D and 3D and for images of any size.
