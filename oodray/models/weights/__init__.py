"""Weights: the networks known by name, their files, and reading them safely."""
