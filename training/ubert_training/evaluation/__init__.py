"""The test part read once: errors, intervals, plots."""
