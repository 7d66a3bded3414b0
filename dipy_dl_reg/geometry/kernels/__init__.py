"""Compiled loops for the CPU, and which tensors they accept."""
