"""Torch only: the training loop."""
