"""A finished map: store, apply, measure, draw."""
