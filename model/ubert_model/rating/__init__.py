"""From a network's output to a rating and its interval: the bias model, the blend, the scale."""
