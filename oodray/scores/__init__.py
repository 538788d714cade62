"""Scores of pixels: one object each, from the maps of a segmenter to a number for every pixel of the image."""
