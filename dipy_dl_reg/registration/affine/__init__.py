"""Affine registration: class, function, options, steps and starting poses."""
