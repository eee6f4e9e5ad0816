"""Evaluation on the test part: errors, intervals, plots; and what the codecs of states cost."""
