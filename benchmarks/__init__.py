"""Benchmarks: side by side in one run, ratios and medians, in processes set up as a worker's is."""

from oodray.job.process import set_up_process

set_up_process()
