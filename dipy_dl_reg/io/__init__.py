"""Reading of images, masks, matrices and landmarks; writing of complete files."""
