"""Scores of pixels: one object each."""
