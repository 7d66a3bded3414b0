"""Affine registration: the class, the call, their options, steps and first poses."""
