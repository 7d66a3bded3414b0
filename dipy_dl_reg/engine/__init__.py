"""Fields, metrics and refinement in Torch alone: no DIPY, no files."""
