"""Counts to numbers; numpy alone."""
