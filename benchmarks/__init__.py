"""Benchmarks: side by side in one run, ratios and medians. `make bench` rewrites RESULTS.md."""
