"""Torch only: pairs of images, fields, smoothing, splines, affine transforms."""
