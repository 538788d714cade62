"""Experiments: each script here is one command, and its numbers are in the docs page that names it."""
