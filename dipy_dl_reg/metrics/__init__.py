"""Metrics of two images, and penalties on a displacement, with Torch only."""
