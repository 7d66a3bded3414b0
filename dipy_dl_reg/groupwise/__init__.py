"""Many images at once: cohorts, templates, and engines that run them in parallel."""
