"""From pairs to predictions: evidence, batches, and the graph; also the graph that encodes reviews."""
