"""One file per file convention of a map."""
