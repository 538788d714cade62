"""Benchmarks: side by side in one run, ratios and medians."""

import os

# As in a worker; read when torch is loaded. Else threads that wait for one way take the cores from the other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
