"""Torch only: minimise a metric over a displacement field or an affine."""
