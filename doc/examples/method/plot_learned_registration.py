"""
Learned registration from first principles
==========================================

A registration network predicts from two images the displacement field that aligns them.
It is trained without known displacements: the loss is the dissimilarity of the images
after warping. This page implements each part in a few lines and applies it to
handwritten digits: the displacement field, the warp, the similarity, the network and
the training loop. The network is then applied to digits that were not used in
training.
"""

from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.geometry.derivatives import jacobian
from dipy_dl_reg.geometry.fields import compose, exp, identity, warp

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

rows, columns = identity((32, 32))[0]
window = torch.exp(-((rows - 15.5) ** 2 + (columns - 15.5) ** 2) / 60)
by_hand = torch.stack([4 * window, 0 * window])[None]
moving = held_out[:1]
moved = warp(moving, by_hand)


def draw_field(ax, u):
    """Draw the pixel grid of static, mapped to moving."""
    y = (identity(u.shape[2:]) + u)[0].detach()
    for lines in (y[:, ::2], y[:, :, ::2].mT):
        ax.plot(lines[1].T, lines[0].T, color="C0", linewidth=0.6)
    ax.set(xlim=(-2, 33), ylim=(33, -2), aspect="equal")


def draw(ax, image, title):
    """Draw an image."""
    ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()


fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
draw(axes[0], moving, "moving")
draw_field(axes[1], by_hand)
axes[1].set(title="x + u(x)", xticks=[], yticks=[])
draw(axes[2], moved, "warped")

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
# has no folds, and the exponential map of the negative velocity is its inverse.


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

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(losses, linewidth=0.8)
ax.set(xlabel="step", ylabel="1 - correlation", ylim=(0, None))

###############################################################################
# Held-out digits
# ---------------
# Each held-out digit is registered with another one. The Jacobian determinant of the
# deformation is the relative change of area at each pixel; where it is 0 or negative,
# the deformation folds.

static, moving = held_out, held_out.roll(20, 0)
with torch.no_grad():
    displacement = exp(network(static, moving))
    warped = warp(moving, displacement)
print(f"correlation before {correlation(static, moving).mean():.3f}")
print(f"            after  {correlation(static, warped).mean():.3f}")
print(f"least Jacobian determinant {jacobian(displacement).min():.2f}")

fig, axes = plt.subplots(4, 4, figsize=(9, 9), layout="constrained")
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
# Networks of the package
# -----------------------
# :doc:`/auto_examples/networks/plot_four_networks` uses the networks and the training
# loop of ``dipy_dl_reg``,
# which work in 2D and 3D and for images of any size.
