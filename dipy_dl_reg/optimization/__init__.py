"""Optimization of a displacement field or an affine transform, with Torch only."""
