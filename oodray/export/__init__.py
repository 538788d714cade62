"""What a run found, as files of other programs: `oodray export`."""
