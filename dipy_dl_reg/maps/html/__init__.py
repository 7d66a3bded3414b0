"""Reports in HTML: one file for each registration, and the index of a study."""
