"""Transformation of diffusion data: streamlines."""
