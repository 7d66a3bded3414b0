"""Tractogram files, read and written in chunks of whole streamlines."""
