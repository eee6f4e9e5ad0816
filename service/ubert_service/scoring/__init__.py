"""From pairs to predictions: evidence, batches and the scorer graph; and the graph that encodes reviews."""
