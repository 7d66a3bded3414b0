"""Affine transforms and their parameters, as in DIPY: one file each.

A batch of parameters ``(B, P)`` gives matrices ``(B, D + 1, D + 1)``.  In 3D a rotation
by ``(a, b, c)`` is ``Rz(c) Rx(a) Ry(b)``; with scales ``s`` the linear part is
``diag(s) R``.  Angles are in radians.  All computations are in float64 on the CPU,
because there are only about a dozen numbers.
"""
