"""Training of networks on image files and arrays."""
