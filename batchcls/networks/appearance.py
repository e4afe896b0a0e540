"""Appearance numbers of an image, which are computed from its raw pixels."""

APPEARANCE_NAMES = (
    "density_red",
    "density_green",
    "density_blue",
    "deviation_red",
    "deviation_green",
    "deviation_blue",
)
"""Means of the optical densities of R, G and B, and their mean absolute deviations, over a strided sample of pixels."""
