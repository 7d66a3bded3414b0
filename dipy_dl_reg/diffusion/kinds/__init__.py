"""Kinds of files that `dipy_apply_deep` transforms: modules, and a table of all."""
