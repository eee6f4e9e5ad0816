"""From pairs to predictions: histories, evidence, batches, the graph, and the queue that feeds it."""
