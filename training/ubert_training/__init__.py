"""Offline: reviews in; trained weights, a bundle and a store of encoder states out."""
