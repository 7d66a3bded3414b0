"""An object in two poses, and a diffusion series of it, for calls that take images."""

import phantom

WHOLE = ["center_of_mass", "rigid", "deform"]

SHORT = {"level_iters": [3, 2]}

TRUTH = phantom.rigid(phantom.rotation((1, 2, 3), 50), [30.0, -20, 10])
