"""What diffusion MRI needs beyond images: streamlines."""
