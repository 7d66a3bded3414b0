"""The training loop, with Torch only."""
