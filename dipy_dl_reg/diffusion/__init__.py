"""Transformation of diffusion data: streamlines, tensors, vectors, peaks."""
