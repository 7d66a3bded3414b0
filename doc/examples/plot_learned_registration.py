"""
Learned registration from first principles
==========================================

A network looks at two images once and says how the one must be deformed to look like
the other. Nobody shows it the right answer: the images themselves say how good an
answer was. This page builds all of it in a few lines each, on handwritten digits: a
field, the warp, the similarity, the training loop; and then registers digits that were
never seen in training.
"""

from matplotlib import pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
import torch
from torch import nn
import torch.nn.functional as F

from dipy_dl_reg.geometry.fields import compose, exp, identity, jacobian, warp

torch.manual_seed(0)

###############################################################################
# Images
# ------
# Handwritten threes, 8x8 pixels, enlarged to 24x24, with a margin of 4 pixels. Some are
# put aside, to be looked at only when the training is over: the first ones, for the
# images of one hand stand together, and other hands are the fairer test.

digits = load_digits()
threes = digits.images[digits.target == 3] / 16
smooth = {"order": 3, "mode": "grid-constant", "grid_mode": True}
threes = np.stack([zoom(image, 3, **smooth) for image in threes])
threes = torch.from_numpy(threes.clip(0, 1)).float()[:, None]
threes = F.pad(threes, (4, 4, 4, 4))
held_out, training = threes[:40], threes[40:]
print(f"{len(training)} digits to train with, {len(held_out)} held out")

###############################################################################
# A field, and the warp
# ---------------------
# A field says for every pixel :math:`x` of *static* how far away the same point lies
# in *moving*: at :math:`y = x + u(x)`. As a tensor it is ``(batch, 2, rows, columns)``,
# its unit the pixel. The warp reads moving there, between its pixels by linear
# interpolation.
#
# Here is one made by hand: zero at the edges, 4 pixels down in the middle. Reading
# further **down** moves the digit **up**.

rows, columns = identity((32, 32))[0]
window = torch.exp(-((rows - 15.5) ** 2 + (columns - 15.5) ** 2) / 60)
by_hand = torch.stack([4 * window, 0 * window])[None]
moving = held_out[:1]
moved = warp(moving, by_hand)


def draw_field(ax, u):
    """Draw where a grid of static's lines comes to lie in moving."""
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
# How alike
# ---------
# Pearson's correlation of the two images' intensities, 1 for equal ones. What
# is minimised is 1 minus that.


def correlation(first, second):
    """Correlation of each pair of a batch."""
    first, second = (x.flatten(1) - x.flatten(1).mean(1, True) for x in (first, second))
    return F.cosine_similarity(first, second)


static = held_out[1:2]
print(f"two threes: {correlation(static, moving).item():.3f}")

###############################################################################
# It can be differentiated
# ------------------------
# The correlation of *static* with the warped image depends on the field, smoothly, for
# the warp does: moving a point a little changes the intensity read there by the slope
# of the image. PyTorch follows that back to every number of the field. One step against
# the gradient, at most 1 pixel long, and the images are more alike:

u = torch.zeros(1, 2, 32, 32, requires_grad=True)
loss = 1 - correlation(static, warp(moving, u)).mean()
loss.backward()
with torch.no_grad():
    step = -u.grad / u.grad.abs().max()
    after = 1 - correlation(static, warp(moving, step)).mean()
print(f"loss {loss.item():.3f}, after one step {after.item():.3f}")

###############################################################################
# Going on like this registers one pair, and that is how classical registration works. A
# network does it for all pairs at once: its weights take the place of the field.
#
# The network
# -----------
# Static and moving go in as two channels. Convolutions of stride 2 look at ever larger
# parts, so that the network sees a shift of several pixels; the way up brings the
# resolution back, joined at each step by what was seen at that resolution on the way
# down. The last convolution has two channels: the field. It begins near zero, so that
# the network begins with *nothing moves*.
#
# What comes out is taken as a **velocity**, to be followed for one unit of time. A flow
# that is smooth enough cannot fold the image over itself, and flowing back undoes it.


class Network(nn.Module):
    """From two images to a velocity."""

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
        """Velocity in pixels per unit of time."""
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
# Draw pairs; predict; warp; compare; add a penalty on rough fields, the mean square of
# differences between neighbours; and let back-propagation say which way each weight
# should go. Nothing more is needed.

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
# Digits never seen
# -----------------
# Every held-out digit with one twenty places on. The Jacobian determinant says how much
# the area of each pixel changes; where it is 0 or less, the image is folded.

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
# Backwards
# ---------
# The velocity followed the other way is the inverse map, without another
# prediction: it brings static onto moving. There and back is where one began.

with torch.no_grad():
    inverse = exp(-network(static, moving))
    back = warp(static, inverse)
print(f"static onto moving: correlation {correlation(moving, back).mean():.3f}")
error = compose(displacement, inverse).norm(dim=1)
print(f"there and back: {error.mean():.3f} pixel off on average")

###############################################################################
# The same, from the package
# --------------------------
# :doc:`plot_four_networks` does this with the networks and the training loop of
# ``dipy_dl_reg``, which work alike in 2D and 3D, on images of any size.
