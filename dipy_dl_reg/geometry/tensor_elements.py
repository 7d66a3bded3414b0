"""The order in which the six elements of a symmetric tensor are stored."""

#: Row and column of each element, in DIPY's order, which is also NIfTI's.
TENSOR_ELEMENTS = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
