"""Maps of anatomical structures, from an image of any contrast."""
