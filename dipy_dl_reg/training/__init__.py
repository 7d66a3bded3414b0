"""From image files to a trained network."""
