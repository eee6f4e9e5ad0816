"""Encoder states: computing, caching and compressing them, and writing them to the store."""
