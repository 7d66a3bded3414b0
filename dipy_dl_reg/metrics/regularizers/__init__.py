"""Regularizers: penalties on the derivatives of a field, one file each.

Each is a function of a displacement ``(B, D, *shape)`` in voxels that returns a scalar
which autograd differentiates: 0 for a translation, and lower for a smoother field.
"""
