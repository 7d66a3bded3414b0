"""Image pairs, fields, smoothing, splines and affine transforms, with Torch only."""
