"""Results: what a run leaves behind, read and continued without Ray."""
