"""Images, masks and landmark files in; complete files out."""
