"""What diffusion MRI warps: streamlines."""
