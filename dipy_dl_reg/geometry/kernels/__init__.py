"""Compiled loops for the CPU, and the check whether they accept given tensors."""
