"""A finished map: storage, application to images, measures, verdict and picture."""
