"""Maps: storage, application to images, measures, verdict and picture."""
