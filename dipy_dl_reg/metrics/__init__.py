"""Torch only: what compares two images, and penalties on a displacement."""
