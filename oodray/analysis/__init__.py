"""From the files of a run to numbers: evaluation, sweep, calibration, comparison."""
