"""Initial displacement field of the refinement, and choice of the metric."""
